"""The claim on a run's folder, by all ranks of one run together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from onebase.artifact.owned import owned
from onebase.errors import ArtifactError
from onebase.train.parallel import Parallel


@contextlib.contextmanager
def owning(folder: Path | None, par: Parallel) -> Iterator[None]:
    """While inside, this run alone writes `folder` (None: it writes nothing). Rank 0 has the claim, for all ranks.

    Raises ArtifactError on every rank where another run has it: one that went on would wait for the others for ever.
    """
    with contextlib.ExitStack() as stack:
        refused: ArtifactError | None = None
        if folder is not None and par.main:
            try:
                stack.enter_context(owned(folder))
            except ArtifactError as e:
                refused = e
        if folder is not None and par.any(refused is not None):
            raise refused or ArtifactError(
                f"{folder} is being written by another run", "see what rank 0 says"
            )
        yield
