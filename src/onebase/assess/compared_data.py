"""Data of a comparison: rows are read, checked and split into folds before any base is opened."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from onebase.assess.candidates import CONTRAST, Comparing, methods_of
from onebase.data import Rows, read_rows
from onebase.data.file_hashes import files_read
from onebase.data.labelled import Data, Records, check_labels
from onebase.draws import Draws
from onebase.engine.image_features import file_hash, image_paths
from onebase.errors import DataError, UserError
from onebase.methods.table import method_of
from onebase.opening.names import resolved
from onebase.tasks.job import AboutData, rows_hash
from onebase.tasks.options import COMMON, read_options, task_options
from onebase.tasks.table import TASKS
from onebase.tasks.tune import LEAST, groups_of

FOLDS = 5
"""Cross-validation folds, drawn by seed. A candidate trains on four and is scored on the fifth, for as many folds as the time allows."""

TASK_BY_COLUMN = {
    "label": "classify",
    "labels": "classify",
    "value": "regress",
    "spans": "tag",
    "completion": "complete",
    "messages": "chat",
    "anchor": "embed",
    "grades": "rerank",
    "answers": "extract",
}
"""The default task of rows with a column of that name."""


@dataclass(frozen=True)
class ComparisonData:
    """Data of a comparison, read and checked: training rows, test rows, methods, time limit and the fold of each training row."""

    given: Comparing
    test: Records
    tested: Rows
    methods: Sequence[str]
    classical: bool
    seconds: float
    folds: list[int] = field(repr=False)


def comparison_data(
    data: Data,
    test: Data,
    *,
    task: str | None = None,
    methods: Sequence[str] | None = None,
    minutes: float = 10.0,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> ComparisonData:
    """Read and check the data of a comparison. Raises UserError for an unknown task or method, DataError for unsuitable rows: only one label, test
    rows among the training rows, a label that only test rows have, too few rows."""
    if not 0 < minutes < math.inf:
        raise UserError(f"minutes is {minutes:g}", "give a number above 0")
    opened = TASKS[task].opened if task in TASKS else lambda given: given  # for example files of text
    with files_read() as files:
        records = Records.of(opened(resolved(data)), columns).kept()
    with files_read() as test_files:
        tests = Records.of(opened(resolved(test)), columns).kept()
    name = task or task_of(records)
    able = [t.name for t in TASKS.values() if t.tuned_by]
    if name not in able:
        raise UserError(
            f"task {name!r} cannot be compared", f"tasks with a score to choose by: {', '.join(able)}"
        )
    chosen = TASKS[name]
    chosen_methods, classical = methods_of(methods, name)
    options = dict(options or {})
    _refuse_unknown(options, name, chosen_methods)
    known, tested = (read_rows(r, _required(r, name), check=chosen.check) for r in (records, tests))
    _refuse_labels(known, tested)
    if "test-in-train" not in options.get("allow", ()):
        _refuse_shared(chosen.compared, known, tested)
    reads = ("image",) if _pictured(known) else chosen.reads
    seed = read_options({k: v for k, v in options.items() if k == "seed"}, name, "lora").seed
    folds = folds_of(known, seed, reads)
    about = AboutData(files=tuple(files), test_files=tuple(test_files))
    given = Comparing(name, records, known, options, reads, seed, about)
    return ComparisonData(given, tests, tested, chosen_methods, classical, 60 * minutes, folds)


def task_of(records: Records) -> str:
    """The task of rows, inferred from their columns. Raises UserError if no column determines it."""
    present = {c for row in records.sound for c in row}
    task = next((task for column, task in TASK_BY_COLUMN.items() if column in present), None)
    if task is None:
        known = ", ".join(f"{c} ({t})" for c, t in TASK_BY_COLUMN.items())
        raise UserError(
            f"the task cannot be inferred from the columns {', '.join(sorted(present)) or '(none)'}",
            f"give --task NAME, or map a column: --column label=NAME; known columns: {known}",
        )
    return task


def folds_of(rows: Rows, seed: int, reads: Sequence[str]) -> list[int]:
    """The fold of each row, 0 to 4, drawn by seed; -1: always trained on. Rows with the same content are in one fold, the folds are stratified by
    label (for several labels by the rarest one of a row), and no label is in one fold only. Raises DataError for too few rows."""
    labels = [labels_of(r) for r in rows]
    common = Counter(x for each in labels for x in each)
    strata: dict[str, list[list[int]]] = {}
    for group in groups_of(rows, reads):
        rarest = min(sorted(labels[group[0]]), key=lambda x: common[x], default="")
        strata.setdefault(rarest, []).append(group)
    draws, at = Draws(seed, "folds"), 0
    fold = [-1] * len(rows)
    for label in sorted(strata):
        groups = strata[label]
        if len(groups) < 2 and label:
            continue
        for g in draws.permutation(len(groups)).tolist():
            for i in groups[g]:
                fold[i] = at % FOLDS
            at += 1
    for label in sorted(common):
        mine = [i for i, each in enumerate(labels) if label in each]
        if len({fold[i] for i in mine}) == 1 and fold[mine[0]] >= 0:
            for i in next(g for g in groups_of(rows, reads) if mine[0] in g):
                fold[i] = -1
    if len(rows) < LEAST or any(f not in fold for f in range(FOLDS)):
        raise DataError(
            f"{len(rows)} training rows are too few for {FOLDS}-fold cross-validation",
            f"give at least {LEAST} different rows, with several of each label",
        )
    return fold


def labels_of(row: Mapping[str, Any]) -> set[str]:
    """The labels of a row: its label, its labels, or those of its spans."""
    if "label" in row:
        return {str(row["label"])}
    if isinstance(row.get("labels"), (list, tuple)):
        return set(row["labels"])
    return {s["label"] for s in row.get("spans", ())}


def _required(records: Records, task: str) -> tuple[str, ...]:
    """The columns that rows of a task must have, for checks without a base."""
    present = {c for row in records.sound for c in row}
    if task == "classify":
        return (
            "image" if "image" in present and "text" not in present else "text",
            "labels" if "labels" in present and "label" not in present else "label",
        )
    columns = TASKS[task].columns
    return columns if isinstance(columns, tuple) else ()


def _pictured(rows: Rows) -> bool:
    return "image" in rows[0] and "text" not in rows[0]


def _refuse_unknown(options: Mapping[str, Any], task: str, methods: Sequence[str]) -> None:
    """Raises ConfigError for an option that no candidate has."""
    known = {f.name for f in COMMON} | {f.name for f in fields(task_options(task))}
    own = [method_of("lora" if m == CONTRAST else m) for m in methods]
    known |= {name for m in own for name in m.option_names}
    for name in options.keys() - known:
        read_options({name: options[name]}, task, own[0].name if own else "lora")


def _refuse_labels(known: Rows, tested: Rows) -> None:
    """Raises DataError for rows of one label, and for labels that only test rows have."""
    train, test = ([{"label": x} for r in rows for x in sorted(labels_of(r))] for rows in (known, tested))
    if "label" in known[0] and len({r["label"] for r in train}) < 2:
        raise DataError(
            f"all {len(known)} training rows have the label {train[0]['label']!r}",
            "give rows of at least two labels",
        )
    if train:
        check_labels(train, test)


def _refuse_shared(compared: Sequence[str], known: Rows, tested: Rows) -> None:
    """Raises DataError for test rows that are among the training rows."""
    by = [c for c in compared if c in known[0]] or [
        c for c in ("anchor", "messages", "prompt") if c in known[0]
    ]

    def keys(rows: Rows) -> list[str]:
        if _pictured(rows):
            return [file_hash(path) for path in image_paths(rows, rows)]
        return [rows_hash([{c: r.get(c) for c in by}]) for r in rows]

    train = set(keys(known))
    shared = [i for i, key in enumerate(keys(tested)) if key in train] if by or _pictured(known) else []
    if shared:
        raise DataError(
            f"{len(shared)} of {len(tested)} test rows are among the training rows, first {tested.places[shared[0]]}",
            "remove them from one of the two: memorised rows measure nothing (or allow it: -o 'allow=[test-in-train]')",
        )
