"""One question, one command: which of classical systems and methods on bases does a task best? Chosen on training rows, reported once on test rows."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from onebase import plugins
from onebase.assess.candidates import (
    CLASSICAL,
    Candidate,
    Learnt,
    Untried,
    base_candidates,
    classical_candidates,
)
from onebase.assess.compared_data import FOLDS, ComparisonData, question
from onebase.assess.comparison import Comparison, Tried
from onebase.assess.gating import main_score, system_of
from onebase.data.labelled import Data
from onebase.errors import UserError
from onebase.evaluation.energy import watching
from onebase.evaluation.gate import gate
from onebase.evaluation.paired import Answer, RowSums
from onebase.methods.bound import Bound
from onebase.opening.find import expect_base
from onebase.opening.names import open_base
from onebase.readable import duration
from onebase.tasks.job import rows_hash, score_facts


def compare(
    bases: Sequence[Bound | str | Path],
    data: Data,
    test: Data,
    *,
    task: str | None = None,
    minutes: float = 10.0,
    methods: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    device: str = "cpu",
    dtype: str = "fp32",
    log: Callable[[str], object] = lambda said: None,
    **options: object,
) -> Comparison:
    """Which is best for a task: a classical system, or a prompt, head, contrast, LoRA or all weights on one of the bases (docs/evaluation.md)?

    The choice is made by cross-validation on `data`; `test` is asked once. Candidates that do not fit into `minutes` are listed with what they
    would take. task: by the columns, where it is not named. methods: of those of the task, `contrast` and `classical`; options: of
    adaptation, for the candidates that have them. All bases are in memory at a time. Returns `Comparison`: `line`, `table`, `facts`, `adapter` (the
    best one on a base), `write_page`. Raises UserError: for a base that is not there or cannot learn the task, for rows of one label, test rows among
    those of `data`, or labels that only `test` has, all before anything is learnt."""
    if isinstance(bases, (str, Path, Bound)) or not bases:
        raise UserError("no list of bases was given", "give at least one, as compare([BASE], data, test)")
    plugins.load()  # tasks and methods of other packages
    for ref in bases:
        if not isinstance(ref, Bound):
            expect_base(ref)
    asked = question(
        data, test, task=task, methods=methods, minutes=minutes, columns=columns, options=options
    )
    opened = [
        ref if isinstance(ref, Bound) else Bound.opened(open_base(ref, device=device, dtype=dtype))
        for ref in bases
    ]
    return compared(opened, asked, log)


def compared(
    bases: Sequence[Bound], asked: ComparisonData, log: Callable[[str], object] = lambda _: None
) -> Comparison:
    """Try candidates, cheap ones first, as the time allows: each is cross-validated on the training rows, learns from all of them, and is scored on
    the test rows. The choice is made by the cross-validation alone. Raises UserError."""
    began = time.monotonic()

    def left() -> float:
        return asked.seconds - (time.monotonic() - began)

    found, untried = _candidates(bases, asked, left)
    folds, late = allotted(found, left())
    untried += late
    for u in untried:
        log(f"not tried: {u.name}: {u.why}")
    tried: list[Tried] = []
    keeps: Learnt | None = None
    for candidate in found:
        if candidate not in folds:
            continue
        if needed(candidate.seconds, 1) > max(left(), 0) and not candidate.classical:
            untried.append(Untried(candidate.name, "the time was used up", needed(candidate.seconds, 1)))
            log(f"not tried: {candidate.name}: the time was used up")
            continue
        log(f"{candidate.name}: about {duration(needed(candidate.seconds, folds[candidate]))}")
        one, learnt = _tried(candidate, folds[candidate], asked, left)
        tried.append(one)
        log(
            f"{one.name}: {one.metric} {one.held_out:.3f} in {one.folds} of {FOLDS} folds, {duration(one.seconds)} to learn"
        )
        if learnt.adapter is not None and best([t for t in tried if not t.classical]) is one:
            keeps = learnt
    if not tried:
        raise UserError(
            "no candidate fits into the time", f"give more: --minutes; {untried[0].name}: {untried[0].why}"
        )
    return _answered(tried, untried, asked, keeps, time.monotonic() - began)


def allotted(found: Sequence[Candidate], seconds: float) -> tuple[dict[Candidate, int], list[Untried]]:
    """How many folds each candidate gets, the cheapest first, and those that the time is too short for, with what they would take: first one fold
    for as many as fit, then more while there is time."""
    folds: dict[Candidate, int] = {}
    late = []
    for c in found:
        if (
            c.classical
            or sum(needed(x.seconds, n) for x, n in folds.items()) + needed(c.seconds, 1) <= seconds
        ):
            folds[c] = 1
        else:
            late.append(
                Untried(
                    c.name,
                    f"it would take about {duration(needed(c.seconds, 1))}, more than is left",
                    needed(c.seconds, 1),
                )
            )
    for more in range(2, FOLDS + 1):
        for c in folds:
            spent = sum(needed(x.seconds, n) for x, n in folds.items() if x is not c)
            if folds[c] == more - 1 and (c.classical or spent + needed(c.seconds, more) <= seconds):
                folds[c] = more
    return folds, late


def needed(seconds: float, folds: int) -> float:
    """Seconds to try a candidate that learns from all rows in `seconds`: each fold learns from four fifths and is asked about the rest, in the end
    all is learnt and the test rows are asked (a tenth of the time for asking)."""
    return 1.1 * seconds * ((FOLDS - 1) / FOLDS * folds + 1)


def best(tried: Sequence[Tried]) -> Tried | None:
    """The best by cross-validation, the earlier (cheaper) of equals. Two are compared on the folds that both were judged on."""
    found: Tried | None = None
    for t in tried:
        if found is None:
            found = t
            continue
        n = min(t.folds, found.folds)
        mine, its = t.held_out_of(n), found.held_out_of(n)
        if (mine < its if t.lower else mine > its) or math.isnan(its):
            found = t
    return found


def _candidates(
    bases: Sequence[Bound], asked: ComparisonData, left: Callable[[], float]
) -> tuple[list[Candidate], list[Untried]]:
    """All candidates, the cheapest first. Raises UserError for a base that cannot learn the task, or without any."""
    untried: list[Untried] = []
    found: list[Candidate] = []
    if asked.classical:
        try:
            found = classical_candidates(asked.given)
        except UserError as e:  # scikit-learn is an extra
            untried.append(Untried(CLASSICAL, f"{e.cause}: {e.remedy}"))
    names = Counter(b.name for b in bases)
    for base in bases:
        name = base.name if names[base.name] == 1 else f"{base.name} ({base.fingerprint[4:10]})"
        made, out = base_candidates(base.plain, name, asked.methods, asked.given, left)
        found, untried = found + made, untried + out
    return sorted(found, key=lambda c: c.seconds), untried


def _tried(
    candidate: Candidate, folds: int, asked: ComparisonData, left: Callable[[], float]
) -> tuple[Tried, Learnt]:
    """Cross-validate a candidate on so many folds, fewer where they take longer than planned, then learn from all rows and ask about the test rows."""
    given, every = asked.given, list(range(len(asked.folds)))
    sums: list[RowSums] = []
    with candidate.folding():
        for fold in range(folds):
            began = time.monotonic()
            learnt = candidate.learn([i for i in every if asked.folds[i] != fold])
            said = learnt.said(given.rows.some([i for i in every if asked.folds[i] == fold]))
            metric = main_score(given.task, said)
            assert metric.sums is not None
            sums.append(metric.sums(said))
            if left() < 2.25 * (time.monotonic() - began) and fold + 1 < folds:
                break  # one more fold, and all rows: 1 + 5/4
    learnt = candidate.learn(every)
    with watching() as watch:
        said = learnt.said(asked.tested if candidate.classical else asked.test)
    system = system_of(
        candidate.name,
        given.task,
        said,
        given.seed,
        seconds=learnt.seconds + watch.taken.seconds,
        size=learnt.size,
        shared=learnt.shared,
        taken=watch.taken,
    )
    return Tried(candidate.name, candidate.method, system, tuple(sums), learnt.seconds, metric.lower), learnt


def _answered(
    tried: list[Tried], untried: list[Untried], asked: ComparisonData, keeps: Learnt | None, seconds: float
) -> Comparison:
    """The sentence, and the adapter with what was found in its record."""
    given, chosen = asked.given, best(tried)
    assert chosen is not None
    ours = best([t for t in tried if not t.classical])
    rival = best([t for t in tried if t.classical]) or best([t for t in tried if t is not ours])
    answer: Answer = "cannot tell"
    line = "Cannot tell: only classical systems were tried; give more time (--minutes) or other methods."
    if ours is not None and rival is None:
        line = f"Cannot tell: {ours.name} alone was tried, there is nothing to compare it with."
    elif ours is not None and rival is not None:
        verdict = gate(ours.metric, ours.system, None, rival.system, who=ours.name, seed=given.seed)
        answer, line = verdict.answer, verdict.line
    adapter = keeps.adapter if keeps else None
    if adapter is not None and ours is not None:
        for name, (value, origin) in score_facts({ours.metric: ours.system.score}).items():
            adapter.record.add(name, value, origin)
        adapter.record.add("test.data.fingerprint", rows_hash(asked.tested), "hashed")
        facts = {"score": ours.metric, "held_out": ours.held_out, "folds": ours.folds}
        facts |= {"among": [t.name for t in tried]}
        adapter.record.add("compare", facts, "measured on folds of the training rows, drawn by seed")
    return Comparison(
        given.task, len(given.rows), tuple(tried), tuple(untried), chosen.name, answer, line, seconds, adapter
    )
