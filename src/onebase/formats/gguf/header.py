"""Reads the header of a GGUF file strictly: metadata, and the position of each tensor. Everything is checked before use.

Format: ggml, docs/gguf.md (version 2 and 3, little endian). The file is untrusted, so every count and length is compared with the bytes
that are left before it is used. Time and memory are bounded by the size of the header, and that by MAX_HEADER.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onebase.errors import ArtifactError
from onebase.formats.rules import Shape

MAX_HEADER = 64 * 2**20
"""Bytes of metadata and tensor list together: a vocabulary of 262,144 tokens needs about ten million."""
MAX_COUNT = 65536
"""Maximum number of tensors, and of keys: a model of 405B parameters has about a thousand tensors."""
MAX_KEY, MAX_NAME, MAX_DIMS = 65535, 64, 4
REMEDY = "take an intact copy of the file"


@dataclass(frozen=True)
class TensorType:
    """A tensor type: `block` values are stored in `size` bytes."""

    name: str
    block: int
    size: int


TENSOR_TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    30: TensorType("BF16", 1, 2),
}
"""By the format's number (ggml, enum ggml_type)."""

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: its shape in torch's order (reversed in the file), and its bytes: `size` from `start` in the file."""

    kind: TensorType
    shape: Shape
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """Metadata by key (numbers, strings, numpy arrays of numbers, lists of strings) and tensors by name."""

    where: str
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


def open_file(path: Path) -> mmap.mmap:
    """The file, mapped copy-on-write: nothing can be written back. Raises ArtifactError."""
    try:
        with open(path, "rb") as f:
            return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise ArtifactError(f"there is no file {path}", "check the path") from None
    except (OSError, ValueError) as e:  # a folder, no rights, an empty file
        raise ArtifactError(f"{path} cannot be read as GGUF: {e}", REMEDY) from None


def read_header(data: mmap.mmap | bytes, where: str) -> Header:
    """Check and read everything except the tensors' data. Raises ArtifactError with the problem and its position."""
    with memoryview(data) as whole, whole[:MAX_HEADER] as head:
        at = _Cursor(head, where, len(whole))
        _magic(at)
        tensors, keys = at.number("Q", "the number of tensors"), at.number("Q", "the number of keys")
        for count, least, what in ((tensors, 24, "tensors"), (keys, 13, "keys")):
            at.check_fits(count, least, what)
            if count > MAX_COUNT:
                raise at.bad(f"{count:,} {what} are declared, at most {MAX_COUNT:,} are allowed")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = at.text("a key", MAX_KEY)
            if not key or key in metadata:
                raise at.bad(f"key {key[:80]!r} appears twice" if key else "a key is empty")
            metadata[key] = _value(at, f"key {key[:80]!r}")
        return Header(where, metadata, _tensors(at, tensors, _alignment(at, metadata)))


class _Cursor:
    """A position in the header that only moves forward, and never beyond its end."""

    def __init__(self, head: memoryview, where: str, size: int) -> None:
        self.head, self.where, self.size, self.at = head, where, size, 0

    def bad(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.where}: {what} (header, byte {self.at:,})", REMEDY)

    def check_fits(self, count: int, least: int, what: str) -> None:
        """Check that `count` entries of at least `least` bytes each fit in the rest."""
        left = len(self.head) - self.at
        if count * least > left:
            why = f"the file ends {left:,} bytes later"
            if self.size > len(self.head):
                why = f"a header has at most {MAX_HEADER:,} bytes"
            raise self.bad(f"{count:,} {what} are declared, but {why}")

    def take(self, count: int, what: str) -> memoryview:
        self.check_fits(count, 1, f"bytes of {what}")
        self.at += count
        return self.head[self.at - count : self.at]

    def number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize(code), what))[0]

    def text(self, what: str, most: int = MAX_HEADER) -> str:
        size = self.number("Q", f"the length of {what}")
        if size > most:
            raise self.bad(f"{what} has {size:,} bytes, at most {most:,} are allowed")
        try:
            return bytes(self.take(size, what)).decode()
        except UnicodeDecodeError:
            raise self.bad(f"{what} is not UTF-8") from None


def _magic(at: _Cursor) -> None:
    if bytes(at.head[:4]) != b"GGUF":
        raise ArtifactError(
            f"{at.where} is not a GGUF file: it starts with {bytes(at.head[:4])!r}", "give a .gguf file"
        )
    at.at = 4
    version = at.number("I", "the version")
    if version & 0xFFFF == 0 and version:
        raise ArtifactError(
            f"{at.where} is a big-endian GGUF file", "convert it to little endian with gguf-convert-endian"
        )
    if version not in (2, 3):
        raise ArtifactError(
            f"{at.where} has GGUF version {version}, only 2 and 3 are supported", "convert the model again"
        )


def _value(at: _Cursor, what: str) -> Any:
    code = at.number("I", f"the type of {what}")
    if code in _NUMBERS:
        return _scalar(at, code, what)
    if code == _BOOL:
        return bool(_bools(at, 1, what)[0])
    if code == _STRING:
        return at.text(what)
    if code == _ARRAY:
        return _array(at, what)
    raise at.bad(f"{what} has the unknown type {code}")


