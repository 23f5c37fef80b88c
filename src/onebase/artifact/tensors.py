"""Tensors on disk (safetensors, never pickle), the fingerprint of weights, and arrays (.npy).

The file is written here and read by the `safetensors` library. Its own writer orders the metadata at random, so that two
saves of equal tensors differ in bytes, and it copies a whole file in memory; ours is byte-repeatable and streams.
Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header size, JSON header, data without gaps).
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from onebase.artifact.disk import disk_errors
from onebase.artifact.files import canonical_json
from onebase.errors import ArtifactError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Number formats as the file calls them."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def save_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any shape and device as one safetensors file; equal input gives equal bytes.

    Not atomic by itself: write into an `ArtifactWriter`. Tensors that share memory are written once each.
    Raises ArtifactError on disk trouble.
    """
    path = Path(path)
    # Widest first keeps every tensor aligned to its element size.
    order = sorted(tensors, key=lambda n: (-tensors[n].element_size(), n))
    # "format" is what transformers asks for; our own keys follow.
    header: dict[str, Any] = {"__metadata__": dict(sorted({"format": "pt", **(metadata or {})}.items()))}
    end = 0
    for name in order:
        assert name != "__metadata__", "safetensors reserves this name"
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with disk_errors(path), open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            f.write(_bytes(tensors[name]))


def load_tensors(path: str | Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Read all tensors of a file onto `device`. Raises ArtifactError naming a file that is absent or damaged."""
    try:
        return load_file(path, device=device)
    except (SafetensorError, OSError) as e:
        raise _unreadable(path, e) from None


def read_header(path: str | Path) -> tuple[dict[str, str], dict[str, tuple[torch.dtype, tuple[int, ...]]]]:
    """(metadata, {name: (dtype, shape)}) without reading tensors. Raises ArtifactError."""
    try:
        with safe_open(path, framework="pt") as f:
            parts = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
            shapes = {n: (DTYPES[s.get_dtype()], tuple(s.get_shape())) for n, s in parts.items()}
            return dict(f.metadata() or {}), shapes
    except (SafetensorError, OSError) as e:
        raise _unreadable(path, e) from None


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 hex over names, dtypes, shapes and bytes; the order of the mapping and the device do not matter."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        head = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        # One JSON line, then exactly as many bytes as it announces: no two contents give one stream.
        state.update(canonical_json(head).encode() + b"\n")
        state.update(_bytes(tensor))
    return state.hexdigest()


def fingerprint(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> str:
    """The identity of weights: "ob1-" + SHA-256 hex over the tensors' digest and the canonical JSON of the config."""
    text = canonical_json({"tensors": tensors_digest(tensors), "config": config})
    return "ob1-" + hashlib.sha256(text.encode()).hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)  # numpy has no bfloat16
    return flat.numpy().data


def _unreadable(path: str | Path, error: Exception) -> ArtifactError:
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"there is no file {path}", "check the path")
    return ArtifactError(
        f"{path} is not an intact safetensors file: {error}", "take an intact copy of the folder"
    )


def array_bytes(array: NDArray[Any]) -> tuple[bytes, memoryview]:
    """What stands in the file: the header, and the numbers in C order."""
    whole = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(whole))
    return header.getvalue(), whole.reshape(-1).view(np.uint8).data


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a file that `np.load` reads: numbers or records of them, no objects. Not atomic by itself: write into an `ArtifactWriter`.

    numpy's own writing hands the file to C (`ndarray.tofile`), which loses the system's error: on a full disk it says "100443 requested and
    90048 written" and nothing of a disk. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

    Raises ArtifactError that names the file on disk trouble.
    """
    assert not array.dtype.hasobject, "objects would be pickled"
    with disk_errors(path), open(path, "wb") as f:
        for part in array_bytes(array):
            f.write(part)
