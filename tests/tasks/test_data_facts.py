"""What an adapter's record says of its data, and of the scores that `onebase eval` measured."""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from onebase.api.base import Base
from onebase.artifact.record import Origin, Record
from onebase.base.folder import save_base
from onebase.govern.show import describe, lines
from onebase.govern.verify import verify_artifact
from tests.helpers import tiny_base
from tests.pretrained import onebase as command
from tests.tasks.test_work_once import write

ROWS = [{"text": f"{w} {i}", "label": w} for i in range(12) for w in ("yes", "no")]
TEST = [{"text": f"{w} {i}", "label": w} for i in range(20, 26) for w in ("yes", "no")]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_a_file_is_named_with_the_hash_that_anyone_can_take(ending: str, tmp_path: Path) -> None:
    path, test = write(tmp_path / f"rows.{ending}", ROWS), write(tmp_path / f"test.{ending}", TEST)
    record = Base(tiny_base()).adapt(path, task="classify", method="head", test=test).record
    for field, file in (("data.files", path), ("test.data.files", test)):
        event = record.event(field)
        assert event is not None and Origin.of(event.origin) == Origin.HASHED
        raw = file.read_bytes()
        assert event.value == [
            {"name": file.name, "sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
        ]
    assert str(tmp_path) not in json.dumps(record.to_dict())
    assert record.get("data.fields") == ["text", "label"] and record.get("data.rows") == len(ROWS)


def test_rows_of_python_have_no_file(tmp_path: Path) -> None:
    record = (
        Base(tiny_base())
        .adapt(
            ROWS, task="classify", method="head", data_licence="CC0-1.0", data_source="https://example.org/x"
        )
        .record
    )
    assert record.get("data.files") is None
    for field, value in (("data.licence", "CC0-1.0"), ("data.source", "https://example.org/x")):
        event = record.event(field)
        assert event is not None and (event.value, event.origin) == (value, Origin.USER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base, an adapter, its rows and test rows."""
    save_base(tmp_path / "base", tiny_base())
    write(tmp_path / "rows.jsonl", ROWS)
    write(tmp_path / "test.jsonl", TEST)
    said = command(
        *("adapt", tmp_path / "base", "--data", tmp_path / "rows.jsonl", "--method", "head"),
        *("--out", tmp_path / "head", "--data-license", "CC0-1.0", "--data-source", "mine"),
    )
    assert said.status == 0, said.err
    return tmp_path


def scored(folder: Path, *more: Any) -> str:
    said = command(
        *("eval", folder / "base", "--adapter", folder / "head", "--data", folder / "test.jsonl", *more)
    )
    assert said.status == 0, said.err
    return said.out


def test_eval_keeps_its_scores_and_the_gate_in_the_record(folder: Path) -> None:
    before, mark = Record.load(folder / "head"), verify_artifact(folder / "head").fingerprint
    assert before.get("data.licence") == "CC0-1.0" and before.get("data.source") == "mine"
    out = scored(folder, "--train", folder / "rows.jsonl")
    record, digest = (
        Record.load(folder / "head"),
        hashlib.sha256((folder / "test.jsonl").read_bytes()).hexdigest(),
    )
    assert verify_artifact(folder / "head").fingerprint == mark
    assert record.events[: len(before.events)] == before.events
    score = record.event("scores.accuracy")
    assert score is not None and score.origin == "measured on test.jsonl"
    assert (score.value["on"], score.value["sha256"], score.value["n"]) == ("test.jsonl", digest, len(TEST))
    assert f"accuracy: {score.value['value']:.4f}" in out
    assert record.get("gate")["line"] in out and record.get("gate")["costs"]
    for e in record.events[len(before.events) :]:
        assert e.field == "gate" or e.field.startswith("scores.")
    first = {a["question"]: a["answer"] for a in describe(folder / "head")["summary"]}
    assert "accuracy" in first["how good"] and "on test.jsonl" in first["how good"]
    assert "the gate:" in first["how good"]
    assert first["from what"].endswith("data: rows.jsonl (24 rows)")
    assert first["licence of the data"] == "CC0-1.0" and first["licence"] == "unknown"
    assert first["for what"] == "classify (no, yes), trained with head"
    shown = lines(folder / "head")
    assert [line.split("  ")[0] for line in shown[:4]] == ["what it is", "from what", "for what", "how good"]
    again = Base.opened(tiny_base()).with_adapter(folder / "head")  # it still fits
    assert again.attached is not None


def test_no_record_leaves_it_and_a_read_only_one_only_warns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    raw = (folder / "head" / "record.json").read_bytes()
    scored(folder, "--no-record")
    assert (folder / "head" / "record.json").read_bytes() == raw
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: mode != os.W_OK and real(p, mode))
    with caplog.at_level(logging.WARNING):
        assert "accuracy" in scored(folder)
    assert "not saved in the adapter's record" in caplog.text
    assert (folder / "head" / "record.json").read_bytes() == raw
