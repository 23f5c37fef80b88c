"""The store as a list: each name with what it is, what it was made from, its size and its date."""

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
    """A name in the store. what: the task and method of an adapter, the source of an imported base, "" where the record does not say. made_from: names (or else
    the beginnings of fingerprints) of its parents. bytes: of all its files."""

    entry: StoreEntry
    what: str
    made_from: tuple[str, ...]
    bytes: int

    @property
    def fields(self) -> dict[str, Any]:
        """The same for programs."""
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
    """All names, or those of one kind, and a line for each whose folder is gone or damaged. Raises UserError for a kind that is none."""
    if kind is not None and kind not in FOLDERS:
        raise UserError(f"kind {kind!r} is not known", f"kinds: {', '.join(FOLDERS)}")
    named = {e.fingerprint: e.name for e in store.list() if e.fingerprint}
    found, gone = [], list(store.unreadable())
    for entry in store.list(kind):
        try:
            found.append(_listed(entry, named))
        except (ArtifactError, OSError) as e:
            gone.append(f"{entry.name}: {e.cause if isinstance(e, ArtifactError) else e}")
    return found, tuple(gone)


def _listed(entry: StoreEntry, named: dict[str, str]) -> Listed:
    manifest = read_manifest(entry.path)
    record = Record.load(entry.path / RECORD) if (entry.path / RECORD).is_file() else Record(entry.kind)
    said = [record.get(name) for name in ("task", "method")] if entry.kind == "adapter" else []
    came = record.get("imported.hub")
    if entry.kind == "base":
        said = [came["repo"] if isinstance(came, dict) and "repo" in came else record.get("imported.from")]
    parents = [
        named.get(str(p.get("fingerprint"))) or p.get("name") or f"{str(p.get('fingerprint'))[:16]}..."
        for p in entry.parents
    ]
    total = sum(f["bytes"] for f in manifest["files"].values())
    return Listed(entry, " ".join(str(x) for x in said if x), tuple(map(str, parents)), total)


def table(store: Store, found: list[Listed]) -> str:
    """The list for people."""
    if not found:
        return f"nothing is in the store ({store.root}); docs/records.md says how a folder gets a name in it"
    rows = [("name", "kind", "what", "from", "size", "made")]
    rows += [
        (
            x.entry.name,
            x.entry.kind,
            x.what or "-",
            ", ".join(x.made_from) or "-",
            size(x.bytes),
            x.entry.created[:10],
        )
        for x in found
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
