"""Rows that know their position in a file, and the one error that lists all bad rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from onebase.errors import DataError
from onebase.modality.text.sample import Tokens

SHOWN = 20
"""Bad rows that an error lists; the rest are only counted."""
Samples = tuple[Tokens, ...]
"""A row as tokens: one text or several."""


class Rows(list[dict[str, Any]]):
    """Rows with their origin. Equal to a plain list of the same rows.

    places: position of each row (`file:line`, or `row n` of a list). folder: relative paths in the rows start here. columns: the renamed columns.
    source: of rows from the Hub (repo, revision, files). name: of the file. samples: each row as tokens, one entry a row, once a task has read
    them. `read_rows` creates them, and returns them with their positions when it gets them again.
    """

    def __init__(
        self,
        rows: Iterable[dict[str, Any]] = (),
        places: Sequence[str] = (),
        folder: Path | None = None,
        columns: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        name: str | None = None,
        samples: Sequence[Samples] = (),
        notes: dict[str, str] | None = None,
    ) -> None:
        super().__init__(rows)
        self.places = list(places) or [f"row {i}" for i in range(1, len(self) + 1)]
        self.folder = folder or Path()
        self.columns, self.source = dict(columns or {}), dict(source or {})
        self.name, self.samples = name, list(samples)
        self.notes = {} if notes is None else notes  # filled while the file is read

    def some(self, which: Sequence[int]) -> Rows:
        """The rows with these numbers (from 0), with their samples."""
        samples = [self.samples[i] for i in which] if self.samples else ()
        kept = (self.folder, self.columns, self.source, self.name)
        return Rows([self[i] for i in which], [self.places[i] for i in which], *kept, samples, self.notes)

    def named(self, ends: Sequence[str] = ("",), first: int = 1) -> list[Samples]:
        """The samples; the id of each text is the number of its row (counted from `first`) and one of `ends` per text of a row."""
        return [
            tuple(replace(t, id=f"{i}{end}") for t, end in zip(each, ends, strict=True))
            for i, each in enumerate(self.samples, first)
        ]

    @property
    def texts(self) -> list[Tokens]:
        """All texts of the samples in order; their ids are numbers from 0."""
        return [replace(t, id=str(i)) for i, t in enumerate(t for each in self.samples for t in each)]


class Bad(NamedTuple):
    """A bad row: its number among the checked rows (from 0), its position, the problem, the remedy."""

    at: int
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}{' ' if self.what.startswith(('has ', 'is ')) else ': '}{self.what}"


class BadRows(DataError):
    """All bad rows out of `total`. The message lists the first 20 (3 if every row has the same remedy); a single one takes one line."""

    def __init__(self, bad: Sequence[Bad], total: int) -> None:
        self.bad, self.total = sorted(bad), total
        remedies = list(dict.fromkeys(b.remedy for b in self.bad))
        if len(self.bad) == 1:
            super().__init__(str(self.bad[0]), remedies[0])
            return
        most = 3 if len(self.bad) == total and len(remedies) == 1 else SHOWN
        shown = [f"\n    {b}" for b in self.bad[:most]]
        more = f"\n    and {len(self.bad) - most} more" if len(self.bad) > most else ""
        super().__init__(
            f"{len(self.bad)} of {total} rows cannot be used:{''.join(shown)}{more}",
            remedies[0] if len(remedies) == 1 else "fix or remove these rows",
        )


def left_out(bad: Sequence[str], why: str) -> str:
    """What is said of documents that are left out: how many, why, and the first 20 by name."""
    more = f"\n    and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
    lines = "".join(f"\n    {b}" for b in bad[:SHOWN])
    return f"{len(bad):,} documents are left out because {why}:{lines}{more}"


def places_of(rows: Sequence[Any]) -> list[str]:
    """Position of each row: from `Rows`, else its number."""
    return rows.places if isinstance(rows, Rows) else [f"row {i}" for i in range(1, len(rows) + 1)]


def refuse_bad(found: Mapping[int, tuple[str, str]], places: Sequence[str]) -> None:
    """Raise BadRows if `found` has entries: row number (from 0, an index into `places`) to (problem, remedy)."""
    if found:
        raise BadRows([Bad(i, places[i], *problem) for i, problem in found.items()], len(places))
