"""Writing down speech: each rule alone, one window against a decoder without a cache, and windows in a row."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.engine import speech_rules as rules
from onebase.engine.speech import Hypothesis, SpeechRequest, Transcriber
from onebase.engine.speech_rules import Cut, Thresholds
from onebase.errors import UserError
from onebase.modality.audio.speech import SpeechConfig
from onebase.model.mask import Cols
from tests.helpers import tiny_base

# Text 0 .. 9, end 10, start 11, languages 12 and 13, tasks 14 and 15, the rest of the special ones, times from 20 on.
SPEECH = SpeechConfig(
    start=11,
    end=10,
    no_timestamps=19,
    previous=16,
    no_speech=17,
    languages={"en": 12, "de": 13},
    tasks={"transcribe": 14, "translate": 15},
    suppress=(3, 11, 14, 15, 16, 17),
    suppress_first=(4, 10),
    first_timestamp=5,
)
V = 40


def open_after(rule: Any, said: Sequence[int], logits: Tensor | None = None) -> set[int]:
    """The tokens that a rule leaves."""
    z = torch.zeros(V) if logits is None else logits.clone()
    rule(z, said, SPEECH)
    return {i for i in range(V) if z[i] > -math.inf}


def test_prompts() -> None:
    def prompt(**how: Any) -> list[int]:
        return rules.prompt_of(
            SPEECH, **{"language": "de", "task": "translate", "timestamps": True, "context": 8} | how
        )

    assert prompt() == [11, 13, 15]
    assert prompt(timestamps=False) == [11, 13, 15, 19]
    assert prompt(before=[1, 2]) == [16, 1, 2, 11, 13, 15]
    assert prompt(before=[1, 2, 3, 4, 5]) == [16, 3, 4, 5, 11, 13, 15], "less than half the context"
    assert rules.prompt_of(SPEECH, None, None, timestamps=False, context=8) == [11, 19]
    alone = replace(SPEECH, languages={}, tasks={}, previous=None)
    assert rules.prompt_of(alone, "en", "transcribe", timestamps=True, before=[1], context=8) == [11]


def test_room_after_a_prompt() -> None:
    assert [rules.room_after(n, 448) for n in (1, 4, 225, 226, 448, 449, 500)] == [
        224,
        224,
        224,
        223,
        1,
        0,
        0,
    ]


def test_language_by_its_token_alone() -> None:
    z = torch.zeros(V)
    z[5], z[12], z[13] = 9.0, 1.0, 2.0
    name, p = rules.choose_language(z, SPEECH.languages)
    assert name == "de" and p == pytest.approx(1 / (1 + math.exp(-1)))


def test_silence_is_its_tokens_probability() -> None:
    z = torch.zeros(V)
    z[17] = math.log(39.0)
    assert rules.silence(z, SPEECH) == pytest.approx(0.5)
    assert rules.silence(z, replace(SPEECH, no_speech=None)) == 0.0


def test_suppressed_tokens_and_the_blank() -> None:
    assert open_after(rules.suppress, [5]) == set(range(V)) - set(SPEECH.suppress)
    assert open_after(rules.suppress, []) == set(range(V)) - set(SPEECH.suppress) - {4, 10}
    nothing = replace(SPEECH, suppress=(), suppress_first=())
    z = torch.zeros(V)
    rules.suppress(z, [], nothing)
    assert bool((z == 0).all())


def test_first_comes_an_early_timestamp() -> None:
    assert open_after(rules.begin_with_time, []) == set(range(20, 26))
    assert open_after(rules.begin_with_time, [21]) == set(range(V)) - {19}


def test_timestamps_come_in_pairs() -> None:
    assert open_after(rules.in_pairs, []) == set(range(V))
    assert open_after(rules.in_pairs, [20]) == set(range(20)), "behind the first comes text"
    assert open_after(rules.in_pairs, [20, 5]) == set(range(V))
    assert open_after(rules.in_pairs, [20, 5, 22]) == set(range(10, V)), "a second one, or the end"
    assert open_after(rules.in_pairs, [20, 5, 22, 22]) == set(range(20))


def test_time_does_not_go_back() -> None:
    assert open_after(rules.forward_in_time, []) == set(range(V))
    assert open_after(rules.forward_in_time, [22, 5]) == set(range(20)) | set(range(23, V))
    assert open_after(rules.forward_in_time, [20, 5, 25]) == set(range(20)) | set(range(25, V)), (
        "the same may begin"
    )
    assert open_after(rules.forward_in_time, [20, 5, 25, 25, 6]) == set(range(20)) | set(range(26, V))


def test_timestamps_that_are_likelier_together() -> None:
    z = torch.full((V,), -9.0)
    z[5] = 1.0
    z[20:24] = 0.0  # together ln 4 = 1.39
    assert open_after(rules.likelier_time, [20, 4], z) == set(range(20, V))
    z[5] = 1.5
    assert open_after(rules.likelier_time, [20, 4], z) == set(range(V))
    z[5] = 1.0
    assert open_after(rules.likelier_time, [], z) == set(range(V))


def test_all_rules_together() -> None:
    z = torch.zeros(V)
    z[5] = 9.0
    rules.ruled(z, [], SPEECH, timestamps=True)
    assert int(z.argmax()) == 20
    z = torch.zeros(V)
    z[3], z[4], z[5] = 9.0, 8.0, 7.0
    rules.ruled(z, [], SPEECH, timestamps=False)
    assert int(z.argmax()) == 5, "3 never, 4 not first"
    # The last rule sees what the others left: suppressed text does not count against timestamps.
    z = torch.full((V,), -9.0)
    z[3], z[22:26] = 5.0, 0.0
    rules.ruled(z, [20, 5], SPEECH, timestamps=True)
    assert int(z.argmax()) == 22


def test_what_repeats_itself_shrinks() -> None:
    assert rules.repetition("again " * 50) > 2.4 > rules.repetition("The train leaves at half past seven.")
    assert 0 <= rules.repetition("") < 1


@pytest.mark.parametrize(
    ("text", "logprob", "silent", "again"),
    [
        ("well", -0.5, 0.1, False),
        ("well", -1.5, 0.1, True),
        ("well", -1.5, 0.7, False),  # nobody speaks: another draw would not help
        ("on and " * 60, -0.5, 0.1, True),
        ("on and " * 60, -0.5, 0.7, True),
        ("on and " * 60, -1.5, 0.7, False),
    ],
)
def test_when_an_answer_is_drawn_anew(text: str, logprob: float, silent: float, again: bool) -> None:
    assert rules.try_again(text, logprob, silent, Thresholds()) is again
    assert rules.try_again(text, logprob, silent, Thresholds(None, None, None)) is False


def test_when_a_window_is_silent() -> None:
    t = Thresholds()
    assert rules.nobody_speaks(-1.5, 0.7, t) and rules.nobody_speaks(-1.0, 0.7, t)
    assert not rules.nobody_speaks(-0.5, 0.7, t) and not rules.nobody_speaks(-1.5, 0.6, t)
    assert rules.nobody_speaks(-0.5, 0.7, Thresholds(logprob=None))
    assert not rules.nobody_speaks(-9.0, 1.0, Thresholds(silence=None))


def test_an_answer_is_cut_at_its_timestamps() -> None:
    def at(*ids: int) -> tuple[list[Cut], float | None]:
        return rules.cut(ids, SPEECH, 30.0)

    assert at(1, 2) == ([Cut(0.0, 30.0, (1, 2))], None)
    assert at(20, 1, 25) == ([Cut(0.0, pytest.approx(0.1), (20, 1, 25))], None), "ended: the window is done"
    assert at(20, 1) == ([Cut(0.0, 30.0, (20, 1))], None)
    both = [
        Cut(0.0, pytest.approx(0.1), (20, 1, 25)),
        Cut(pytest.approx(0.12), pytest.approx(0.3), (26, 2, 35)),
    ]
    assert at(20, 1, 25, 26, 2, 35) == (both, None)
    assert at(20, 1, 25, 26, 2, 35, 36, 3) == (both, pytest.approx(0.3)), (
        "the third is left to the next window"
    )
    assert at(20, 1, 25, 26, 2, 35, 35) == (both, pytest.approx(0.3))
    assert at() == ([Cut(0.0, 30.0, ())], None)


# --- with a model ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    pytest.importorskip("transformers")
    from onebase.formats.hf.base import open_folder
    from tests.formats.speech import speech_folder

    path = tmp_path_factory.mktemp("whisper")
    speech_folder(path, max_source_positions=50)
    return open_folder(path)


def mel_of(seed: int, frames: int) -> Tensor:
    return torch.randn(8, frames, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def by_hand(base: LoadedBase, mel: Tensor, prompt: list[int], timestamps: bool) -> tuple[list[int], float]:
    """Greedy without a cache: everything anew for every token."""
    memory = Transcriber(base).memory(mel)
    said: list[int] = []
    total = 0.0
    for _ in range(rules.room_after(len(prompt), 40)):
        hidden = base.model.hidden(torch.tensor([prompt + said]), memory=memory).hidden
        z = base.model.text.logits(hidden)[0, -1]
        rules.ruled(z, said, base.speech, timestamps=timestamps)  # type: ignore[arg-type]
        id = int(z.argmax())
        total += float(z.log_softmax(-1)[id])
        if id == base.speech.end:  # type: ignore[union-attr]
            break
        said.append(id)
    return said, total / (len(said) + 1)


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("before", [(), (5, 6, 8, 9)])
def test_a_window_as_by_hand(base: LoadedBase, timestamps: bool, before: tuple[int, ...]) -> None:
    ears, speech = Transcriber(base), base.speech
    assert speech is not None
    for seed in range(3):
        mel = mel_of(seed, 100)
        prompt = rules.prompt_of(speech, "de", "transcribe", timestamps=timestamps, before=before, context=40)
        found = ears.answer(ears.memory(mel), prompt, timestamps=timestamps)
        ids, logprob = by_hand(base, mel, prompt, timestamps)
        assert list(found.ids) == ids and found.logprob == pytest.approx(logprob, abs=1e-4)
        logits = base.model.text.logits(
            base.model.hidden(torch.tensor([prompt]), memory=ears.memory(mel)).hidden
        )[0, prompt.index(speech.start)]
        assert found.silent == pytest.approx(float(logits.softmax(-1)[speech.no_speech]), abs=1e-5)  # type: ignore[index]


def test_draws_are_repeatable_and_the_likeliest_counts(base: LoadedBase) -> None:
    speech = base.speech
    assert speech is not None
    # Few tokens to choose from, so that answers end early and leave the batch at different times.
    few = {*range(40, 46), speech.end}
    ears = Transcriber(
        replace(base, speech=replace(speech, suppress=tuple({*range(speech.first + 26)} - few)))
    )
    memory, prompt = ears.memory(mel_of(1, 100)), [speech.start, speech.no_timestamps]

    def drawn(**how: Any) -> Hypothesis:
        return ears.answer(memory, prompt, timestamps=False, temperature=2.0, **how)

    lengths = set()
    for seed in range(6):
        found = drawn(draws=4, seed=seed)
        assert found == drawn(draws=4, seed=seed)
        each = [drawn(draws=1, seed=4 * seed + i) for i in range(4)]
        lengths |= {len(a.ids) for a in each}
        best = max(each, key=lambda a: a.logprob * (len(a.ids) + 1) / max(1, len(a.ids)))
        assert found.ids == best.ids and found.logprob == pytest.approx(best.logprob, abs=1e-4)
    assert len(lengths) > 3


def test_a_temperature_after_the_other_until_one_is_believed(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    ears, asked = Transcriber(base), list[float]()
    logprobs = {0.0: -3.0, 0.2: -2.0, 0.4: -0.5, 0.6: -0.1}

    def answer(memory: Any, prompt: Any, *, temperature: float, **_: Any) -> Hypothesis:
        asked.append(temperature)
        return Hypothesis((1,), logprobs[temperature], 0.0, temperature, "x")

    monkeypatch.setattr(ears, "answer", answer)
    how = SpeechRequest(temperatures=tuple(logprobs))
    assert ears.believed(None, [], how).temperature == 0.4  # type: ignore[arg-type]
    assert asked == [0.0, 0.2, 0.4]
    none = ears.believed(None, [], replace(how, temperatures=(0.0, 0.2)))  # type: ignore[arg-type]
    assert (none.logprob, none.temperature) == (-2.0, 0.2), "the likeliest of them, at the last temperature"
    logprobs[0.2] = -4.0
    none = ears.believed(None, [], replace(how, temperatures=(0.0, 0.2)))  # type: ignore[arg-type]
    assert (none.logprob, none.temperature) == (-3.0, 0.2)


class Told(Transcriber):
    """Hears what it is told: one answer a window."""

    def tell(self, *answers: Hypothesis) -> "Told":
        self.answers, self.prompts = list(answers), list[list[int]]()
        return self

    def memory(self, mel_MF: Tensor) -> Any:
        return mel_MF

    def believed(self, memory: Any, prompt: Sequence[int], how: SpeechRequest, number: int = 0) -> Hypothesis:
        self.prompts.append([*prompt, memory.shape[1]])
        return self.answers[number]


def told(
    ids: Sequence[int], logprob: float = -0.2, silent: float = 0.0, temperature: float = 0.0
) -> Hypothesis:
    return Hypothesis(tuple(ids), logprob, silent, temperature, "")


def test_windows_follow_the_last_timestamp_and_the_text_before(base: LoadedBase) -> None:
    speech = base.speech
    assert speech is not None
    t, start = speech.first, [speech.start, speech.languages["en"], speech.tasks["transcribe"]]
    h, e = (base.codec.tokenizer.encode(x)[0] for x in "he")
    ears = Told(base).tell(
        told([t, h, t + 10, t + 15, e, t + 20, t + 20, h]),  # the next window begins at 0.4 s
        told([t, h, t + 30], temperature=0.8),  # ended; drawn so hot that the text before is forgotten
        told([t, h, t + 5], silent=0.9, logprob=-2.0),  # nobody speaks
        told([h]),
    )
    how = SpeechRequest(language="en", task="transcribe")
    found = list(ears.segments(mel_of(0, 331), how))
    assert [(round(s.start, 2), round(s.end, 2), s.text) for s in found] == [
        (0.0, 0.2, "h"),
        (0.3, 0.4, "e"),
        (0.4, 1.0, "h"),
        (2.4, 3.3, "h"),
    ]
    first = [t, h, t + 10, t + 15, e, t + 20]
    assert ears.prompts == [
        [*start, 100],
        [speech.previous, *first, *start, 100],
        [*start, 100],
        [*start, 90],
    ]
    assert [s.temperature for s in found] == [0.0, 0.0, 0.8, 0.0]
    alone = Told(base).tell(*ears.answers)
    list(alone.segments(mel_of(0, 331), replace(how, condition=False)))
    assert alone.prompts[1] == [*start, 100]


def test_a_window_that_stands_still_is_left(base: LoadedBase) -> None:
    """Timestamps of 0 seconds on both sides would begin the same window for ever."""
    speech = base.speech
    assert speech is not None
    t = speech.first
    ears = Told(base).tell(*[told([t, 5, t, t, 5])] * 40)
    assert list(ears.segments(mel_of(0, 31), SpeechRequest(language="en"))) == []
    assert len(ears.prompts) == 30


def test_short_sounds_have_timestamps_only_when_asked(base: LoadedBase) -> None:
    speech = base.speech
    assert speech is not None
    for frames, asked, given in ((61, False, False), (61, True, True), (201, False, True)):
        ears = Told(base).tell(told([5]), told([5]))
        list(ears.segments(mel_of(0, frames), SpeechRequest(language="en", timestamps=asked)))
        assert (ears.prompts[0][-2] != speech.no_timestamps) is given


def test_weights_in_another_format_say_the_same(base: LoadedBase) -> None:
    import copy

    half = replace(base, model=copy.deepcopy(base.model).half())
    exact = replace(base, model=copy.deepcopy(half.model).float())
    prompt = [base.speech.start, base.speech.no_timestamps]  # type: ignore[union-attr]
    a, b = Transcriber(half), Transcriber(exact)
    mel = mel_of(2, 100)
    assert a.answer(a.memory(mel), prompt, timestamps=False) == b.answer(
        b.memory(mel), prompt, timestamps=False
    )
    assert {p.dtype for p in half.model.parameters()} == {torch.float16}, "the base itself stays as it is"


def test_an_adapter_is_heard(base: LoadedBase) -> None:
    from onebase.methods.lora import Lora, LoraConfig, inject, remove
    from onebase.model.proj import AdapterRouting

    prompt = [base.speech.start, base.speech.no_timestamps]  # type: ignore[union-attr]
    mel, plain = mel_of(2, 100), Transcriber(base)
    before = plain.answer(plain.memory(mel), prompt, timestamps=False)
    inject(base.model, "x", LoraConfig(rank=2), 0)
    with torch.no_grad():
        for proj in base.model.sites().values():
            if "x" in proj.deltas:
                lora = proj.deltas["x"]
                assert isinstance(lora, Lora)
                lora.b_OR.normal_()
    ears = Transcriber(base, AdapterRouting.all_rows("x"))
    assert ears.answer(ears.memory(mel), prompt, timestamps=False).ids != before.ids
    assert plain.answer(plain.memory(mel), prompt, timestamps=False) == before
    remove(base.model, "x")


def test_what_a_base_cannot_is_refused(base: LoadedBase) -> None:
    with pytest.raises(UserError, match="does not transcribe speech"):
        Transcriber(tiny_base())
    ears = Transcriber(base)
    for wrong in ({"language": "xx"}, {"task": "summarise"}):
        with pytest.raises(UserError, match="does not support"):
            ears.checked(SpeechRequest(**wrong))
    with pytest.raises(UserError, match="temperature"):
        SpeechRequest(temperatures=())
    with pytest.raises(UserError, match="draws"):
        SpeechRequest(draws=0)
    assert ears.checked(SpeechRequest()).task == "transcribe"


def test_one_language_is_english(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from onebase.formats.hf.base import open_folder
    from tests.formats.speech import speech_folder

    speech_folder(tmp_path, multilingual=False)
    ears = Transcriber(open_folder(tmp_path))
    assert ears.checked(SpeechRequest(language="en", task="transcribe")).language == "en"
    for wrong in ({"language": "de"}, {"task": "translate"}):
        with pytest.raises(UserError, match="does not support"):
            ears.checked(SpeechRequest(**wrong))
    memory = ears.memory(mel_of(0, 20))
    assert ears.language(memory) == ("en", 1.0)
    assert memory.cols.shape == Cols.simple(1, 10).shape
