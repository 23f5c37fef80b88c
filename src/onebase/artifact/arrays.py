"""Arrays on disk (.npy), written so that what the disk refuses is said.

numpy's own writing hands a file to C (`ndarray.tofile`), which loses the system's error: on a full disk it says "100443 requested and 90048
written" and nothing of a disk. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebase.artifact.disk import disk_errors


def array_bytes(array: NDArray[Any]) -> tuple[bytes, memoryview]:
    """What stands in the file: the header, and the numbers in C order."""
    whole = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(whole))
    return header.getvalue(), whole.reshape(-1).view(np.uint8).data


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a file that `np.load` reads: numbers or records of them, no objects. Not atomic by itself: write into an `ArtifactWriter`.

    Raises ArtifactError that names the file on disk trouble.
    """
    assert not array.dtype.hasobject, "objects would be pickled"
    with disk_errors(path), open(path, "wb") as f:
        for part in array_bytes(array):
            f.write(part)
