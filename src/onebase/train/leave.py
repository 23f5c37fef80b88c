"""The end of one process of many."""

import atexit
import os
import sys
from typing import NoReturn


def leave(status: int = 0) -> NoReturn:
    """End this rank's process now, after what asked to be told of the exit was told: never returns.

    A process of a group must not take its interpreter down in the usual way: gloo's threads live on (the caches of DTensor hold the
    group), and one that drops its last tensor meanwhile waits for an interpreter that is gone, which aborts a process whose
    work is done (seen once in some hundred runs of two ranks: SIGABRT, "terminate called without an active exception").
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
