"""For all tests: caches and the store go to a folder of the session, never to the user's home; no deadlines; files in memory."""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from onebase.model.kernels import compiled, packed, quickest

# A busy machine is no failure: the time of one example says nothing of the code.
settings.register_profile("onebase", deadline=None)
settings.load_profile("onebase")

# A run writes some 300 MB in thousands of small files, each synced: on a disk a worker waits for that, in memory it does not.
MEMORY, ROOM = Path("/dev/shm"), 4 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Folders of tests go to memory where there is room and nobody has said where else; full disks are file systems of their own."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish() -> None:
    """What importing and collecting made stays: the collector need not walk it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = os.environ.get("ONEBASE_HOME")
    home = tmp_path_factory.mktemp("onebase-home")
    os.environ["ONEBASE_HOME"] = str(home)
    yield home
    if before is None:
        del os.environ["ONEBASE_HOME"]
    else:
        os.environ["ONEBASE_HOME"] = before


@pytest.fixture(scope="session", autouse=True)
def _our_loops_multiply() -> Iterator[None]:
    """Which way is quickest is measured, and another's work beside the tests can make it any: it is not what they are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "most_rows", lambda kind: 0 if compiled.direct() is None else quickest.ROWS[-1])
        yield
