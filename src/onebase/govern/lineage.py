"""Where an artifact comes from and what relies on it, followed by fingerprint through the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebase.govern.store import Store, StoreEntry, read_entry


@dataclass(frozen=True)
class Node:
    """An artifact and what it was made from. `path` is None when no artifact of that fingerprint is in the store."""

    kind: str
    fingerprint: str
    name: str
    path: Path | None
    parents: tuple[Node, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON data, parents nested."""
        return {
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "name": self.name,
            "path": str(self.path) if self.path else None,
            "parents": [p.to_dict() for p in self.parents],
        }


def lineage(store: Store, folder: str | Path) -> Node:
    """The tree from the artifact at `folder` to its roots. Raises ArtifactError when `folder` is no artifact."""
    known = {e.fingerprint: e for e in store.list() if e.fingerprint}
    entry = read_entry(folder)
    return _node(entry, entry.name or Path(folder).name, known, ())


def dependents(store: Store, fingerprint: str, through: bool = False) -> tuple[StoreEntry, ...]:
    """Entries with this fingerprint among their parents: the adapters that break when the base changes.

    With `through`, also those that rely on them in turn (an adapter's run, a base grown from a base).
    """
    entries, found, ask = store.list(), dict[str, StoreEntry](), [fingerprint]
    while ask:
        wanted = ask.pop()
        for entry in entries:
            if entry.name not in found and any(p["fingerprint"] == wanted for p in entry.parents):
                found[entry.name] = entry
                if through and entry.fingerprint:
                    ask.append(entry.fingerprint)
    return tuple(sorted(found.values(), key=lambda e: e.name))


def tree_lines(node: Node) -> list[str]:
    """The tree as indented text, the artifact first and its parents below it."""
    where = "" if node.path else "  (not in the store)"
    head = f"{node.kind} {node.name or '(no name)'} {node.fingerprint or 'unknown fingerprint'}{where}"
    return [head] + ["  " + line for parent in node.parents for line in tree_lines(parent)]


def _node(entry: StoreEntry, name: str, known: dict[str, StoreEntry], above: Sequence[str]) -> Node:
    parents = []
    seen = (*above, entry.fingerprint)
    for parent in entry.parents:
        mark = parent["fingerprint"]
        found = known.get(mark)
        # A forged record could name itself as its ancestor; following it would never end.
        if found is None or mark in seen:
            parents.append(Node(parent["kind"], mark, parent["name"], found.path if found else None))
        else:
            parents.append(_node(found, found.name, known, seen))
    return Node(entry.kind, entry.fingerprint, name, entry.path, tuple(parents))
