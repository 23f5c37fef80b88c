"""The end of a rank: hooks run, output is whole, the status is the one given."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys, threading, time
from onebase.train.signals import exit_now
atexit.register(lambda: print("told"))
threading.Thread(target=time.sleep, args=(600,)).start()  # a usual exit would wait for it
sys.stdout.write("unflushed ")
exit_now({status})
"""


@pytest.mark.parametrize("status", [0, 75])
def test_hooks_run_and_nothing_is_waited_for(status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(status=status)], capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stdout) == (status, "unflushed told\n")
