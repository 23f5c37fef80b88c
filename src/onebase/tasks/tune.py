"""Trials over learning rate and rank, judged on rows split off the training rows; the adapter is then learnt on all of them.

Test rows play no part: they are only compared with the training rows, as `adapt` does.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onebase.adapt.methods import BY_STEPS, METHODS
from onebase.artifact.files import canonical_json
from onebase.codec.text.clock import today
from onebase.data import Rows
from onebase.data.labelled import Data
from onebase.draws import Draws
from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.metrics import LOWER_IS_BETTER
from onebase.tasks.base import ScoreRequest
from onebase.tasks.bound import Bound
from onebase.tasks.job import Adapting
from onebase.tasks.options import AdaptOptions, read_options
from onebase.tasks.plan import plan_of
from onebase.tasks.results import Adapter, Plan
from onebase.tasks.table import TASKS, Make, prepared, rows_hash

HELD_OUT = 0.25
"""Share of the training rows that the trials are judged on."""

LEAST = 12
"""Training rows below which a quarter of them says nothing."""

RANKS = (4, 8, 16, 32)
SPAN = 10.0
"""Rates are drawn between the method's own divided and multiplied by this, evenly on a logarithmic scale."""


INPUTS = ("text", "image", "prompt", "messages", "anchor")
"""Columns of which rows with the same content are one: they stay on one side of the split."""


@dataclass(frozen=True)
class Setting:
    """A trial's rate and rank (None: the method has none)."""

    lr: float
    rank: int | None

    @property
    def options(self) -> dict[str, Any]:
        """As `Base.adapt` takes them."""
        return {"lr": self.lr} | ({} if self.rank is None else {"rank": self.rank})


def tune(
    base: Bound,
    data: Data,
    *,
    task: str,
    method: str,
    trials: int,
    tell: Any = None,
    test: Data | None = None,
    columns: Mapping[str, str] | None = None,
    listeners: Sequence[Any] = (),
    **options: Any,
) -> Adapter:
    """`Base.adapt` with the best of `trials` settings, the first being what the options (or the method's own) say.

    A quarter of the rows, drawn by `seed`, judges (`Task.tuned_by`); of labelled rows each label's share, and rows with the same text together.
    Another setting is only taken where its score lies outside the first one's 95% interval. The record has every trial. Raises UserError.
    """
    tell = tell or (lambda _: None)
    options = {"date": today(), **options}  # of all trials
    job, make, first = _request(base, data, task, method, trials, options, columns, test)
    # What speaks against learning these rows, a test row among them say, is said before the first trial.
    plan_of(job, make)
    seed = job.options.seed
    learnt, held = split(job.rows, seed, TASKS[task].reads)
    found: list[tuple[Setting, Score | None]] = []
    for number, setting in enumerate(settings(first, trials, seed), 1):
        trial = replace(job, rows=learnt, test=None, options=replace(job.options, **setting.options))
        adapter = Adapter(make(trial))
        score = _judged(base, adapter, held, task, seed)
        found.append((setting, score))
        tell(f"trial {number} of {trials}: {_text(setting)}: {score}")
    best = chosen([s for _, s in found])
    setting = found[best][0]
    why = "no trial is better than the first beyond its interval: the first is kept"
    tell(why if best == 0 else f"chosen: {_text(setting)}")
    options_chosen = replace(job.options, **setting.options)
    last = replace(job, tell=tell, listeners=tuple(listeners), options=options_chosen)
    adapter = Adapter(make(last))
    record = adapter.parts.record
    told = [{**s.options, **_fields(score)} for s, score in found]
    record.add("tune.trials", told, "measured on rows held out of the training rows")
    record.add("tune.chosen", {"trial": best + 1, **setting.options}, why if best == 0 else "the best score")
    record.add(
        "tune.split", {"rows": len(held), "fingerprint": rows_hash(held), "seed": seed}, "drawn by seed"
    )
    return adapter


def plan_tune(
    base: Bound,
    data: Data,
    *,
    task: str,
    method: str,
    trials: int,
    test: Data | None = None,
    columns: Mapping[str, str] | None = None,
    **options: Any,
) -> Plan:
    """`Base.plan_adapt`, and what the trials would take beside it: each learns on three quarters of the rows. Raises UserError."""
    job, make, first = _request(base, data, task, method, trials, options, columns, test)
    whole = plan_of(job, make)
    one = whole.facts["seconds"]["steps"]
    seconds = one * (1 + trials * (1 - HELD_OUT))
    listed = settings(first, trials, job.options.seed)
    facts = whole.facts | {"tune": {"trials": [s.options for s in listed], "seconds": seconds}}
    text = f"tuning        {trials} trials ({'; '.join(map(_text, listed))}) and the last run: about {seconds:,.0f} s, scoring not in it"
    return Plan(facts, f"{whole.text}\n{text}")


