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
from onebase.evaluation.energy import Taken
from onebase.evaluation.metrics import LOWER_IS_BETTER
from onebase.readable import figure

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
    document when `weights` are given to `gate`); seconds: to fit and to predict, on the same examples for all systems.
    size: bytes that must be shipped for this task alone (an adapter, a classical model); shared: bytes of the base that it
    needs beside them, which other tasks share (0: it needs none). predicting: what all test examples took, in the one call that predicts
    them. A cost that was not measured is 0, and nothing is said of it.
    """

    name: str
    score: Score
    each: Array = field(repr=False, compare=False)
    seconds: float = 0.0
    size: int = 0
    shared: int = 0
    predicting: Taken = field(default_factory=Taken)

    @property
    def whole(self) -> int:
        """Bytes of everything this task needs, as if it were the only one."""
        return self.size + self.shared


@dataclass(frozen=True)
class Cost:
    """What choosing a system costs: bytes to ship for this task, bytes of a base that other tasks share, and for one test example
    milliseconds and joules (None: not measured); `how` says where the joules are from."""

    name: str
    bytes: int
    shared_bytes: int
    ms_per_item: float | None
    joules_per_item: float | None
    how: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: `line` is the sentence; the differences are in the base's favour when above zero; `costs` of each choice, the
    base's first."""

    needs_base: bool
    line: str
    over_classical: Score
    over_untrained: Score
    classical: str
    costs: tuple[Cost, ...] = ()

    @property
    def table(self) -> str:
        """The costs as lines of text."""
        rows = [("choice", "bytes", "of a shared base", "ms an item", "joules an item")]
        rows += [
            (
                c.name,
                f"{c.bytes:,}",
                f"{c.shared_bytes:,}",
                _figure(c.ms_per_item),
                _figure(c.joules_per_item),
            )
            for c in self.costs
        ]
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                x.ljust(w) if i == 0 else x.rjust(w) for i, (x, w) in enumerate(zip(r, wide, strict=True))
            )
            for r in rows
        ]
        hows = dict.fromkeys(c.how for c in self.costs if c.joules_per_item is not None)
        note = "ms and joules: all test items in one call, through one; joules " + "; ".join(hows)
        return "\n".join([*lines, note] if hows else lines)


def _figure(x: float | None) -> str:
    return "-" if x is None else figure(x, 3)


def _cost_of(s: System) -> Cost:
    n, t = max(1, len(s.each)), s.predicting
    if not t.seconds:
        return Cost(s.name, s.size, s.shared, None, None, "")
    return Cost(s.name, s.size, s.shared, 1000 * t.seconds / n, t.joules / n, t.how)


def gate(
    metric: str,
    base: System,
    untrained: System,
    classical: System | Sequence[System],
    *,
    weights: Sequence[float] | Array | None = None,
    twin: str = "the same adapter on an untrained base",
    who: str | None = None,
    seed: int = 0,
) -> Verdict:
    """Judge `base` against its untrained twin and the best of the classical systems.

    twin: what `untrained` is, as the sentence says it; who: a base that was not pretrained here, by its name: its `untrained` is then a
    smaller base. metric: a name of METRICS (it says whether lower is better) or any other name (higher is better); weights: tokens or
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
            f"Yes: {who or 'pretraining'} {verb} {_size(over_classical)} {unit} {_range(over_classical)} over {rival.name} and "
            f"{_size(over_untrained)} {_range(over_untrained)} over {twin}"
            + (f"; {rival.name} would take {cost}" if cost else "")
        )
    elif won:
        does = "does better" if over_untrained.high < 0 else "does as well"
        line = (
            f"No: {who or 'the base'} {verb} {_size(over_classical)} {unit} {_range(over_classical)} over {rival.name}, but {twin} "
            f"{does} (difference {_signed(over_untrained)}): "
            + (f"{who} is not needed" if who else "pretraining is not what helps")
        )
    elif over_classical.high < 0:
        flipped = Score(
            "difference", -over_classical.value, -over_classical.high, -over_classical.low, over_classical.n
        )
        line = f"No: {rival.name} is better by {_size(flipped)} {unit} {_range(flipped)}" + _advice(
            cost, rival, base, who, better=True
        )
    else:
        line = f"No: {rival.name} does as well (difference {_signed(over_classical)} {unit})" + _advice(
            cost, rival, base, who, better=False
        )
    costs = tuple(_cost_of(s) for s in (base, *rivals))
    return Verdict(needs, line + ".", over_classical, over_untrained, rival.name, costs)


def _advice(cost: str, rival: System, base: System, who: str | None, *, better: bool) -> str:
    """Ship the rival unless it costs more on every count. Whether this task needs a base is asked, so the base's bytes count.

    Where they decide between equals, the advice says so: a base that other tasks need costs this one nothing.
    """
    if _dearer(rival, base, base.whole):
        return f", though it takes {cost}: {who or 'pretraining'} gains nothing that can be shown here"
    ship = "; ship that"
    if not better and base.shared and _dearer(rival, base, base.size):
        ship += ", unless other tasks need the base anyway"
    return (f" at {cost}" if cost else "") + ship


def _dearer(rival: System, base: System, size: int) -> bool:
    """Whether the rival costs more on every count that was measured for both, when `size` are the base's bytes."""
    pairs = ((rival.seconds, base.seconds), (rival.whole, size))
    measured = [r > b for r, b in pairs if r > 0 and b > 0]
    return bool(measured) and all(measured)


def _cost(rival: System, base: System) -> str:
    """What the rival takes, as shares of what the base takes; an adapter is counted both alone and with its base."""
    if not base.shared:
        parts = [
            _times(rival.seconds, base.seconds, "time"),
            _times(rival.whole, base.size, "bytes"),
        ]
    else:
        both = _times(rival.whole, base.whole, "bytes", "the adapter with its base")
        parts = [
            # Pretraining took time too, once for all tasks: name the time that is meant.
            _times(rival.seconds, base.seconds, "time to adapt and predict"),
            _times(rival.whole, base.size, "bytes", "the adapter alone"),
            both and f"{both} ({_amount(base.shared)}, shared by all its tasks)",
        ]
    found = [p for p in parts if p]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _times(rival: float, base: float, what: str, whose: str = "") -> str:
    """ "1/50 of the time", "3 times the bytes of X", or nothing where one was not measured."""
    if rival <= 0 or base <= 0:
        return ""
    ratio = base / rival
    of = f" of {whose}" if whose else ""
    if ratio >= 1.5:
        return f"1/{ratio:,.0f} of the {what}{of}"
    if ratio > 1 / 1.5:
        return f"about the same {what}" + (f" as {whose}" if whose else "")
    return f"{1 / ratio:,.0f} times the {what}{of}"


def _amount(size: int) -> str:
    """Bytes as people read them: "950 bytes", "4.9 MB"; units are powers of 1000."""
    power = min((len(str(size)) - 1) // 3, 3)
    if power == 0:
        return f"{size} bytes"
    return f"{size / 1000**power:,.1f} {('kB', 'MB', 'GB')[power - 1]}"


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
