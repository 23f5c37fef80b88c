"""Training samples of text with media, for bases of published layouts: a transcript of a sound (Whisper).

M mel bands, F frames.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onebase.base.folder import LoadedBase
from onebase.engine.speech_rules import prompt_of, room_after
from onebase.errors import DataError
from onebase.modality.audio.config import AudioCodecConfig
from onebase.modality.audio.mel import window_mel
from onebase.modality.audio.read import read_audio
from onebase.modality.text.sample import Media, MediaContent, Tokens

Source = Path | bytes
"""A file, or its bytes."""
SILENT = 1e-4
"""A sound whose largest sample is below this (-80 dB) is silence."""


def digest_of(source: Source) -> str:
    """SHA-256 of a file that can be read."""
    return hashlib.sha256(source if isinstance(source, bytes) else source.read_bytes()).hexdigest()


def audio_content(source: Source, name: str, cfg: AudioCodecConfig) -> MediaContent:
    """A sound as the log-mel frames of one window. It is decoded here once to check it. Raises DataError naming a file that is missing, damaged, silent,
    or longer than the window; UserError without the extra."""

    def remedy() -> str:
        return f"cut it into pieces of at most {cfg.seconds:g} s, each with its text"

    sound_N = read_audio(source, cfg.rate, name=name)
    seconds = len(sound_N) / cfg.rate
    if seconds > cfg.seconds:
        raise DataError(f"{name} has {seconds:.1f} s of audio, the base reads {cfg.seconds:g} s", remedy())
    if len(sound_N) < cfg.hop:
        raise DataError(f"{name} has {seconds:.3f} s of audio, less than one frame", "remove the row")
    if float(sound_N.abs().max()) < SILENT:
        raise DataError(f"{name} is silent", "remove the row, or give the right file")

    def load() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        mel_MF = window_mel(read_audio(source, cfg.rate, name=name), cfg)
        return mel_MF.numpy(), np.zeros((0, 0), np.int64)

    return MediaContent(digest_of(source), 0, load, name, (cfg.places,), f"audio {seconds:.1f} s")


def transcript(base: LoadedBase, sound: MediaContent, text: str, language: str | None) -> Tokens:
    """A sound and its transcript without times: start, language and task as in transcription, then the supervised text with its end. Raises
    DataError for a text longer than the decoder writes."""
    speech = base.speech
    assert speech is not None
    task = speech.task or ("transcribe" if "transcribe" in speech.tasks else None)
    context = base.model.cfg.text.context
    before = prompt_of(speech, language, task, timestamps=False, context=context)
    # A space before the first word, as pretraining had it.
    written = [*base.codec.tokenizer.encode(f" {text.strip()}"), speech.end]
    if len(written) > (room := room_after(len(before), context)):
        raise DataError(
            f"has {len(written)} tokens of text, the decoder writes at most {room}",
            "cut the sound and its text into pieces",
        )
    ids = np.asarray([*before, *written], np.int32)
    return Tokens(ids, np.arange(len(ids)) >= len(before), source="sound", media=(Media("audio", 0, sound),))
