"""WAV files. The standard library's `wave` knows neither floats nor (before Python 3.12) WAVE_FORMAT_EXTENSIBLE, so the chunks are read here.

Format: Microsoft, "Multiple channel audio data and WAVE files" (RIFF chunks of four letters, a 32-bit length, data, padded to even).
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from onebase.errors import DataError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
STREAMED = 0xFFFFFFFF
"""The length that writers leave when they could not go back to fill it in: to the end of the file."""
REMEDY = "give a whole WAV file: PCM of 8, 16, 24 or 32 bits, or floats"


@dataclass(frozen=True)
class Layout:
    """How samples are stored: PCM or FLOAT, channels, samples a second, bytes a sample."""

    kind: int
    channels: int
    rate: int
    size: int


def is_wav(head: bytes) -> bool:
    """Do these first 12 bytes begin a WAV file?"""
    return head[:4] == b"RIFF" and head[8:12] == b"WAVE"


def read_wav(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """fp32 samples [N, C] from -1 to 1, and their rate. Raises DataError for what is damaged, cut off or of another kind."""
    size = path.stat().st_size
    with open(path, "rb") as f:
        if not is_wav(f.read(12)):
            raise DataError(f"{path} is not a WAV file", REMEDY)
        layout: Layout | None = None
        while len(head := f.read(8)) == 8:
            name, length = head[:4], struct.unpack("<I", head[4:])[0]
            left = size - f.tell()
            if name == b"data":
                if layout is None:
                    raise DataError(f"{path}: sound comes before its format", REMEDY)
                if length > left and length != STREAMED:
                    raise DataError(
                        f"{path} is cut off: {left:,} of {length:,} bytes of sound are there", REMEDY
                    )
                return _samples(f.read(min(length, left)), layout), layout.rate
            if length > left:
                raise DataError(f"{path}: chunk {name!r} has {length:,} bytes, {left:,} are there", REMEDY)
            if name == b"fmt ":
                layout = _layout(f, length, path)
                length -= min(length, 40)
            f.seek(length + (length & 1), 1)
    raise DataError(f"{path} holds no sound: there is no data chunk", REMEDY)


def _layout(f: BinaryIO, length: int, path: Path) -> Layout:
    raw = f.read(min(length, 40))
    if len(raw) < 16:
        raise DataError(f"{path}: the format has {len(raw)} bytes, not 16", REMEDY)
    kind, channels, rate, _, block, bits = struct.unpack("<HHIIHH", raw[:16])
    if kind == EXTENSIBLE and len(raw) >= 26:
        kind = struct.unpack("<H", raw[24:26])[0]
    sizes = {PCM: (8, 16, 24, 32), FLOAT: (32, 64)}
    if kind not in sizes:
        raise DataError(f"{path}: samples are of kind {kind}", REMEDY + "; convert it to one of these")
    if bits not in sizes[kind]:
        raise DataError(f"{path}: samples have {bits} bits", REMEDY)
    if not channels or not rate or block != channels * bits // 8:
        raise DataError(
            f"{path} says {channels} channels, {rate:,} samples a second, {block} bytes a moment", REMEDY
        )
    return Layout(kind, channels, rate, bits // 8)


def _samples(raw: bytes, layout: Layout) -> npt.NDArray[np.float32]:
    whole = len(raw) - len(raw) % (layout.size * layout.channels)
    data = np.frombuffer(raw, np.uint8, whole)
    if layout.kind == FLOAT:
        x = data.view("<f4" if layout.size == 4 else "<f8").astype(np.float32)
    elif layout.size == 1:  # the one unsigned kind
        x = (data.astype(np.float32) - 128.0) / 128.0
    elif layout.size == 3:  # as the upper three bytes of 32 bits
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = data.reshape(-1, 3)
        x = _scaled(wide.reshape(-1).view("<i4"))
    else:
        x = _scaled(data.view(f"<i{layout.size}"))
    return x.reshape(-1, layout.channels)


def _scaled(whole: npt.NDArray[np.signedinteger[Any]]) -> npt.NDArray[np.float32]:
    """From -1 to 1. An hour of music is half a gigabyte of them: nothing here is wider than it must be."""
    x = whole.astype(np.float32)
    x *= np.float32(2.0 ** (1 - 8 * whole.itemsize))
    return x
