"""Trials over learning rate and rank, judged on rows split off the training rows; the adapter is then learnt on all of them.

Test rows play no part: they are only compared with the training rows, as `adapt` does.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onebase.artifact.files import canonical_json
from onebase.artifact.record import Origin
from onebase.data import Rows
from onebase.data.labelled import Data
from onebase.draws import Draws
from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.scores import check_names, scores_of
from onebase.methods.bound import Bound
from onebase.methods.table import BY_STEPS, METHODS
from onebase.readable import duration
from onebase.tasks.base import MakeAdapter, ScoreRequest
from onebase.tasks.job import NOTHING_SAID, AboutData, Adapting
from onebase.tasks.option_names import METHOD, TASK
from onebase.tasks.options import AdaptOptions, read_options
from onebase.tasks.plan import plan_of
from onebase.tasks.results import Adapter, Plan
from onebase.tasks.table import PREDICTIONS, TASKS, prepared, rows_hash

HELD_OUT = 0.25
"""Share of the training rows that the trials are judged on."""

LEAST = 12
"""Training rows below which a quarter of them says nothing."""

PRIMES = (2, 3, 5, 7, 11)
SPAN = 10.0
"""Rates are drawn between the method's own divided and multiplied by this, evenly on a logarithmic scale."""


INPUTS = ("text", "image", "prompt", "messages", "anchor")
"""Columns of which rows with the same content are one: they stay on one side of the split."""


