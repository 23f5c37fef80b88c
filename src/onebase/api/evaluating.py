"""`onebase.evaluate`: a base (with or without an adapter) on data, every score with its interval."""

from collections.abc import Mapping, Sequence

from onebase.codec.text.clock import at
from onebase.config import from_dict
from onebase.data.labelled import Data
from onebase.engine.constrain import Constraint
from onebase.errors import UserError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.scores import check_names, computed
from onebase.methods.bound import Bound
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
    """Scores by name.

    classify (text, label): accuracy, macro_f1, auroc and ece; (text, labels): micro_f1, macro_f1 and auroc. regress (text, value): mae and
    spearman. tag (text, spans): span_precision, span_recall and span_f1. complete (prompt, completion) and chat (messages, the last one the answer):
    nats_per_token of the answers, exact_match and rouge_l of greedy generations (of at most max_tokens, each of the form of `constraint`), chrf and
    bleu where sacrebleu is installed, json_valid and json_match where all answers are JSON. embed (anchor, positive, perhaps negative): recall@1,
    @5, @10 and ndcg@10; with a score from 0 to 1: spearman of the cosine. prefer and reward (prompt, chosen, rejected): see
    docs/preferences.md. text (text): bits_per_byte. continue (text, perhaps source): the same of the domain and of general
    text, before and after. reinforce (prompt, and what the reward reads): reward and success of greedy completions, and with `samples` of so
    many at temperature 1. `judge` says how completions are judged (`JudgeConfig`: reward, max_tokens, stop, success, samples), for task
    reinforce, and for prefer with an adapter, which then has a win_rate against the plain base.
    `scores` names those that are wanted (docs/evaluation.md), in the place of all that need not be asked for by name. `task` defaults to the
    adapter's, or to text. Raises UserError.
    """
    task = task or (base.attached.task if base.attached else "text")
    if task not in PREDICTIONS:
        raise UserError(f"task {task!r} is not known", f"tasks: {', '.join(PREDICTIONS)}")
    check_names(scores or ())
    known = TASKS.get(task)
    if constraint is not None and not (known and known.constrained):
        raise UserError(
            f"a constraint for task {task}, which writes nothing",
            f"leave it out, or score {_either('constrained')}",
        )
    if judge is not None and not (known and known.takes_judge):
        raise UserError(
            f"options of judging completions for task {task}",
            f"leave them out, or score {_either('takes_judge')}",
        )
    how = None if judge is None else from_dict(JudgeConfig, dict(judge), "options of judging")
    with at(date_of(None if base.attached is None else base.attached.record)):
        said = PREDICTIONS[task](ScoreRequest(base, resolved(data), seed, max_tokens, constraint, how))
    return computed(said, seed, scores)


def _either(fact: str) -> str:
    return " or ".join(t.name for t in TASKS.values() if getattr(t, fact))
