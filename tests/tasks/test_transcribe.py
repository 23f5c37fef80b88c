"""Task transcribe: a tiny Whisper learns words of sounds, by LoRA and by all weights; rows that it cannot learn from are named."""

import base64
import json
import math
import random
import struct
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onebase
from onebase.api.base import Adapter, Base
from onebase.data import BadRows
from onebase.errors import DataError, UserError
from onebase.evaluation.transcripts import error_sums, transcript_scores
from onebase.objective.media_text import MediaText
from onebase.serve.schema import RequestError
from onebase.serve.tasks import TaskModel, TaskRequest, inputs
from onebase.tasks import rows as reading
from onebase.tasks.options import read_options
from onebase.tasks.table import TASKS
from tests.formats.speech import speech_folder
from tests.helpers import tiny_base
from tests.native import native
from tests.pretrained import onebase as command

TOLERANCE = 1e-5
TEXTS = ("the fox", "the dog")
HOW: dict[str, Any] = {"task": "transcribe", "language": "en"}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base, rows.jsonl and its sounds, and the model of transformers."""
    root = tmp_path_factory.mktemp("hears")
    speech_folder(root / "source", max_source_positions=50)
    onebase.import_base(root / "source", root / "base")
    rows = [
        {"audio": tone(root / f"{i}.wav", 300 + 1200 * (i % 2) + i).name, "text": TEXTS[i % 2]}
        for i in range(8)
    ]
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def base(room: Path) -> Base:
    return onebase.load(room / "base")


def tone(path: Path, hertz: float, seconds: float = 0.4) -> Path:
    """A WAV file of a tone with some noise."""
    draw = random.Random(hertz)
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        for i in range(round(16000 * seconds)):
            value = 8000 * math.sin(2 * math.pi * hertz * i / 16000) + draw.randrange(-300, 300)
            f.writeframesraw(struct.pack("<h", int(value)))
    return path


def read(base: Base, data: Any, **options: Any) -> Any:
    """Rows with their samples, as `adapt` reads them."""
    return reading.read(
        base.loaded, data, TASKS["transcribe"], "lora", read_options(options, "transcribe", "lora")
    )


def scores(base: Base, data: Any) -> dict[str, float]:
    return {k: s.value for k, s in onebase.evaluate(base, data, task="transcribe").items()}


@pytest.mark.parametrize(("method", "lr"), [("lora", 1e-2), ("full", 3e-3)])
def test_words_of_sounds_are_learnt(method: str, lr: float, base: Base, room: Path, tmp_path: Path) -> None:
    """Two tones stand for two words: the loss falls, the words come out, by the saved adapter too; the base stays as it was."""
    rows = room / "rows.jsonl"
    before = scores(base, english(rows))
    adapter = base.adapt(rows, method=method, lr=lr, epochs=30, batch_size=4, **HOW)
    assert adapter.record.get("config.options")["language"] == "en"
    assert adapter.record.get("tokens.supervised") == 30 * 8 * 3
    adapter.save(tmp_path / "adapter")
    on = base.with_adapter(Adapter.load(tmp_path / "adapter"))
    after = scores(on, rows)
    assert before["wer"] >= 0.9 and before["nats_per_token"] > 5
    assert after["wer"] == after["cer"] == 0.0 and after["nats_per_token"] < 2.5
    said = on.transcribe(room / "1.wav", language="en", temperatures=(0.0,))
    assert said.text == "the dog"
    assert scores(base, english(rows)) == before


def english(path: Path) -> list[dict[str, str]]:
    """The rows of a file as a list, with their language and whole paths."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{**r, "audio": str(path.parent / r["audio"]), "language": "en"} for r in rows]


