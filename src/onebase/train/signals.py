"""The end of a process: the first SIGTERM or SIGINT lets the step finish and the run save, the second ends at once; one of many leaves at once."""

import atexit
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import NoReturn

from onebase.errors import UserError

EXIT_STOPPED = 75
"""Exit status of a run that was asked to stop and saved: EX_TEMPFAIL, start the same command again to go on."""


class Stopped(UserError):
    """The work was asked to stop. A run has saved, and the same call goes on; shorter work begins anew."""

    exit_status = EXIT_STOPPED


class StopSignals:
    """While entered, `asked` tells whether the process was asked to stop. Only the main thread can listen to signals."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[int, object] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = True

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def exit_now(status: int = 0) -> NoReturn:
    """End this rank's process now, after what asked to be told of the exit was told: never returns.

    Once in many runs of two ranks one ended with SIGABRT ("terminate called without an active exception") when its work was done and its
    interpreter went down; it could not be made to happen again. gloo's threads are still there then, for the caches of DTensor hold
    the group, and a thread that asks for an interpreter that is gone ends so. Leaving at once gives none the occasion.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
