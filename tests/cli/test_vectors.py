"""`onebase embed` and `onebase search` as a user runs them, and what they say of bad input."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import onebase as package
from onebase.api.base import Base
from onebase.base.folder import save_base
from tests.helpers import tiny_base
from tests.pretrained import Said, onebase

ROWS = [{"question": f"Where is parcel {i}?", "id": i} for i in range(6)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_base(Path("base"), tiny_base())
    Path("faq.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    Path("lines.txt").write_text("The quick fox.\n\nThe lazy dog.\n")


def good(*words: str, stdin: str = "") -> Said:
    said = onebase(*words, stdin=stdin)
    assert said.status == 0, said
    return said


def refused(part: str, *words: str) -> None:
    said = onebase(*words)
    assert said.status == 1 and part in said.err and "Traceback" not in said.err, said


def test_vectors_in_every_form() -> None:
    base = package.load("base")
    wanted = base.embed([r["question"] for r in ROWS]).numpy()
    said = good("embed", "base", "faq.jsonl", "--column", "text=question", "--out", "v.npy")
    assert "6 texts, 32 numbers each" in said.out
    np.testing.assert_array_equal(np.load("v.npy"), wanted)
    good("embed", "base", "faq.jsonl", "--column", "text=question", "--out", "v.parquet")
    table = pq.read_table("v.parquet")
    assert set(table.column_names) == {"id", "text", "vector"}
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), wanted)
    good("embed", "base", "faq.jsonl", "--column", "text=question", "--out", "v.jsonl")
    rows = [json.loads(line) for line in Path("v.jsonl").read_text().splitlines()]
    assert [r["id"] for r in rows] == list(range(6)) and rows[0]["text"] == ROWS[0]["question"]
    np.testing.assert_array_equal(np.array([r["vector"] for r in rows], np.float32), wanted)


def test_texts_files_and_standard_input() -> None:
    said = good("embed", "base", "A text.", "lines.txt", "-", stdin="one\ntwo\n")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [r["text"] for r in rows] == ["A text.", "The quick fox.", "The lazy dog.", "one", "two"]


def test_an_index_is_made_extended_and_searched() -> None:
    add = ("search", "base", "--index", "index", "--add")
    assert "index (6 texts, 6 new)" in good(*add, "faq.jsonl", "--column", "text=question").out
    assert "index (8 texts, 2 new)" in good(*add, "lines.txt").out
    assert "index (8 texts, 0 new, 2 were already in it)" in good(*add, "lines.txt").out
    found = good(
        "search", "base", "--index", "index", "Where is parcel 3?", "-k", "2", "--json"
    ).out.splitlines()
    first = json.loads(found[0])
    assert len(found) == 2 and first["row"] == {"id": 3} and first["score"] == pytest.approx(1.0, abs=1e-5)
    plain = good("search", "base", "--index", "index", "The lazy dog.", "-k", "1").out
    assert plain == "1.000  The lazy dog.\n"
    both = good(
        "search",
        "base",
        "--index",
        "index",
        "-",
        "-k",
        "1",
        "--json",
        stdin="The lazy dog.\n\nWhere is parcel 1?\n",
    )
    assert [json.loads(line)["query"] for line in both.out.splitlines()] == [
        "The lazy dog.",
        "Where is parcel 1?",
    ]
    assert "8" in good("show", "index").out and "ok  index" in good("verify", "index").out


def test_an_index_of_another_base() -> None:
    good("search", "base", "--index", "index", "--add", "lines.txt")
    save_base(Path("other"), tiny_base(seed=1))
    before = Path("index/manifest.json").read_text()
    refused("their vectors cannot be compared", "search", "other", "dog", "--index", "index")
    refused("their vectors cannot be compared", "search", "other", "--index", "index", "--add", "faq.jsonl")
    assert Path("index/manifest.json").read_text() == before


def test_bad_input() -> None:
    refused("no index to search", "search", "base", "dog")
    refused("neither QUERY nor --add", "search", "base", "--index", "index")
    refused("there is no folder gone", "search", "base", "dog", "--index", "gone")
    refused("of kind 'base', not an index", "search", "base", "dog", "--index", "base")
    refused("no column 'text'", "search", "base", "--index", "index", "--add", "faq.jsonl")
    refused("--add notes: not a file of texts", "search", "base", "--index", "index", "--add", "notes")
    refused("-k is 0", "search", "base", "dog", "--index", "index", "-k", "0")
    assert not Path("index").exists()
    refused("gone.csv: no such file", "embed", "base", "gone.csv")
    refused("does not end in a known suffix", "embed", "base", "a", "--out", "v.pt")
    Path("v.npy").write_text("mine")
    refused("v.npy already exists", "embed", "base", "a", "--out", "v.npy")
    refused("there are no texts", "embed", "base", "-")
    said = onebase("embed", "base", "word " * 400)
    assert said.status == 0 and len(json.loads(said.out.splitlines()[0])["vector"]) == 32


def test_an_adapter_is_replaced_only_when_that_is_said() -> None:
    Path("rows.jsonl").write_text(
        "".join(json.dumps({"text": f"t {i}", "label": "ab"[i % 2]}) + "\n" for i in range(12))
    )
    words = ("adapt", "base", "--data", "rows.jsonl", "--method", "head", "--out", "ad", "--batch-size", "4")
    good(*words)
    first = Path("ad/manifest.json").read_text()
    refused("ad already exists", *words)
    assert Path("ad/manifest.json").read_text() == first
    good(*words, "-o", "seed=1", "--overwrite")
    assert Path("ad/manifest.json").read_text() != first
    assert package.Adapter.load("ad").record.get("config.options")["batch_size"] == 4
    refused("'base', not an adapter", *words[:-4], "--out", "base", "--overwrite")
    Path("notes").mkdir()
    Path("notes/mine.txt").write_text("mine")
    refused("was not written by onebase", *words[:-4], "--out", "notes", "--overwrite")
    assert Path("notes/mine.txt").read_text() == "mine" and isinstance(package.load("base"), Base)