@dataclass(frozen=True)
class TrialSetting:
    """A trial's rate, and its values of the method's options that are tuned."""

    lr: float
    own: Mapping[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """As `Base.adapt` takes them."""
        return {"lr": self.lr, **self.own}

    def set(self, options: AdaptOptions) -> AdaptOptions:
        """Options with these values in them."""
        own = replace(options.of_method, **self.own) if self.own else options.of_method
        return replace(options, lr=self.lr, of_method=own)


def tune(
    base: Bound,
    data: Data,
    *,
    task: str | None = None,
    method: str | None = None,
    trials: int,
    log: Any = None,
    test: Data | None = None,
    columns: Mapping[str, str] | None = None,
    callbacks: Sequence[Any] = (),
    score: str | None = None,
    data_licence: str | None = None,
    data_source: str | None = None,
    **options: Any,
) -> Adapter:
    """`Base.adapt` with the best of `trials` settings, the first being what the options (or the method's own) say.

    A quarter of the rows, drawn by `seed`, judges, by `score` (the task's own, `Task.tuned_by`, where none is named); of labelled rows each label's share, and rows with the same text together.
    Another setting is only taken where its score lies outside the first one's 95% interval. The record has every trial. Raises UserError.
    """
    log = log or (lambda _: None)
    check_names([score] if score else [])
    about = AboutData(data_licence, data_source)
    job, make, first = _request(base, data, task, method, trials, options, columns, test, about)
    task, method = job.task, job.method
    # What speaks against learning these rows, a test row among them say, is said before the first trial.
    plan_of(job, make)
    seed = job.options.seed
    learnt, held = split(job.rows, seed, TASKS[task].reads)
    found: list[tuple[TrialSetting, Score | None]] = []
    names, lower = (score,) if score else TASKS[task].tuned_by, False
    for number, setting in enumerate(settings(first, trials, seed, METHODS[method].tuned), 1):
        trial = replace(job, rows=learnt, test=None, options=setting.set(job.options))
        value, lower = _judged(base, Adapter(make(trial)), held, task, names, seed)
        found.append((setting, value))
        log(f"trial {number} of {trials}: {_text(setting)}: {value}")
    best = chosen([s for _, s in found], lower)
    setting = found[best][0]
    kept = "no trial is better than the first beyond its interval: the first is kept"
    why = kept if best == 0 else "the best score"
    log(kept if best == 0 else f"chosen: {_text(setting)}")
    # What the user gave stays theirs where the first setting is kept.
    tried = [name for name in setting.options if best or name not in job.given]
    last = replace(
        job,
        log=log,
        callbacks=tuple(callbacks),
        options=setting.set(job.options),
        origins={**job.origins, **dict.fromkeys(tried, f"{Origin.CHOSEN} by trials")},
    )
    adapter = Adapter(make(last))
    record = adapter.parts.record
    told = [{**s.options, **_fields(value)} for s, value in found]
    record.add("tune.trials", told, "measured on rows held out of the training rows")
    record.add("tune.chosen", {"trial": best + 1, **setting.options}, f"{Origin.CHOSEN}: {why}")
    record.add(
        "tune.split", {"rows": len(held), "fingerprint": rows_hash(held), "seed": seed}, "drawn by seed"
    )
    return adapter


def plan_tune(
    base: Bound,
    data: Data,
    *,
    task: str | None = None,
    method: str | None = None,
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
    listed = settings(first, trials, job.options.seed, METHODS[job.method].tuned)
    facts = whole.facts | {"tune": {"trials": [s.options for s in listed], "seconds": seconds}}
    text = f"tuning        {trials} trials ({'; '.join(map(_text, listed))}) and the last run: about {duration(seconds)}, scoring not in it"
    return Plan(facts, f"{whole.text}\n{text}")


def settings(
    first: TrialSetting, trials: int, seed: int, tuned: Mapping[str, Sequence[Any]]
) -> list[TrialSetting]:
    """The first, then points of Halton's sequence (1960; a prime a coordinate) shifted by seed: rates around the first one's, and
    values of the options that are tuned."""
    bases = PRIMES[: 1 + len(tuned)]
    shift = Draws(seed, "tune").uniform(len(bases)).tolist()
    out = [first]
    for n in range(1, trials):
        u, *vs = (float((_radical(n, base) + s) % 1.0) for base, s in zip(bases, shift, strict=True))
        lr = float(f"{first.lr * SPAN ** (2 * u - 1):.2g}")
        own = {name: of[int(v * len(of))] for (name, of), v in zip(tuned.items(), vs, strict=True)}
        out.append(TrialSetting(lr, own))
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
    groups = groups_of(rows, reads)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups:
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


def groups_of(rows: Sequence[Mapping[str, Any]], reads: Sequence[str] = ()) -> list[list[int]]:
    """Numbers of the rows, those with the same content of `INPUTS` and `reads` together."""
    inputs = dict.fromkeys((*INPUTS, *reads))
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[canonical_json([row[c] for c in inputs if c in row])].append(i)
    return list(groups.values())


def chosen(scores: Sequence[Score | None], lower: bool = False) -> int:
    """The number of the best score, from 0; 0 where no other lies outside the first one's interval on the better side. lower: less is better."""
    first = scores[0]
    known = [(s, i) for i, s in enumerate(scores) if s is not None and math.isfinite(s.value)]
    if not known:
        return 0
    best, at = (min if lower else max)(known, key=lambda k: k[0].value)
    if first is None or not math.isfinite(first.value):
        return at
    return at if (best.value < first.low if lower else best.value > first.high) else 0


def _request(
    base: Bound,
    data: Data,
    task: str | None,
    method: str | None,
    trials: int,
    options: Mapping[str, object],
    columns: Mapping[str, str] | None,
    test: Data | None,
    about: AboutData = NOTHING_SAID,
) -> tuple[Adapting, MakeAdapter, TrialSetting]:
    """The job with its rows read, what makes its adapters, and the first setting. Raises UserError for what cannot be tuned."""
    if trials < 2:
        raise UserError(f"{trials} trials cannot be compared", "give at least 2")
    asked_for, task, method = (task, method), task or TASK, method or METHOD
    read_options(options, task, method)
    if task not in (tuned := [t.name for t in TASKS.values() if t.tuned_by]):
        raise UserError(f"task {task!r} is not tuned", f"tasks with a score to choose by: {', '.join(tuned)}")
    if method not in BY_STEPS:
        raise UserError(f"method {method!r} has neither rate nor rank", f"tuned are: {', '.join(BY_STEPS)}")
    if base.attached is not None and not base.own:
        raise UserError("this base has an adapter on it", "tune on the plain base: onebase.load(ref)")
    job, make = prepared(
        base.loaded,
        data,
        task=asked_for[0],
        method=asked_for[1],
        options=options,
        columns=columns,
        test=test,
        about=about,
    )
    asked = job.options
    split(job.rows, asked.seed, TASKS[task].reads)
    how = METHODS[method]
    own = {name: getattr(asked.of_method, name) for name in how.tuned}
    return job, make, TrialSetting(asked.lr or how.rate_of(TASKS[task].signal), own)


def _judged(
    base: Bound, adapter: Adapter, held: Rows, task: str, names: Sequence[str], seed: int
) -> tuple[Score | None, bool]:
    """The first of these scores that there is on the rows held out (None where learning went astray), and whether less is better. Raises
    UserError where the task has none of them."""
    # One token is written: the scores that tasks are tuned by do not look at it.
    said = PREDICTIONS[task](ScoreRequest(base.with_parts([adapter.parts]), held, seed, max_tokens=1))
    known = scores_of(type(said))
    metric = next((known[n] for n in names if n in known), None)
    if metric is None:
        raise UserError(f"task {task} has no score {names[0]!r}", f"its scores: {', '.join(known)}")
    return metric.score(said, seed), metric.lower


def _text(s: TrialSetting) -> str:
    return ", ".join([f"lr {s.lr:g}", *(f"{name} {value}" for name, value in s.own.items())])


def _fields(s: Score | None) -> dict[str, Any]:
    return {} if s is None else {"score": s.name, "value": s.value, "low": s.low, "high": s.high, "n": s.n}
