"""The baseline gate: does this task need a pretrained base at all? One honest sentence, also when the answer is no.

Two rivals, on the same test examples: a small classical system, and the same adapter on a base with untrained weights. The
base is needed only when it beats both, each by a paired difference whose whole interval lies above zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array, Score, paired_difference
from onebase.evaluation.metrics import LOWER_IS_BETTER

MIN_EXAMPLES = 20  # below this a bootstrap interval says little: the gate then never says yes

_UNITS = {
    "macro_f1": "macro-F1",
    "exact_match": "exact match",
    "bits_per_byte": "bits per byte",
    "nats_per_token": "nats per token",
    "rouge_l": "ROUGE-L",
    "auroc": "AUROC",
}


@dataclass(frozen=True)
class System:
    """One system's result on a task.

    each: float [n], one value per test example in the common order (1/0 correct, ROUGE-L, or the summed nats of a
    document when `weights` are given to `gate`); seconds: to fit and to predict; size: bytes that must be shipped.
    """

    name: str
    score: Score
    each: Array = field(repr=False, compare=False)
    seconds: float = 0.0
    size: int = 0


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: `line` is the sentence; the differences are in the base's favour when above zero."""

    needs_base: bool
    line: str
    over_classical: Score
    over_untrained: Score
    classical: str


def gate(
    metric: str,
    base: System,
    untrained: System,
    classical: System | Sequence[System],
    *,
    weights: Sequence[float] | Array | None = None,
    seed: int = 0,
) -> Verdict:
    """Judge `base` against its untrained twin and the best of the classical systems.

    metric: a name of METRICS (it says whether lower is better) or any other name (higher is better); weights: tokens or
    bytes per document when `each` holds sums of nats. Raises DataError when the systems were scored on different examples.
    """
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    rivals = [classical] if isinstance(classical, System) else list(classical)
    if not rivals:
        raise DataError("the gate got no classical system", "give at least one, e.g. the majority class")
    rival = max(rivals, key=lambda s: sign * s.score.value)

    def ahead_of(other: System) -> Score:
        return paired_difference(
            sign * np.asarray(base.each), sign * np.asarray(other.each), weights=weights, seed=seed
        )

    over_classical, over_untrained = ahead_of(rival), ahead_of(untrained)
    unit = _UNITS.get(metric, metric)
    verb = "saves" if sign < 0 else "adds"
    few = over_classical.n < MIN_EXAMPLES
    cost = _cost(rival, base)
    won = over_classical.low > 0 and not few
    needs = won and over_untrained.low > 0
    if few:
        line = f"No: {over_classical.n} test examples are too few to show that the base helps; give at least {MIN_EXAMPLES}"
    elif needs:
        line = (
            f"Yes: pretraining {verb} {_size(over_classical)} {unit} {_range(over_classical)} over {rival.name} and "
            f"{_size(over_untrained)} {_range(over_untrained)} over the same adapter on an untrained base"
            + (f"; {rival.name} would take {cost}" if cost else "")
        )
    elif won:
        twin = "does better" if over_untrained.high < 0 else "does as well"
        line = (
            f"No: the base {verb} {_size(over_classical)} {unit} {_range(over_classical)} over {rival.name}, but the same "
            f"adapter on an untrained base {twin} (difference {_signed(over_untrained)}): pretraining is not what helps"
        )
    elif over_classical.high < 0:
        flipped = Score(
            "difference", -over_classical.value, -over_classical.high, -over_classical.low, over_classical.n
        )
        line = f"No: {rival.name} is better by {_size(flipped)} {unit} {_range(flipped)}" + _advice(
            cost, rival, base
        )
    else:
        line = f"No: {rival.name} does as well (difference {_signed(over_classical)} {unit})" + _advice(
            cost, rival, base
        )
    return Verdict(needs, line + ".", over_classical, over_untrained, rival.name)


def _advice(cost: str, rival: System, base: System) -> str:
    """Ship the rival unless it costs more on both counts."""
    dearer = rival.seconds > base.seconds and rival.size > base.size
    if dearer:
        return f", though it takes {cost}: pretraining gains nothing that can be shown here"
    return (f" at {cost}" if cost else "") + "; ship that"


def _cost(rival: System, base: System) -> str:
    parts = [
        _times(rival.seconds, base.seconds, "time"),
        _times(rival.size, base.size, "bytes"),
    ]
    return " and ".join(p for p in parts if p)


def _times(rival: float, base: float, what: str) -> str:
    """ "1/50 of the time", "3 times the bytes", or nothing where one was not measured."""
    if rival <= 0 or base <= 0:
        return ""
    ratio = base / rival
    if ratio >= 1.5:
        return f"1/{ratio:,.0f} of the {what}"
    return f"about the same {what}" if ratio > 1 / 1.5 else f"{1 / ratio:,.0f} times the {what}"


def _size(s: Score) -> str:
    return _print(s.value, _digits(s))


def _range(s: Score) -> str:
    d = _digits(s)
    return f"({_print(s.low, d)} to {_print(s.high, d)})"


def _signed(s: Score) -> str:
    d = _digits(s)
    return f"{_print(s.value, d)}, {_print(s.low, d)} to {_print(s.high, d)}"


def _print(x: float, digits: int) -> str:
    return f"{round(x, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"


def _digits(s: Score) -> int:
    """Two digits, three when two would print a bound that is not zero as 0.00."""
    return 3 if any(0 < abs(x) < 0.005 for x in (s.value, s.low, s.high)) else 2
