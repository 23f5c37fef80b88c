"""Sound files as samples: WAV by our own reader, FLAC, OGG and MP3 through `soundfile` (extra `audio`). N samples, C channels."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onebase.codec.audio.resample import resampled
from onebase.codec.audio.wav import is_wav, read_wav
from onebase.errors import DataError, UserError

RATES = (1_000, 768_000)
LOUDEST = 1e4
"""Floats may go beyond 1, where a mix was too loud; far beyond it they are no sound."""


def read_audio(path: str | Path, rate: int) -> Tensor:
    """fp32 samples [N] from -1 to 1 at `rate` a second: all channels' mean, resampled where the file has another rate.

    Raises UserError for a file that is missing, empty, damaged, cut off, or in a format that cannot be read.
    """
    path = Path(path)
    try:
        with open(path, "rb") as f:
            head = f.read(12)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}", "check the path") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}", "give a sound file") from None
    if not head:
        raise DataError(f"{path} is empty", "give a sound file")
    sound_NC, own = read_wav(path) if is_wav(head) else _other(path)
    if not RATES[0] <= own <= RATES[1]:
        raise DataError(
            f"{path} says {own:,} samples a second", f"between {RATES[0]:,} and {RATES[1]:,} are read"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        sound_N = sound_NC.mean(axis=1, dtype=np.float32)
    if not bool((np.abs(sound_N) < LOUDEST).all()):
        raise DataError(
            f"{path} holds samples that are no numbers, or far too large", "take an intact copy of it"
        )
    return resampled(torch.from_numpy(sound_N), own, rate)


def _other(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the wheel's library does not load here
        raise UserError(
            f"{path} is no WAV file; other formats need the package soundfile",
            "install it (pip install 'onebase[audio]'), or convert the file to WAV",
        ) from None
    try:
        sound_NC, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as e:
        raise DataError(
            f"{path} cannot be read as sound: {str(e)[:200]}", "give an intact WAV, FLAC, OGG or MP3 file"
        ) from None
    return sound_NC, int(rate)
