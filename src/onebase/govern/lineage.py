"""Ancestors and dependents of an artifact, followed by fingerprint through the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebase.govern.store import Store, StoreEntry, read_entry


@dataclass(frozen=True)
class Node:
    """An artifact and its parents. path: None if no artifact with that fingerprint is in the store."""

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
    """The tree from the artifact at `folder` to its roots. Raises ArtifactError if `folder` is not an artifact."""
    known = {e.fingerprint: e for e in store.list() if e.fingerprint}
    entry = read_entry(folder)
    return _node(entry, entry.name or Path(folder).name, known, ())


def dependents(store: Store, fingerprint: str, through: bool = False) -> tuple[StoreEntry, ...]:
    """Entries with this fingerprint among their parents: the adapters that break if the base changes.

    through: include indirect dependents (an adapter's run, a base derived from a base).
    """
    entries, matches, queue = store.list(), dict[str, StoreEntry](), [fingerprint]
    while queue:
        parent = queue.pop()
        for entry in entries:
            if entry.name not in matches and any(p["fingerprint"] == parent for p in entry.parents):
                matches[entry.name] = entry
                if through and entry.fingerprint:
                    queue.append(entry.fingerprint)
    return tuple(sorted(matches.values(), key=lambda e: e.name))


def tree_lines(node: Node) -> list[str]:
    """The tree as indented lines, each artifact above its parents."""
    where = "" if node.path else "  (not in the store)"
    head = f"{node.kind} {node.name or '(no name)'} {node.fingerprint or 'unknown fingerprint'}{where}"
    return [head] + ["  " + line for parent in node.parents for line in tree_lines(parent)]


def _node(entry: StoreEntry, name: str, known: dict[str, StoreEntry], above: Sequence[str]) -> Node:
    parents = []
    seen = (*above, entry.fingerprint)
    for parent in entry.parents:
        fingerprint = parent["fingerprint"]
        ancestor = known.get(fingerprint)
        # A forged record could name itself as its ancestor, which would be an infinite loop.
        if ancestor is None or fingerprint in seen:
            parents.append(
                Node(parent["kind"], fingerprint, parent["name"], ancestor.path if ancestor else None)
            )
        else:
            parents.append(_node(ancestor, ancestor.name, known, seen))
    return Node(entry.kind, entry.fingerprint, name, entry.path, tuple(parents))
