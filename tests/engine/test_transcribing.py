"""`Base.transcribe` and the command: text, times, formats, and what cannot be heard."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest

import onebase
from onebase.engine.speech import Segment
from onebase.engine.transcribing import Transcript, clock, write
from onebase.errors import UserError
from tests.pretrained import onebase as command

pytest.importorskip("transformers")
from tests.formats.speech import speech_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper")
    speech_folder(path, max_source_positions=50)
    return path


def sound(path: Path, seconds: float, rate: int = 16000, seed: int = 0) -> Path:
    x = np.random.default_rng(seed).normal(0, 3000, round(seconds * rate)).astype("<i2")
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes(x.tobytes())
    return path


def test_a_sound_becomes_text_with_times(folder: Path, tmp_path: Path) -> None:
    base = onebase.load(folder)
    said = base.transcribe(sound(tmp_path / "a.wav", 0.9), language="de", temperatures=(0.0,))
    assert said.language == "de" and said.language_probability == 1.0
    assert said.duration == pytest.approx(0.9)
    assert said.text == "".join(s.text for s in said.segments).strip()
    assert [(s.start, s.end) for s in said.segments] == [(0.0, pytest.approx(0.9))]
    again = base.transcribe(tmp_path / "a.wav", language="de", temperatures=(0.0,))
    assert again == said
    timed = base.transcribe(tmp_path / "a.wav", language="de", timestamps=True, temperatures=(0.0,))
    assert all(0 <= s.start <= s.end for s in timed.segments)


def test_no_segment_ends_after_the_sound(folder: Path, tmp_path: Path) -> None:
    """A random base draws any timestamps of its second, in a sound of a fifth of it."""
    base, file = onebase.load(folder), sound(tmp_path / "a.wav", 0.2)
    said = [
        base.transcribe(file, language="en", timestamps=True, temperatures=(t / 10,)) for t in range(5, 15)
    ]
    segments = [s for one in said for s in one.segments]
    assert segments and all(0 <= s.start <= s.end <= 0.2 for s in segments)


def test_long_sounds_and_other_rates(folder: Path, tmp_path: Path) -> None:
    base = onebase.load(folder)
    said = base.transcribe(sound(tmp_path / "a.wav", 3.3, 8000), temperatures=(0.0,))
    assert said.language in base.loaded.speech.languages and 0 < said.language_probability <= 1  # type: ignore[union-attr]
    assert said.duration == pytest.approx(3.3)
    starts = [s.start for s in said.segments]
    assert starts == sorted(starts)


def test_draws_at_a_temperature_are_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    base = onebase.load(folder)
    file = sound(tmp_path / "a.wav", 0.5)
    a, b = (base.transcribe(file, language="en", temperatures=(1.0,)) for _ in range(2))
    assert a == b


def test_the_same_from_a_base_folder(folder: Path, tmp_path: Path) -> None:
    file = sound(tmp_path / "a.wav", 0.9)
    want = onebase.load(folder).transcribe(file)
    base = onebase.import_base(folder, tmp_path / "base")
    assert base.transcribe(file) == want


def test_nothing_to_hear(folder: Path, tmp_path: Path) -> None:
    base = onebase.load(folder)
    for seconds in (0.0, 0.005):
        said = base.transcribe(sound(tmp_path / "a.wav", seconds))
        assert (said.text, said.segments, said.language) == ("", (), None)
    (tmp_path / "b.wav").write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        base.transcribe(tmp_path / "b.wav")


def test_what_a_base_does_not_know(folder: Path, tmp_path: Path) -> None:
    base, file = onebase.load(folder), sound(tmp_path / "a.wav", 0.2)
    with pytest.raises(UserError, match="'xx'"):
        base.transcribe(file, language="xx")
    with pytest.raises(UserError, match="'sing'"):
        base.transcribe(file, task="sing")
    with pytest.raises(UserError, match="temperature"):
        base.transcribe(file, temperatures=())


SAID = Transcript(
    "One & two. Three <b>",
    "en",
    (
        Segment(0.0, 1.5, " One & two.", -0.25, 0.01, 0.0),
        Segment(61.04, 3725.0, " Three <b>", -0.5, 0.02, 0.2),
    ),
    0.9,
    3726.0,
)


def test_formats() -> None:
    assert write(SAID, "text") == "One & two. Three <b>"
    assert write(SAID, "text", timestamps=True) == (
        "[00:00:00.000 --> 00:00:01.500] One & two.\n[00:01:01.040 --> 01:02:05.000] Three <b>"
    )
    assert write(SAID, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nOne & two.\n\n2\n00:01:01,040 --> 01:02:05,000\nThree <b>\n"
    )
    assert write(SAID, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nOne &amp; two.\n\n"
        "00:01:01.040 --> 01:02:05.000\nThree &lt;b&gt;\n"
    )
    tree = json.loads(write(SAID, "json"))
    assert tree["language"] == "en" and tree["segments"][1] == {
        "start": 61.04,
        "end": 3725.0,
        "text": "Three <b>",
        "avg_logprob": -0.5,
        "no_speech_prob": 0.02,
        "temperature": 0.2,
    }
    assert clock(0.9996) == "00:00:01.000"
    with pytest.raises(UserError, match="text, json, srt, vtt"):
        write(SAID, "docx")


def test_the_command(folder: Path, tmp_path: Path) -> None:
    a, b = sound(tmp_path / "a.wav", 0.9), sound(tmp_path / "b.wav", 0.4, seed=1)
    want = onebase.load(folder).transcribe(a, language="de")
    run = ("transcribe", str(folder), "--device", "cpu", "--language", "de")
    said = command(*run, str(a))
    assert said.status == 0 and said.out.strip() == want.text.strip(), said
    said = command(*run, str(a), str(b), "--format", "json")
    trees = json.loads(said.out)
    assert [Path(t["file"]).name for t in trees] == ["a.wav", "b.wav"]
    assert trees[0]["text"] == want.text
    assert "-->" in command(*run, str(a), "--format", "srt").out
    assert command(*run, str(a), "--format", "vtt").out.startswith("WEBVTT")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--format", "docx"), "text, json, srt, vtt"),
        (("--format", "srt", "b.wav"), "2 files"),
        (("--language", "xx"), "'xx'"),
        (("none.wav",), "none.wav"),
    ],
)
def test_the_command_refuses(more: tuple[str, ...], says: str, folder: Path, tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 0.3)
    said = command("transcribe", str(folder), str(tmp_path / "a.wav"), *more)
    assert said.status == 1 and says in said.err and "Traceback" not in said.err
