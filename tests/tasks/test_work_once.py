"""Work is done once: a file is parsed once (a pipe gives its rows once), a text is tokenised once."""

import csv
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import onebase.data.labelled as labelled
from onebase.api.base import Base
from onebase.codec.text import Tokenizer
from onebase.formats import rows
from tests.helpers import taken, tiny_base

N = 40
WORDS = ("red", "blue", "grey", "green")
ROWS: dict[str, list[dict[str, Any]]] = {
    "classify": [{"text": f"{WORDS[i % 4]} {i}", "label": WORDS[i % 4]} for i in range(N)],
    "many": [{"text": f"{WORDS[i % 4]} {i}", "labels": [["a"], ["b"], ["a", "b"]][i % 3]} for i in range(N)],
    "regress": [{"text": f"{WORDS[i % 4]} {i}", "value": i} for i in range(N)],
    "tag": [{"text": f"red {i}", "spans": [{"start": 0, "end": 3, "label": "x"}]} for i in range(N)],
    "complete": [{"prompt": f"p{i}", "completion": f" c{i}"} for i in range(N)],
    "chat": [
        {"messages": [{"role": "user", "content": f"p{i}"}, {"role": "assistant", "content": f"c{i}"}]}
        for i in range(N)
    ],
    "prefer": [{"prompt": f"p{i}", "chosen": f" c{i}", "rejected": f" r{i}"} for i in range(N)],
    "reward": [{"prompt": f"p{i}", "chosen": f" c{i}", "rejected": f" r{i}"} for i in range(N)],
    "embed": [{"anchor": f"a{i}", "positive": f"b{i}"} for i in range(N)],
    "continue": [{"text": f"{WORDS[i % 4]} {i}"} for i in range(N)],
    "reinforce": [{"prompt": f"say {i}"} for i in range(N)],
}
TEXTS = {"complete": 2, "chat": 2, "prefer": 4, "reward": 4, "embed": 2, "tag": 2}
"""Texts of a row: prompt and completion apart, prompt and answer of both sides; a tagged one is read once more for where its tokens stand."""


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    heard: list[str] = []
    one, many = Tokenizer.encode, Tokenizer.encode_batch

    def encode(self: Tokenizer, text: str, **how: Any) -> list[int]:
        heard.append(text)
        return one(self, text, **how)

    def encode_batch(self: Tokenizer, texts: Any, **how: Any) -> list[list[int]]:
        heard.extend(texts)
        return many(self, texts, **how)

    monkeypatch.setattr(Tokenizer, "encode", encode)
    monkeypatch.setattr(Tokenizer, "encode_batch", encode_batch)
    return heard


def asked(kind: str, method: str = "lora") -> dict[str, Any]:
    more = {"reinforce": {"reward": "format:.*", "max_tokens": 1, "group": 2}} if kind == "reinforce" else {}
    return {
        "task": "classify" if kind == "many" else kind,
        "epochs": 1,
        **taken(method, rank=2, virtual=2),
        **more,
    }


@pytest.mark.parametrize("method", ["head", "lora", "soft"])
@pytest.mark.parametrize("kind", ROWS)
def test_forty_rows_are_tokenised_forty_times(kind: str, method: str, encoded: list[str]) -> None:
    if method == "head" and kind not in ("classify", "many", "regress", "tag", "reward"):
        pytest.skip("a head does not go with this task")
    base = Base(tiny_base())
    encoded.clear()
    base.adapt(ROWS[kind], method=method, **asked(kind, method))
    words = [t for t in encoded if any(c.isdigit() for c in t) or t.startswith("red")]
    assert len(words) == TEXTS.get(kind, 1) * N


def file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.mark.parametrize("kind", ROWS)
def test_a_file_is_parsed_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = labelled.all_records
    monkeypatch.setattr(labelled, "all_records", lambda path, *a: read.append(path) or real(path, *a))
    Base(tiny_base()).adapt(file(tmp_path / "rows.jsonl", ROWS[kind]), method="lora", **asked(kind))
    assert len(read) == 1


def test_the_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asks: list[str] = []
    path = file(tmp_path / "rows.jsonl", ROWS["classify"])
    monkeypatch.setattr(rows.hub_data, "fetch", lambda name: asks.append(name) or ([path], {"repo": name}))
    made = Base(tiny_base()).adapt("hf:some/rows", method="lora", **asked("classify"))
    assert asks == ["hf:some/rows"] and made.record.get("data.source") == {"repo": "hf:some/rows"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_pipe_is_read(ending: str, tmp_path: Path) -> None:
    pipe, plain = tmp_path / f"rows.{ending}", tmp_path / f"plain.{ending}"
    if ending == "jsonl":
        text = "".join(json.dumps(r) + "\n" for r in ROWS["classify"])
    else:
        out = io.StringIO()
        table = csv.DictWriter(out, ["text", "label"])
        table.writeheader()
        table.writerows(ROWS["classify"])
        text = out.getvalue()
    plain.write_text(text)
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(text), daemon=True)
    writer.start()
    found = Base(tiny_base()).adapt(pipe, method="head", task="classify")
    assert found.fingerprint == Base(tiny_base()).adapt(plain, method="head", task="classify").fingerprint
