"""Rows that know where they stand, and the one error that lists all that are bad."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from onebase.errors import DataError

T = TypeVar("T")

SHOWN = 20
"""Bad rows that an error lists; of the others it says how many there are."""


class Rows(list[dict[str, Any]]):
    """Rows with their `places` (`file:line`, or `row n` of a list), the folder that relative paths in them begin at, the `columns` that were
    named anew, and the `source` of those that are from the Hub (repo, revision, files).

    `read_rows` makes them, and gives them back with their places when it is given them again. Equal to a plain list of the same rows.
    made: what was made of them, by what it is, so that it is made once (`once`).
    """

    def __init__(
        self,
        rows: Iterable[dict[str, Any]],
        places: Sequence[str] = (),
        folder: Path | None = None,
        columns: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(rows)
        self.places = list(places) or [f"row {i}" for i in range(1, len(self) + 1)]
        self.folder = folder or Path()
        self.columns, self.source = dict(columns or {}), dict(source or {})
        self.made: dict[object, Any] = {}


def once(rows: Sequence[Any], what: object, make: Callable[[], T]) -> T:
    """What `make` makes of the rows. They keep it, so that who asks for it again is given the same; plain lists keep nothing."""
    if not isinstance(rows, Rows):
        return make()
    if what not in rows.made:
        rows.made[what] = make()
    found: T = rows.made[what]
    return found


class Bad(NamedTuple):
    """A bad row: its number among those looked at (from 0), its place, what is wrong with it, what to do."""

    at: int
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}{' ' if self.what.startswith(('has ', 'is ')) else ': '}{self.what}"


FindsFlaw = Callable[[Mapping[str, Any]], tuple[str, str] | None]
"""What is wrong with a row, and what to do; None where nothing is."""


class BadRows(DataError):
    """All bad rows of some `total`, the first 20 in its text; `good` are those that were right. One alone is said in one line."""

    def __init__(self, bad: Sequence[Bad], total: int, good: Rows | None = None) -> None:
        self.bad, self.total = sorted(bad), total
        self.good = Rows([]) if good is None else good
        remedies = list(dict.fromkeys(b.remedy for b in self.bad))
        if len(self.bad) == 1:
            super().__init__(str(self.bad[0]), remedies[0])
            return
        shown = [f"\n    {b}" for b in self.bad[:SHOWN]]
        more = f"\n    and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
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


def refuse_flawed(rows: Sequence[Any], flaw: FindsFlaw) -> None:
    """`refuse_bad` for the rows in which `flaw` finds something."""
    refuse_bad({i: said for i, row in enumerate(rows) if (said := flaw(row)) is not None}, places_of(rows))