def _scalar(at: _Cursor, code: int, what: str) -> int | float:
    value: int | float = at.number(_NUMBERS[code], what)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise at.bad(f"{what} is {value}")
        value = single(value) if _NUMBERS[code] == "f" else value
    return value


def single(x: float) -> float:
    """The shortest decimal with the same float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(x)))


def _bools(at: _Cursor, count: int, what: str) -> list[bool]:
    raw = bytes(at.take(count, what))
    if raw.strip(b"\0\1"):
        raise at.bad(f"{what} has a byte that is neither true nor false")
    return [b == 1 for b in raw]


def _array(at: _Cursor, what: str) -> Any:
    code, count = at.number("I", f"the type inside {what}"), at.number("Q", f"the length of {what}")
    if code in _NUMBERS:
        size = struct.calcsize(_NUMBERS[code])
        at.check_fits(count, size, f"numbers of {what}")
        return np.frombuffer(at.take(count * size, what), "<" + _NUMBERS[code]).copy()
    if code == _BOOL:
        return np.array(_bools(at, count, what), dtype=bool)
    if code == _STRING:
        at.check_fits(count, 8, f"texts of {what}")
        return _texts(at, count, what)
    if code == _ARRAY:
        raise at.bad(f"{what} is an array of arrays, which is not supported")
    raise at.bad(f"{what} has elements of the unknown type {code}")


def _texts(at: _Cursor, count: int, what: str) -> list[str]:
    """A vocabulary has some hundred thousand: the loop must be short. A length beyond the end gives a short slice, detected afterwards."""
    head, here, end, length = at.head, at.at, len(at.head), struct.Struct("<Q").unpack_from
    out: list[str] = []
    try:
        for _ in range(count):
            stop = here + 8 + length(head, here)[0]
            out.append(str(head[here + 8 : min(stop, end)], "utf-8"))
            here = stop
            if here > end:
                break
    except (struct.error, UnicodeDecodeError) as e:
        at.at = min(here, end)
        why = "is not UTF-8" if isinstance(e, UnicodeDecodeError) and here < end else "is beyond the end"
        raise at.bad(f"element {len(out)} of {what} {why}") from None
    if here > end:
        raise at.bad(f"element {len(out) - 1} of {what} is beyond the end")
    at.at = here
    return out


def _alignment(at: _Cursor, metadata: dict[str, Any]) -> int:
    found = metadata.get("general.alignment", 32)
    if type(found) is not int or found < 1 or found & (found - 1) or found > 2**20:
        raise at.bad(f"key 'general.alignment' is {found!r}, not a power of two up to {2**20:,}")
    return found


def _tensors(at: _Cursor, count: int, alignment: int) -> dict[str, TensorInfo]:
    read: dict[str, tuple[TensorType, Shape, int, int]] = {}
    for _ in range(count):
        name = at.text("a tensor's name", MAX_NAME)
        if name in read:
            raise at.bad(f"tensor {name!r} appears twice")
        read[name] = _tensor(at, f"tensor {name!r}", alignment)
    data = -(-at.at // alignment) * alignment
    out: dict[str, TensorInfo] = {}
    end, last = 0, ""
    for name, (kind, shape, offset, size) in sorted(read.items(), key=lambda x: x[1][2]):
        if offset < end:
            raise at.bad(f"tensors {last!r} and {name!r} overlap")
        end, last = offset + size, name
        if data + end > at.size:
            raise at.bad(f"tensor {name!r} ends at byte {data + end:,}, the file at {at.size:,}")
        out[name] = TensorInfo(kind, shape, data + offset, size)
    return out


def _tensor(at: _Cursor, what: str, alignment: int) -> tuple[TensorType, Shape, int, int]:
    dims = at.number("I", f"the number of dimensions of {what}")
    if not 1 <= dims <= MAX_DIMS:
        raise at.bad(f"{what} has {dims:,} dimensions, 1 to {MAX_DIMS} are allowed")
    sizes = [at.number("Q", f"the shape of {what}") for _ in range(dims)]
    code, offset = at.number("I", f"the type of {what}"), at.number("Q", f"the offset of {what}")
    if code not in TENSOR_TYPES:
        known = ", ".join(sorted(k.name for k in TENSOR_TYPES.values()))
        raise ArtifactError(
            f"{at.where}: {what} has type {_type_name(code)}, which is not supported",
            f"use a file with other types; supported: {known}",
        )
    kind = TENSOR_TYPES[code]
    elements = math.prod(sizes)
    if not elements or sizes[0] % kind.block:
        raise at.bad(f"{what} has shape {sizes}, which {kind.name} cannot store")
    if offset % alignment:
        raise at.bad(f"{what} is at offset {offset:,}, not a multiple of {alignment}")
    return kind, tuple(reversed(sizes)), offset, elements // kind.block * kind.size


def _type_name(code: int) -> str:
    from gguf import GGMLQuantizationType

    try:
        return str(GGMLQuantizationType(code).name)
    except ValueError:
        return f"number {code}"
