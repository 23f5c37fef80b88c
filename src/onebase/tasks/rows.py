"""Reads the rows of a job, its test rows, and those of an evaluation, each in one pass, with their task's checks and samples."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onebase.base.folder import LoadedBase
from onebase.data import Rows, read_rows
from onebase.data.labelled import Data, Records
from onebase.engine.features import room_of
from onebase.methods.bound import Bound
from onebase.methods.table import METHODS
from onebase.tasks.base import Look, Task
from onebase.tasks.checks import before
from onebase.tasks.options import AdaptOptions
from onebase.tasks.reading import RowReader, long_of


def read(
    base: LoadedBase,
    data: Data,
    task: Task,
    method: str,
    options: AdaptOptions,
    columns: Mapping[str, str] | None = None,
) -> Rows:
    """The training rows of a task, with their samples. Raises BadRows with all bad rows: unreadable, without a column, empty, of a wrong type
    or value, longer than the limit (with their lengths); DataError for problems of the whole file."""
    if not METHODS[method].needs_rows and isinstance(data, Sequence) and not data:
        return Rows()
    records = Records.of(task.opened(data), columns)
    maker = task.maker(method)
    if maker is not None and maker.columns is not None:  # the length of a prompt depends on its answers
        return read_rows(records, maker.columns(options.of_method))
    taken, context = (
        before(method, options),
        base.model.cfg.text.context if base.text_codec is not None else 0,
    )
    longest = min(options.max_length or context, context - taken) if taken else options.max_length or context
    required = task.columns_of(Look(base, options, lambda: records.sound))
    make = task.samples(RowReader(base, longest, taken, required, options, long_of(options), records.folder))
    return read_rows(records, required, check=task.check, make=make)


def read_test(
    base: LoadedBase,
    data: Data,
    task: Task,
    method: str,
    options: AdaptOptions,
    columns: Mapping[str, str] | None = None,
) -> Rows:
    """The test rows, which must not be among those of `read`: of any length, and with samples where these identify them."""
    records = Records.of(task.opened(data), columns)
    required = compared_by(base, task, method, options, lambda: records.sound)
    if not task.by_sample or _asks(task, method) is not None:
        return read_rows(records, required)
    make = task.samples(RowReader(base, sys.maxsize, 0, required, options, folder=records.folder))
    return read_rows(records, required, check=task.check, make=make)


def compared_by(
    base: LoadedBase,
    task: Task,
    method: str,
    options: AdaptOptions,
    rows: Callable[[], Sequence[Mapping[str, Any]]],
) -> tuple[str, ...]:
    """The columns that a test row must have, which identify it among the training rows."""
    if (asks := _asks(task, method)) is not None:
        return asks(options.of_method)
    required = task.columns_of(Look(base, options, rows))
    return tuple(c for c in required if c in task.compared) or required


def _asks(task: Task, method: str) -> Callable[[Any], tuple[str, ...]] | None:
    """The function that returns the columns identifying a test row, where they depend on the method's options."""
    maker = task.maker(method)
    return None if maker is None else maker.asks


def reader_on(base: Bound) -> RowReader:
    """The reader of an evaluation's rows: on the base with its adapter, which also decides the treatment of long texts."""
    taken = base.loaded.model.virtual_counts(base.routing, 1)[0]
    head = None if base.attached is None else base.attached.config.head
    if head is None:
        return RowReader(base.loaded, base.config.text.context - taken, taken)
    return RowReader(base.loaded, room_of(base.loaded, head.limit, taken), taken, long=head.long)
