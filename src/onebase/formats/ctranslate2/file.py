"""Reads tensors from CTranslate2's `model.bin`, version 6. The file is untrusted: everything in it is checked before use.

Format (CTranslate2, python/ctranslate2/specs/model_spec.py, `_serialize`; little endian): u32 version, string spec, u32 revision, u32
count; per variable a string name, u8 rank, u32 sizes, u8 type, u32 bytes, data; then u32 count of pairs of strings, an alias and
its variable. A string is a u16 length (with the NUL), bytes, NUL. Integer matrices have their scale in a second variable,
`weight_scale`, by which they are divided.
"""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onebase.errors import ArtifactError
from onebase.formats.rules import Shape

VERSION = 6
MAX_COUNT, MAX_NAME, MAX_RANK = 65536, 512, 4
"""Maximum variables (and aliases), bytes of a name, dimensions: the largest Whisper has about 1,300 variables."""
TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
SCALE = "_scale"
REMEDY = "take an intact copy of the file, or convert the model again with ct2-transformers-converter"


@dataclass(frozen=True)
class Variable:
    """The position of one variable: `size` bytes from `start`."""

    shape: Shape
    dtype: torch.dtype
    start: int
    size: int


@dataclass(frozen=True)
class Contents:
    """spec: the kind of model; variables: by name, aliases included; second: (alias, name)."""

    spec: str
    revision: int
    variables: dict[str, Variable]
    second: dict[str, str]


class CT2File:
    """A `WeightSource` of newly allocated tensors; integer ones become float32. values: the scalars.

    Raises ArtifactError for a damaged file.
    """

    fresh = True

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
        try:
            with open(path, "rb") as f:
                self._data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise ArtifactError(f"there is no file {path}", "check the path") from None
        except (OSError, ValueError) as e:
            raise ArtifactError(f"{path} cannot be read: {e}", REMEDY) from None
        self.contents = read_contents(self._data, self.where)
        self.values: dict[str, int | float] = {}
        self._tensors: dict[str, Variable] = {}
        for name, v in self.contents.variables.items():
            if v.shape:
                self._tensors[name] = v
            elif not name.endswith(SCALE):
                self.values[name] = self._whole(v).item()

    def shapes(self) -> Mapping[str, Shape]:
        """Tensors by name, without scales."""
        return {name: v.shape for name, v in self._tensors.items() if not self._is_scale(name)}

    def kinds(self) -> Mapping[str, str]:
        """The stored dtype of every tensor."""
        return {name: str(v.dtype).removeprefix("torch.") for name, v in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """One tensor. Integers without a scale stay integers."""
        v = self._tensors[name]
        x = self._whole(v)
        scale = self._scale(name)
        if v.dtype.is_floating_point or scale is None:
            return x
        divisor = self._whole(scale).float()
        if divisor.numel() not in (1, v.shape[0]) or not bool((divisor.isfinite() & (divisor != 0)).all()):
            raise ArtifactError(
                f"{self.where}: the scale of {name!r} has shape {list(scale.shape)}, or values that are 0 or not finite",
                REMEDY,
            )
        return x.float() / divisor.reshape(-1, *([1] * (x.ndim - 1)))

    def parts(self, name: str) -> Iterator[Tensor]:
        """The whole tensor at once: an alias in this format is not read twice."""
        yield self.read(name)

    def _scale(self, name: str) -> Variable | None:
        name = self.contents.second.get(name, name)  # an alias has the scale of its variable
        return self.contents.variables.get(name + SCALE)

    def _is_scale(self, name: str) -> bool:
        return name.endswith(SCALE) and name.removesuffix(SCALE) in self._tensors

    def _whole(self, v: Variable) -> Tensor:
        raw = np.frombuffer(self._data, np.uint8, v.size, v.start).copy()
        return torch.from_numpy(raw).view(v.dtype).view(v.shape)


def read_contents(data: mmap.mmap | bytes, where: str) -> Contents:
    """Check and read everything except the variables' data. Raises ArtifactError with the problem and its position."""
    at = _Cursor(data, where)
    version = at.number("I", "the version")
    if version != VERSION:
        raise ArtifactError(f"{where} has version {version:,}; only version {VERSION} is supported", REMEDY)
    spec, revision = at.text("the spec"), at.number("I", "the revision")
    variables: dict[str, Variable] = {}
    for _ in range(at.count("variables", 10)):
        name = at.text("a variable's name")
        if name in variables:
            raise at.bad(f"variable {name!r} appears twice")
        variables[name] = _variable(at, f"variable {name!r}")
    second: dict[str, str] = {}
    for _ in range(at.count("aliases", 6)):
        name, target = at.text("an alias"), at.text("the variable of an alias")
        if name in variables or target not in variables or target in second:
            raise at.bad(f"the alias {name!r} of {target!r} is taken, or there is no such variable")
        second[name], variables[name] = target, variables[target]
    if at.at != len(data):
        raise at.bad(f"{len(data) - at.at:,} bytes are left over")
    return Contents(spec, revision, variables, second)


def _variable(at: "_Cursor", what: str) -> Variable:
    rank = at.number("B", f"the rank of {what}")
    if rank > MAX_RANK:
        raise at.bad(f"{what} has {rank} dimensions, at most {MAX_RANK} are allowed")
    shape = tuple(at.number("I", f"the shape of {what}") for _ in range(rank))
    kind, size = at.number("B", f"the type of {what}"), at.number("I", f"the size of {what}")
    if kind >= len(TYPES):
        raise at.bad(f"{what} has the unknown type {kind}")
    elements = math.prod(shape)
    if not elements or elements * TYPES[kind].itemsize != size:
        raise at.bad(f"{what} of shape {list(shape)} in {TYPES[kind]} cannot have {size:,} bytes")
    start = at.skip(size, what)
    return Variable(shape, TYPES[kind], start, size)


class _Cursor:
    """A position in the file that only moves forward, and never beyond its end."""

    def __init__(self, data: mmap.mmap | bytes, where: str) -> None:
        self.data, self.where, self.at = data, where, 0

    def bad(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.where}: {what} (byte {self.at:,})", REMEDY)

    def skip(self, count: int, what: str) -> int:
        """Skip `count` bytes; returns their start."""
        left = len(self.data) - self.at
        if count > left:
            raise self.bad(f"{what} needs {count:,} bytes, but the file ends {left:,} bytes later")
        self.at += count
        return self.at - count

    def number(self, code: str, what: str) -> int:
        start = self.skip(struct.calcsize("<" + code), what)
        value: int = struct.unpack_from("<" + code, self.data, start)[0]
        return value

    def count(self, what: str, least: int) -> int:
        """The number of entries that follow, each of at least `least` bytes."""
        count = self.number("I", f"the number of {what}")
        if count > MAX_COUNT or count * least > len(self.data) - self.at:
            raise self.bad(
                f"{count:,} {what} are declared; {MAX_COUNT:,} are allowed, and they must fit in the file"
            )
        return count

    def text(self, what: str) -> str:
        size = self.number("H", f"the length of {what}")
        if not 2 <= size <= MAX_NAME:
            raise self.bad(f"{what} has {size:,} bytes, 2 to {MAX_NAME} are allowed")
        start = self.skip(size, what)
        raw = bytes(self.data[start : start + size])
        if raw[-1] or 0 in raw[:-1]:
            raise self.bad(f"{what} does not end with its only NUL")
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError:
            raise self.bad(f"{what} is not UTF-8") from None
