"""Fields of configs that change over time: what was written before they had their name, or were there, still opens and keeps its hash."""

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
    """The default of a field that had another name, `was`, in what earlier versions wrote: `from_file` reads both, and hashes keep the old one."""
    return dataclasses.field(default=default, metadata={"was": was})


def later(default: T) -> T:
    """The default of a field that earlier versions did not have: while a config has it, its hashes leave the field out."""
    return dataclasses.field(default=default, metadata={"later": True})


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """The types of a class's fields: worked out from their text, a tenth of the time in which a small base opens."""
    return typing.get_type_hints(cls)


def with_new_names(cls: Any, data: Any, where: str) -> Any:
    """`to_new_names` for what a user wrote; says which names are old."""
    changed: dict[str, str] = {}
    found = to_new_names(cls, data, changed)
    for was, now in changed.items():
        log.warning("%s: '%s' is called '%s' now", where, was, now)
    return found


def to_new_names(cls: Any, data: Any, changed: dict[str, str] | None = None) -> Any:
    """Plain data of `cls`, maybe written by an earlier version, with the names that its fields have now. What does not fit stays as it is.
    changed: takes the old names that were met, and what they are now."""
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
    found = dict(data)
    for holder in holders:
        hints = _hints(holder)
        for f in dataclasses.fields(holder):
            was = f.metadata.get("was")
            if was in found and f.name not in found:
                found = {f.name if k == was else k: v for k, v in found.items()}
                if changed is not None:
                    changed[str(was)] = f.name
            if f.name in found:
                found[f.name] = to_new_names(hints[f.name], found[f.name], changed)
    return found
