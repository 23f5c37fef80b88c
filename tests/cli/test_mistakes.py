"""Mistakes of a hasty user, each by the command as typed: it is refused with its cause and with what to write instead, before any work."""

import gzip
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onebase.artifact.record import Record
from tests.audited import encoder
from tests.pretrained import onebase, tiny_run

GOOD = [{"text": f"The text {i} is good.", "label": "ab"[i % 2]} for i in range(12)]
OTHER = [{"text": f"Another text {i}.", "label": "cd"[i % 2]} for i in range(6)]
PAIRS = [{"instruction": "Say it.", "output": " Hello."}] * 3


def lines(rows: Sequence[object], end: str = "\n") -> bytes:
    return "".join(json.dumps(r) + end for r in rows).encode()


def table(header: str, between: str, rows: int = 12) -> bytes:
    return (header + "".join(f"The text {i}{between}{'ab'[i % 2]}\n" for i in range(rows))).encode()


def zipped(name: str) -> bytes:
    with zipfile.ZipFile(out := io.BytesIO(), "w") as z:
        z.writestr(name, "x")
    return out.getvalue()


def parquet() -> bytes:
    pq.write_table(pa.table({"body": ["a", "b"], "label": ["x", "y"]}), out := io.BytesIO())
    return out.getvalue()


FILES = {
    "train.jsonl": lines(GOOD),
    "test.jsonl": lines([{"text": f"New {i}", "label": "ab"[i % 2]} for i in range(4)]),
    "other.jsonl": lines(OTHER),
    "numbers.csv": b"age,income,score\n3,4,5\n6,7,8\n",
    "next.csv": b"next,label\n3,a\n4,b\n",
    "body.csv": table("body,topic\n", ","),
    "upper.csv": table("Text,Label\n", ","),
    "bare.csv": table("", ","),
    "semi.csv": table("text;label\n", ";"),
    "utf16.csv": table("text,label\n", ",").decode().encode("utf-16"),
    "excel.csv": zipped("xl/workbook.xml"),
    "data.xlsx": zipped("xl/workbook.xml"),
    "data.zip": zipped("data.jsonl"),
    "data.jsonl.gz": gzip.compress(lines(GOOD)),
    "page.jsonl": b"<!DOCTYPE html><html></html>",
    "pointer.jsonl": b"version https://git-lfs.github.com/spec/v1\nsize 12\n",
    "old.jsonl": b"\x80\x04\x95pickled",
    "body.parquet": parquet(),
    "text.parquet": b"text,label\na,b\n",
    "parquet.csv": parquet(),
    "commas.jsonl": lines(GOOD, ",\n"),
    "quotes.jsonl": "".join(f"{r}\n" for r in GOOD).encode(),
    "wrapped.json": json.dumps({"data": GOOD}, indent=1).encode(),
    "one line.json": json.dumps({"rows": GOOD}).encode(),
    "columns.json": json.dumps({"text": {"0": "a"}, "label": {"0": "b"}}, indent=1).encode(),
    "one.jsonl": lines(GOOD[:1]),
    "empty.jsonl": b"",
    "header.csv": b"text,label\n",
    "plain.txt": b"Only text.\n",
    "pairs.jsonl": lines(PAIRS),
    "case.jsonl": lines([{"text": "x", "label": "A "}, {"text": "y", "label": "b"}]),
    "rows.yaml": b"text: a\n",
}
LEARN = ("adapt", "BASE", "--method", "head", "--out", "out", "--data")
SCORE = ("eval", "BASE", "--adapter", "ad", "--data")
COMPLETE = ("adapt", "BASE", "--task", "complete", "--out", "out", "--data")
SAY = ("generate", "BASE", "hi")

