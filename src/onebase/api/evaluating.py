"""`onebase.evaluate`: a base (with or without an adapter) on data, every score with its interval."""

from onebase.api.adapting import Data
from onebase.api.base import Base
from onebase.api.scoring import SCORERS, Asked
from onebase.errors import UserError
from onebase.evaluation.bootstrap import Score


def evaluate(
    base: Base, data: Data, *, task: str | None = None, max_tokens: int = 64, seed: int = 0
) -> dict[str, Score]:
    """Scores by name.

    classify (text, label): accuracy, macro_f1, auroc and ece; (text, labels): micro_f1, macro_f1 and auroc. regress (text, value): mae and
    spearman. tag (text, spans): span_precision, span_recall and span_f1. complete (prompt, completion) and chat (messages, the last one the answer):
    nats_per_token of the answers, exact_match and rouge_l of greedy generations. embed (anchor, positive, perhaps negative): recall@1,
    @5, @10 and ndcg@10; with a score from 0 to 1: spearman of the cosine. text (text): bits_per_byte.
    `task` defaults to the adapter's, or to text. Raises UserError.
    """
    task = task or (base.attached.task if base.attached else "text")
    if task not in SCORERS:
        raise UserError(f"task {task!r} is not known", f"tasks: {', '.join(SCORERS)}")
    return SCORERS[task](Asked(base, data, seed, max_tokens))
