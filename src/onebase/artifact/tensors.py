"""Tensors on disk (safetensors, never pickle), and the fingerprint of weights.

The file is written here and read by the `safetensors` library. Its own writer orders the metadata at random, so two saves of
equal tensors differ in bytes, and it copies the whole file in memory; ours is reproducible byte for byte and streams.
Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header size, JSON header, data without gaps).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from onebase.artifact.disk import disk_errors
from onebase.artifact.raw import FORMATS, digest, of_digest, unreadable

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, theirs) for name, theirs in FORMATS.items()}
"""Dtypes by their names in the file."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def save_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any shape and device as one safetensors file; equal input gives equal bytes.

    Not atomic by itself: write into an `ArtifactWriter`. Tensors that share memory are each written in full.
    Raises ArtifactError on disk errors.
    """
    path = Path(path)
    # Widest first keeps every tensor aligned to its element size.
    order = sorted(tensors, key=lambda n: (-tensors[n].element_size(), n))
    # transformers requires "format"; our own keys follow.
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
        raise unreadable(path, e) from None


def read_header(path: str | Path) -> tuple[dict[str, str], dict[str, tuple[torch.dtype, tuple[int, ...]]]]:
    """(metadata, {name: (dtype, shape)}) without reading tensors. Raises ArtifactError."""
    try:
        with safe_open(path, framework="pt") as f:
            parts = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
            shapes = {n: (DTYPES[s.get_dtype()], tuple(s.get_shape())) for n, s in parts.items()}
            return dict(f.metadata() or {}), shapes
    except (SafetensorError, OSError) as e:
        raise unreadable(path, e) from None


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 hex over names, dtypes, shapes and bytes; the order of the mapping and the device do not matter."""
    return digest(
        (name, str(t.dtype).removeprefix("torch."), t.shape, [_bytes(t)])
        for name, t in sorted(tensors.items())
    )


def fingerprint(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> str:
    """The identity of weights, from tensors and config (`artifact.raw`)."""
    return of_digest(tensors_digest(tensors), config)


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)  # numpy has no bfloat16
    return flat.numpy().data
