"""The header of a GGUF file, read strictly: metadata, and where each tensor lies. Nothing in it is believed before it is checked.

Format: ggml, docs/gguf.md (version 2 and 3, little endian). The file may come from anywhere, so every count and length is compared with
the bytes that are left before anything is made of it: time and memory are bounded by the size of the header, and that by MAX_HEADER.
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
"""Metadata and tensor list together, bytes: a vocabulary of 262,144 tokens needs about ten millions."""
MAX_COUNT = 65536
"""Tensors there may be at most, and keys: a model of 405 thousand millions has about a thousand tensors."""
MAX_KEY, MAX_NAME, MAX_DIMS = 65535, 64, 4
REMEDY = "take an intact copy of the file"


@dataclass(frozen=True)
class Kind:
    """A tensor type: `block` numbers are stored in `size` bytes."""

    name: str
    block: int
    size: int


KINDS = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    2: Kind("Q4_0", 32, 18),
    3: Kind("Q4_1", 32, 20),
    6: Kind("Q5_0", 32, 22),
    7: Kind("Q5_1", 32, 24),
    8: Kind("Q8_0", 32, 34),
    12: Kind("Q4_K", 256, 144),
    13: Kind("Q5_K", 256, 176),
    14: Kind("Q6_K", 256, 210),
    30: Kind("BF16", 1, 2),
}
"""By the format's number (ggml, enum ggml_type)."""

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9


@dataclass(frozen=True)
class Entry:
    """One tensor: its shape in torch's order (the file has it reversed), and its bytes, counted from the start of the file."""

    kind: Kind
    shape: Shape
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """Metadata by key (numbers, text, numpy arrays of numbers, lists of text) and tensors by name."""

    where: str
    metadata: dict[str, Any]
    tensors: dict[str, Entry]


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
    """Check and read all but the tensors' data. Raises ArtifactError naming what is wrong and where."""
    with memoryview(data) as whole, whole[:MAX_HEADER] as head:
        at = _Cursor(head, where, len(whole))
        _magic(at)
        tensors, keys = at.number("Q", "the number of tensors"), at.number("Q", "the number of keys")
        for count, least, what in ((tensors, 24, "tensors"), (keys, 13, "keys")):
            at.room(count, least, what)
            if count > MAX_COUNT:
                raise at.bad(f"{count:,} {what} are announced, at most {MAX_COUNT:,} are allowed")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = at.text("a key", MAX_KEY)
            if not key or key in metadata:
                raise at.bad(f"key {key[:80]!r} is there twice" if key else "a key is empty")
            metadata[key] = _value(at, f"key {key[:80]!r}")
        return Header(where, metadata, _tensors(at, tensors, _alignment(at, metadata)))


class _Cursor:
    """A place in the header that only moves forward, and never beyond what is there."""

    def __init__(self, head: memoryview, where: str, size: int) -> None:
        self.head, self.where, self.size, self.at = head, where, size, 0

    def bad(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.where}: {what} (header, byte {self.at:,})", REMEDY)

    def room(self, count: int, least: int, what: str) -> None:
        """`count` things of at least `least` bytes each must fit in what is left."""
        left = len(self.head) - self.at
        if count * least > left:
            why = f"the file ends {left:,} bytes later"
            if self.size > len(self.head):
                why = f"a header has at most {MAX_HEADER:,} bytes"
            raise self.bad(f"{count:,} {what} are announced, but {why}")

    def take(self, count: int, what: str) -> memoryview:
        self.room(count, 1, f"bytes of {what}")
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
            f"{at.where} has GGUF version {version}, 2 and 3 are read", "convert the model anew"
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
    """The shortest number that is stored as the same float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(x)))


def _bools(at: _Cursor, count: int, what: str) -> list[bool]:
    raw = bytes(at.take(count, what))
    if raw.strip(b"\0\1"):
        raise at.bad(f"{what} holds a byte that is neither true nor false")
    return [b == 1 for b in raw]


def _array(at: _Cursor, what: str) -> Any:
    code, count = at.number("I", f"the type inside {what}"), at.number("Q", f"the length of {what}")
    if code in _NUMBERS:
        size = struct.calcsize(_NUMBERS[code])
        at.room(count, size, f"numbers of {what}")
        return np.frombuffer(at.take(count * size, what), "<" + _NUMBERS[code]).copy()
    if code == _BOOL:
        return np.array(_bools(at, count, what), dtype=bool)
    if code == _STRING:
        at.room(count, 8, f"texts of {what}")
        return _texts(at, count, what)
    if code == _ARRAY:
        raise at.bad(f"{what} is an array of arrays, which no model needs")
    raise at.bad(f"{what} has elements of the unknown type {code}")


def _texts(at: _Cursor, count: int, what: str) -> list[str]:
    """A vocabulary has some hundred thousand: the loop is kept short. A length beyond the end gives a short slice, found after it."""
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


def _tensors(at: _Cursor, count: int, alignment: int) -> dict[str, Entry]:
    read: dict[str, tuple[Kind, Shape, int, int]] = {}
    for _ in range(count):
        name = at.text("a tensor's name", MAX_NAME)
        if name in read:
            raise at.bad(f"tensor {name!r} is there twice")
        read[name] = _tensor(at, f"tensor {name!r}", alignment)
    data = -(-at.at // alignment) * alignment
    out: dict[str, Entry] = {}
    end, last = 0, ""
    for name, (kind, shape, offset, size) in sorted(read.items(), key=lambda x: x[1][2]):
        if offset < end:
            raise at.bad(f"tensors {last!r} and {name!r} overlap")
        end, last = offset + size, name
        if data + end > at.size:
            raise at.bad(f"tensor {name!r} ends at byte {data + end:,}, the file at {at.size:,}")
        out[name] = Entry(kind, shape, data + offset, size)
    return out


def _tensor(at: _Cursor, what: str, alignment: int) -> tuple[Kind, Shape, int, int]:
    dims = at.number("I", f"the number of dimensions of {what}")
    if not 1 <= dims <= MAX_DIMS:
        raise at.bad(f"{what} has {dims:,} dimensions, 1 to {MAX_DIMS} are allowed")
    sizes = [at.number("Q", f"the shape of {what}") for _ in range(dims)]
    code, offset = at.number("I", f"the type of {what}"), at.number("Q", f"the offset of {what}")
    if code not in KINDS:
        known = ", ".join(sorted(k.name for k in KINDS.values()))
        raise ArtifactError(
            f"{at.where}: {what} is of type {_type_name(code)}, which is not read",
            f"take a file of other types; known: {known}",
        )
    kind = KINDS[code]
    numbers = math.prod(sizes)
    if not numbers or sizes[0] % kind.block:
        raise at.bad(f"{what} has shape {sizes}, which {kind.name} cannot hold")
    if offset % alignment:
        raise at.bad(f"{what} is at offset {offset:,}, not a multiple of {alignment}")
    return kind, tuple(reversed(sizes)), offset, numbers // kind.block * kind.size


def _type_name(code: int) -> str:
    from gguf import GGMLQuantizationType

    try:
        return str(GGMLQuantizationType(code).name)
    except ValueError:
        return f"number {code}"
