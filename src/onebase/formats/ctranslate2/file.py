"""CTranslate2's `model.bin`, version 6, as a source of tensors. The file may come from anywhere: nothing in it is believed before it is checked.

Format (CTranslate2, python/ctranslate2/specs/model_spec.py, `_serialize`; little endian): u32 version, string spec, u32 revision, u32
count; per variable a string name, u8 rank, u32 sizes, u8 type, u32 bytes, data; then u32 count of pairs of strings, a second name and
the variable it means. A string is a u16 length, bytes, NUL, the NUL counted. Matrices of whole numbers have their scale beside them:
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
"""Variables (and second names) at most, bytes of a name, dimensions: the largest Whisper has about 1,300 variables."""
TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
SCALE = "_scale"
REMEDY = "take an intact copy of the file, or convert the model anew with ct2-transformers-converter"


@dataclass(frozen=True)
class Variable:
    """Where one variable lies: `size` bytes from `start`."""

    shape: Shape
    dtype: torch.dtype
    start: int
    size: int


@dataclass(frozen=True)
class Contents:
    """spec: the kind of model; variables by name, second names included; second: (second name, name)."""

    spec: str
    revision: int
    variables: dict[str, Variable]
    second: dict[str, str]


class CT2File:
    """A `Source` of tensors in memory of their own; those of whole numbers become float32. `values` are the single numbers.

    Raises ArtifactError for what is damaged.
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
        """Tensors by name; scales are part of what they scale."""
        return {name: v.shape for name, v in self._tensors.items() if not self._is_scale(name)}

    def kinds(self) -> Mapping[str, str]:
        """How every tensor's numbers are stored."""
        return {name: str(v.dtype).removeprefix("torch.") for name, v in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """One tensor. Whole numbers without a scale stay what they are."""
        v = self._tensors[name]
        x = self._whole(v)
        scale = self._scale(name)
        if v.dtype.is_floating_point or scale is None:
            return x
        by = self._whole(scale).float()
        if by.numel() not in (1, v.shape[0]) or not bool((by.isfinite() & (by != 0)).all()):
            raise ArtifactError(
                f"{self.where}: the scale of {name!r} has shape {list(scale.shape)} or a value of 0 or none",
                REMEDY,
            )
        return x.float() / by.reshape(-1, *([1] * (x.ndim - 1)))

    def parts(self, name: str) -> Iterator[Tensor]:
        """Whole: what this format names twice is not read twice."""
        yield self.read(name)

    def _scale(self, name: str) -> Variable | None:
        name = self.contents.second.get(name, name)  # a second name means its variable, and that one's scale
        return self.contents.variables.get(name + SCALE)

    def _is_scale(self, name: str) -> bool:
        return name.endswith(SCALE) and name.removesuffix(SCALE) in self._tensors

    def _whole(self, v: Variable) -> Tensor:
        raw = np.frombuffer(self._data, np.uint8, v.size, v.start).copy()
        return torch.from_numpy(raw).view(v.dtype).view(v.shape)


def read_contents(data: mmap.mmap | bytes, where: str) -> Contents:
    """Check and read all but the variables' data. Raises ArtifactError naming what is wrong and where."""
    at = _Cursor(data, where)
    version = at.number("I", "the version")
    if version != VERSION:
        raise ArtifactError(f"{where} has version {version:,}; {VERSION} is read", REMEDY)
    spec, revision = at.text("the spec"), at.number("I", "the revision")
    variables: dict[str, Variable] = {}
    for _ in range(at.count("variables", 10)):
        name = at.text("a variable's name")
        if name in variables:
            raise at.bad(f"variable {name!r} is there twice")
        variables[name] = _variable(at, f"variable {name!r}")
    second: dict[str, str] = {}
    for _ in range(at.count("second names", 6)):
        name, meant = at.text("a second name"), at.text("the variable of a second name")
        if name in variables or meant not in variables or meant in second:
            raise at.bad(f"the second name {name!r} of {meant!r} is taken, or there is no such variable")
        second[name], variables[name] = meant, variables[meant]
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
        raise at.bad(f"{what} is of the unknown type {kind}")
    numbers = math.prod(shape)
    if not numbers or numbers * TYPES[kind].itemsize != size:
        raise at.bad(f"{what} of shape {list(shape)} in {TYPES[kind]} cannot have {size:,} bytes")
    start = at.skip(size, what)
    return Variable(shape, TYPES[kind], start, size)


class _Cursor:
    """A place in the file that only moves forward, and never beyond what is there."""

    def __init__(self, data: mmap.mmap | bytes, where: str) -> None:
        self.data, self.where, self.at = data, where, 0

    def bad(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.where}: {what} (byte {self.at:,})", REMEDY)

    def skip(self, count: int, what: str) -> int:
        """Move over `count` bytes; returns where they began."""
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
        """How many things of at least `least` bytes follow."""
        found = self.number("I", f"the number of {what}")
        if found > MAX_COUNT or found * least > len(self.data) - self.at:
            raise self.bad(
                f"{found:,} {what} are announced; {MAX_COUNT:,} are allowed, and they must fit in the file"
            )
        return found

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
