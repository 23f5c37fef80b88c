"""What a chat template from elsewhere may spend: steps, and letters that it reads and makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2.utils import Namespace

STEPS = 200_000
"""Loop bodies, macros and calls that a rendering may run."""
SIZE = 1 << 25
"""Letters that all operations together may read and make; an element of a list counts as 32."""
ELEMENT = 32
_VIEWS: tuple[Any, ...] = (type({}.items()), type({}.keys()), type({}.values()))
KINDS = (str, bytes, list, tuple, dict, set, frozenset, range, Namespace, *_VIEWS)


class TooMuch(jinja2.TemplateError):
    """A template spent its budget."""


@dataclass
class _Meter:
    steps: int
    size: int


_METER: ContextVar[_Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered(given: Any = ()) -> Iterator[None]:
    """A budget for one rendering: the constants above, and more for more data."""
    room = _Meter(1 << 40, 1 << 40)
    token = _METER.set(room)
    try:
        used = _weigh([given], 1 << 40)
        _METER.set(_Meter(STEPS + used // 4, SIZE + 64 * used))
        yield
    finally:
        _METER.reset(token)


def charge(size: int, steps: int = 0) -> None:
    """Spend a part of the budget. Raises TooMuch."""
    meter = _METER.get() or _Meter(STEPS, SIZE)
    meter.size -= size
    meter.steps -= steps
    if meter.steps < 0:
        raise TooMuch(f"the template runs more than {STEPS:,} steps")
    if meter.size < 0:
        raise TooMuch(f"the template makes more than {SIZE:,} letters")


def weigh(*values: Any) -> int:
    """Spend what reading these values whole costs; returns it. What is held twice counts twice, as it would when printed."""
    meter = _METER.get()
    found = _weigh(list(values), meter.size if meter else SIZE)
    charge(found)
    return found


def _weigh(todo: list[Any], most: int) -> int:
    total = 0
    while todo:
        value = todo.pop()
        total += ELEMENT
        if total > most:
            break
        if isinstance(value, (str, bytes)):
            total += len(value)
        elif isinstance(value, range):
            total += ELEMENT * len(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            total += value.bit_length() // 3
        elif isinstance(value, Namespace):
            todo.append(value._Namespace__attrs)
        elif isinstance(value, Mapping):
            total += ELEMENT * len(value)
            todo += [*value.keys(), *value.values()] if total <= most else []
        elif isinstance(value, KINDS):
            total += ELEMENT * len(value)
            todo += list(value) if total <= most else []
    return total