def settings(first: Setting, trials: int, seed: int) -> list[Setting]:
    """The first, then points of Halton's sequence (1960; bases 2 and 3) shifted by seed: rates around the first one's, and ranks."""
    shift = Draws(seed, "tune").uniform(2).tolist()
    out = [first]
    for n in range(1, trials):
        u, v = (float((_radical(n, base) + s) % 1.0) for base, s in zip((2, 3), shift, strict=True))
        lr = float(f"{first.lr * SPAN ** (2 * u - 1):.2g}")
        out.append(Setting(lr, None if first.rank is None else RANKS[int(v * len(RANKS))]))
    return out


def _radical(n: int, base: int) -> float:
    """The digits of n mirrored behind the point."""
    out, share = 0.0, 1.0
    while n:
        n, digit = divmod(n, base)
        share /= base
        out += digit * share
    return out


def split(rows: Rows, seed: int, reads: Sequence[str] = ()) -> tuple[Rows, Rows]:
    """(rows to learn from, rows to judge by). reads: columns by which a task is asked, beside `INPUTS`. Raises DataError where there are too few."""
    inputs = dict.fromkeys((*INPUTS, *reads))
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[canonical_json([row[c] for c in inputs if c in row])].append(i)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups.values():
        strata[str(rows[group[0]].get("label", ""))].append(group)
    draws = Draws(seed, "held out")
    held: set[int] = set()
    for label in sorted(strata):
        here = strata[label]
        wanted = round(HELD_OUT * sum(map(len, here)))
        taken = 0
        # One group of each label stays to be learnt from: what was never learnt cannot be judged.
        for g in draws.permutation(len(here))[:-1].tolist():
            if taken + len(here[g]) <= wanted:
                held.update(here[g])
                taken += len(here[g])
    if len(rows) < LEAST or not held:
        raise DataError(
            f"{len(rows)} rows ({len(groups)} different) are too few to hold some out and choose by them",
            f"give at least {LEAST} different rows, with several of each label, or leave tuning out",
        )
    return rows.some([i for i in range(len(rows)) if i not in held]), rows.some(sorted(held))


def chosen(scores: Sequence[Score | None]) -> int:
    """The number of the best score, from 0; 0 where no other lies outside the first one's interval on the better side."""
    first = scores[0]
    known = [(s, i) for i, s in enumerate(scores) if s is not None and math.isfinite(s.value)]
    if not known:
        return 0
    down = known[0][0].name in LOWER_IS_BETTER
    best, at = (min if down else max)(known, key=lambda k: k[0].value)
    if first is None or not math.isfinite(first.value):
        return at
    return at if (best.value < first.low if down else best.value > first.high) else 0


def _request(
    base: Bound,
    data: Data,
    task: str,
    method: str,
    trials: int,
    options: Mapping[str, object],
    columns: Mapping[str, str] | None,
    test: Data | None,
) -> tuple[Adapting, Make, Setting]:
    """The job with its rows read, what makes its adapters, and the first setting. Raises UserError for what cannot be tuned."""
    if trials < 2:
        raise UserError(f"{trials} trials cannot be compared", "give at least 2")
    asked: AdaptOptions = read_options(dict(options))
    if task not in (tuned := [t.name for t in TASKS.values() if t.tuned_by]):
        raise UserError(f"task {task!r} is not tuned", f"tasks with a score to choose by: {', '.join(tuned)}")
    if method not in BY_STEPS:
        raise UserError(f"method {method!r} has neither rate nor rank", f"tuned are: {', '.join(BY_STEPS)}")
    if base.attached is not None:
        raise UserError("this base has an adapter on it", "tune on the plain base: onebase.load(ref)")
    job, make = prepared(
        base.loaded, data, task=task, method=method, options=asked, columns=columns, test=test
    )
    split(job.rows, asked.seed, TASKS[task].reads)
    rate = asked.lr or METHODS[method].rate_of(TASKS[task].signal)
    return job, make, Setting(rate, asked.rank if method == "lora" else None)


def _judged(base: Bound, adapter: Adapter, held: Rows, task: str, seed: int) -> Score | None:
    """The task's score on the rows held out; None where learning went astray and there is none."""
    # One token is written: the scores that tasks are tuned by do not look at it.
    how = TASKS[task]
    assert how.scores is not None
    scores = how.scores(ScoreRequest(base.with_parts([adapter.parts]), held, seed, max_tokens=1))
    return next((scores[n] for n in how.tuned_by if n in scores), None)


def _text(s: Setting) -> str:
    return f"lr {s.lr:g}" + ("" if s.rank is None else f", rank {s.rank}")


def _fields(s: Score | None) -> dict[str, Any]:
    return {} if s is None else {"score": s.name, "value": s.value, "low": s.low, "high": s.high, "n": s.n}
