"""The record of an artifact as text, table or JSON: every value with its origin, unknown values marked as unknown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebase.artifact.files import read_manifest
from onebase.artifact.record import RECORD, Origin, Record
from onebase.govern.store import read_entry
from onebase.govern.summary import summary
from onebase.readable import figure

if TYPE_CHECKING:
    from rich.console import Console

UNKNOWN, NOT_SET = "unknown", "not set"
Row = tuple[str, str, str]
"""(field, value, origin)"""
# Fields that are expected per kind. A field counts as known if an event has this name or prefix ("flops.counted").
EXPECTED = {
    "base": ("config", "data", "tokens", "flops", "energy", "seconds", "machine", "versions", "scores"),
    "adapter": ("task", "method", "data", "parameters", "seconds", "machine", "versions", "scores"),
    "dataset": ("sources", "seed", "holdout"),
    "run": ("config", "seconds", "machine", "versions"),
}


def describe(folder: str | Path) -> dict[str, Any]:
    """The artifact as JSON data, for `onebase show REF --json`. Unknown values are null. Raises ArtifactError.

    "summary" is a list of {"question", "answer", "origin"} (`govern.summary`). "facts" is a list of {"field", "value", "origin", "time",
    "times"}: the latest value of each field, and how often it was recorded.
    """
    folder = Path(folder)
    manifest, entry = read_manifest(folder), read_entry(folder)
    record = Record.load(folder) if (folder / RECORD).is_file() else Record(entry.kind)
    facts = []
    for name in dict.fromkeys(e.field for e in record.events):
        events = [e for e in record.events if e.field == name]
        last = events[-1]
        row = {
            "field": name,
            "value": last.value,
            "origin": last.origin,
            "time": last.time,
            "times": len(events),
        }
        facts.append(row)
    for name in EXPECTED.get(entry.kind, ()):
        if not any(f["field"] == name or f["field"].startswith((name + ".", name + "_")) for f in facts):
            facts.append({"field": name, "value": None, "origin": "not recorded", "time": None, "times": 0})
    missing = [f["field"] for f in facts if f["value"] is None and not _not_set(f)]
    overview = summary(record, entry.kind, missing)
    return {
        "summary": [dict(zip(("question", "answer", "origin"), row, strict=True)) for row in overview],
        "path": str(folder),
        "kind": entry.kind,
        "fingerprint": entry.fingerprint or None,
        "created": entry.created,
        "bytes": sum(f["bytes"] for f in manifest["files"].values()),
        "files": {name: f["bytes"] for name, f in manifest["files"].items()},
        "hashes": record.hashes,
        "parents": record.parents,
        "facts": facts,
        "manifest": manifest["facts"],
    }


def lines(folder: str | Path) -> list[str]:
    """The artifact as lines `field  value  [origin]`: the summary, an empty line, then all fields. Raises ArtifactError."""
    data = describe(folder)
    return [*_aligned(list(answers(data))), "", *_aligned(list(_rows(data)))]


def _aligned(rows: list[Row]) -> list[str]:
    wide = max(len(field) for field, _, _ in rows)
    return [f"{field:<{wide}}  {value}  [{origin}]" for field, value, origin in rows]


def show(folder: str | Path, console: Console | None = None) -> None:
    """Print the artifact as a table. Raises ArtifactError."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("field", "value", "origin", title=clean(Path(folder).name), title_justify="left")
    data = describe(folder)
    for part in (answers(data), _rows(data)):
        for row in part:
            # Text is not parsed for markup
            table.add_row(*(Text(cell, style="dim" if cell == UNKNOWN else "") for cell in row))
        table.add_section()
    (console or Console()).print(table)


def clean(text: str) -> str:
    """`text` with control characters escaped, because a foreign record must not control the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _rows(data: dict[str, Any]) -> Iterator[Row]:
    yield from about(data)
    yield from fact_rows(data["facts"])


def answers(data: dict[str, Any]) -> Iterator[Row]:
    """The summary of `describe` as text."""
    for row in data["summary"]:
        yield row["question"], clean(row["answer"]), clean(row["origin"])


def about(data: dict[str, Any]) -> Iterator[Row]:
    """The fields of `describe` other than summary and facts, as text."""
    for name, origin in (
        ("kind", "manifest"),
        ("fingerprint", "manifest"),
        ("created", "record"),
        ("bytes", "manifest"),
    ):
        yield name, as_text(data[name]), origin
    for name, value in data["hashes"].items():
        if name != "fingerprint":
            yield clean(f"hash of {name}"), as_text(value), "record"
    for parent in data["parents"]:
        text = f"{parent['kind']} {parent['name'] or '(no name)'} {parent['fingerprint'] or UNKNOWN}"
        yield "parent", clean(text), "record"
    if not data["parents"]:
        yield "parent", "none recorded", "record"


def fact_rows(facts: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """Facts of `describe`, one row for each nested value."""
    for fact in facts:
        again = f" (latest of {fact['times']})" if fact["times"] > 1 else ""
        for field, value in _leaves(fact["field"], fact["value"]):
            text = NOT_SET if value is None and _not_set(fact) else as_text(value)
            yield clean(field), text, clean(fact["origin"]) + again


def _not_set(fact: dict[str, Any]) -> bool:
    """Whether a missing value is a choice (of the user, the recipe or the default), or a part that a config does not have."""
    chosen = Origin.of(fact["origin"]) in (Origin.DEFAULT, Origin.USER, Origin.RECIPE)
    return chosen or fact["field"].startswith("config.")


def _leaves(field: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _leaves(f"{field}.{key}", part)
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for i, part in enumerate(value):
            yield from _leaves(f"{field}.{i}", part)
    else:
        yield field, value


def as_text(value: Any) -> str:
    """A value as `show` prints it."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, (list, dict)):
        items = value if isinstance(value, list) else list(value)
        return ", ".join(as_text(part) for part in items) if items else "none"
    return clean(str(value))
