"""`Base.transcribe`: an audio file to text with times, and its output formats."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from onebase.base.folder import LoadedBase
from onebase.engine.decoder import generate
from onebase.engine.media_prompts import media_tokens
from onebase.engine.sampler import Sampling
from onebase.engine.speech import SpeechRequest, TimedText, Transcriber
from onebase.errors import UserError
from onebase.modality.audio.read import read_audio
from onebase.model.proj import AdapterRouting

TASKS = ("transcribe", "translate")


@dataclass(frozen=True)
class Transcript:
    """A transcript. language: a code, given or detected (None: no audio to detect it from). segments: parts of the text with `start` and `end` in
    seconds. language_probability: of a detected language. duration: of the audio, in seconds."""

    text: str
    language: str | None
    segments: tuple[TimedText, ...] = field(repr=False)
    language_probability: float = 1.0
    duration: float = 0.0


def heard(base: LoadedBase, path: str | Path, routing: AdapterRouting | None) -> Transcript:
    """What a base of patches writes behind a sound. It knows no languages and no times."""
    tokens = media_tokens(base, ("audio", path))
    (said,) = generate(base, [tokens.ids.tolist()], Sampling(), routing, media=[tokens.media])
    cfg: Any = base.model.patches[tokens.media[0].kind].cfg
    frames = len(tokens.media[0]) * cfg.stack
    return Transcript(said.text, None, (), duration=frames * cfg.mel.hop / cfg.mel.rate)


def transcribe(
    ears: Transcriber,
    path: str | Path | bytes,
    *,
    language: str | None = None,
    task: str | None = None,
    timestamps: bool = False,
    temperatures: Sequence[float] | None = None,
    condition: bool = True,
) -> Transcript:
    """Transcribe an audio file, see `Base.transcribe`."""
    how = SpeechRequest(language=language, task=task, timestamps=timestamps, condition=condition)
    if temperatures is not None:
        how = SpeechRequest(**(vars(how) | {"temperatures": tuple(temperatures)}))
    how = ears.checked(how)
    sound_N = read_audio(path, ears.audio.rate)
    seconds = len(sound_N) / ears.audio.rate
    mel_MF = ears.frames(sound_N)
    if mel_MF.shape[1] <= 1:  # less than one frame of audio
        return Transcript("", how.language, (), duration=seconds)
    chosen, probability = how.language, 1.0
    if chosen is None:
        window = mel_MF[:, : ears.audio.context]
        chosen, probability = ears.language(ears.memory(window))
    how = SpeechRequest(**(vars(how) | {"language": chosen}))
    # A timestamp may be beyond the end of the audio.
    segments = tuple(
        replace(s, start=min(s.start, seconds), end=min(s.end, seconds)) for s in ears.segments(mel_MF, how)
    )
    text = "".join(s.text for s in segments).strip()
    return Transcript(text, chosen, segments, probability, seconds)


def _plain(t: Transcript, timestamps: bool) -> str:
    if not timestamps:
        return t.text
    return "\n".join(f"[{clock(s.start)} --> {clock(s.end)}] {s.text.strip()}" for s in t.segments)


def _srt(t: Transcript, timestamps: bool) -> str:
    """SubRip: a number, a line of times with a comma, the text, an empty line."""
    return "\n".join(
        f"{i}\n{clock(s.start, ',')} --> {clock(s.end, ',')}\n{s.text.strip()}\n"
        for i, s in enumerate(t.segments, 1)
    )


def _vtt(t: Transcript, timestamps: bool) -> str:
    """WebVTT (W3C): a header, then times and text with &, < and > escaped as in HTML."""
    import html

    cues = (
        f"{clock(s.start)} --> {clock(s.end)}\n{html.escape(s.text.strip(), quote=False)}\n"
        for s in t.segments
    )
    return "\n".join(["WEBVTT\n", *cues])


def _json(t: Transcript, timestamps: bool) -> str:
    import json

    return json.dumps(as_tree(t), indent=1, ensure_ascii=False)


def as_tree(t: Transcript) -> dict[str, Any]:
    """A transcript as plain data; times to a millisecond."""
    segments = [
        asdict(s) | {"start": round(s.start, 3), "end": round(s.end, 3), "text": s.text.strip()}
        for s in t.segments
    ]
    return {
        "text": t.text,
        "language": t.language,
        "language_probability": round(t.language_probability, 4),
        "duration": round(t.duration, 3),
        "segments": segments,
    }


FORMATS: dict[str, Callable[[Transcript, bool], str]] = {
    "text": _plain,
    "json": _json,
    "srt": _srt,
    "vtt": _vtt,
}
"""Writers of output formats; the flag: whether to write times (subtitles always have them)."""
TIMED = ("srt", "vtt")


def write(t: Transcript, format: str, *, timestamps: bool = False) -> str:
    """A transcript in a format. Raises UserError for an unknown format."""
    if format not in FORMATS:
        raise UserError(f"format {format!r} is not known", f"formats: {', '.join(FORMATS)}")
    return FORMATS[format](t, timestamps)


def clock(seconds: float, point: str = ".") -> str:
    """HH:MM:SS.mmm."""
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"
