"""Transcribes speech: the encoder reads a window of audio, the decoder writes its text, and the next window begins after the last complete text.

B rows, T time, D width, V vocabulary, M mel bands, F frames.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.engine.sampler import Sampler, Sampling
from onebase.engine.speech_rules import (
    Cut,
    Thresholds,
    choose_language,
    cut,
    nobody_speaks,
    prompt_of,
    repetition,
    room_after,
    ruled,
    silence,
    try_again,
)
from onebase.errors import UserError
from onebase.modality.audio.mel import log_mel
from onebase.modality.audio.speech import SpeechConfig
from onebase.modality.text.modules import TextModule
from onebase.model.cache import Cache
from onebase.model.cross import Memory
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.model.trunk import Trunk


@dataclass(frozen=True)
class SpeechRequest:
    """Options of transcription. language: a code, None to detect it. temperatures: tried in turn until an answer is accepted (0 is greedy); above 0
    the most likely of `draws` samples is used. condition: show the decoder the previous text. Raises UserError."""

    language: str | None = None
    task: str | None = None
    timestamps: bool = False
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    draws: int = 5
    condition: bool = True
    thresholds: Thresholds = field(default_factory=Thresholds)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperatures:
            raise UserError("temperatures is empty", "give at least one; 0 is greedy")
        if self.draws < 1:
            raise UserError(f"draws is {self.draws}", "give a whole number of at least 1")


@dataclass(frozen=True)
class Hypothesis:
    """The decoder's output for one window. ids: tokens without the end token. logprob: mean per token (with the end token). silent: probability that
    there is no speech. temperature: of sampling. text: without special tokens."""

    ids: tuple[int, ...]
    logprob: float
    silent: float
    temperature: float
    text: str


@dataclass(frozen=True)
class TimedText:
    """A segment of text with its times, in seconds from the beginning."""

    start: float
    end: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float


class Transcriber:
    """Transcribes audio with a base. Create it once and use it for many files: weights are converted to the compute format on creation. Raises
    UserError for a base that cannot transcribe."""

    def __init__(self, base: LoadedBase, routing: AdapterRouting | None = None) -> None:
        if (
            base.speech is None
            or base.model.cfg.link("memory") is None
            or "audio" not in base.model.cfg.codecs
        ):
            raise UserError(
                "this base does not transcribe speech", "use one that does (Whisper: docs/speech.md)"
            )
        self.base, self.routing = base, routing
        self.speech: SpeechConfig = base.speech
        self.audio = base.model.cfg.audio
        self._model, self._dtype = base.model, base.model.compute_dtype
        self._device = base.model.device
        # Every new token reads all weights of the decoder: casting them each time would take longer than multiplying.
        self._trunk = cast(Trunk, _in_format(base.model.trunk, self._dtype))
        self._ends = cast(TextModule, _in_format(base.model.text, self._dtype))
        self._context = base.model.cfg.text.context

    def checked(self, how: SpeechRequest) -> SpeechRequest:
        """`how` with the base's default language and task filled in. Raises UserError for an unknown language or task."""
        known = self.speech
        language, task = how.language or known.language, how.task or known.task
        if language is not None and language not in (known.languages or ("en",)):
            raise UserError(
                f"this base does not support language {language!r}",
                f"supported: {', '.join(known.languages) or 'en'}",
            )
        if task is not None and task not in (known.tasks or ("transcribe",)):
            raise UserError(
                f"this base does not support task {task!r}",
                f"supported: {', '.join(known.tasks) or 'transcribe'}",
            )
        if task is None and known.tasks:
            task = "transcribe" if "transcribe" in known.tasks else next(iter(known.tasks))
        values = {"language": language, "task": task}
        return SpeechRequest(**(vars(how) | values))

    def frames(self, sound_N: Tensor) -> Tensor:
        """Log-mel frames [M, F] of whole audio, one frame more than it fills."""
        return log_mel(torch.nn.functional.pad(sound_N, (0, self.audio.hop)), self.audio)

    @torch.inference_mode()
    def memory(self, mel_MF: Tensor) -> Memory:
        """The encoder's output for a window; missing frames are zeros, as in faster-whisper."""
        short = self.audio.context - mel_MF.shape[1]
        mel_BMF = torch.nn.functional.pad(mel_MF, (0, short))[None].to(self._device)
        states = self._model.states("audio", mel_BMF, routing=self.routing).hidden
        return Memory(states, Cols.simple(1, states.shape[1], self._device))

    @torch.inference_mode()
    def language(self, memory: Memory) -> tuple[str, float]:
        """The most likely language of a window, and its probability; English if the base has no languages."""
        if not self.speech.languages:
            return "en", 1.0
        cache = self._cache(1)
        hidden = self._hidden([[self.speech.start]], 0, cache, memory)
        return choose_language(self._ends.logits(hidden[0, -1], self.routing), self.speech.languages)

    @torch.inference_mode()
    def answer(
        self,
        memory: Memory,
        prompt: Sequence[int],
        *,
        timestamps: bool,
        temperature: float = 0.0,
        draws: int = 1,
        seed: int = 0,
    ) -> Hypothesis:
        """Decode after `prompt`: greedily, or the most likely of `draws` samples at a temperature above 0."""
        rows = draws if temperature > 0 else 1
        cache = self._cache(len(prompt) + room_after(len(prompt), self._context))
        hidden = self._hidden([list(prompt)], 0, cache, memory)
        logits_TV = self._ends.logits(hidden[0, [prompt.index(self.speech.start), -1]], self.routing)
        silent = silence(logits_TV[0], self.speech)
        cache.keep(torch.zeros(rows, dtype=torch.long, device=self._device))
        samplings = [Sampling(temperature=temperature, seed=seed * rows + i) for i in range(rows)]
        sampler = Sampler(samplings, self._device)
        outputs: list[list[int]] = [[] for _ in range(rows)]
        sums, open_ = [0.0] * rows, list(range(rows))
        logits_BV = logits_TV[1:].repeat(rows, 1)
        for step in range(room_after(len(prompt), self._context)):
            for i, row in enumerate(open_):
                ruled(logits_BV[i], outputs[row], self.speech, timestamps=timestamps)
            ids_B = sampler(logits_BV)
            logp_B = logits_BV.log_softmax(-1).gather(-1, ids_B[:, None])[:, 0].tolist()
            ids = ids_B.tolist()
            for row, p in zip(open_, logp_B, strict=True):
                sums[row] += p
            going = [i for i, id in enumerate(ids) if id != self.speech.end]
            for i in going:
                outputs[open_[i]].append(ids[i])
            if len(going) < len(open_):
                if not going:
                    break
                cache.keep(torch.tensor(going, device=self._device))
                sampler, open_ = sampler.rows(going), [open_[i] for i in going]
            if step + 1 < room_after(len(prompt), self._context):
                new = [[outputs[row][-1]] for row in open_]
                logits_BV = self._ends.logits(
                    self._hidden(new, len(prompt) + step, cache)[:, -1], self.routing
                )
        # The best answer by the mean over its tokens, as in CTranslate2.
        best = max(range(rows), key=lambda r: sums[r] / max(1, len(outputs[r])))
        ids_of_best, text = tuple(outputs[best]), self.text(outputs[best]).strip()
        return Hypothesis(ids_of_best, sums[best] / (len(ids_of_best) + 1), silent, temperature, text)

    def believed(
        self, memory: Memory, prompt: Sequence[int], how: SpeechRequest, number: int = 0
    ) -> Hypothesis:
        """The first accepted answer, trying each temperature in turn; if none is accepted, the most likely one that is not repetitive."""
        tried: list[Hypothesis] = []
        for temperature in how.temperatures:
            answer = self.answer(
                memory,
                prompt,
                timestamps=how.timestamps,
                temperature=temperature,
                draws=how.draws,
                seed=how.seed + number,
            )
            if not try_again(answer.text, answer.logprob, answer.silent, how.thresholds):
                return answer
            tried.append(answer)
        most = how.thresholds.repetition
        plain = [a for a in tried if most is None or repetition(a.text) <= most]
        best = max(plain or tried, key=lambda a: a.logprob)
        # The last temperature is reported: it indicates how reliable the text is.
        return Hypothesis(best.ids, best.logprob, best.silent, how.temperatures[-1], best.text)

    def segments(self, mel_MF: Tensor, how: SpeechRequest) -> Iterator[TimedText]:
        """Segments of text, window by window. `how` comes from `checked`, and has a language.

        Audio longer than a window is always decoded with timestamps: the next window begins at the last of them.
        """
        per_second = self.audio.rate / self.audio.hop
        total = mel_MF.shape[1] - 1  # the last frame is the one that was added
        if total > self.audio.context:
            how = SpeechRequest(**(vars(how) | {"timestamps": True}))
        at, number, before = 0, 0, list[int]()
        while at < total:
            frames = min(self.audio.context, total - at)
            memory = self.memory(mel_MF[:, at : at + frames])
            prompt = prompt_of(
                self.speech,
                how.language,
                how.task,
                timestamps=how.timestamps,
                before=before if how.condition else (),
                context=self._context,
            )
            answer = self.believed(memory, prompt, how, number)
            number += 1
            if nobody_speaks(answer.logprob, answer.silent, how.thresholds):
                at += frames
                continue
            offset = at / per_second
            cuts, on = cut(answer.ids, self.speech, frames / per_second)
            for part in cuts:
                text = self.text(part.ids)
                if part.start != part.end and text.strip():
                    before += part.ids
                    yield _segment(part, offset, text, answer)
            if answer.temperature > how.thresholds.forget:
                before = []
            at += frames if on is None else max(1, round(on * per_second))

    def text(self, ids: Sequence[int]) -> str:
        """The text of `ids`, without timestamps and special tokens."""
        tokenizer = self.base.codec.tokenizer
        shown = [i for i in ids if i < self.speech.first and i not in tokenizer.special_ids]
        return tokenizer.decode([i for i in shown if i < tokenizer.vocab_size])

    def _cache(self, slots: int) -> Cache:
        return Cache(self._trunk.cfg, 1, slots, self._device, self._dtype)

    def _hidden(self, ids: list[list[int]], start: int, cache: Cache, memory: Memory | None = None) -> Tensor:
        """States [B, T, D] of new tokens that begin at position `start`."""
        ids_BT = torch.tensor(ids, device=self._device)
        cols = Cols.simple(len(ids), len(ids[0]), self._device, start=start)
        x_BTD = self._ends.embed(ids_BT, cols.pos, self._dtype, self.routing, cols.doc)
        out: Tensor = self._trunk(
            x_BTD, cols, cache=cache, routing=self.routing, memory=memory, impl="sdpa"
        ).hidden
        return out


def _segment(part: Cut, offset: float, text: str, answer: Hypothesis) -> TimedText:
    return TimedText(
        offset + part.start, offset + part.end, text, answer.logprob, answer.silent, answer.temperature
    )


def _in_format(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The module itself, or a copy with its weights in the compute format. Quantized weights stay quantized."""
    weights = list(module.parameters())
    if all(p.dtype == dtype for p in weights) or any(not p.is_floating_point() for p in weights):
        return module
    return copy.deepcopy(module).to(dtype)
