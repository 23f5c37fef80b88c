"""Reads bytes of a file into newly allocated memory. A mapped file would stay in memory together with the weights built from it."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onebase.errors import ArtifactError
from onebase.formats.rules import Shape


def read_tensor(file: Path, start: int, shape: Shape, dtype: torch.dtype) -> Tensor:
    """The tensor at byte `start` of a file, in row-major order. Raises ArtifactError if the file is too short."""
    out = torch.empty(math.prod(shape), dtype=dtype)
    with opened(file) as f:
        read_into(f, start, out.view(torch.uint8).numpy())
    return out.view(shape)


@contextmanager
def opened(file: Path) -> Iterator[io.FileIO]:
    """The file, open for `read_into`. Raises ArtifactError for disk errors."""
    try:
        with open(file, "rb", buffering=0) as f:
            yield f
    except OSError as e:
        raise ArtifactError(f"{file} cannot be read: {e.strerror}", "check the disk") from None


def read_into(f: io.FileIO, start: int, out: np.ndarray[Any, Any]) -> None:
    """Fill `out`, uint8 [n], with the bytes from `start` on. Raises ArtifactError if there are fewer."""
    done, view = 0, out.data
    f.seek(start)
    while done < len(view):
        got = f.readinto(view[done:])
        if not got:
            raise ArtifactError(
                f"{f.name} ended at byte {start + done:,} while it was read", "take an intact copy of it"
            )
        done += got
