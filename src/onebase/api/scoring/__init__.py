"""What each task is scored by: one table."""

from collections.abc import Callable

from onebase.api.scoring import labelled, paired, texts, written
from onebase.api.scoring.asked import Asked
from onebase.evaluation.bootstrap import Score

__all__ = ["SCORERS", "Asked"]

SCORERS: dict[str, Callable[[Asked], dict[str, Score]]] = {
    "classify": labelled.class_scores,
    "regress": labelled.value_scores,
    "tag": labelled.tag_scores,
    "complete": written.completion_scores,
    "chat": written.chat_scores,
    "embed": paired.embed_scores,
    "text": texts.text_scores,
}
"""By task."""
