"""Real files of images and sound that people have and wish they had not: damaged, far too large, misnamed, unusual. All are small on disk."""

import io
import struct
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, FRAMES, HOURS = 50_000, 100_000, 3
RATE = 16000


def _encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (32, 24)) -> Image.Image:
    """A picture of noise, so that half of its file is half of its pixels."""
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8), mode)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, colour: int, lines: bytes, times: int = 1) -> bytes:
    """A PNG file whose lines repeat `times` times; depth and colour as in its specification."""
    packer = zlib.compressobj(9)
    packed = b"".join([packer.compress(lines) for _ in range(times)]) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def huge_png() -> bytes:
    """50,000 x 50,000 pixels of one colour: 2.5 thousand million in 400 kB."""
    line = bytes(1 + -(-SIDE // 8))
    return _png(SIDE, SIDE, 1, 0, line * 100, SIDE // 100)


def deep_png() -> bytes:
    """16 bits a channel, grey."""
    values = np.linspace(0, 65535, 24 * 32).astype(">u2").reshape(24, 32)
    return _png(32, 24, 16, 0, b"".join(b"\0" + row.tobytes() for row in values))


def many_frames() -> bytes:
    """A GIF file of 100,000 frames."""
    one = _encoded(Image.new("P", (8, 8), 1), "GIF")
    begin = one.index(b"\x2c", 13)  # the first image descriptor
    return one[:begin] + one[begin:-1] * FRAMES + b";"


def _animated(kind: str) -> bytes:
    first, *rest = [Image.new("RGB", (16, 16), c) for c in ("red", "green", "blue")]
    return _encoded(first, kind, save_all=True, append_images=rest, duration=100)


def tone(seconds: float = 0.4) -> np.ndarray:
    """Samples from -1 to 1 at RATE."""
    found: np.ndarray = (0.3 * np.sin(np.arange(int(seconds * RATE)) / 20)).astype(np.float32)
    return found


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """16 bits, one channel."""
    out = io.BytesIO()
    with wave.open(out, "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes((samples * 32767).astype("<i2").tobytes())
    return out.getvalue()


def float_wav(samples: np.ndarray) -> bytes:
    """32 bits of floats (format 3), one channel."""
    data = samples.astype("<f4").tobytes()
    head = struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _head_of(length: int, rate: int = RATE) -> bytes:
    """The header of a WAV file of 8 bits with so many samples behind it."""
    fmt = struct.pack("<HHIIHH", 1, 1, rate, rate, 1, 8)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", length)
    return b"RIFF" + struct.pack("<I", 36 + length) + body


def long_flac() -> bytes:
    """Three hours of silence, in 100 kB."""
    import soundfile

    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", 8000, 1, "PCM_16", format="FLAC") as f:
        for _ in range(HOURS * 60):
            f.write(np.zeros(8000 * 60, np.int16))
    return out.getvalue()


def with_nan() -> np.ndarray:
    found = tone()
    found[100] = np.nan
    return found


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


IMAGES: dict[str, Callable[[], bytes]] = {
    "truncated.png": lambda: _half(_encoded(noise(), "PNG")),
    "truncated.jpg": lambda: _half(_encoded(noise(), "JPEG")),
    "empty.png": lambda: b"",
    "text.png": lambda: b"no picture at all\n" * 9,
    "sound.png": lambda: wav(tone()),
    "huge.png": huge_png,
    "line.png": lambda: _encoded(Image.new("L", (SIDE, 1)), "PNG"),
}
"""Images that cannot be read, or not into a few patches."""
ODD_IMAGES: dict[str, Callable[[], bytes]] = {
    "jpeg.png": lambda: _encoded(noise(), "JPEG"),
    "frames.gif": many_frames,
    "animated.png": lambda: _animated("PNG"),
    "animated.webp": lambda: _animated("WEBP"),
    "cmyk.jpg": lambda: _encoded(noise("CMYK"), "JPEG"),
    "deep.png": deep_png,
}
"""Images that are unusual and read."""
SOUNDS: dict[str, Callable[[], bytes]] = {
    "truncated.wav": lambda: _half(wav(tone())),
    "empty.wav": lambda: b"",
    "text.wav": lambda: b"no sound at all\n" * 9,
    "image.wav": lambda: _encoded(noise(), "PNG"),
    "none.wav": lambda: wav(tone(0)),
    "nan.wav": lambda: float_wav(with_nan()),
    "hertz.wav": lambda: wav(tone(), 1),
    "announced.wav": lambda: _head_of(HOURS * 3600 * RATE) + b"\x80" * 100,
    "long.flac": long_flac,
}
"""Sounds that cannot be read, or are too long."""
ODD_SOUNDS: dict[str, Callable[[], bytes]] = {
    "wav.flac": lambda: wav(tone()),
    "wav.mp3": lambda: wav(tone()),
    "float.wav": lambda: float_wav(tone()),
}
"""Sounds that are unusual and read."""
ALL = IMAGES | ODD_IMAGES | SOUNDS | ODD_SOUNDS


def made(folder: Path, *names: str) -> list[Path]:
    """The files of these names in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    out = [folder / name for name in names]
    for path in out:
        path.write_bytes(ALL[path.name]())
    return out


def long_wav(path: Path) -> Path:
    """Three hours at 4 kHz, 43 MB of which nothing is on disk: a file with a hole."""
    length = HOURS * 3600 * 4000
    with path.open("wb") as f:
        f.write(_head_of(length, 4000))
        f.truncate(44 + length)
    return path
