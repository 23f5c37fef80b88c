from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onebase.config import from_dict
from onebase.data import Document, SourceConfig, read_source
from onebase.errors import ConfigError, DataError


def read(path: Path, kind: str, **more: object) -> list[Document]:
    cfg = from_dict(SourceConfig, {"name": "s", "kind": kind, "path": str(path), "licence": "MIT", **more})
    return list(read_source(cfg))


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


TEXTS = ['one, "two"\nthree', "héllo", "x" * 200_000]  # a quote, a line break, more than csv's own limit


def test_each_record_kind_gives_the_same_documents(tmp_path: Path) -> None:
    import csv

    jsonl = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": t}) for t in TEXTS) + "\n\n")
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as f:
        csv.writer(f).writerows([["text"], *([t] for t in TEXTS)])
    pq.write_table(pa.table({"text": TEXTS, "other": [1, 2, 3]}), tmp_path / "a.parquet")
    for path in (jsonl, tmp_path / "a.csv", tmp_path / "a.parquet"):
        got = read(path, path.suffix[1:])
        assert [d.text for d in got] == TEXTS
        assert got[0] == Document(TEXTS[0], "s", "MIT", f"{path.name}#1")


def test_text_files_and_folders(tmp_path: Path) -> None:
    write(tmp_path / "d/b.txt", "two\r\n")
    write(tmp_path / "d/a/x.txt", "\ufeffone")
    write(tmp_path / "d/.git/hidden.txt", "no")
    write(tmp_path / "d/c.bin", b"\0")
    got = read(tmp_path / "d", "folder", glob="**/*.txt")
    assert [(d.id, d.text) for d in got] == [("a/x.txt", "one"), ("b.txt", "two\r\n")]
    many = write(tmp_path / "many.txt", "one\nmore\n<|endoftext|>\ntwo\n<|endoftext|>\n")
    assert [d.text for d in read(many, "text", separator="<|endoftext|>")] == ["one\nmore\n", "two\n"]
    assert [d.text for d in read(tmp_path / "d/b.txt", "text")] == ["two\r\n"]


def test_a_folder_of_records(tmp_path: Path) -> None:
    write(tmp_path / "2.jsonl", '{"text": "two"}')
    write(tmp_path / "1.jsonl", '{"text": "one"}')
    write(tmp_path / "note.md", "not this")
    assert [d.text for d in read(tmp_path, "jsonl")] == ["one", "two"]


def test_a_source_may_say_the_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "s": "Train"}\n{"text": "b", "s": "validation"}\n')
    assert [d.meta["split"] for d in read(path, "jsonl", split_column="s")] == ["train", "holdout"]
    write(path, '{"text": "a", "s": "train"}\n{"text": "b", "s": "x"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:2: column 's' is 'x'"):
        read(path, "jsonl", split_column="s")


BAD = [
    ("jsonl", b"", "a.jsonl: the file is empty"),
    ("csv", b"", "a.csv: the file is empty"),
    ("text", b"", "a.text: the file is empty"),
    ("parquet", b"", "a.parquet: the file is empty"),
    ("jsonl", b"\n\n", "a.jsonl: the file has no records"),
    ("csv", b"text\n", "a.csv: the file has no records"),
    ("jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl:2: not valid JSON"),
    ("jsonl", b'{"text": "a"}\n\n{"text": "b"} x\n', "a.jsonl:3: not valid JSON"),
    ("jsonl", b"[1]\n", "a.jsonl:1: a JSON list"),
    ("jsonl", b'{"txt": "a", "n": 1}\n', "a.jsonl:1: no column 'text'"),
    ("jsonl", b'{"text": 3}\n', "a.jsonl:1: column 'text' is int"),
    ("jsonl", b'{"text": null}\n', "a.jsonl:1: column 'text' is null"),
    ("jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "a.jsonl:2: not UTF-8 (byte 0xff at offset 24)"),
    ("csv", b"text\ncaf\xe9\n", "a.csv:2: not UTF-8 (byte 0xe9 at offset 8)"),
    ("text", b"ab\ncd\xe9\n", "a.text:2: not UTF-8 (byte 0xe9 at offset 5)"),
    ("jsonl", b"PK\x03\n\x00", "a.jsonl:1: not valid JSON"),
    ("text", b"ab\ncd\0\n", "a.text:2: a binary file (NUL at byte 5)"),
    ("csv", b"te\0xt", "a.csv:1: a binary file"),
    ("csv", b"title,body\n1,2\n", "a.csv:1: no column 'text'"),
    ("csv", b"text,text\n1,2\n", "a.csv:1: duplicate column name"),
    ("csv", b"text,n\na,1\nb\n", "a.csv:3: 1 fields, the header has 2"),
    ("csv", b'text\n"abc\n', "not valid CSV"),
    ("parquet", b"PAR1 no", "a.parquet: not a Parquet file"),
]


@pytest.mark.parametrize(("kind", "data", "cause"), BAD)
def test_bad_files_are_named_with_their_line(tmp_path: Path, kind: str, data: bytes, cause: str) -> None:
    with pytest.raises(DataError) as e:
        read(write(tmp_path / f"a.{kind}", data), kind)
    assert cause in e.value.cause
    assert e.value.remedy


def test_missing_columns_show_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataError) as e:
        read(write(tmp_path / "a.csv", "title,body\n1,2\n"), "csv")
    assert e.value.remedy == "available columns: title, body"
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'text'"):
        read(tmp_path / "a.parquet", "parquet")
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="a.parquet: row 2: column 'text' is null"):
        read(tmp_path / "a.parquet", "parquet")


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": [str(i) * 9 for i in range(5000)]}),
        path,
        compression="zstd",
        write_page_checksum=True,
    )
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a.parquet: damaged"):
        read(path, "parquet")


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.jsonl", "jsonl")
    with pytest.raises(DataError, match="no file in .* matches"):
        read(tmp_path, "folder", glob="*.txt")
    with pytest.raises(DataError, match="is a file"):
        read(write(tmp_path / "a.txt", "x"), "folder")
    with pytest.raises(ConfigError, match="kind"):
        read(tmp_path, "xml")
