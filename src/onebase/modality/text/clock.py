"""The date that chat templates get from `strftime_now`: an explicit input, so that results are reproducible."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime

from onebase.errors import ConfigError

VARIABLE = "ONEBASE_DATE"
_override: ContextVar[datetime | None] = ContextVar("onebase_date", default=None)


def read_date(text: str, what: str = "date") -> datetime:
    """Parse `2026-01-31`, or with a time `2026-01-31T12:00`. Raises ConfigError."""
    try:
        return datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise ConfigError(f"'{what}' is {text!r}", "give a date as YYYY-MM-DD") from None


def now() -> datetime:
    """The date set by `at`, else `$ONEBASE_DATE`, else the system clock."""
    if (date := _override.get()) is not None:
        return date
    value = os.environ.get(VARIABLE)
    return read_date(value, VARIABLE) if value else datetime.now()


def today() -> str:
    """The date of `now`, YYYY-MM-DD."""
    return now().date().isoformat()


@contextlib.contextmanager
def at(date: str | None) -> Iterator[None]:
    """Inside this context (and thread), templates see this date; None changes nothing."""
    if date is None:
        yield
        return
    token = _override.set(read_date(date))
    try:
        yield
    finally:
        _override.reset(token)
