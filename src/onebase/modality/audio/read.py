"""Audio files to samples, decoded by `soundfile` (libsndfile) and resampled by `soxr`, both in the extra `audio`. N samples, C channels.

libsndfile reads a truncated file as far as it goes, without an error. So this module checks that a WAV or MP3 file has all the audio
that its header announces.
"""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from onebase.errors import DataError, UserError
from onebase.readable import duration

RATES = (1_000, 768_000)
LOUDEST = 1e4
"""Float samples may exceed 1 where a mix was too loud; far larger values are not audio."""
STREAMED = (0x7FFFF000, 0x7FFFFF00, 0xFFFFFFFF)
"""Lengths in WAV files that were written to a pipe (sox, arecord, ffmpeg): the audio extends to the end of the file."""
REMEDY = "give an intact WAV, FLAC, OGG or MP3 file"
BLOCK = 1 << 20
"""Samples that are decoded at a time."""
_MP3_FRAME = 1152
"""Samples per frame; the last frames may contain only the encoder's padding."""
_MP3_TAGS = 4096
"""Bytes of tags that may follow the last frame."""


def read_audio(
    source: str | Path | bytes, rate: int, *, name: str = "", longest: float | None = None
) -> Tensor:
    """fp32 samples [N] from -1 to 1 at `rate` per second: the mean of all channels, resampled where the file has another rate.

    source: a file, or its bytes (`name` is then for messages). longest: seconds; a file whose header announces more is not decoded. Raises UserError
    for a file that is missing, empty, damaged, truncated, too long, or in an unknown format, and without the extra.
    """
    path = Path(source) if not isinstance(source, bytes) else Path(name or "the audio")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(path, "rb") as f:
            if not f.read(1):
                raise DataError(f"{path} is empty", "give an audio file")
            f.seek(0)
            sound_N, file_rate = _decoded(f, path, longest)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}", "check the path") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}", "give an audio file") from None
    if not bool((np.abs(sound_N) < LOUDEST).all()):
        raise DataError(
            f"{path} has samples that are NaN, infinite or far too large", "use an intact copy of the file"
        )
    return torch.from_numpy(resampled(sound_N, file_rate, rate))


def check_audio(source: bytes, name: str) -> None:
    """Read the header of an audio file, and of a WAV file that all of its audio is there. Raises as `read_audio` does."""
    if not source:
        raise DataError(f"{name} is empty", "give an audio file")
    _decoded(io.BytesIO(source), Path(name), None, header=True)


def resampled(sound_N: Any, rate: int, wanted: int) -> Any:
    """fp32 samples at `wanted` instead of `rate` per second, round(N * wanted / rate) of them: soxr's quality HQ, as in librosa and
    transformers."""
    if rate == wanted:
        return sound_N
    import soxr

    return soxr.resample(sound_N, rate, wanted, quality="HQ")


def _decoded(f: BinaryIO, path: Path, longest: float | None, header: bool = False) -> tuple[Any, int]:
    """fp32 samples [N] of a file, the mean of its channels, and their rate."""
    try:
        import soundfile
        import soxr  # noqa: F401  fail before an hour of audio is decoded
    except (ImportError, OSError):  # OSError: the wheel's library does not load here
        raise UserError(
            "reading audio needs the packages soundfile and soxr", "pip install 'onebase[audio]'"
        ) from None
    try:
        with soundfile.SoundFile(_whole_wav(f, path)) as sound:
            rate, announced, kind = int(sound.samplerate), int(sound.frames), str(sound.format)
            if not RATES[0] <= rate <= RATES[1]:
                raise DataError(
                    f"{path} has a sample rate of {rate:,} Hz", f"accepted: {RATES[0]:,} to {RATES[1]:,} Hz"
                )
            if longest is not None and announced > longest * rate:
                raise DataError(
                    f"{path} has {duration(announced / rate)} of audio",
                    f"give at most {duration(longest)}, or cut it into pieces",
                )
            parts: list[Any] = []  # one channel is kept in memory, whatever the file has
            with np.errstate(invalid="ignore", over="ignore"):
                while not header and len(block_NC := sound.read(BLOCK, dtype="float32", always_2d=True)):
                    parts.append(block_NC.mean(axis=1, dtype=np.float32))
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as e:
        reason = getattr(e, "error_string", str(e))
        raise DataError(f"{path} cannot be read as audio: {reason[:200]}", REMEDY) from None
    sound_N = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if header:
        return sound_N, rate
    if not len(sound_N) and kind != "WAV":
        raise DataError(f"{path} has no audio that can be read", REMEDY)
    if kind == "MP3":
        _check_mp3(f, path, len(sound_N), announced)
    return sound_N, rate


def _whole_wav(f: BinaryIO, path: Path) -> BinaryIO:
    """The file for libsndfile. A WAV file must have all the audio that its header announces; a file from a pipe that announces none gets
    a length that means "to the end". Format: Microsoft, "Multiple channel audio data and WAVE files" (a chunk is four letters, 32 bits of
    length, and data padded to even)."""
    size, riff = _size(f), f.read(12)
    at = 12 if riff[:4] == b"RIFF" and riff[8:] == b"WAVE" else size
    while at + 8 <= size:
        f.seek(at)
        head = f.read(8)
        length, left = int.from_bytes(head[4:], "little"), size - at - 8
        if head[:4] == b"data":
            if left < length and length not in STREAMED:
                raise DataError(f"{path} is truncated: it has {left:,} of {length:,} bytes of audio", REMEDY)
            if left and not length and int.from_bytes(riff[4:8], "little") + 8 != size:
                f.seek(0)
                raw = f.read()
                return io.BytesIO(raw[: at + 4] + STREAMED[-1].to_bytes(4, "little") + raw[at + 8 :])
            break
        at += 8 + length + (length & 1)
    f.seek(0)
    return f


def _size(f: BinaryIO) -> int:
    """Bytes of an open file; its position stays."""
    at = f.tell()
    size = f.seek(0, os.SEEK_END)
    f.seek(at)
    return size


def _check_mp3(f: BinaryIO, path: Path, found: int, announced: int) -> None:
    """Raise DataError where fewer samples were decoded than the first frame announces, or where decoding stopped early: without an
    announced count libsndfile guesses the length from the bit rate of the first frames, and stops there if the guess is too low."""
    size, at = _size(f), f.tell()
    f.seek(0)
    head = f.read(10)
    tag = sum((b & 0x7F) << 7 * i for i, b in enumerate(reversed(head[6:]))) if head[:3] == b"ID3" else -10
    f.seek(tag + 10)
    first = f.read(_MP3_FRAME)
    if any(name in first for name in (b"Xing", b"Info", b"VBRI")):
        if announced - found > 2 * _MP3_FRAME:
            raise DataError(f"{path} is truncated: it has {found:,} of {announced:,} samples", REMEDY)
    elif at + _MP3_TAGS < size:
        raise DataError(
            f"{path} has a variable bit rate and no frame count: only {at:,} of {size:,} bytes could be read",
            "convert it, for example: ffmpeg -i OLD.mp3 NEW.wav",
        )
