"""Reads records from JSON: one object per line, or one list of objects."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from onebase.data.lines import Line, Problem, Record, lines, no_column, some_names
from onebase.errors import DataError

DEEPEST = 100
"""Nesting depth of lists and objects that is accepted."""
JSON_KINDS = {list: "list", str: "string", bool: "true/false", type(None): "null"}


def json_lines(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """One object per line. A file that is one list of objects is read as such, whatever its extension."""
    found = lines(path, rows=True)
    before: list[Line] = []
    for line in found:
        before.append(line)
        if line[1].strip():
            break
    if before and _begins_list(before[-1][1]):
        yield from _json_list(path, [*before, *found], columns)
    else:
        yield from _json_lines(path, chain(before, found), columns)


def _begins_list(line: str) -> bool:
    """Whether a list of objects begins here; it may continue on further lines."""
    if not line.lstrip().startswith("["):
        return False
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return True
    return bool(value) and isinstance(value[0], dict)


def _json_lines(path: Path, found: Iterable[Line], columns: Sequence[str]) -> Iterator[Record]:
    for number, line, problem in found:
        if line.strip():
            yield f"{path}:{number}", problem or _json_line(line, columns)


def _json_line(line: str, columns: Sequence[str]) -> dict[str, Any] | Problem:
    try:
        return _object(_DECODER.decode(line.rstrip("\r\n")), columns)
    except (ValueError, RecursionError) as e:
        if line.rstrip().endswith(","):
            return Problem(
                "not valid JSON: a comma at the end of the line", "remove the commas between the lines"
            )
        if line.lstrip().startswith("{'"):
            return Problem(
                "not valid JSON: names in single quotes", "write the rows with json.dumps, not with str"
            )
        return _not_json(e, "each line holds one JSON object")


def json_file(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """A list of objects, or one object per line."""
    found = list(lines(path, rows=True))
    first = next((x for x in found if x[1].strip()), (1, "", None))
    if first[1].lstrip().startswith("{") and isinstance(_json_line(first[1], ()), Problem):
        with contextlib.suppress(ValueError, RecursionError):
            what, remedy = _not_rows(json.loads("".join(line for _, line, _ in found)))
            raise DataError(f"{path}:{first[0]}: not valid JSON of rows: {what}", remedy)
    yield from (
        _json_list(path, found, columns)
        if first[1].lstrip().startswith("[")
        else _json_lines(path, found, columns)
    )


def rows_inside(value: Mapping[str, Any]) -> Problem | None:
    """The problem of an object that contains the rows instead of being one; None if it contains none."""
    if lists := [k for k, v in value.items() if isinstance(v, list) and v and isinstance(v[0], dict)]:
        return Problem(
            f"one object with the rows under '{lists[0]}'",
            f"extract that list, for example with: jq .{lists[0]}",
        )
    if len(value) > 1 and all(isinstance(v, dict) for v in value.values()):
        return Problem(
            f"one object of columns ({some_names(list(value))})",
            'write one object per row; with pandas: to_json(path, orient="records", lines=True)',
        )
    return None


def _not_rows(value: Mapping[str, Any]) -> Problem:
    return rows_inside(value) or Problem(
        "the whole file is one object", "write one JSON list of objects, or each object on one line"
    )


def _json_list(path: Path, found: Sequence[Line], columns: Sequence[str]) -> Iterator[Record]:
    """The objects of one list."""
    text = "".join(line for _, line, _ in found)
    if flawed := next(((n, problem) for n, _, problem in found if problem), None):
        raise DataError(f"{path}:{flawed[0]}: {flawed[1].what}", flawed[1].remedy)
    at = _blank(text, 0) + 1
    line = 1 + text.count("\n", 0, at)
    first = True
    while True:
        before, at = at, _blank(text, at)
        closes = text[at : at + 1] == "]"
        if not first and not closes:
            if text[at : at + 1] != ",":
                line += text.count("\n", before, at)
                yield (
                    f"{path}:{line}",
                    Problem("not valid JSON: a comma or ] is expected", "the file is one JSON list"),
                )
                return
            at = _blank(text, at + 1)
        line += text.count("\n", before, at)
        where = f"{path}:{line}"
        if closes:
            if text[at + 1 :].strip():
                yield (
                    where,
                    Problem("not valid JSON: text after the end of the list", "the file is one JSON list"),
                )
            return
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as e:  # where the next record begins is unknown
            yield where, _not_json(e, "the file is one JSON list of objects")
            return
        yield where, _object(value, columns)
        line += text.count("\n", at, end)
        at, first = end, False


def _blank(text: str, at: int) -> int:
    """Index of the next character that is not JSON white space."""
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(k for k, n in Counter(k for k, _ in pairs).items() if n > 1)
        raise ValueError(f"duplicate key {twice[:100]!r}")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
"""Refuses duplicate keys: otherwise the last one would silently replace the first."""


def _too_deep(value: object) -> bool:
    """Whether lists and objects are nested deeper than DEEPEST. Later code walks them recursively."""
    level: list[object] = [value]
    for _ in range(DEEPEST + 1):
        level = [
            x
            for v in level
            for x in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())
            if isinstance(x, (dict, list))
        ]
        if not level:
            return False
    return True


def _object(value: object, columns: Sequence[str]) -> dict[str, Any] | Problem:
    if not isinstance(value, dict):
        return Problem(
            f"a JSON {JSON_KINDS.get(type(value), 'number')}, an object is expected",
            'a row is like {"text": "..."}',
        )
    if lacking := [c for c in columns if c not in value]:
        return no_column(lacking, list(value))
    if _too_deep(value):
        return Problem(f"nested more than {DEEPEST} levels deep", "flatten it")
    return value


def _not_json(e: Exception, remedy: str) -> Problem:
    why = f"{e.msg} at column {e.colno}" if isinstance(e, json.JSONDecodeError) else str(e)
    return Problem(f"not valid JSON: {why}", remedy)
