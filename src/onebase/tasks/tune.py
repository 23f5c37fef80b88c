"""Tunes learning rate and rank by trials scored on rows split off the training rows; the adapter is then trained on all of them.

Test rows are not used for scores: they are only compared with the training rows, as in `adapt`.
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
from onebase.tasks.job import NO_METADATA, AboutData, Adapting
from onebase.tasks.option_names import METHOD, TASK
from onebase.tasks.options import AdaptOptions, read_options
from onebase.tasks.plan import plan_of
from onebase.tasks.results import Adapter, Plan
from onebase.tasks.table import PREDICTIONS, TASKS, prepared, rows_hash

HELD_OUT = 0.25
"""Share of the training rows on which trials are scored."""

LEAST = 12
"""Training rows, at least: a quarter of fewer gives no useful score."""

PRIMES = (2, 3, 5, 7, 11)
SPAN = 10.0
"""Learning rates are drawn from the method's own divided by this to multiplied by this, evenly on a log scale."""


INPUTS = ("text", "image", "prompt", "messages", "anchor")
"""Rows with the same content in these columns count as one: they stay on one side of the split."""


@dataclass(frozen=True)
class TrialSetting:
    """A trial's learning rate, and its values of the method's tuned options."""

    lr: float
    own: Mapping[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """As options of `Base.adapt`."""
        return {"lr": self.lr, **self.own}

    def set(self, options: AdaptOptions) -> AdaptOptions:
        """`options` with these values."""
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
    """`Base.adapt` with the best of `trials` settings, the first of which has the given options (or the method's defaults).

    A quarter of the rows, drawn by `seed`, is held out and scored by `score` (default: `Task.tuned_by`). Labelled rows are stratified by label,
    and rows with the same text stay together. Another setting replaces the first only if its score lies outside the first one's 95% interval.
    The record has every trial. Raises UserError.
    """
    log = log or (lambda _: None)
    check_names([score] if score else [])
    about = AboutData(data_licence, data_source)
    job, make, first = _request(base, data, task, method, trials, options, columns, test, about)
    task, method = job.task, job.method
    # Problems of the rows, such as a test row among them, are reported before the first trial.
    plan_of(job, make)
    seed = job.options.seed
    train, held_out = split(job.rows, seed, TASKS[task].reads)
    results: list[tuple[TrialSetting, Score | None]] = []
    names, lower = (score,) if score else TASKS[task].tuned_by, False
    for number, setting in enumerate(settings(first, trials, seed, METHODS[method].tuned), 1):
        trial = replace(job, rows=train, test=None, options=setting.set(job.options))
        value, lower = _scored(base, Adapter(make(trial)), held_out, task, names, seed)
        results.append((setting, value))
        log(f"trial {number} of {trials}: {_text(setting)}: {value}")
    best = chosen([s for _, s in results], lower)
    setting = results[best][0]
    kept = "no trial is better than the first beyond its interval: the first is kept"
    why = kept if best == 0 else "the best score"
    log(kept if best == 0 else f"chosen: {_text(setting)}")
    # Where the first setting is kept, options that the user gave keep the user as origin.
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
    each = [{**s.options, **_fields(value)} for s, value in results]
    record.add("tune.trials", each, "measured on rows held out of the training rows")
    record.add("tune.chosen", {"trial": best + 1, **setting.options}, f"{Origin.CHOSEN}: {why}")
    record.add(
        "tune.split",
        {"rows": len(held_out), "fingerprint": rows_hash(held_out), "seed": seed},
        "drawn by seed",
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
    """`Base.plan_adapt`, plus the time of the trials, each of which trains on three quarters of the rows. Raises UserError."""
    job, make, first = _request(base, data, task, method, trials, options, columns, test)
    whole = plan_of(job, make)
    one = whole.facts["seconds"]["steps"]
    seconds = one * (1 + trials * (1 - HELD_OUT))
    listed = settings(first, trials, job.options.seed, METHODS[job.method].tuned)
    facts = whole.facts | {"tune": {"trials": [s.options for s in listed], "seconds": seconds}}
    text = f"tuning        {trials} trials ({'; '.join(map(_text, listed))}) and the final run: about {duration(seconds)} without scoring"
    return Plan(facts, f"{whole.text}\n{text}")


def settings(
    first: TrialSetting, trials: int, seed: int, tuned: Mapping[str, Sequence[Any]]
) -> list[TrialSetting]:
    """The first setting, then points of Halton's sequence (1960; one prime per coordinate) shifted by seed: learning rates around the first
    one's, and values of the tuned options."""
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
    """Radical inverse: the digits of n mirrored at the radix point."""
    out, share = 0.0, 1.0
    while n:
        n, digit = divmod(n, base)
        share /= base
        out += digit * share
    return out


def split(rows: Rows, seed: int, reads: Sequence[str] = ()) -> tuple[Rows, Rows]:
    """(rows to train on, rows held out). reads: input columns of the task besides `INPUTS`. Raises DataError for too few rows."""
    groups = groups_of(rows, reads)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups:
        strata[str(rows[group[0]].get("label", ""))].append(group)
    draws = Draws(seed, "held out")
    held_out: set[int] = set()
    for label in sorted(strata):
        of_label = strata[label]
        wanted = round(HELD_OUT * sum(map(len, of_label)))
        size = 0
        # One group of each label stays for training: labels without training rows cannot be scored.
        for g in draws.permutation(len(of_label))[:-1].tolist():
            if size + len(of_label[g]) <= wanted:
                held_out.update(of_label[g])
                size += len(of_label[g])
    if len(rows) < LEAST or not held_out:
        raise DataError(
            f"{len(rows)} rows ({len(groups)} different) are too few to hold some out for tuning",
            f"give at least {LEAST} different rows, with several of each label, or do not tune",
        )
    return rows.some([i for i in range(len(rows)) if i not in held_out]), rows.some(sorted(held_out))


def groups_of(rows: Sequence[Mapping[str, Any]], reads: Sequence[str] = ()) -> list[list[int]]:
    """Numbers of the rows, grouped by their content in `INPUTS` and `reads`."""
    inputs = dict.fromkeys((*INPUTS, *reads))
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[canonical_json([row[c] for c in inputs if c in row])].append(i)
    return list(groups.values())


def chosen(scores: Sequence[Score | None], lower: bool = False) -> int:
    """The index of the best score; 0 if no other lies outside the first one's interval on the better side. lower: lower is better."""
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
    about: AboutData = NO_METADATA,
) -> tuple[Adapting, MakeAdapter, TrialSetting]:
    """The job with its rows read, the function that builds its adapters, and the first setting. Raises UserError for what cannot be tuned."""
    if trials < 2:
        raise UserError(f"{trials} trials cannot be compared", "give at least 2")
    given, task, method = (task, method), task or TASK, method or METHOD
    read_options(options, task, method)
    if task not in (tuned := [t.name for t in TASKS.values() if t.tuned_by]):
        raise UserError(
            f"task {task!r} cannot be tuned", f"tasks with a score to tune by: {', '.join(tuned)}"
        )
    if method not in BY_STEPS:
        raise UserError(
            f"method {method!r} has no learning rate or rank to tune", f"use one of: {', '.join(BY_STEPS)}"
        )
    if base.attached is not None and not base.own:
        raise UserError("this base has an adapter on it", "tune on the plain base: onebase.load(ref)")
    job, make = prepared(
        base.loaded,
        data,
        task=given[0],
        method=given[1],
        options=options,
        columns=columns,
        test=test,
        about=about,
    )
    o = job.options
    split(job.rows, o.seed, TASKS[task].reads)
    how = METHODS[method]
    own = {name: getattr(o.of_method, name) for name in how.tuned}
    return job, make, TrialSetting(o.lr or how.rate_of(TASKS[task].signal), own)


def _scored(
    base: Bound, adapter: Adapter, held_out: Rows, task: str, names: Sequence[str], seed: int
) -> tuple[Score | None, bool]:
    """The first of `names` that the task has, on the held-out rows (None if training diverged), and whether lower is better. Raises UserError
    where the task has none of them."""
    # One token is generated: the scores that tasks are tuned by do not use it.
    predictions = PREDICTIONS[task](
        ScoreRequest(base.with_parts([adapter.parts]), held_out, seed, max_tokens=1)
    )
    known = scores_of(type(predictions))
    metric = next((known[n] for n in names if n in known), None)
    if metric is None:
        raise UserError(f"task {task} has no score {names[0]!r}", f"its scores: {', '.join(known)}")
    return metric.score(predictions, seed), metric.lower


def _text(s: TrialSetting) -> str:
    return ", ".join([f"lr {s.lr:g}", *(f"{name} {value}" for name, value in s.own.items())])


def _fields(s: Score | None) -> dict[str, Any]:
    return {} if s is None else {"score": s.name, "value": s.value, "low": s.low, "high": s.high, "n": s.n}
