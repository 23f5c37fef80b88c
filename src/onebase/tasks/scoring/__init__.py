"""What each task is scored by: one table."""

from collections.abc import Callable

from onebase.evaluation.bootstrap import Score
from onebase.tasks.scoring import forgetting, labelled, paired, preferred, rewarded, texts, written
from onebase.tasks.scoring.asked import Asked, JudgedConfig

__all__ = ["SCORERS", "Asked", "JudgedConfig"]

SCORERS: dict[str, Callable[[Asked], dict[str, Score]]] = {
    "classify": labelled.class_scores,
    "regress": labelled.value_scores,
    "tag": labelled.tag_scores,
    "complete": written.completion_scores,
    "chat": written.chat_scores,
    "embed": paired.embed_scores,
    "continue": forgetting.continue_scores,
    "prefer": preferred.prefer_scores,
    "reward": preferred.reward_scores,
    "reinforce": rewarded.reward_scores,
    "text": texts.text_scores,
}
"""By task."""
