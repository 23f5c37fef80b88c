from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onebase.data import check_labels, deduplicate, read_rows
from onebase.errors import DataError

ROWS = [{"text": "good", "label": "yes", "more": 1}, {"text": "bad", "label": "no", "more": 2}]


def test_files_and_lists_give_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "a.csv").write_text("text,label,more\ngood,yes,1\nbad,no,2\n")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert (
        read_rows(ROWS) == read_rows(tmp_path / "a.jsonl") == read_rows(str(tmp_path / "a.parquet")) == ROWS
    )
    assert read_rows(tmp_path / "a.csv") == [{**r, "more": str(r["more"])} for r in ROWS]


@pytest.mark.parametrize(
    ("name", "data", "cause"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text"\n', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": "a"}\n', "a.jsonl:2: no column 'label'"),
        ("a.jsonl", b'{"text": " ", "label": "b"}\n', "a.jsonl:1: 'text' is empty"),
        ("a.jsonl", b'{"text": "a", "label": null}\n', "a.jsonl:1: 'label' is empty"),
        ("a.jsonl", b'{"text": "a", "label": NaN}\n', "a.jsonl:1: 'label' is empty"),
        ("a.jsonl", b'{"text": "\\ud800", "label": "a"}\n', "a.jsonl:1: 'text' contains a lone surrogate"),
        ("a.csv", b"text,label\na\0,b\n", "a binary file"),
        ("a.csv", b"text,label\n\xff,b\n", "a.csv:2: not UTF-8"),
        ("a.csv", b"text,class\na,b\n", "no column 'label'"),
        ("a.xlsx", b"PK", "unknown file extension"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, data: bytes, cause: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as e:
        read_rows(tmp_path / name)
    assert cause in e.value.cause


@pytest.mark.parametrize(
    ("rows", "cause"),
    [([], "no rows"), (["a"], "row 1 is str"), ([ROWS[0], {"text": "a"}], "row 2: no column 'label'")],
)
def test_bad_lists_are_named(rows: Any, cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        read_rows(rows)


def test_a_label_seen_only_in_test_is_refused() -> None:
    check_labels(ROWS, ROWS[:1])
    with pytest.raises(DataError, match=r"seen only in the test rows: 'maybe' \(2\).*'no', 'yes'"):
        check_labels(ROWS, [{"text": "x", "label": "maybe"}] * 2 + ROWS)


def test_duplicates_by_keys() -> None:
    rows = [*ROWS, {"text": "good", "label": "no"}, ROWS[0]]
    assert deduplicate(rows, ["text"]) == ROWS
    assert deduplicate(rows, ["text", "label"]) == rows[:3]
    with pytest.raises(DataError, match="row 3: no column 'more'"):
        deduplicate(rows, ["more"])
