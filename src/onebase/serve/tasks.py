"""Request and response of the task paths: one schema for every task of the table."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from onebase.serve.schema import TEXTS, RequestError, Variables


@dataclass(frozen=True)
class TaskModel:
    """An adapter that is served at its task's path.

    reads: its input columns. lists: those of them that contain a list of texts. answer: from texts (rows, unless it reads only `text`) to the fields
    of each answer. fingerprint: the adapter's. files: columns that hold a file, sent as base64 (with or without `data:...;base64,`): a path would read the
    server's disk.
    """

    task: str
    path: str
    answer: Callable[[list[Any]], list[dict[str, Any]]]
    reads: tuple[str, ...] = ("text",)
    lists: tuple[str, ...] = ()
    fingerprint: str = ""
    files: tuple[str, ...] = ()


class TaskRequest(BaseModel):
    """POST to a task's path. input: a text or a row of columns, or a list of them; `inputs` checks it against the task's columns."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str
    variables: Variables | None = None
    input: Any


def inputs(request: TaskRequest, model: TaskModel) -> list[Any]:
    """The inputs of the model's `answer`. Raises RequestError for a row without the right columns."""
    several = isinstance(request.input, list)
    items = request.input if several else [request.input]
    if not 0 < len(items) <= TEXTS:
        raise _wrong(f"input has {len(items)} items", f"send 1 to {TEXTS}")
    rows = [
        _row(item, request.variables or {}, model, f"input.{i}" if several else "input")
        for i, item in enumerate(items)
    ]
    return [r["text"] for r in rows] if model.reads == ("text",) else rows


def _row(item: Any, variables: Mapping[str, Any], model: TaskModel, where: str) -> dict[str, Any]:
    needs = f"this model reads {', '.join(model.reads)}"
    if not isinstance(item, (str, dict)):
        raise _wrong(f"{where} is neither a text nor an object of columns", needs)
    if isinstance(item, str) and "text" not in model.reads:
        raise _wrong(f"{where} is a text, but {needs}", "send an object with these")
    row = {**({"text": item} if isinstance(item, str) else item), **variables}
    if unknown := sorted(row.keys() - set(model.reads)):
        raise _wrong(f"{where} has {unknown[0]!r}, but {needs}", "leave it out")
    for column in model.reads:
        if column not in row:
            raise _wrong(f"{where} has no {column!r}: {needs}", "add it")
        value = row[column]
        if column in model.files:
            row[column] = _decoded(value, f"{where}: {column!r}")
        elif column in model.lists:
            if not isinstance(value, list) or not 0 < len(value) <= TEXTS or not all(map(_is_text, value)):
                raise _wrong(f"{where}: {column!r} is not a list of 1 to {TEXTS} texts", "send one")
        elif not _is_text(value):
            raise _wrong(f"{where}: {column!r} is not a text", "send one")
    return row


def _decoded(value: Any, where: str) -> bytes:
    """The bytes of a file in base64."""
    try:
        return base64.b64decode(re.sub(r"^data:[^,]*;base64,", "", value), validate=True)
    except (TypeError, ValueError):
        raise _wrong(f"{where} is not base64", "send the file's bytes in base64") from None


def _is_text(value: Any) -> bool:
    """Numbers count as text, as in the variables of a saved prompt."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _wrong(cause: str, remedy: str) -> RequestError:
    return RequestError(400, cause, remedy, param="input")


def answered(
    request: TaskRequest, model: TaskModel, base: str, answers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The response to a request: the answer fields of each input in order, and the hashes of base and adapter."""
    return {
        "object": "list",
        "model": request.model,
        "task": model.task,
        "data": [{"index": i, **fields} for i, fields in enumerate(answers)],
        "system_fingerprint": base,
        "adapter_fingerprint": model.fingerprint,
    }
