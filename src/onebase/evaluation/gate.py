"""The baseline gate: does a task need a pretrained base at all? The answer is one sentence: yes, no, or cannot tell.

The base is compared on the same test examples with a small classical system and, if trained, with the same adapter on a base with untrained
weights. It is needed only if it beats both, each by a paired difference whose whole interval is above zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from onebase.errors import DataError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.energy import Usage
from onebase.evaluation.metrics import LOWER_IS_BETTER
from onebase.evaluation.paired import Answer, Difference, RowSums, difference
from onebase.readable import figure, size

MIN_EXAMPLES = 20  # with fewer, a bootstrap interval is not reliable, and the gate cannot tell

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

    sums: the score as sums over the test examples, in the common order (1/0 correct, or nats over tokens). seconds: fitting and predicting,
    on the same examples for all systems. size: bytes to ship for this task alone (an adapter, a classical model). shared: bytes of the base
    that it also needs, which other tasks share (0: none). predicting: time and energy of one call that predicts all test examples. A
    cost that was not measured is 0 and not reported.
    """

    name: str
    score: Score
    sums: RowSums = field(repr=False, compare=False)
    seconds: float = 0.0
    size: int = 0
    shared: int = 0
    predicting: Usage = field(default_factory=Usage)

    @property
    def whole(self) -> int:
        """Bytes of everything that this task needs, the base included."""
        return self.size + self.shared


@dataclass(frozen=True)
class Cost:
    """The cost of a system: bytes to ship for this task, bytes of a base shared with other tasks, and milliseconds and joules per test example
    (None: not measured). how: the origin of the joules."""

    name: str
    bytes: int
    shared_bytes: int
    ms_per_item: float | None
    joules_per_item: float | None
    how: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer. line: the sentence. The differences favour the base if above zero (None: no twin). costs: of each system, the
    base's first."""

    answer: Answer
    line: str
    over_classical: Score
    over_untrained: Score | None
    classical: str
    costs: tuple[Cost, ...] = ()

    @property
    def needs_base(self) -> bool:
        """Whether the answer is yes."""
        return self.answer == "yes"

    @property
    def table(self) -> str:
        """The costs as a text table."""
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
    n, t = max(1, len(s.sums.over)), s.predicting
    if not t.seconds:
        return Cost(s.name, s.size, s.shared, None, None, "")
    return Cost(s.name, s.size, s.shared, 1000 * t.seconds / n, t.joules / n, t.how)


def gate(
    metric: str,
    base: System,
    untrained: System | None,
    classical: System | Sequence[System],
    *,
    twin: str = "the same adapter on an untrained base",
    who: str | None = None,
    seed: int = 0,
) -> Verdict:
    """Compare `base` with the best of the classical systems, and with its untrained twin if there is one.

    The answer is yes or no only if the whole interval of a difference is on one side of zero; otherwise it is "cannot tell", with the number of
    examples needed (`Difference.needed`). metric: a name of METRICS (which determines whether lower is better) or any other name (higher is
    better). twin: description of `untrained` for the sentence. who: the name of an imported base, whose `untrained` is then a smaller base;
    by default the sentence speaks of pretraining. Raises DataError if the systems were scored on different examples.
    """
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    rivals = [classical] if isinstance(classical, System) else list(classical)
    if not rivals:
        raise DataError("the gate needs a classical system", "give at least one, e.g. the majority class")
    rival = max(rivals, key=lambda s: sign * s.score.value)

    def ahead_of(other: System) -> Difference:
        ours, theirs = (RowSums(sign * s.sums.over, s.sums.under) for s in (base, other))
        return difference(ours, theirs, seed=seed)

    over_classical = ahead_of(rival)
    over_untrained = None if untrained is None else ahead_of(untrained)
    answer, line = _judged(
        _Words(
            _UNITS.get(metric, metric),
            "saves" if sign < 0 else "adds",
            who or ("the base" if over_untrained is None else "pretraining"),
            who,
            twin,
        ),
        base,
        rival,
        over_classical,
        over_untrained,
    )
    costs = tuple(_cost_of(s) for s in (base, *rivals))
    over_twin = None if over_untrained is None else over_untrained.score
    return Verdict(answer, line + ".", over_classical.score, over_twin, rival.name, costs)


@dataclass(frozen=True)
class _Words:
    """Parts of the sentence: the score, the verb for a better one, what helps, the base's name if any, and its twin."""

    unit: str
    verb: str
    helps: str
    who: str | None
    twin: str


