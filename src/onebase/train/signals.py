"""Stop signals: the first SIGTERM or SIGINT lets the step finish and the run save, the second exits at once. Also the immediate exit of a rank."""

import atexit
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import NoReturn

from onebase.errors import UserError

EXIT_STOPPED = 75
"""Exit status of a run that was stopped and saved: EX_TEMPFAIL, run the same command again to resume."""


class Stopped(UserError):
    """A signal stopped the work. A run has saved, and the same call resumes it; shorter work starts again."""

    exit_status = EXIT_STOPPED


class StopSignals:
    """While entered, `received` is True after a stop signal. Only the main thread can handle signals."""

    def __init__(self) -> None:
        self.received = False
        self._old: dict[int, object] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = True

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
    """Exit this rank's process at once, after the atexit handlers; never returns.

    In rare runs of two ranks one ended with SIGABRT ("terminate called without an active exception") at interpreter shutdown; it could not be
    reproduced. gloo's threads still run then, because the caches of DTensor keep the group alive, and a thread that needs the interpreter
    after it is gone aborts so. An immediate exit avoids this.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
