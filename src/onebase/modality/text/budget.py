"""The budget of an untrusted chat template: how many steps it may run, how many characters it may read and write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2.utils import Namespace

STEPS = 200_000
"""Loop bodies, macros and calls that one rendering may run."""
SIZE = 1 << 25
"""Characters that all operations together may read and write; a list element counts as 32."""
ELEMENT = 32
_VIEWS: tuple[Any, ...] = (type({}.items()), type({}.keys()), type({}.values()))
VIEW_TYPES = (str, bytes, list, tuple, dict, set, frozenset, range, Namespace, *_VIEWS)


class TooMuch(jinja2.TemplateError):
    """A template exceeded its budget."""


@dataclass
class _Budget:
    steps: int
    size: int


_METER: ContextVar[_Budget | None] = ContextVar("meter", default=None)


@contextmanager
def budget(given: Any = ()) -> Iterator[None]:
    """Set the budget for one rendering: the constants above, and more for more data."""
    token = _METER.set(_Budget(1 << 40, 1 << 40))
    try:
        used = _weigh([given], 1 << 40)
        _METER.set(_Budget(STEPS + used // 4, SIZE + 64 * used))
        yield
    finally:
        _METER.reset(token)


def charge(size: int, steps: int = 0) -> None:
    """Charge the budget. Raises TooMuch."""
    meter = _METER.get() or _Budget(STEPS, SIZE)
    meter.size -= size
    meter.steps -= steps
    if meter.steps < 0:
        raise TooMuch(f"the template runs more than {STEPS:,} steps")
    if meter.size < 0:
        raise TooMuch(f"the template reads and writes more than {SIZE:,} characters")


def weigh(*values: Any) -> int:
    """Charge the cost of reading these values in full; returns it. A value that occurs twice counts twice, as it would when printed."""
    meter = _METER.get()
    cost = _weigh(list(values), meter.size if meter else SIZE)
    charge(cost)
    return cost


def _weigh(todo: list[Any], limit: int) -> int:
    total = 0
    while todo:
        value = todo.pop()
        total += ELEMENT
        if total > limit:
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
            todo += [*value.keys(), *value.values()] if total <= limit else []
        elif isinstance(value, VIEW_TYPES):
            total += ELEMENT * len(value)
            todo += list(value) if total <= limit else []
    return total
