"""Bad rows: one error has them all, each with its line and what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from onebase.data import BadRows, read_rows
from onebase.errors import DataError
from onebase.tasks.job import rows_hash

JSONL = (
    b'{"text": "fine", "label": "a"}\n'
    b'{"text": "fine"}\n'
    b"\n"
    b'{"text": \n'
    b'{"text": "\xe9", "label": "a"}\n'
    b'{"text": 3, "label": "a"}\n'
    b'{"text": " ", "label": "a"}\n'
    b"[1]\n"
    b'{"text": "x", "label": null}\n'
    b'{"text": "\\ud800", "label": "a"}\n'
)
FOUND = [
    (2, "no column 'label'"),
    (4, "not valid JSON: Expecting value at column 10"),
    (5, "not UTF-8 (byte 0xe9 at offset 69)"),
    (6, "'text' is int, text is expected"),
    (7, "'text' is empty"),
    (8, "a JSON list, an object is expected"),
    (9, "'label' is empty"),
    (10, "'text' contains a lone surrogate"),
]


def listed(e: pytest.ExceptionInfo[DataError]) -> list[str]:
    """The lines that name a row each."""
    return [x.strip() for x in e.value.cause.splitlines()[1:]]


def test_all_bad_rows_of_a_jsonl_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    with pytest.raises(BadRows) as e:
        read_rows(tmp_path / "a.jsonl")
    assert e.value.cause.startswith("8 of 9 rows cannot be used:")
    for said, (line, what) in zip(listed(e), FOUND, strict=True):
        assert said.startswith(f"{tmp_path / 'a.jsonl'}:{line}: {what}"), said
    assert e.value.remedy == "fix or remove these rows"


def test_all_bad_rows_of_a_csv_file_and_the_lines_on_which_they_begin(tmp_path: Path) -> None:
    data = b'text,label\n"a\nb\n",x\n"c\n",\n"d\n\xff",x\ne\n"f"g,x\nh,x\n"i\n'
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(BadRows) as e:
        read_rows(tmp_path / "a.csv")
    wanted = [
        "5: 'label' is empty",
        "7: not UTF-8 (byte 0xff at offset 29)",
        "9: 1 fields, the header has 2",
        "10: not valid CSV: ',' expected after '\"'",
        "12: not valid CSV: unexpected end of data",
    ]
    assert listed(e) == [f"{tmp_path / 'a.csv'}:{x}" for x in wanted]
    assert "5 of 7 rows" in e.value.cause


def test_twenty_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    rows = [{"text": "" if i % 2 else "x", "label": "a"} for i in range(100)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=0))
    with pytest.raises(BadRows) as e:
        read_rows(tmp_path / "a.json")
    said = listed(e)
    assert len(said) == 21 and said[-1] == "and 30 more"
    assert said[19].endswith(f"a.json:{2 + 4 * 39}: 'text' is empty")
    assert len(e.value.bad) == 50
    assert e.value.remedy == "fill it or remove the row"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('[{"text": "a", "label": "b"},\n{"text": ]', "a.json:2: not valid JSON"),
        ('[{"text": "a", "label": "b"}\n{"text": "a"}]', "a.json:2: not valid JSON: a comma or ]"),
        ('[{"text": "a", "label": "b"}', "a.json:1: not valid JSON: a comma or ]"),
        ('[{"text": "a", "label": "b"},\n\n3]', "a.json:3: a JSON number"),
        ('[{"text": "a", "label": "b"}]\n[]', "text after the end of the list"),
        ('[{"text": "a", "label": "b"},]', "a.json:1: not valid JSON"),
        ("[]", "no records"),
        ('{"rows":\n []}', "not valid JSON"),
    ],
)
def test_bad_json_lists(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError) as e:
        read_rows(tmp_path / "a.json")
    assert cause in str(e.value)


def test_a_mapped_column_is_named_as_the_file_calls_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body,label\na,x\n,x\n")
    with pytest.raises(DataError, match=r"a.csv:3: 'body' \(as text\) is empty"):
        read_rows(tmp_path / "a.csv", columns={"text": "body"})


def test_a_further_look_is_in_the_same_list(tmp_path: Path) -> None:
    def check(row: Mapping[str, Any]) -> tuple[str, str] | None:
        return (f"has {len(row['text'])} letters", "shorten it") if len(row["text"]) > 3 else None

    (tmp_path / "a.csv").write_text("text,label\nlong one,x\nb,\nc,x\nlong two,x\n")
    with pytest.raises(BadRows) as e:
        read_rows(tmp_path / "a.csv", check=check)
    at = tmp_path / "a.csv"
    assert listed(e) == [f"{at}:2 has 8 letters", f"{at}:3: 'label' is empty", f"{at}:5 has 8 letters"]
    assert e.value.total == 4


def test_odd_data_is_refused_in_few_words_and_little_time(tmp_path: Path) -> None:
    def said(name: str, data: bytes, columns: tuple[str, ...] = ("text",)) -> str:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError) as e:
            read_rows(tmp_path / name, columns)
        assert len(str(e.value)) < 6000
        return str(e.value)

    many = [f"c{i}" for i in range(200_000)]
    wide = (",".join(many) + "\n" + ",".join("x" for _ in many) + "\n").encode()
    assert "c19 and 199,980 more" in said("a.csv", wide)
    assert "duplicate column name: text\n" in said("a.csv", b"text,a,text\nx,y,z\n")
    assert "duplicate column name: c" in said("a.csv", b",".join([b"c"] * 200_000) + b"\n")
    assert "duplicate key 'text'" in said("a.jsonl", b'{"text": "x", "text": "y"}\n')
    assert "duplicate key 'a'" in said("a.json", b'[{"text": "x", "b": {"a": 1, "a": 1}}]')
    for depth in (101, 900, 100_000):
        nested = b'{"text": "x", "a": ' + b"[" * depth + b"]" * depth + b"}"
        for name, data in (("a.jsonl", nested), ("a.json", b"[" + nested + b"]")):
            assert re.search("nested more than 100 levels deep|maximum recursion depth", said(name, data))
    assert "4300 digits" in said("a.jsonl", b'{"text": "x", "n": ' + b"9" * 5000 + b"}\n")
    long = json.dumps({"k" * 10_000_000: 1}).encode()
    assert "kkk..." in said("a.jsonl", long)


def test_what_is_odd_but_sound_is_read(tmp_path: Path) -> None:
    deep = b"[" * 99 + b"]" * 99
    (tmp_path / "a.jsonl").write_bytes(
        b"\n" * 1_000_000 + b'{"text": "x", "a": ' + deep + b"}\n" + b'{"text": "' + b"y" * 20_000_000 + b'"}'
    )
    rows = read_rows(tmp_path / "a.jsonl", ("text",))
    assert [len(r["text"]) for r in rows] == [1, 20_000_000]
    assert rows.places[0].endswith(":1000001")
    assert rows_hash(rows)
