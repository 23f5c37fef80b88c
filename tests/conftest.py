"""For all tests: caches and the store go to a folder of the session, never to the user's home; no deadlines."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure: the time of one example says nothing of the code.
settings.register_profile("onebase", deadline=None)
settings.load_profile("onebase")


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
