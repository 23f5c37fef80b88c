"""Renamed and added config fields: files written before the change still open and keep their hash."""

from __future__ import annotations

import dataclasses
import functools
import logging
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from onebase.config_errors import options

T = TypeVar("T")
log = logging.getLogger(__name__)


def renamed(was: str, default: T) -> T:
    """The default of a field that earlier versions wrote under the name `was`: `from_file` reads both names, and hashes use the old one."""
    return dataclasses.field(default=default, metadata={"was": was})


def later(default: T) -> T:
    """The default of a field that earlier versions did not have: hashes leave the field out while it has this value."""
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"later": True})
    return dataclasses.field(default=default, metadata={"later": True})


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """The types of a class's fields. Cached: evaluating them takes a tenth of the time to open a small base."""
    return typing.get_type_hints(cls)


def with_new_names(cls: Any, data: Any, where: str) -> Any:
    """`to_new_names` for data written by a user; warns about old names."""
    changed: dict[str, str] = {}
    tree = to_new_names(cls, data, changed)
    for was, now in changed.items():
        log.warning("%s: '%s' was renamed to '%s'", where, was, now)
    return tree


def to_new_names(cls: Any, data: Any, changed: dict[str, str] | None = None) -> Any:
    """Plain data of `cls`, possibly written by an earlier version, with the current field names. Data that does not match stays unchanged.
    changed: collects the old names that occurred, with their new names."""
    kinds = options(cls)
    if isinstance(data, list):
        inner = next((typing.get_args(k)[0] for k in kinds if typing.get_args(k)), None)
        return [to_new_names(inner, x, changed) for x in data]
    if not isinstance(data, Mapping):
        return data
    holders: list[Any] = [k for k in kinds if dataclasses.is_dataclass(k)]
    if not holders:
        inner = next((typing.get_args(k)[-1] for k in kinds if typing.get_args(k)), None)
        return {k: to_new_names(inner, v, changed) for k, v in data.items()}
    tree = dict(data)
    for holder in holders:
        hints = _hints(holder)
        for f in dataclasses.fields(holder):
            was = f.metadata.get("was")
            if was in tree and f.name not in tree:
                tree = {f.name if k == was else k: v for k, v in tree.items()}
                if changed is not None:
                    changed[str(was)] = f.name
            if f.name in tree:
                tree[f.name] = to_new_names(hints[f.name], tree[f.name], changed)
    return tree
