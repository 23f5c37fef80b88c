"""The rules of writing down speech, each a function: what may be chosen next, when to try again, where the next window begins.

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

from onebase.codec.audio.speech import SpeechConfig

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
    """What the decoder is given: the end of the text before (less than half the context), then start, language, task, no timestamps."""
    ids: list[int] = []
    if before and speech.previous is not None:
        ids = [speech.previous, *before[-(context // 2 - 1) :]]
    ids.append(speech.start)
    ids += [speech.languages[language]] if language in speech.languages and language else []
    ids += [speech.tasks[task]] if task in speech.tasks and task else []
    return ids if timestamps else [*ids, speech.no_timestamps]


def room_after(prompt: int, context: int) -> int:
    """How many tokens may follow a prompt: half the context, and what is free (the last one is not read again)."""
    return max(0, min(context // 2, context - prompt + 1))


def choose_language(logits_V: Tensor, languages: Mapping[str, int]) -> tuple[str, float]:
    """The likeliest language by the logits after the start token alone, and its probability among the languages."""
    names = list(languages)
    p = logits_V[torch.tensor([languages[n] for n in names], device=logits_V.device)].softmax(-1)
    best = int(p.argmax())
    return names[best], float(p[best])


def silence(logits_V: Tensor, speech: SpeechConfig) -> float:
    """The probability that nobody speaks, by the logits after the start token; 0 where the base has no token for it."""
    return 0.0 if speech.no_speech is None else float(logits_V.softmax(-1)[speech.no_speech])


def suppress(logits_V: Tensor, said: Sequence[int], speech: SpeechConfig) -> None:
    """Tokens that are never chosen, and those that are not chosen first: the end, and a blank."""
    logits_V[list(speech.suppress)] = NEVER
    if not said:
        logits_V[list(speech.suppress_first)] = NEVER


def begin_with_time(logits_V: Tensor, said: Sequence[int], speech: SpeechConfig) -> None:
    """First comes a timestamp, and an early one; the token that forgoes timestamps never comes."""
    logits_V[speech.no_timestamps] = NEVER
    if not said:
        logits_V[: speech.first] = NEVER
        if speech.first_timestamp is not None:
            logits_V[speech.first + speech.first_timestamp + 1 :] = NEVER


def in_pairs(logits_V: Tensor, said: Sequence[int], speech: SpeechConfig) -> None:
    """A timestamp that ends a text is followed by one that begins the next, or by the end; one that begins a text is followed by it."""
    if not said or said[-1] < speech.first:
        return
    if len(said) < 2 or said[-2] >= speech.first:
        logits_V[speech.first :] = NEVER
    else:
        logits_V[: speech.end] = NEVER


def forward_in_time(logits_V: Tensor, said: Sequence[int], speech: SpeechConfig) -> None:
    """No timestamp before the last one; behind text only a later one."""
    times = [t for t in said if t >= speech.first]
    if times:
        least = times[-1] if said[-1] >= speech.first else times[-1] + 1
        logits_V[speech.first : least] = NEVER


def likelier_time(logits_V: Tensor, said: Sequence[int], speech: SpeechConfig) -> None:
    """Where all timestamps together are likelier than the likeliest text, a timestamp comes. (First comes one anyway.)"""
    if said and logits_V[speech.first :].logsumexp(-1) > logits_V[: speech.first].max():
        logits_V[: speech.first] = NEVER


def ruled(logits_V: Tensor, said: Sequence[int], speech: SpeechConfig, *, timestamps: bool) -> None:
    """All rules about the next token, in their order; the last looks at what the others left."""
    suppress(logits_V, said, speech)
    if timestamps:
        begin_with_time(logits_V, said, speech)
        in_pairs(logits_V, said, speech)
        forward_in_time(logits_V, said, speech)
        likelier_time(logits_V, said, speech)


def repetition(text: str) -> float:
    """How many times smaller zlib makes a text: one that repeats itself shrinks more."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


@dataclass(frozen=True)
class Thresholds:
    """When an answer is not believed (null: never).

    repetition: it shrinks more than so. logprob: the mean log-probability of its tokens (nats) is below. silence: the probability that
    nobody speaks is above, and the text is not likely either. forget: after an answer drawn at a temperature above this, the text
    before it is no longer shown.
    """

    repetition: float | None = 2.4
    logprob: float | None = -1.0
    silence: float | None = 0.6
    forget: float = 0.5


def try_again(text: str, logprob: float, silent: float, t: Thresholds) -> bool:
    """Is the answer to be drawn anew at a higher temperature: repetitive or unlikely, unless nobody speaks anyway?"""
    doubtful = t.logprob is not None and logprob < t.logprob
    if t.silence is not None and silent > t.silence and doubtful:
        return False
    return doubtful or (t.repetition is not None and repetition(text) > t.repetition)


def nobody_speaks(logprob: float, silent: float, t: Thresholds) -> bool:
    """Is the window left out: likely silent, and the answer not likely enough to say otherwise?"""
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
    """An answer cut where one timestamp follows another; and where the next window begins, None for the end of this one.

    seconds: how long the window is. A text whose end was not heard (the answer does not end in a single timestamp) is left to the
    next window.
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
