"""The end of one process of many."""

import atexit
import os
import sys
from typing import NoReturn


def leave(status: int = 0) -> NoReturn:
    """End this rank's process now, after what asked to be told of the exit was told: never returns.

    Once in many runs of two ranks one ended with SIGABRT ("terminate called without an active exception") when its work was done and its
    interpreter went down; it could not be made to happen again. gloo's threads are still there then, for the caches of DTensor hold
    the group, and a thread that asks for an interpreter that is gone ends so. Leaving at once gives none the occasion.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
