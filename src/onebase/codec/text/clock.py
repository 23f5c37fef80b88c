"""The date that chat templates ask for by `strftime_now`: an input like any other, so that what must repeat does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime

from onebase.errors import ConfigError

VARIABLE = "ONEBASE_DATE"
_given: ContextVar[datetime | None] = ContextVar("onebase_date", default=None)


def read_date(text: str, what: str = "date") -> datetime:
    """`2026-01-31`, or with a time `2026-01-31T12:00`. Raises ConfigError."""
    try:
        return datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise ConfigError(f"'{what}' is {text!r}", "give a date as YYYY-MM-DD") from None


def now() -> datetime:
    """The date that `at` gives, else `$ONEBASE_DATE`, else the clock's."""
    if (found := _given.get()) is not None:
        return found
    set_ = os.environ.get(VARIABLE)
    return read_date(set_, VARIABLE) if set_ else datetime.now()


def today() -> str:
    """The date of now, YYYY-MM-DD."""
    return now().date().isoformat()


@contextlib.contextmanager
def at(date: str | None) -> Iterator[None]:
    """While inside (in this thread), templates find this date; None changes nothing."""
    if date is None:
        yield
        return
    token = _given.set(read_date(date))
    try:
        yield
    finally:
        _given.reset(token)
