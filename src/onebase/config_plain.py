"""A config as plain data, and its canonical hash, which does not change when a field is renamed or added."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any


def to_dict(cfg: Any) -> dict[str, Any]:
    """The config as JSON data, with every field."""
    tree = _plain(cfg)
    assert isinstance(tree, dict)
    return tree


def to_hash(cfg: Any) -> dict[str, Any]:
    """`to_dict` for hashing, so that hashes of existing files stay valid: a `renamed` field has its first name, and a field added `later`
    is left out while it has its default."""
    tree = _plain(cfg, hashed=True)
    assert isinstance(tree, dict)
    return tree


def without_defaults(cfg: Any) -> dict[str, Any]:
    """`to_hash` without the fields that have their default. Hashes of stored artifacts use it: a field that a later version adds
    then changes none of them. (So a default, once published, must keep its meaning.)"""
    tree = _without_defaults(cfg)
    assert isinstance(tree, dict)
    return tree


def digest(cfg: Any) -> str:
    """SHA-256 of the config's canonical JSON: equal configs have equal digests."""
    return hashlib.sha256(canonical_json(_plain(cfg, hashed=True)).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Canonical JSON of plain data: keys sorted, no spaces, ASCII, and equal numbers written the same (1.0 as 1)."""
    return json.dumps(_whole(value), sort_keys=True, separators=(",", ":"))


# ---------------------------------------------------------------------------------------------------------------------------


def _name(field: dataclasses.Field[Any]) -> str:
    """The name of a field in hashes."""
    return str(field.metadata.get("was", field.name))


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _plain(value: Any, hashed: bool = False) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        if hashed:
            fields = tuple(
                f for f in fields if not f.metadata.get("later") or getattr(value, f.name) != _default(f)
            )
        return {_name(f) if hashed else f.name: _plain(getattr(value, f.name), hashed) for f in fields}
    if isinstance(value, Mapping):
        return {str(k): _plain(v, hashed) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, hashed) for v in value]
    return value


def _without_defaults(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        tree = {}
        for f in dataclasses.fields(value):
            default = _default(f)
            own = getattr(value, f.name)
            if own != default or isinstance(own, bool) != isinstance(default, bool):  # True == 1
                tree[_name(f)] = _without_defaults(own)
        return tree
    if isinstance(value, Mapping):
        return {str(k): _without_defaults(v) for k, v in value.items()}
    return [_without_defaults(v) for v in value] if isinstance(value, (list, tuple)) else value


def _whole(value: Any) -> Any:
    # A float field may hold 1 (set in Python) or 1.0 (read from a file): equal configs must have equal digests.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {k: _whole(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(v) for v in value]
    return value