Mistake = tuple[tuple[str, ...], str, str]
"""The command as typed (BASE: a run folder, ENCODER: an encoder), and what its cause and its remedy match."""
DATA: list[Mistake] = [
    (
        (*LEARN, "numbers.csv"),
        "no column 'text', 'label'",
        "age, income, score; none of them contains text.*text=NAME",
    ),
    ((*LEARN, "next.csv"), "no column 'text'", "available columns: next, label; map it: --column text=NAME$"),
    ((*LEARN, "body.csv"), "no column 'text', 'label'", "--column text=body --column label=topic"),
    ((*LEARN, "upper.csv"), "no column 'text'", "--column text=Text --column label=Label"),
    ((*LEARN, "bare.csv"), "no column 'text'", "a header line above it: text,label"),
    ((*LEARN, "body.parquet"), "no column 'text'", "--column text=body$"),
    ((*LEARN, "train.jsonl", "--column", "body=text"), "renames the column 'text'", "--column text=body"),
    ((*LEARN, "train.jsonl", "--column", "text:body"), "'text:body'", "--column text=body"),
    ((*COMPLETE, "pairs.jsonl"), "'prompt', 'completion'", "prompt=instruction --column completion=output"),
    ((*LEARN, "utf16.csv"), "utf16.csv is text in UTF-16", "iconv -f utf-16 -t utf-8 utf16.csv"),
    ((*LEARN, "excel.csv"), "excel.csv is an Excel file", "CSV UTF-8"),
    ((*LEARN, "data.xlsx"), "data.xlsx is an Excel file", "CSV UTF-8"),
    ((*LEARN, "data.zip"), "data.zip is a zip archive", "unzip data.zip, then give data.jsonl"),
    ((*LEARN, "data.jsonl.gz"), "is a gzip archive", "gunzip -k data.jsonl.gz"),
    ((*LEARN, "page.jsonl"), "page.jsonl is a web page", "download the data itself"),
    ((*LEARN, "pointer.jsonl"), "a Git LFS pointer", "git lfs pull"),
    ((*LEARN, "old.jsonl"), "a pickle, which can run any code", "save the rows as jsonl"),
    ((*LEARN, "text.parquet"), "not a Parquet file", "name a text file .csv or .jsonl"),
    ((*LEARN, "parquet.csv"), "parquet.csv is a Parquet file", "rename it: parquet.parquet"),
    ((*LEARN, "commas.jsonl"), "12 of 12 rows.*a comma at the end of the line", "remove the commas"),
    ((*LEARN, "quotes.jsonl"), "names in single quotes", "json.dumps"),
    ((*LEARN, "wrapped.json"), "one object with the rows under 'data'", "jq .data"),
    ((*LEARN, "one line.json"), "one object with the rows under 'rows'", "jq .rows"),
    ((*LEARN, "columns.json"), "one object of columns", "orient=.records"),
    ((*LEARN, "one.jsonl"), "the only row has the label 'a'", "at least two labels"),
    ((*LEARN, "empty.jsonl"), "empty.jsonl: the file is empty", "or add content"),
    ((*LEARN, "header.csv"), "the file has no records", "at least one record"),
    ((*LEARN, "plain.txt"), "unknown file extension", "text has no columns.*jsonl"),
    ((*SCORE, "plain.txt"), "unknown file extension", "text has no columns.*jsonl"),
    ((*LEARN, "rows.yaml"), "unknown file extension", "not a recipe"),
    ((*LEARN, "folder"), "folder is a folder", "give one of its files: folder.part.jsonl"),
    ((*LEARN, "trian.jsonl"), "trian.jsonl: no such file", "did you mean train.jsonl"),
    ((*LEARN, "nowhere/a.jsonl"), "no such file", "there is no folder nowhere"),
    ((*LEARN, "https://example.com/a.jsonl"), "no such file", "URLs are not fetched.*hf:org/name"),
    ((*LEARN, "stanfordnlp/imdb"), "no such file", "hf:stanfordnlp/imdb"),
    ((*LEARN, "train.jsonl", "--test", "train.jsonl"), "test-in-train", "remove these samples"),
    ((*SCORE, "case.jsonl"), "'A ', which the adapter does not have", "write it as in training: 'a'"),
    (
        (*SCORE, "test.jsonl", "--train", "other.jsonl"),
        "not the training rows of the adapter; .* 12 rows",
        "the same data",
    ),
    ((*SCORE, "train.jsonl", "--train", "test.jsonl"), "was trained on the test rows", "swapped"),
    (
        ("eval", "BASE", "--data", "train.jsonl", "--task", "classify"),
        "no adapter that classifies",
        "--adapter DIR",
    ),
]
NAMES: list[Mistake] = [
    (("generate", "gpt2", "hi"), "'gpt2' is neither", "write hf:openai-community/gpt2"),
    (("generate", "bert-base-uncased", "hi"), "neither", "hf:google-bert/bert-base-uncased"),
    (("generate", "org/model", "hi"), "neither", "hf:org/model"),
    (("generate", "https://huggingface.co/org/model", "hi"), "neither", "hf:org/model"),
    (
        ("generate", "ad", "hi"),
        "ad is of kind 'adapter', not a base",
        "the base that it was trained on, and --adapter ad.*ob1-",
    ),
    (
        ("generate", "BASE", "hi", "--adapter", "BASE"),
        "is of kind 'base', not an adapter",
        "written by onebase adapt",
    ),
    (
        ("generate", "BASE", "hi", "--adapter", "ENCODER"),
        "a Hugging Face folder.*, not an adapter",
        "onebase adapt",
    ),
    (
        ("generate", "BASE", "hi", "--adapter", "train.jsonl"),
        "train.jsonl is a file",
        "written by onebase adapt",
    ),
    (("generate", "BASE", "hi", "--adapter", "add"), "'add' is neither", "did you mean ad"),
    (("generate", "train.jsonl", "hi"), "train.jsonl is a file, a base is a folder", ".gguf file"),
    (("generate", "folder", "hi"), "folder has no manifest.json", "hf:org/name"),
    (("show", "ABOVE"), "has no manifest.json", "it contains artifacts: give .*run"),
    (("import", "BASE", "--out", "x"), "nothing to import", "use it as it is"),
    (("serve", "BASE", "--adapter", "ad"), "'ad' is not NAME=DIR", "--adapter ad=ad"),
    (("adapt", "BASE", "--data", "train.jsonl", "--out", "ad"), "ad already exists", "another --out"),
    (("pretrain", "train.jsonl"), "has rows, a recipe is a YAML file", "data.sources.0.path=train.jsonl"),
    (("pretrain", "folder"), "folder is a folder", "YAML"),
    (("embed", "ENCODER", ""), "text 1 of 1 is empty", "give a text"),
    (("apply", "BASE", "--adapter", "ad", "fine", " "), "text 2 of 2 is empty", "give a text"),
    (("generate", "ENCODER", "hi"), "predicts no next token", "embed, search, adapt"),
    (
        (*LEARN, "train.jsonl", "--task", "classification"),
        "'classification' is not known",
        "did you mean classify",
    ),
    ((*LEARN, "train.jsonl", "--method", "QLoRA"), "'QLoRA' is not known", "did you mean lora"),
    ((*LEARN, "train.jsonl", "-o", "learning_rate=1"), "unknown key 'learning_rate'", "did you mean 'lr'"),
    ((*LEARN, "train.jsonl", "-o", "lora_r=8"), "unknown key 'lora_r'", "name here is 'rank' .lora has it"),
    ((*LEARN, "train.jsonl", "-o", "epochs"), "'epochs' is not key=value", "write epochs=VALUE"),
    ((*SAY, "--regex", "a|^b"), r"the regex has \^ at character 3", "matches the whole answer"),
    ((*SAY, "--regex", r"\bfoo\b"), r"the regex has \\b at character 1", "matches the whole answer"),
    ((*SAY, "--schema", '{"type": "object"}'), "is not a file", "write the schema to a file"),
]
USAGE: list[tuple[tuple[str, ...], str]] = [
    ((*LEARN, "train.jsonl", "--learning-rate", "1"), "No such option: --learning-rate; write -o lr=VALUE"),
    (("eval", "BASE", "train.jsonl"), "give a data file as --data train.jsonl"),
]


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to stand in, with all the files and an adapter of the tiny base."""
    folder = tmp_path_factory.mktemp("mistakes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, content in FILES.items():
            Path(name).write_bytes(content)
        Path("folder").mkdir()
        Path("folder/part.jsonl").write_bytes(lines(GOOD))
        Path("enc").mkdir()
        encoder(Path("enc"))
        said = onebase("adapt", tiny_run(), "--data", "semi.csv", "--method", "head", "--out", "semi")
        assert said.status == 0, said
        assert (
            onebase("adapt", tiny_run(), "--data", "train.jsonl", "--method", "head", "--out", "ad").status
            == 0
        )
        yield folder


def typed(words: Sequence[str]) -> list[str]:
    places = {"BASE": tiny_run(), "ABOVE": tiny_run().parent, "ENCODER": Path("enc")}
    return [str(places.get(w, w)) for w in words]


@pytest.mark.parametrize("mistake", DATA + NAMES, ids=lambda m: " ".join(m[0])[:80])
def test_the_cause_and_the_remedy_are_told(mistake: Mistake) -> None:
    words, cause, remedy = mistake
    said = onebase(*typed(words))
    assert said.status == 1 and "Traceback" not in said.err, said
    *causes, last = said.err.splitlines()
    assert re.search(cause, "\n".join(causes), re.DOTALL), said.err
    assert last.startswith("  ") and re.search(remedy, last), said.err
    assert not Path("out").exists()


@pytest.mark.parametrize(("words", "told"), USAGE)
def test_a_wrong_option_is_told_the_right_one(words: Sequence[str], told: str) -> None:
    said = onebase(*typed(words))
    plain = " ".join(said.err.replace("\u2502", " ").split())
    assert said.status == 2 and told in plain, said.err


def test_an_adapter_of_another_base_is_named_as_typed(here: Path) -> None:
    said = onebase("apply", "enc", "hi", "--adapter", "ad")
    own = Record.load(Path("ad/record.json").parent).parents[0]["fingerprint"]
    assert said.status == 1 and "adapter 'ad' was made for a base with other" in said.err, said
    assert own[:16] in said.err.splitlines()[-1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read() -> None:
    Path("closed").mkdir(mode=0)
    said = onebase("generate", "closed", "hi")
    assert said.status == 1 and "permission" in said.err.lower(), said


def test_other_separators_are_read_said_and_recorded() -> None:
    record = Record.load(Path("semi"))
    assert record.get("data.separator") == ";" and record.get("data.rows") == 12
    for name, header, between in (("bar.csv", "text|label\n", "|"), ("tabs.csv", "text\tlabel\n", "\t")):
        Path(name).write_bytes(table(header, between))
        assert onebase("adapt", tiny_run(), "--data", name, "--method", "head", "--dry-run").status == 0


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + lines(GOOD),
        lines(GOOD, "\r\n"),
        json.dumps(GOOD, indent=1).encode(),
        json.dumps(GOOD).encode(),
        b"\n" + json.dumps(GOOD).encode(),
    ],
    ids=["BOM", "CRLF", "a list over lines", "a list on one line", "a blank line first"],
)
def test_what_only_looks_wrong_is_read(content: bytes) -> None:
    Path("fine.jsonl").write_bytes(content)
    said = onebase("adapt", tiny_run(), "--data", "fine.jsonl", "--method", "head", "--dry-run")
    assert said.status == 0 and "a 6, b 6" in said.out, said


def test_labels_that_are_most_likely_meant_otherwise_are_told() -> None:
    Path("odd.jsonl").write_bytes(lines([*GOOD, {"text": "x", "label": "A"}, {"text": "y", "label": " b"}]))
    said = onebase("adapt", tiny_run(), "--data", "odd.jsonl", "--method", "head", "--dry-run")
    assert "differ only in case or spaces: ' b' and 'b'; 'A' and 'a'" in said.out, said
    Path("real.jsonl").write_bytes(lines([{**r, "label": 1.5 * i} for i, r in enumerate(GOOD)]))
    said = onebase("adapt", tiny_run(), "--data", "real.jsonl", "--method", "head", "--dry-run")
    assert "all numbers: task regress predicts numbers" in said.out, said


def test_a_text_file_is_scored_as_a_document() -> None:
    said = onebase("eval", tiny_run(), "--data", "plain.txt")
    assert said.status == 0 and "bits_per_byte" in said.out and "n = 1" in said.out, said
