"""Sound to text: the encoder hears a window, the decoder writes, the next window begins where the last one was understood.

B rows, T time, D width, V vocabulary, M mel bands, F frames.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.codec.audio.mel import log_mel
from onebase.codec.audio.speech import SpeechConfig
from onebase.codec.text.modules import TextModule
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
from onebase.model.cache import Cache
from onebase.model.cross import Memory
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.model.trunk import Trunk


@dataclass(frozen=True)
class SpeechRequest:
    """How to listen. language: a code, None to detect it. temperatures: tried in turn while an answer is not believed (0 is greedy); above
    0 the likeliest of `draws` answers counts. condition: show the decoder the text before. Raises UserError."""

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
            raise UserError("there is no temperature to try", "give at least one; 0 is greedy")
        if self.draws < 1:
            raise UserError(f"draws is {self.draws}", "give a whole number of at least 1")


@dataclass(frozen=True)
class Hypothesis:
    """What the decoder wrote for one window: tokens without the end, the mean log-probability of each (the end counted), the
    probability that nobody speaks, the temperature it was drawn at, and the text."""

    ids: tuple[int, ...]
    logprob: float
    silent: float
    temperature: float
    text: str


@dataclass(frozen=True)
class TimedText:
    """A piece of text and when it was said, in seconds from the beginning."""

    start: float
    end: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float


class Transcriber:
    """A base that writes down what it hears. Make it once and use it for many sounds: weights kept in another number format than the one
    they compute in are converted when it is made. Raises UserError for a base that cannot."""

    def __init__(self, base: LoadedBase, routing: AdapterRouting | None = None) -> None:
        if (
            base.speech is None
            or base.model.cfg.link("memory") is None
            or "audio" not in base.model.cfg.codecs
        ):
            raise UserError(
                "this base does not write down speech", "use one that does (a Whisper: docs/speech.md)"
            )
        self.base, self.routing = base, routing
        self.speech: SpeechConfig = base.speech
        self.audio = base.model.cfg.audio
        self._model, self._dtype = base.model, base.model.compute_dtype
        self._device = base.model.device
        # Every new token reads all of the decoder: casting its weights each time would take longer than to multiply.
        self._trunk = cast(Trunk, _in_format(base.model.trunk, self._dtype))
        self._ends = cast(TextModule, _in_format(base.model.text, self._dtype))
        self._context = base.model.cfg.text.context

    def checked(self, how: SpeechRequest) -> SpeechRequest:
        """`how` with the base's own language and task where none is named. Raises UserError for what the base does not know."""
        known = self.speech
        language, task = how.language or known.language, how.task or known.task
        if language is not None and language not in (known.languages or ("en",)):
            raise UserError(
                f"language {language!r} is not known to this base",
                f"known: {', '.join(known.languages) or 'en'}",
            )
        if task is not None and task not in (known.tasks or ("transcribe",)):
            raise UserError(
                f"task {task!r} is not known to this base",
                f"known: {', '.join(known.tasks) or 'transcribe'}",
            )
        if task is None and known.tasks:
            task = "transcribe" if "transcribe" in known.tasks else next(iter(known.tasks))
        values = {"language": language, "task": task}
        return SpeechRequest(**(vars(how) | values))

    def frames(self, sound_N: Tensor) -> Tensor:
        """Log-mel frames [M, F] of a whole sound, a frame more than it fills."""
        return log_mel(torch.nn.functional.pad(sound_N, (0, self.audio.hop)), self.audio)

    @torch.inference_mode()
    def memory(self, mel_MF: Tensor) -> Memory:
        """What the encoder makes of a window; frames that it lacks are zeros, as faster-whisper has them."""
        short = self.audio.context - mel_MF.shape[1]
        mel_BMF = torch.nn.functional.pad(mel_MF, (0, short))[None].to(self._device)
        states = self._model.states("audio", mel_BMF, routing=self.routing).hidden
        return Memory(states, Cols.simple(1, states.shape[1], self._device))

    @torch.inference_mode()
    def language(self, memory: Memory) -> tuple[str, float]:
        """The likeliest language of a window, and its probability; English, where the base knows no other."""
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
        """What the decoder writes after `prompt`: the likeliest token each time, or the likeliest of `draws` answers at a temperature."""
        rows = draws if temperature > 0 else 1
        cache = self._cache(len(prompt) + room_after(len(prompt), self._context))
        hidden = self._hidden([list(prompt)], 0, cache, memory)
        logits_TV = self._ends.logits(hidden[0, [prompt.index(self.speech.start), -1]], self.routing)
        silent = silence(logits_TV[0], self.speech)
        cache.keep(torch.zeros(rows, dtype=torch.long, device=self._device))
        samplings = [Sampling(temperature=temperature, seed=seed * rows + i) for i in range(rows)]
        sampler = Sampler(samplings, self._device)
        said: list[list[int]] = [[] for _ in range(rows)]
        sums, open_ = [0.0] * rows, list(range(rows))
        logits_BV = logits_TV[1:].repeat(rows, 1)
        for step in range(room_after(len(prompt), self._context)):
            for i, row in enumerate(open_):
                ruled(logits_BV[i], said[row], self.speech, timestamps=timestamps)
            ids_B = sampler(logits_BV)
            logp_B = logits_BV.log_softmax(-1).gather(-1, ids_B[:, None])[:, 0].tolist()
            ids = ids_B.tolist()
            for row, p in zip(open_, logp_B, strict=True):
                sums[row] += p
            going = [i for i, id in enumerate(ids) if id != self.speech.end]
            for i in going:
                said[open_[i]].append(ids[i])
            if len(going) < len(open_):
                if not going:
                    break
                cache.keep(torch.tensor(going, device=self._device))
                sampler, open_ = sampler.rows(going), [open_[i] for i in going]
            if step + 1 < room_after(len(prompt), self._context):
                new = [[said[row][-1]] for row in open_]
                logits_BV = self._ends.logits(
                    self._hidden(new, len(prompt) + step, cache)[:, -1], self.routing
                )
        # Which answer is the best: by the mean over its own tokens, as CTranslate2 orders them.
        best = max(range(rows), key=lambda r: sums[r] / max(1, len(said[r])))
        text = self.text(said[best]).strip()
        return Hypothesis(tuple(said[best]), sums[best] / (len(said[best]) + 1), silent, temperature, text)

    def believed(
        self, memory: Memory, prompt: Sequence[int], how: SpeechRequest, number: int = 0
    ) -> Hypothesis:
        """The first answer that is believed, of those at each temperature; of none, the likeliest that does not repeat itself."""
        tried: list[Hypothesis] = []
        for temperature in how.temperatures:
            found = self.answer(
                memory,
                prompt,
                timestamps=how.timestamps,
                temperature=temperature,
                draws=how.draws,
                seed=how.seed + number,
            )
            if not try_again(found.text, found.logprob, found.silent, how.thresholds):
                return found
            tried.append(found)
        most = how.thresholds.repetition
        plain = [a for a in tried if most is None or repetition(a.text) <= most]
        best = max(plain or tried, key=lambda a: a.logprob)
        # The temperature counts that was needed in the end: it says how far the text can be trusted.
        return Hypothesis(best.ids, best.logprob, best.silent, how.temperatures[-1], best.text)

    def segments(self, mel_MF: Tensor, how: SpeechRequest) -> Iterator[TimedText]:
        """Pieces of text as they are understood, window by window. `how` is checked, and names its language.

        A sound longer than a window is always written with timestamps: the next window begins at the last of them.
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
            found = self.believed(memory, prompt, how, number)
            number += 1
            if nobody_speaks(found.logprob, found.silent, how.thresholds):
                at += frames
                continue
            offset = at / per_second
            cuts, on = cut(found.ids, self.speech, frames / per_second)
            for part in cuts:
                text = self.text(part.ids)
                if part.start != part.end and text.strip():
                    before += part.ids
                    yield _segment(part, offset, text, found)
            if found.temperature > how.thresholds.forget:
                before = []
            at += frames if on is None else max(1, round(on * per_second))

    def text(self, ids: Sequence[int]) -> str:
        """The words among `ids`: no timestamps, no special tokens."""
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


def _segment(part: Cut, offset: float, text: str, found: Hypothesis) -> TimedText:
    return TimedText(
        offset + part.start, offset + part.end, text, found.logprob, found.silent, found.temperature
    )


def _in_format(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The module itself, or a copy with its weights in the number format it computes in. What is in few bits stays so."""
    weights = list(module.parameters())
    if all(p.dtype == dtype for p in weights) or any(not p.is_floating_point() for p in weights):
        return module
    return copy.deepcopy(module).to(dtype)
