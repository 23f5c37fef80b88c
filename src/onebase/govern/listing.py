"""List the artifacts of the store with kind, parents, size and date."""

from dataclasses import dataclass
from typing import Any

from onebase.artifact.files import read_manifest
from onebase.artifact.record import RECORD, Record
from onebase.errors import ArtifactError, UserError
from onebase.govern.show import clean
from onebase.govern.store import FOLDERS, Store, StoreEntry
from onebase.readable import size


@dataclass(frozen=True)
class Listed:
    """A name in the store. what: task and method of an adapter, source of an imported base, "" if not recorded. made_from: names (or prefixes of
    fingerprints) of its parents. bytes: of all its files."""

    entry: StoreEntry
    what: str
    made_from: tuple[str, ...]
    bytes: int

    @property
    def fields(self) -> dict[str, Any]:
        """The entry as JSON data."""
        e = self.entry
        return {
            "name": e.name,
            "kind": e.kind,
            "what": self.what,
            "from": list(self.made_from),
            "bytes": self.bytes,
            "created": e.created,
            "fingerprint": e.fingerprint or None,
            "path": str(e.path),
            "parents": list(e.parents),
        }


def listed(store: Store, kind: str | None = None) -> tuple[list[Listed], tuple[str, ...]]:
    """All names, or those of one kind, and a line for each whose folder is missing or damaged. Raises UserError for an unknown kind."""
    if kind is not None and kind not in FOLDERS:
        raise UserError(f"kind {kind!r} is not known", f"kinds: {', '.join(FOLDERS)}")
    named = {e.fingerprint: e.name for e in store.list() if e.fingerprint}
    entries, missing = [], list(store.unreadable())
    for entry in store.list(kind):
        try:
            entries.append(_listed(entry, named))
        except (ArtifactError, OSError) as e:
            missing.append(f"{entry.name}: {e.cause if isinstance(e, ArtifactError) else e}")
    return entries, tuple(missing)


def _listed(entry: StoreEntry, named: dict[str, str]) -> Listed:
    manifest = read_manifest(entry.path)
    record = Record.load(entry.path / RECORD) if (entry.path / RECORD).is_file() else Record(entry.kind)
    what = [record.get(name) for name in ("task", "method")] if entry.kind == "adapter" else []
    hub = record.get("imported.hub")
    if entry.kind == "base":
        what = [hub["repo"] if isinstance(hub, dict) and "repo" in hub else record.get("imported.from")]
    parents = [
        named.get(str(p.get("fingerprint"))) or p.get("name") or f"{str(p.get('fingerprint'))[:16]}..."
        for p in entry.parents
    ]
    total = sum(f["bytes"] for f in manifest["files"].values())
    return Listed(entry, " ".join(str(x) for x in what if x), tuple(map(str, parents)), total)


def table(store: Store, entries: list[Listed]) -> str:
    """The list as a text table."""
    if not entries:
        return f"the store is empty ({store.root}); add a folder with: onebase list --add NAME=DIR"
    rows = [("name", "kind", "what", "from", "size", "created")]
    rows += [
        (
            x.entry.name,
            x.entry.kind,
            x.what or "-",
            ", ".join(x.made_from) or "-",
            size(x.bytes),
            x.entry.created[:10],
        )
        for x in entries
    ]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(w) if i == 4 else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, wide, strict=True))
        )
        for row in rows
    ]
    return "\n".join(clean(line.rstrip()) for line in lines)
