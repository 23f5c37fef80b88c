"""Rows that know where they stand, and the one error that lists all that are bad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from onebase.codec.text.sample import Tokens
from onebase.errors import DataError

SHOWN = 20
"""Bad rows that an error lists; of the others it says how many there are."""
Samples = tuple[Tokens, ...]
"""What a row is as tokens: one text or several."""


class Rows(list[dict[str, Any]]):
    """Rows with their `places` (`file:line`, or `row n` of a list), the folder that relative paths in them begin at, the `columns` that were
    named anew, the `source` of those that are from the Hub (repo, revision, files), and the `name` of the file that they are from.

    samples: what each row is as tokens, where a task has read them; then one entry a row. `read_rows` makes them, and gives them back with their
    places when it is given them again. Equal to a plain list of the same rows.
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
        """These of the rows, by number from 0, with their samples."""
        samples = [self.samples[i] for i in which] if self.samples else ()
        kept = (self.folder, self.columns, self.source, self.name)
        return Rows([self[i] for i in which], [self.places[i] for i in which], *kept, samples, self.notes)

    def named(self, ends: Sequence[str] = ("",), first: int = 1) -> list[Samples]:
        """The samples, their texts called by the number of their row from `first` on, and an end for each text of a row."""
        return [
            tuple(replace(t, id=f"{i}{end}") for t, end in zip(each, ends, strict=True))
            for i, each in enumerate(self.samples, first)
        ]

    @property
    def texts(self) -> list[Tokens]:
        """All texts of the samples, one after the other, called by number from 0."""
        return [replace(t, id=str(i)) for i, t in enumerate(t for each in self.samples for t in each)]


class Bad(NamedTuple):
    """A bad row: its number among those looked at (from 0), its place, what is wrong with it, what to do."""

    at: int
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}{' ' if self.what.startswith(('has ', 'is ')) else ': '}{self.what}"


class BadRows(DataError):
    """All bad rows of some `total`, the first 20 in its text (3 where all are bad alike). One alone is said in one line."""

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
            remedies[0] if len(remedies) == 1 else "mend these rows or remove them",
        )


def places_of(rows: Sequence[Any]) -> list[str]:
    """Where each row stands: as `Rows` know it, else by number."""
    return rows.places if isinstance(rows, Rows) else [f"row {i}" for i in range(1, len(rows) + 1)]


def refuse_bad(found: Mapping[int, tuple[str, str]], places: Sequence[str]) -> None:
    """Raise BadRows for rows of `places` by number from 0: what is wrong with each and what to do. Does nothing where there are none."""
    if found:
        raise BadRows([Bad(i, places[i], *said) for i, said in found.items()], len(places))
