"""Reads and decodes tensors of a GGUF file, or of one split into parts, on demand."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onebase.errors import ArtifactError, UserError
from onebase.formats.gguf.header import Header, TensorInfo, open_file, read_header
from onebase.formats.raw_tensors import opened, read_into, read_tensor
from onebase.formats.rules import Shape

CHUNK = 2**17
"""Values decoded at a time: the buffers of decoding fit in the processor's cache."""
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GGUFFile:
    """A `WeightSource` of newly allocated tensors in torch's order: F32, F16 and BF16 as stored, quantized ones as float32.

    Raises ArtifactError for a damaged file, and for a split file if parts are missing or `path` is not the first.
    """

    fresh = True

    def __init__(self, path: Path) -> None:
        library()
        self.path, self.where = path, str(path)
        first = self._open(path)
        self.metadata: dict[str, Any] = first[1].metadata
        self._at: dict[str, tuple[Path, TensorInfo]] = {}
        parts = [first, *self._others()]
        self.files = tuple(file for file, _ in parts)
        for file, header in parts:
            for name, entry in header.tensors.items():
                if name in self._at:
                    raise ArtifactError(f"{header.where}: tensor {name!r} is in another part too", _WHOLE)
                self._at[name] = file, entry
        total = self.metadata.get("split.tensors.count", len(self._at))
        if total != len(self._at):
            raise ArtifactError(
                f"{self.where}: the parts have {len(self._at):,} tensors, {total:,} are declared", _WHOLE
            )

    def shapes(self) -> Mapping[str, Shape]:
        return {name: entry.shape for name, (_, entry) in self._at.items()}

    def kinds(self) -> Mapping[str, str]:
        """The type of every tensor, by its name in the format."""
        return {name: entry.kind.name for name, (_, entry) in self._at.items()}

    def read(self, name: str) -> Tensor:
        file, entry = self._at[name]
        if entry.kind.name in _PLAIN:
            return read_tensor(file, entry.start, entry.shape, _PLAIN[entry.kind.name])
        return _decoded(file, entry)

    def parts(self, name: str) -> Iterator[Tensor]:
        """The whole tensor at once: this format has no second names, so it is not read twice."""
        yield self.read(name)

    def _open(self, path: Path) -> tuple[Path, Header]:
        return path, read_header(open_file(path), str(path))  # mapped only for its header

    def _others(self) -> list[tuple[Path, Header]]:
        """The parts after the first. Their names follow from the first's name, never from file content."""
        count = self.metadata.get("split.count", 1)
        if count in (0, 1):
            return []
        match = _PART.fullmatch(self.path.name)
        if self.metadata.get("split.no") != 0 or not match or match[2] != "00001":
            raise ArtifactError(
                f"{self.where} is one of {count} parts of a split file, but not the first by name and content",
                "give the part named ...-00001-of-....gguf",
            )
        if int(match[3]) != count:
            raise ArtifactError(
                f"{self.where}: its name has {int(match[3])} parts, its metadata {count}", _WHOLE
            )
        out = []
        for i in range(1, count):
            part = self._open(self.path.with_name(f"{match[1]}-{i + 1:05}-of-{match[3]}.gguf"))
            if (part[1].metadata.get("split.no"), part[1].metadata.get("split.count")) != (i, count):
                raise ArtifactError(f"{part[1].where} is not part {i + 1} of {count}", _WHOLE)
            out.append(part)
        return out


_WHOLE = "download all parts of the file again, into one folder"


def _decoded(file: Path, entry: TensorInfo) -> Tensor:
    """Quantized blocks as float32, decoded by the classes of the `gguf` package."""
    kind = entry.kind
    decode = getattr(library(), kind.name).dequantize_blocks
    count = entry.size // kind.size
    out = np.empty((count, kind.block), np.float32)
    step = CHUNK // kind.block
    raw = np.empty((min(step, count), kind.size), np.uint8)
    # Infinite or NaN scales in the file are passed on as they are.
    with opened(file) as f, np.errstate(all="ignore"):
        for i in range(0, count, step):
            blocks = raw[: count - i]
            read_into(f, entry.start + i * kind.size, blocks.reshape(-1))
            out[i : i + step] = decode(blocks)
    return torch.from_numpy(out).view(entry.shape)


def library() -> Any:
    """`gguf.quants`. Raises UserError if the package is missing."""
    try:
        import gguf.quants
    except ImportError:
        raise UserError("GGUF needs the gguf package", "pip install 'onebase[gguf]'") from None
    return gguf.quants
