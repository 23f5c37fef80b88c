"""Turns pydantic's errors about a config into messages for users: file and line, nearest valid key, accepted type."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from onebase.errors import ConfigError
from onebase.yamls import Path_

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def explained(
    cls: type, data: Any, where: str, lines: dict[Path_, int], errors: Sequence[dict[str, Any]]
) -> ConfigError:
    """The most useful of pydantic's `errors` about `data` as a `cls`. where: the source's name; lines: line of each key, -1 for an override."""
    errors = [inner for error in errors for inner in _unfolded(error)]
    # An unknown key first: where one is missing, this may be it, misspelt.
    error = next((one for one in errors if one["type"] in _UNKNOWN), errors[0])
    loc = tuple(p for p in error["loc"])
    path, holder, annotation = _walk(cls, data, loc)
    dotted = ".".join(str(p) for p in path)
    line = next((lines[path[:i]] for i in range(len(path), 0, -1) if path[:i] in lines), 0)
    if any(at == -1 and key[: len(path)] == path for key, at in lines.items()):
        line = -1
    place = (
        f"{where}:{line}: "
        if where and line > 0
        else "override: "
        if line == -1
        else f"{where}: "
        if where
        else ""
    )
    kind = error["type"]
    if kind in _UNKNOWN:
        fields = [f.name for f in dataclasses.fields(holder)]
        now = next((f.name for f in dataclasses.fields(holder) if f.metadata.get("was") == path[-1]), None)
        if now is not None:
            return ConfigError(f"{place}'{dotted}' was renamed", f"write '{now}'{_accepts(holder, now)}")
        near = difflib.get_close_matches(str(path[-1]), fields, 1, 0.4)
        hint = f"did you mean '{near[0]}'" + _accepts(holder, near[0]) + "?" if near else ""
        return ConfigError(
            f"{place}unknown key '{dotted}'", f"{hint} valid keys: {', '.join(fields)}".strip()
        )
    if kind in ("missing_argument", "missing"):
        return ConfigError(f"{place}key '{dotted}' is missing", f"add it{_accepts(holder, str(path[-1]))}")
    if kind == "value_error" and isinstance(error.get("ctx", {}).get("error"), ValueError):
        return ConfigError(
            f"{place}'{dotted}': {error['ctx']['error']}" if dotted else f"{place}{error['ctx']['error']}"
        )
    given = error.get("input")
    accepted = type_name(annotation) if annotation is not None and kind != "unknown_kind" else error["msg"]
    return ConfigError(f"{place}'{dotted}' is {given!r} ({kind_of(given)})", f"accepted: {accepted}")


def _unfolded(error: dict[str, Any]) -> list[dict[str, Any]]:
    """The errors inside a config that was selected by `kind` (`config.OneOf`), each with its full location; any other error unchanged."""
    inner = error.get("ctx", {}).get("error")
    if not hasattr(inner, "errors"):
        return [error]
    errors = [dict(e) for e in inner.errors(include_url=False)]
    return [e | {"loc": (*error["loc"], *e["loc"])} for e in errors]


def _walk(cls: Any, data: Any, loc: tuple[str | int, ...]) -> tuple[Path_, Any, Any]:
    """Follow pydantic's location through our types: the real path, the innermost dataclass, the last field's annotation."""
    path: list[str | int] = []
    holder: Any = cls if dataclasses.is_dataclass(cls) else None
    annotation: Any = cls
    for part in loc:
        known = [a for a in options(annotation, data) if dataclasses.is_dataclass(a)]
        here = next((a for a in known if _has(a, part)), known[0] if known else None)
        if (isinstance(data, Mapping) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data = data[part]  # type: ignore[index]
        elif here is None or not (_has(here, part) or part == loc[-1]):
            continue  # pydantic's name of a union branch, not a key
        path.append(part)
        if here is not None:
            holder = here
            annotation = typing.get_type_hints(here, include_extras=True).get(str(part), None)
        else:
            args = [a for o in options(annotation) for a in typing.get_args(o) if a is not Ellipsis]
            annotation = args[-1] if args else None
            holder = annotation if dataclasses.is_dataclass(annotation) else holder
    return tuple(path), holder, annotation


def _has(cls: Any, name: Any) -> bool:
    return any(f.name == name for f in dataclasses.fields(cls))


def options(annotation: Any, data: Any = None) -> tuple[Any, ...]:
    """The branches of a type; of configs selected by `kind`, the one that `data` names."""
    if typing.get_origin(annotation) is typing.Annotated:
        one = next((m for m in annotation.__metadata__ if hasattr(m, "table")), None)
        if one is None:
            return options(typing.get_args(annotation)[0], data)
        table = one.table()
        chosen = table.get(str(data.get("kind", one.default))) if isinstance(data, dict) else None
        return (chosen,) if chosen else tuple(table.values())
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(one for a in typing.get_args(annotation) for one in options(a, data))
    return (annotation,)


def _accepts(holder: Any, name: str) -> str:
    hint = typing.get_type_hints(holder).get(name) if holder else None
    return f" ({type_name(hint)})" if hint is not None else ""


def type_name(annotation: Any) -> str:
    """A type in words: `whole number`, `one of a, b`, `list of text`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(args[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing (null)" if a is type(None) else type_name(a) for a in args)
    if origin in (list, tuple):
        return "list of " + type_name(args[0])
    if origin in (dict, Mapping) or (origin and issubclass(origin, Mapping)):
        return f"map of name to {type_name(args[1])}"
    if dataclasses.is_dataclass(annotation):
        return "map with keys " + ", ".join(f.name for f in dataclasses.fields(annotation))
    return {
        "bool": "true or false",
        "float": "number",
        "int": "whole number",
        "str": "text",
        "Any": "anything",
    }.get(getattr(annotation, "__name__", ""), str(annotation))


def kind_of(value: Any) -> str:
    """The type of a value in words."""
    names = {
        bool: "true/false",
        int: "whole number",
        float: "number",
        str: "text",
        list: "list",
        dict: "map",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)