def test_the_loss_is_that_of_transformers(base: Base, room: Path) -> None:
    """The likelihood of the text with Whisper's own prefix before it, alone and in a padded batch of two."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(room / "source").eval()
    rows = english(room / "rows.jsonl")[:2]
    rows[1]["text"] = "the quick brown fox"
    samples = read(base, rows).texts
    objective = MediaText()
    alone = []
    for sample in samples:
        batch = objective.batch([[sample]], 0)
        with torch.no_grad():
            ours, count = objective.losses(base.loaded.model, batch)["next_token"]
            mel = torch.from_numpy(sample.media[0].content.load()[0])[None]
            ids = torch.from_numpy(sample.ids.astype(np.int64))[None]
            logits = theirs(input_features=mel, decoder_input_ids=ids[:, :-1]).logits[0]
        loss = torch.from_numpy(sample.loss[1:])
        want = torch.nn.functional.cross_entropy(logits[loss], ids[0, 1:][loss], reduction="sum")
        assert count == int(loss.sum()) == len(sample.ids) - 4
        torch.testing.assert_close(ours, want, atol=TOLERANCE, rtol=TOLERANCE)
        alone.append(float(ours))
    with torch.no_grad():
        both, _ = objective.losses(base.loaded.model, objective.batch([[s] for s in samples], 0))[
            "next_token"
        ]
    assert float(both) == pytest.approx(sum(alone), abs=1e-4)
    names = base.tokenizer.decode(samples[0].ids.tolist(), skip_special=False)
    assert names == "<|startoftranscript|><|en|><|transcribe|><|notimestamps|> the fox<|endoftext|>"


def test_rows_that_cannot_be_learnt_are_named_with_their_file(base: Base, room: Path, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    whole = tone(tmp_path / "whole.wav", 400)
    (tmp_path / "cut.wav").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000, np.int16), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan, np.float32), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "blip.wav", np.full(100, 0.5, np.float32), 16000)
    tone(tmp_path / "long.wav", 400, 1.2)
    said = {
        "none.wav": "there is no file",
        "cut.wav": "is truncated",
        "empty.wav": "is empty",
        "text.wav": "cannot be read as audio",
        "silent.wav": "is silent",
        "nan.wav": "NaN",
        "blip.wav": "less than one frame",
        "long.wav": "has 1.2 s of audio, the base reads 1 s",
    }
    rows: list[dict[str, Any]] = [{"audio": name, "text": "a"} for name in said]
    rows += [
        {"audio": "whole.wav", "text": "the fox " * 40},
        {"audio": "whole.wav", "text": "a", "language": "xx"},
    ]
    rows += [{"audio": 3, "text": "a"}, {"audio": "whole.wav", "text": "the fox"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BadRows) as e:
        base.adapt(path, method="lora", **HOW)
    lines = e.value.cause.splitlines()
    assert lines[0].startswith("11 of 12 rows cannot be used")
    for i, (name, problem) in enumerate(said.items(), 1):
        assert f"rows.jsonl:{i}" in lines[i] and name in lines[i] and problem in lines[i], lines[i]
    assert "has 81 tokens of text, the decoder writes at most 20" in lines[9]
    assert "the language 'xx', which the base does not have" in lines[10]
    assert "'audio' is int, a path is expected" in lines[11]
    with pytest.raises(DataError, match="has no language, and the base has several") as f:
        base.adapt([{"audio": str(whole), "text": "a"}], task="transcribe", method="lora")
    assert "-o language=en" in f.value.remedy


def test_what_does_not_fit_is_refused_before_rows_are_read(base: Base) -> None:
    for method, why in (
        ("head", "predicts labels"),
        ("prompt", "reads sound"),
        ("soft", "virtual"),
        ("prefix", "virtual"),
    ):
        with pytest.raises(UserError, match=why):
            base.adapt("none.jsonl", task="transcribe", method=method)
    with pytest.raises(UserError, match="does not transcribe speech"):
        Base(tiny_base()).adapt("none.jsonl", task="transcribe", method="lora")
    with pytest.raises(UserError, match="reads text only together with audio") as e:
        base.adapt([{"text": "a", "label": "b"}], task="classify", method="lora")
    assert "transcribe" in e.value.remedy


def test_a_plan_shows_sounds_and_what_a_run_would_take(base: Base, room: Path) -> None:
    plan = base.plan_adapt(room / "rows.jsonl", method="lora", epochs=2, **HOW)
    assert (
        "  [audio 0.4 s]<|startoftranscript|><|en|>" in plan.text and "« the fox<|endoftext|>»" in plan.text
    )
    record = base.adapt(room / "rows.jsonl", method="lora", epochs=2, **HOW).record
    facts = plan.facts
    assert facts["steps"] == record.get("train.steps") and facts["tokens"] == record.get("tokens.read")
    assert facts["parameters_learnt"] == record.get("parameters")
    assert facts["memory_bytes"]["activations"] > 0 and facts["memory_bytes"]["logits"] > 0 and facts["fits"]


def test_a_sound_is_known_by_its_content(base: Base, room: Path, tmp_path: Path) -> None:
    """Another path is the same data; another sound with the same text is no repeat, and the same sound among the test rows is refused."""
    rows = english(room / "rows.jsonl")[:4]
    copied = tmp_path / "x.wav"
    copied.write_bytes(Path(rows[0]["audio"]).read_bytes())
    moved = [{**rows[0], "audio": str(copied)}, *rows[1:]]
    first, second = (base.adapt(r, task="transcribe", method="lora", epochs=1) for r in (rows, moved))
    assert first.fingerprint == second.fingerprint
    assert first.record.get("data.fingerprint") == second.record.get("data.fingerprint")
    assert first.record.get("ledger")["repeats"] == 0
    held = english(room / "rows.jsonl")[4:6]  # the same texts
    base.adapt(rows, test=held, task="transcribe", method="lora", epochs=1)
    with pytest.raises(DataError, match="test-in-train"):
        base.adapt(rows, test=[moved[0]], task="transcribe", method="lora", epochs=1)


def test_rows_of_datasets_hold_the_bytes(base: Base, room: Path) -> None:
    """As HF datasets writes audio to Parquet: {"bytes", "path"}."""
    (row,) = english(room / "rows.jsonl")[:1]
    raw = Path(row["audio"]).read_bytes()
    samples = [
        read(base, [{**row, "audio": value}]).texts[0]
        for value in (row["audio"], {"bytes": raw, "path": "0.wav"}, {"bytes": None, "path": row["audio"]})
    ]
    assert len({s.media[0].content.digest for s in samples}) == 1
    assert all(
        np.array_equal(s.media[0].content.load()[0], samples[0].media[0].content.load()[0]) for s in samples
    )


def test_the_commands_and_the_server_s_view(base: Base, room: Path, tmp_path: Path) -> None:
    words: list[Any] = ["--data", room / "rows.jsonl", "--task", "transcribe", "--method", "lora"]
    more = ["-o", "language=en", "-o", "epochs=30", "-o", "lr=0.01", "-o", "batch_size=4"]
    said = command("adapt", room / "base", *words, *more, "--out", tmp_path / "a")
    assert said.status == 0, said.err
    assert "[audio 0.4 s]" in said.out + said.err
    said = command("apply", room / "base", "--adapter", tmp_path / "a", room / "1.wav")
    assert said.status == 0 and said.out.strip() == "the dog", said.err
    said = command(
        "apply", room / "base", "--adapter", tmp_path / "a", "--data", room / "rows.jsonl", "--json"
    )
    assert [json.loads(line)["text"] for line in said.out.splitlines()] == [*TEXTS] * 4
    said = command("eval", room / "base", "--adapter", tmp_path / "a", "--data", room / "rows.jsonl")
    assert "wer: 0.0000 (95%: 0.0000 to 0.0000, n = 8)" in said.out and "cer: 0.0000" in said.out, said.err

    on = base.with_adapter(tmp_path / "a")
    task = TASKS["transcribe"]
    model = TaskModel("transcribe", task.path, lambda given: [{}], task.reads, files=task.files)
    raw = base64.b64encode((room / "1.wav").read_bytes()).decode()
    for sent in (raw, f"data:audio/wav;base64,{raw}"):
        given = inputs(TaskRequest(model="a", input=[{"audio": sent}]), model)
        assert task.answer is not None and task.answer(on, given)[0].fields["text"] == "the dog"
    with pytest.raises(RequestError, match="not base64"):
        inputs(TaskRequest(model="a", input={"audio": str(room / "1.wav")}), model)


def test_error_rates_are_edits_by_length() -> None:
    """One word of four is wrong; letters by hand; case and punctuation do not count; what is written for silence is an insertion."""
    found = transcript_scores(["One two, three.", "four"], ["one too three", "four"])
    assert found["wer"].value == 1 / 4 and found["wer"].low <= 1 / 4 <= found["wer"].high
    assert found["cer"].value == pytest.approx(1 / 17)
    words, letters = error_sums(["...", "a b"], ["so it", "a"])
    assert words.over.tolist() == [2.0, 1.0] and words.under.tolist() == [0.0, 2.0]
    assert letters.over.tolist() == [5.0, 2.0]


def test_an_unlike_sample_is_not_padded_into_the_loss(base: Base, room: Path) -> None:
    """Another sound gives another loss: the decoder does read the encoder."""
    rows = english(room / "rows.jsonl")[:2]
    samples = read(base, rows).texts
    swapped = replace(samples[0], media=samples[1].media)
    objective = MediaText()
    with torch.no_grad():
        a, b = (
            float(objective.losses(base.loaded.model, objective.batch([[s]], 0))["next_token"][0])
            for s in (samples[0], swapped)
        )
    assert abs(a - b) > 1e-4


def test_a_base_of_patches_learns_by_the_same_task(tmp_path: Path) -> None:
    """The sound stands in its own sequence; the words after it are learnt, and answered."""
    rows = [
        {"audio": str(tone(tmp_path / f"{i}.wav", 300 + 1200 * (i % 2) + i)), "text": TEXTS[i % 2]}
        for i in range(8)
    ]
    base = native()
    adapter = base.adapt(rows, task="transcribe", method="full", lr=3e-3, epochs=30, batch_size=4)
    assert adapter.record.get("tokens.supervised") > 0
    on = base.with_adapter(adapter)
    found = onebase.evaluate(on, rows)
    assert found["wer"].value == found["cer"].value == 0.0
    assert found["nats_per_token"].value < 0.5
    assert onebase.evaluate(base, rows, task="transcribe")["wer"].value > 0.9
    task = TASKS["transcribe"]
    assert task.answer is not None and on.transcribe(rows[1]["audio"]).text.strip() == "the dog"
    assert [a.line for a in task.answer(on, [{"audio": r["audio"]} for r in rows[:2]])] == list(TEXTS)
    plan = base.plan_adapt(rows, task="transcribe", method="lora")
    assert "<|audio|>10<|patches|>[audio 0.4 s]«<|end_media|>the fox<|eos|>»" in plan.text
    assert plan.facts["sequence_length"] == 24  # the patches are among the tokens
    with pytest.raises(DataError, match="row 1 has the language 'en', and this base knows none"):
        base.adapt([{**rows[0], "language": "en"}], task="transcribe", method="lora")
    (tmp_path / "long.wav").write_bytes(tone(tmp_path / "l.wav", 400, 3.0).read_bytes())
    with pytest.raises(DataError, match="long.wav"):
        base.adapt([{**rows[0], "audio": str(tmp_path / "long.wav")}], task="transcribe", method="lora")
