"""`onebase.evaluate`: score a base (with or without an adapter) on data, every score with its confidence interval."""

from collections.abc import Mapping, Sequence

from onebase.config import from_dict
from onebase.data.labelled import Data
from onebase.engine.constrain import Constraint
from onebase.errors import UserError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.scores import check_names, computed
from onebase.methods.bound import Bound
from onebase.modality.text.clock import at
from onebase.opening.names import resolved
from onebase.tasks.base import JudgeConfig, ScoreRequest
from onebase.tasks.options import date_of
from onebase.tasks.table import PREDICTIONS, TASKS


def evaluate(
    base: Bound,
    data: Data,
    *,
    task: str | None = None,
    max_tokens: int = 64,
    seed: int = 0,
    constraint: Constraint | None = None,
    judge: Mapping[str, object] | None = None,
    scores: Sequence[str] | None = None,
) -> dict[str, Score]:
    """Scores by name, for these tasks and columns:

    classify (text, label): accuracy, macro_f1, auroc and ece; (text, labels): micro_f1, macro_f1 and auroc. regress (text, value): mae and
    spearman. tag (text, spans): span_precision, span_recall and span_f1. complete (prompt, completion) and chat (messages, the last one the answer):
    nats_per_token of the answers; exact_match and rouge_l of greedy generations (at most max_tokens each, following `constraint`); chrf and bleu if
    sacrebleu is installed; json_valid and json_match if all answers are JSON. embed (anchor, positive, optional negative): recall@1, @5, @10 and
    ndcg@10; with a score from 0 to 1: spearman of the cosine. prefer and reward (prompt, chosen, rejected): see docs/preferences.md. text
    (text): bits_per_byte. continue (text, optional source): bits_per_byte of the domain and of general text, before and after. reinforce (prompt,
    and the columns of the reward): reward and success of greedy completions, and with `samples` those of so many at temperature 1.

    judge: options of judging completions (`JudgeConfig`: reward, max_tokens, stop, success, samples), for task reinforce, and for prefer with an
    adapter, which then has a win_rate against the plain base. scores: names of scores to compute instead of the task's default ones
    (docs/evaluation.md). task: the adapter's by default, or text. Raises UserError.
    """
    task = task or (base.attached.task if base.attached else "text")
    if task not in PREDICTIONS:
        raise UserError(f"task {task!r} is not known", f"tasks: {', '.join(PREDICTIONS)}")
    check_names(scores or ())
    known = TASKS.get(task)
    if constraint is not None and not (known and known.constrained):
        raise UserError(
            f"a constraint is given, but task {task} generates no text",
            f"leave it out, or score {_either('constrained')}",
        )
    if judge is not None and not (known and known.takes_judge):
        raise UserError(
            f"options of judging are given, but task {task} has no completions to judge",
            f"leave them out, or score {_either('takes_judge')}",
        )
    judging = None if judge is None else from_dict(JudgeConfig, dict(judge), "options of judging")
    with at(date_of(None if base.attached is None else base.attached.record)):
        outputs = PREDICTIONS[task](ScoreRequest(base, resolved(data), seed, max_tokens, constraint, judging))
    return computed(outputs, seed, scores)


def _either(fact: str) -> str:
    return " or ".join(t.name for t in TASKS.values() if getattr(t, fact))
