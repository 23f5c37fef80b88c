"""Counts which documents a run has read. This is a function of the recipe's order and the number of steps, so no log is needed.

The rows of a step do not depend on the number of processes or on interruptions, and an extended run reads in the same order. Steps that
were skipped for a loss that is not finite count as read (`train.skipped_steps` in the record).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebase.artifact.files import MANIFEST
from onebase.artifact.record import Record
from onebase.data import Dataset, RowPlan
from onebase.data.sources import TRAIN
from onebase.errors import ArtifactError, DataError
from onebase.pretraining.claim import kept_recipe
from onebase.pretraining.recipe import Recipe
from onebase.pretraining.report import epochs_of, share
from onebase.pretraining.rows import rows_of
from onebase.pretraining.vocabulary import run_tokenizer
from onebase.train.checkpoint import checkpoint_step, list_checkpoints

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SourceRead:
    """Documents of a source by how often they were read completely, and its tokens: in the data, and read (with repetitions). in_part: documents of
    several pieces that were not read completely."""

    documents: int
    never: int
    in_part: int
    once: int
    twice: int
    more: int
    tokens: int
    tokens_read: int


@dataclass(frozen=True)
class DocumentRead:
    """One document. times: how often it was read completely. tokens: its tokens. tokens_read: with repetitions. steps: those with a piece of it (from
    0, as in `log.jsonl`)."""

    id: str
    hash: str
    source: str
    split: str
    times: int = 0
    tokens: int = 0
    tokens_read: int = 0
    steps: tuple[int, ...] = ()

    def line(self) -> str:
        """One readable line."""
        name = f"{self.id} ({self.source}, {self.hash[:16]})"
        if self.split != TRAIN:
            return f"{name}: held out, never read"
        if not self.steps:
            return f"{name}: never read"
        often = {0: "in part", 1: "once", 2: "twice"}.get(self.times, f"{self.times} times")
        steps = ", ".join(map(str, self.steps[:20])) + (
            f" and {len(self.steps) - 20} more" if len(self.steps) > 20 else ""
        )
        return f"{name}: read {often}, {self.tokens_read:,} tokens (of {self.tokens:,}); steps {steps}"


@dataclass(frozen=True)
class DocumentsRead:
    """Documents and tokens that `steps` steps of a run read, by source. `document` reports on one document."""

    path: Path
    steps: int
    rows: int
    epochs: float
    sources: dict[str, SourceRead]
    _plan: RowPlan = field(repr=False)
    _pieces: Ints = field(repr=False)  # how often each was read
    _dataset: Dataset = field(repr=False)

    def document(self, name: str) -> list[DocumentRead]:
        """The documents with this id or hash prefix (several sources may use an id). Raises DataError if there is none."""
        matches = [self._one(row) for row in self._dataset.find(name)]
        if not matches:
            raise DataError(
                f"the data of {self.path} has no document {name!r}",
                "give its id in the source, or its hash (at least 8 hex digits); a removed duplicate is listed under the id of the copy that was "
                "kept",
            )
        return matches

    def _one(self, row: dict[str, Any]) -> DocumentRead:
        about = (str(row["id"]), row["hash"], row["source"], row["split"])
        numbers = self._plan.tokenset.numbers(row["hash"]) if row["split"] == TRAIN else []
        if not numbers:
            return DocumentRead(*about)
        first, last = np.searchsorted(self._plan.documents, [numbers[0], numbers[0] + 1])
        mine, tokens = self._pieces[first:last], self._plan.piece_tokens[first:last]
        steps = _steps_with(self._plan, self.steps, range(first, last)) if mine.any() else ()
        return DocumentRead(*about, int(mine.min()), int(tokens.sum()), int((mine * tokens).sum()), steps)

    @property
    def facts(self) -> dict[str, Any]:
        """The counts as plain data."""
        sources = {k: asdict(v) for k, v in self.sources.items()}
        return {
            "path": str(self.path),
            "steps": self.steps,
            "rows": self.rows,
            "epochs": self.epochs,
            "sources": sources,
        }

    @property
    def text(self) -> str:
        """A readable table."""
        head = ("source", "documents", "never", "in part", "once", "twice", "more", "tokens", "tokens read")
        lines = [head, *((k, *(f"{n:,}" for n in vars(v).values())) for k, v in self.sources.items())]
        wide = [max(len(line[i]) for line in lines) for i in range(len(head))]
        table = [
            "  ".join([f"{a:<{wide[0]}}", *(f"{b:>{w}}" for b, w in zip(rest, wide[1:], strict=True))])
            for a, *rest in lines
        ]
        return "\n".join(
            [f"{self.path}: {self.steps:,} steps, {share(self.epochs)}, {self.rows:,} rows", *table]
        )


def documents_read(run: str | Path) -> DocumentsRead:
    """Count the documents that the base of a run has read (an unfinished run: up to its newest checkpoint), from its order.

    run: a run folder of `onebase pretrain`, or a base in it. Raises UserError if files that the order depends on (recipe.json, data/,
    tokenizer.json) are missing, or are not those that the base was trained with.
    """
    path = Path(run)
    if not any((p / "recipe.json").is_file() for p in (path, path.parent)):
        path = path.resolve()  # a name in the store is a link
    out = path if (path / "recipe.json").is_file() else path.parent
    base = out / "base" if out == path else path
    if not (out / "recipe.json").is_file():
        raise ArtifactError(
            f"{path} is not in the folder of its run, so the documents it read cannot be counted",
            "give the run folder of onebase pretrain (recipe.json, data/, tokenizer.json), or a base in it",
        )
    record = Record.load(base) if (base / MANIFEST).is_file() else None
    checkpoints = list_checkpoints(out / "checkpoints")
    if record is None and not checkpoints:
        raise ArtifactError(f"{out} has neither a finished base nor a checkpoint", "run it first")
    steps = checkpoint_step(checkpoints[-1]) if record is None else int(record.get("train.steps"))
    recipe = kept_recipe(out)
    plan, dataset = _plan(recipe, out)
    now = {
        "data.order": plan.digest,
        "data.fingerprint": dataset.fingerprint,
    }  # older records have only the second
    if record is not None and any(record.get(k) not in (None, v) for k, v in now.items()):
        raise ArtifactError(
            f"the data, tokenizer or recipe in {out} are not those that {base} was trained with",
            "restore them",
        )
    pieces = np.zeros(len(plan.documents), np.int64)
    for _, rows in plan.read(steps):
        np.add.at(pieces, np.concatenate(rows), 1)
    shown = out if record is None else base
    return DocumentsRead(
        shown,
        steps,
        steps * plan.batch_size,
        epochs_of(plan, steps),
        _by_source(plan, pieces),
        plan,
        pieces,
        dataset,
    )


def _plan(recipe: Recipe, out: Path) -> tuple[RowPlan, Dataset]:
    dataset = Dataset.open(recipe.data.dataset or out / "data")
    tokenizer = run_tokenizer(recipe, out, dataset, None)
    return rows_of(recipe, out, dataset, tokenizer)[2], dataset


def _by_source(plan: RowPlan, pieces: Ints) -> dict[str, SourceRead]:
    first = np.flatnonzero(np.diff(plan.documents, prepend=-1))  # of each document
    least, most = np.minimum.reduceat(pieces, first), np.maximum.reduceat(pieces, first)
    tokens = np.add.reduceat(plan.piece_tokens, first)
    read = np.add.reduceat(plan.piece_tokens * pieces, first)
    out = {}
    for i, name in enumerate(plan.tokenset.sources):
        mine = plan.tokenset.source_numbers == i
        times = least[mine]
        counts = (mine, most[mine] == 0, (times == 0) & (most[mine] > 0), times == 1, times == 2, times > 2)
        sums = (*(x.sum() for x in counts), tokens[mine].sum(), read[mine].sum())
        out[name] = SourceRead(*map(int, sums))
    return out


def _steps_with(plan: RowPlan, steps: int, pieces: Sequence[int]) -> tuple[int, ...]:
    """The steps that read one of these pieces, whose numbers are consecutive."""
    hits: list[int] = []
    for first, rows in plan.read(steps):
        all_of = np.concatenate(rows)
        row_of = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        hit = row_of[(all_of >= pieces[0]) & (all_of <= pieces[-1])]
        hits += ((first + hit) // plan.batch_size).tolist()
    return tuple(sorted(set(hits)))
