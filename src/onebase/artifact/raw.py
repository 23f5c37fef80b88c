"""Tensors and arrays as bytes, without torch: the fingerprint of weights (from `artifact.tensors` or from files), and .npy files."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from onebase.artifact.disk import disk_errors
from onebase.config_plain import canonical_json
from onebase.errors import ArtifactError

FORMATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Names of dtypes in safetensors, and in torch."""
CHUNK = 16 * 2**20
Named = tuple[str, str, Sequence[int], Iterable[Any]]
"""A tensor: name, dtype as torch names it, shape, and bytes in parts (row-major)."""


def digest(tensors: Iterable[Named]) -> str:
    """SHA-256 hex over names, dtypes, shapes and bytes of tensors, given in the order of their names."""
    state = hashlib.sha256()
    for name, dtype, shape, parts in tensors:
        # One JSON line, then exactly as many bytes as it announces: different contents never give the same stream.
        state.update(canonical_json([name, dtype, list(shape)]).encode() + b"\n")
        for part in parts:
            state.update(part)
    return state.hexdigest()


def of_digest(tensors: str, config: Mapping[str, Any]) -> str:
    """The identity of weights: "ob1-" + SHA-256 hex over the tensors' digest and the canonical JSON of the config."""
    return (
        "ob1-" + hashlib.sha256(canonical_json({"tensors": tensors, "config": config}).encode()).hexdigest()
    )


def files_digest(paths: Sequence[Path]) -> str:
    """`digest` of all tensors in safetensors files. Raises ArtifactError naming a file that is absent, damaged, or repeats a tensor."""
    entries: dict[str, tuple[Path, str, list[int], int, int]] = {}
    for path in paths:
        for name, (dtype, shape, start, end) in _entries(path).items():
            if name in entries:
                raise ArtifactError(
                    f"{path}: tensor '{name}' is in two files", "use an intact copy of the folder"
                )
            entries[name] = (path, dtype, shape, start, end)
    return digest((n, d, s, _parts(p, a, b)) for n, (p, d, s, a, b) in sorted(entries.items()))


def _entries(path: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """By name: dtype, shape, start and end of the bytes in the file."""
    try:
        with safe_open(path, framework="np"):  # it checks the header: sizes, gaps, the length of the file
            pass
        with open(path, "rb") as f:
            (size,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(size))
    except (SafetensorError, OSError, ValueError, struct.error) as e:
        raise unreadable(path, e) from None
    header.pop("__metadata__", None)
    return {
        name: (FORMATS.get(x["dtype"], x["dtype"]), x["shape"], *(8 + size + at for at in x["data_offsets"]))
        for name, x in header.items()
    }


def _parts(path: Path, start: int, end: int) -> Iterable[bytes]:
    if start == end:
        return
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        for at in range(start, end, CHUNK):
            yield whole[at : min(at + CHUNK, end)]


def unreadable(path: str | Path, error: Exception) -> ArtifactError:
    """The error for a tensor file that is missing or damaged."""
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"there is no file {path}", "check the path")
    return ArtifactError(
        f"{path} is not an intact safetensors file: {error}", "use an intact copy of the folder"
    )


def array_bytes(array: NDArray[Any]) -> tuple[bytes, memoryview]:
    """The content of a .npy file: the header, and the values in C order."""
    whole = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(whole))
    return header.getvalue(), whole.reshape(-1).view(np.uint8).data


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a file that `np.load` reads: numbers or records of them, no objects. Not atomic by itself: write into an `ArtifactWriter`.

    numpy's own writer passes the file to C (`ndarray.tofile`), which loses the system's error: on a full disk it reports "100443 requested
    and 90048 written" and does not mention the disk. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

    Raises ArtifactError that names the file on disk errors.
    """
    assert not array.dtype.hasobject, "objects would be pickled"
    with disk_errors(path), open(path, "wb") as f:
        for part in array_bytes(array):
            f.write(part)