def _judged(
    words: _Words, base: System, rival: System, over: Difference, over_twin: Difference | None
) -> tuple[Answer, str]:
    """The answer and its sentence."""
    unit, cost, n = words.unit, _cost(rival, base), over.score.n
    takes = f"; {rival.name} would take {cost}" if cost else ""
    if n < MIN_EXAMPLES:
        return (
            "cannot tell",
            f"Cannot tell with {n} test rows, which are too few: give at least {MIN_EXAMPLES}",
        )
    if over.answer == "cannot tell":
        of = f"of {words.who} " if words.who else ""
        beside = f"the difference {of}to {rival.name} is {sized(over.score, unit)}"
        return over.answer, f"Cannot tell with {n:,} test rows: {beside}; {over.would}{takes}"
    if over.answer == "no":
        than = f"than {words.who} " if words.who else ""
        lost = replace(over.score, value=-over.score.value, low=-over.score.high, high=-over.score.low)
        return "no", f"No: {rival.name} is better {than}by {sized(lost, unit)}" + _advice(cost, rival, base)
    adds = f"{words.verb} {sized(over.score, unit)} over {rival.name}"
    if over_twin is None:
        return "yes", f"Yes: {words.helps} {adds}{takes}"
    if over_twin.answer == "yes":
        return "yes", f"Yes: {words.helps} {adds} and {sized(over_twin.score)} over {words.twin}{takes}"
    whole = f"{words.who or 'the base'} {adds}, but {words.twin}"
    if over_twin.answer == "no":
        helps = f"{words.who} is not needed" if words.who else "pretraining is not what helps"
        return "no", f"No: {whole} does better (difference {signed(over_twin.score)}): {helps}"
    helps = f"{words.who} is needed" if words.who else "pretraining is what helps"
    return (
        "cannot tell",
        f"Cannot tell with {n:,} test rows whether {helps}: {whole} may do as well "
        f"(difference {signed(over_twin.score)}); {over_twin.would}",
    )


def _advice(cost: str, rival: System, base: System) -> str:
    """Recommend the rival, which is better, unless all its costs are higher. The base's bytes count, since the question is whether it is needed."""
    if _dearer(rival, base):
        return f", though it takes {cost}"
    return (f" at {cost}" if cost else "") + "; ship that"


def _dearer(rival: System, base: System) -> bool:
    """Whether the rival's costs are all higher, among those measured for both."""
    pairs = ((rival.seconds, base.seconds), (rival.whole, base.whole))
    measured = [r > b for r, b in pairs if r > 0 and b > 0]
    return bool(measured) and all(measured)


def _cost(rival: System, base: System) -> str:
    """The rival's costs relative to the base's; an adapter is counted both alone and with its base."""
    if not base.shared:
        parts = [
            _times(rival.seconds, base.seconds, "time"),
            _times(rival.whole, base.size, "bytes"),
        ]
    else:
        total = _times(rival.whole, base.whole, "bytes", "the adapter with its base")
        parts = [
            # Pretraining took time too, once for all tasks, so the sentence names which time it means.
            _times(rival.seconds, base.seconds, "time to adapt and predict"),
            _times(rival.whole, base.size, "bytes", "the adapter alone"),
            total and f"{total} ({size(base.shared)}, shared by all its tasks)",
        ]
    known = [p for p in parts if p]
    return " and ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)


def _times(rival: float, base: float, what: str, whose: str = "") -> str:
    """ "1/50 of the time", "3 times the bytes of X", or "" if one was not measured."""
    if rival <= 0 or base <= 0:
        return ""
    ratio = base / rival
    of = f" of {whose}" if whose else ""
    if ratio >= 1.5:
        return f"1/{ratio:,.0f} of the {what}{of}"
    if ratio > 1 / 1.5:
        return f"about the same {what}" + (f" as {whose}" if whose else "")
    return f"{1 / ratio:,.0f} times the {what}{of}"


def sized(s: Score, unit: str = "") -> str:
    """ "0.15 accuracy (0.09 to 0.21)"."""
    d = _digits(s)
    between = f"({_print(s.low, d)} to {_print(s.high, d)})"
    return " ".join(x for x in (_print(s.value, d), unit, between) if x)


def signed(s: Score) -> str:
    """ "0.01, -0.05 to 0.07"."""
    d = _digits(s)
    return f"{_print(s.value, d)}, {_print(s.low, d)} to {_print(s.high, d)}"


def _print(x: float, digits: int) -> str:
    return f"{round(x, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"


def _digits(s: Score) -> int:
    """Two digits, or three if a bound that is not zero would be printed as 0.00."""
    return 3 if any(0 < abs(x) < 0.005 for x in (s.value, s.low, s.high)) else 2
