"""The rules of decoding speech, each a function: which tokens are allowed next, when to retry, where the next window begins.

V vocabulary. Sources: Whisper (2212.04356, sections 2.3 and 4.5) and, where that leaves a choice, what CTranslate2 and faster-whisper do.
Rules about tokens change a row of logits in place.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from onebase.modality.audio.speech import SpeechConfig

NEVER = -math.inf


def prompt_of(
    speech: SpeechConfig,
    language: str | None,
    task: str | None,
    *,
    timestamps: bool,
    before: Sequence[int] = (),
    context: int,
) -> list[int]:
    """The decoder's prompt: the end of the previous text (less than half the context), then start, language, task, no timestamps."""
    ids: list[int] = []
    if before and speech.previous is not None:
        ids = [speech.previous, *before[-(context // 2 - 1) :]]
    ids.append(speech.start)
    ids += [speech.languages[language]] if language in speech.languages and language else []
    ids += [speech.tasks[task]] if task in speech.tasks and task else []
    return ids if timestamps else [*ids, speech.no_timestamps]


def room_after(prompt: int, context: int) -> int:
    """How many tokens may follow a prompt: at most half the context, and the free positions (the last token is not read again)."""
    return max(0, min(context // 2, context - prompt + 1))


def choose_language(logits_V: Tensor, languages: Mapping[str, int]) -> tuple[str, float]:
    """The most likely language by the logits after the start token, and its probability among the languages."""
    names = list(languages)
    p = logits_V[torch.tensor([languages[n] for n in names], device=logits_V.device)].softmax(-1)
    best = int(p.argmax())
    return names[best], float(p[best])


def silence(logits_V: Tensor, speech: SpeechConfig) -> float:
    """The probability of no speech, by the logits after the start token; 0 if the base has no token for it."""
    return 0.0 if speech.no_speech is None else float(logits_V.softmax(-1)[speech.no_speech])


def suppress(logits_V: Tensor, ids: Sequence[int], speech: SpeechConfig) -> None:
    """Mask tokens that are never allowed, and those that are not allowed first: the end, and a blank."""
    logits_V[list(speech.suppress)] = NEVER
    if not ids:
        logits_V[list(speech.suppress_first)] = NEVER


def begin_with_time(logits_V: Tensor, ids: Sequence[int], speech: SpeechConfig) -> None:
    """The first token must be an early timestamp; the token for no timestamps is never allowed."""
    logits_V[speech.no_timestamps] = NEVER
    if not ids:
        logits_V[: speech.first] = NEVER
        if speech.first_timestamp is not None:
            logits_V[speech.first + speech.first_timestamp + 1 :] = NEVER


def in_pairs(logits_V: Tensor, ids: Sequence[int], speech: SpeechConfig) -> None:
    """A timestamp that ends a text must be followed by one that begins the next, or by the end token; one that begins a text, by text."""
    if not ids or ids[-1] < speech.first:
        return
    if len(ids) < 2 or ids[-2] >= speech.first:
        logits_V[speech.first :] = NEVER
    else:
        logits_V[: speech.end] = NEVER


def forward_in_time(logits_V: Tensor, ids: Sequence[int], speech: SpeechConfig) -> None:
    """No timestamp before the last one; after text only a later one."""
    times = [t for t in ids if t >= speech.first]
    if times:
        least = times[-1] if ids[-1] >= speech.first else times[-1] + 1
        logits_V[speech.first : least] = NEVER


def likelier_time(logits_V: Tensor, ids: Sequence[int], speech: SpeechConfig) -> None:
    """If all timestamps together are more likely than the most likely text token, a timestamp is required. (The first token always is one.)"""
    if ids and logits_V[speech.first :].logsumexp(-1) > logits_V[: speech.first].max():
        logits_V[: speech.first] = NEVER


def ruled(logits_V: Tensor, ids: Sequence[int], speech: SpeechConfig, *, timestamps: bool) -> None:
    """Apply all rules for the next token, in order; the last depends on the result of the others."""
    suppress(logits_V, ids, speech)
    if timestamps:
        begin_with_time(logits_V, ids, speech)
        in_pairs(logits_V, ids, speech)
        forward_in_time(logits_V, ids, speech)
        likelier_time(logits_V, ids, speech)


def repetition(text: str) -> float:
    """Compression ratio of a text by zlib: repetitive text has a higher one."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


@dataclass(frozen=True)
class Thresholds:
    """When an answer is rejected (null: never).

    repetition: its compression ratio is above. logprob: the mean log-probability of its tokens (nats) is below. silence: the probability of no
    speech is above, and the text is unlikely too. forget: after an answer sampled at a temperature above this, the previous text is no longer
    shown.
    """

    repetition: float | None = 2.4
    logprob: float | None = -1.0
    silence: float | None = 0.6
    forget: float = 0.5


def try_again(text: str, logprob: float, silent: float, t: Thresholds) -> bool:
    """Whether to decode again at a higher temperature: the answer is repetitive or unlikely, and the window is not silent."""
    doubtful = t.logprob is not None and logprob < t.logprob
    if t.silence is not None and silent > t.silence and doubtful:
        return False
    return doubtful or (t.repetition is not None and repetition(text) > t.repetition)


def nobody_speaks(logprob: float, silent: float, t: Thresholds) -> bool:
    """Whether to skip the window: it is probably silent, and the answer is not likely enough to contradict that."""
    if t.silence is None or silent <= t.silence:
        return False
    return t.logprob is None or logprob <= t.logprob


@dataclass(frozen=True)
class Cut:
    """A part of one window's answer: seconds from the window's start, and tokens."""

    start: float
    end: float
    ids: tuple[int, ...]


def cut(ids: Sequence[int], speech: SpeechConfig, seconds: float) -> tuple[list[Cut], float | None]:
    """Cut an answer where one timestamp follows another; also returns where the next window begins, None for the end of this one.

    seconds: length of the window. A text without an end (the answer does not end in a single timestamp) is left to the next window.
    """
    first = speech.first
    places = [i for i, (a, b) in enumerate(pairwise(ids), 1) if a >= first and b >= first]
    ended = len(ids) >= 2 and ids[-2] < first <= ids[-1]
    if not places:
        times = [t for t in ids if t >= first]
        end = speech.seconds(times[-1]) if times and times[-1] != first else seconds
        return [Cut(0.0, end, tuple(ids))], None
    ends = [*places, len(ids)] if ended else places
    parts = [tuple(ids[a:b]) for a, b in pairwise([0, *ends])]
    cuts = [Cut(speech.seconds(p[0]), speech.seconds(p[-1]), p) for p in parts]
    return cuts, None if ended else speech.seconds(parts[-1][-1])
