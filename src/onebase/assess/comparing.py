"""`onebase.compare`: find the best of classical systems and methods on bases for a task; chosen on training rows, reported on test rows."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from onebase import plugins
from onebase.assess.candidates import (
    CLASSICAL,
    Candidate,
    Trained,
    Untried,
    base_candidates,
    classical_candidates,
)
from onebase.assess.compared_data import FOLDS, ComparisonData, comparison_data
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
    log: Callable[[str], object] = lambda line: None,
    **options: object,
) -> Comparison:
    """Find the best system for a task: a classical one, or a prompt, head, contrast, LoRA or full fine-tuning of a base (docs/evaluation.md).

    The best is chosen by cross-validation on `data`; `test` is scored once. Candidates that do not fit into `minutes` are listed with the time
    they need. task: inferred from the columns by default. methods: a selection from the task's methods, `contrast` and `classical`. options: of
    adaptation, for the candidates that have them. All bases are in memory together. Returns a `Comparison`: `line`, `table`, `facts`, `adapter`
    (the best one on a base), `write_page`. Raises UserError for a base that is missing or does not support the task, rows with one label, test
    rows that are also in `data`, or labels that only `test` has, all before training."""
    if isinstance(bases, (str, Path, Bound)) or not bases:
        raise UserError("bases is not a list of bases", "give at least one, as compare([BASE], data, test)")
    plugins.load()  # tasks and methods of plug-ins
    for ref in bases:
        if not isinstance(ref, Bound):
            expect_base(ref)
    spec = comparison_data(
        data, test, task=task, methods=methods, minutes=minutes, columns=columns, options=options
    )
    opened = [
        ref if isinstance(ref, Bound) else Bound.opened(open_base(ref, device=device, dtype=dtype))
        for ref in bases
    ]
    return compared(opened, spec, log)


def compared(
    bases: Sequence[Bound], spec: ComparisonData, log: Callable[[str], object] = lambda _: None
) -> Comparison:
    """Try candidates, the cheapest first, within the time limit. Each is cross-validated on the training rows, trained on all of them, and scored on
    the test rows. The best is chosen by cross-validation only. Raises UserError."""
    began = time.monotonic()

    def left() -> float:
        return spec.seconds - (time.monotonic() - began)

    candidates, untried = _candidates(bases, spec, left)
    folds, late = allotted(candidates, left())
    untried += late
    for u in untried:
        log(f"not tried: {u.name}: {u.why}")
    tried: list[Tried] = []
    kept: Trained | None = None
    for candidate in candidates:
        if candidate not in folds:
            continue
        if needed(candidate.seconds, 1) > max(left(), 0) and not candidate.classical:
            untried.append(Untried(candidate.name, "no time was left", needed(candidate.seconds, 1)))
            log(f"not tried: {candidate.name}: no time was left")
            continue
        log(f"{candidate.name}: about {duration(needed(candidate.seconds, folds[candidate]))}")
        result, trained = _tried(candidate, folds[candidate], spec, left)
        tried.append(result)
        log(
            f"{result.name}: {result.metric} {result.held_out:.3f} in {result.folds} of {FOLDS} folds, trained in {duration(result.seconds)}"
        )
        if trained.adapter is not None and best([t for t in tried if not t.classical]) is result:
            kept = trained
    if not tried:
        raise UserError(
            "no candidate fits into the time", f"give more: --minutes; {untried[0].name}: {untried[0].why}"
        )
    return _result(tried, untried, spec, kept, time.monotonic() - began)


def allotted(candidates: Sequence[Candidate], seconds: float) -> tuple[dict[Candidate, int], list[Untried]]:
    """The number of folds of each candidate, the cheapest first, and the candidates that do not fit into the time, with the time they need. As many
    candidates as possible get one fold, then more while there is time."""
    folds: dict[Candidate, int] = {}
    late = []
    for c in candidates:
        if (
            c.classical
            or sum(needed(x.seconds, n) for x, n in folds.items()) + needed(c.seconds, 1) <= seconds
        ):
            folds[c] = 1
        else:
            late.append(
                Untried(
                    c.name,
                    f"it needs about {duration(needed(c.seconds, 1))}, more than is left",
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
    """Seconds to try a candidate that trains on all rows in `seconds`: each fold trains on four fifths and predicts the rest, and at the end it
    trains on all rows and predicts the test rows (predicting adds a tenth)."""
    return 1.1 * seconds * ((FOLDS - 1) / FOLDS * folds + 1)


def best(tried: Sequence[Tried]) -> Tried | None:
    """The best by cross-validation, the earlier (cheaper) one of equals. Two candidates are compared on the folds that both were scored on."""
    top: Tried | None = None
    for t in tried:
        if top is None:
            top = t
            continue
        n = min(t.folds, top.folds)
        mine, its = t.held_out_of(n), top.held_out_of(n)
        if (mine < its if t.lower else mine > its) or math.isnan(its):
            top = t
    return top


def _candidates(
    bases: Sequence[Bound], spec: ComparisonData, left: Callable[[], float]
) -> tuple[list[Candidate], list[Untried]]:
    """All candidates, the cheapest first. Raises UserError for a base that does not support the task, or without any candidate."""
    untried: list[Untried] = []
    candidates: list[Candidate] = []
    if spec.classical:
        try:
            candidates = classical_candidates(spec.given)
        except UserError as e:  # scikit-learn is an extra
            untried.append(Untried(CLASSICAL, f"{e.cause}: {e.remedy}"))
    names = Counter(b.name for b in bases)
    for base in bases:
        name = base.name if names[base.name] == 1 else f"{base.name} ({base.fingerprint[4:10]})"
        fitting, others = base_candidates(base.plain, name, spec.methods, spec.given, left)
        candidates, untried = candidates + fitting, untried + others
    return sorted(candidates, key=lambda c: c.seconds), untried


def _tried(
    candidate: Candidate, folds: int, spec: ComparisonData, left: Callable[[], float]
) -> tuple[Tried, Trained]:
    """Cross-validate a candidate on `folds` folds, fewer if they take longer than planned; then train on all rows and predict the test rows."""
    given, every = spec.given, list(range(len(spec.folds)))
    sums: list[RowSums] = []
    with candidate.folding():
        for fold in range(folds):
            began = time.monotonic()
            trained = candidate.train([i for i in every if spec.folds[i] != fold])
            outputs = trained.predict(given.rows.some([i for i in every if spec.folds[i] == fold]))
            metric = main_score(given.task, outputs)
            assert metric.sums is not None
            sums.append(metric.sums(outputs))
            if left() < 2.25 * (time.monotonic() - began) and fold + 1 < folds:
                break  # time for one more fold and for all rows: 1 + 5/4
    trained = candidate.train(every)
    with watching() as watch:
        outputs = trained.predict(spec.tested if candidate.classical else spec.test)
    system = system_of(
        candidate.name,
        given.task,
        outputs,
        given.seed,
        seconds=trained.seconds + watch.usage.seconds,
        size=trained.size,
        shared=trained.shared,
        usage=watch.usage,
    )
    return Tried(
        candidate.name, candidate.method, system, tuple(sums), trained.seconds, metric.lower
    ), trained


def _result(
    tried: list[Tried], untried: list[Untried], spec: ComparisonData, kept: Trained | None, seconds: float
) -> Comparison:
    """The comparison with its sentence, and the adapter with the results in its record."""
    given, chosen = spec.given, best(tried)
    assert chosen is not None
    ours = best([t for t in tried if not t.classical])
    rival = best([t for t in tried if t.classical]) or best([t for t in tried if t is not ours])
    answer: Answer = "cannot tell"
    line = "Cannot tell: only classical systems were tried; give more time (--minutes) or other methods."
    if ours is not None and rival is None:
        line = f"Cannot tell: only {ours.name} was tried, so there is nothing to compare it with."
    elif ours is not None and rival is not None:
        verdict = gate(ours.metric, ours.system, None, rival.system, who=ours.name, seed=given.seed)
        answer, line = verdict.answer, verdict.line
    adapter = kept.adapter if kept else None
    if adapter is not None and ours is not None:
        for name, (value, origin) in score_facts({ours.metric: ours.system.score}).items():
            adapter.record.add(name, value, origin)
        adapter.record.add("test.data.fingerprint", rows_hash(spec.tested), "hashed")
        facts = {"score": ours.metric, "held_out": ours.held_out, "folds": ours.folds}
        facts |= {"among": [t.name for t in tried]}
        adapter.record.add("compare", facts, "measured on folds of the training rows, drawn by seed")
    return Comparison(
        given.task, len(given.rows), tuple(tried), tuple(untried), chosen.name, answer, line, seconds, adapter
    )
