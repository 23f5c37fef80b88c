"""Rows out of files: whatever the text in a cell, it comes back, and its row knows the line on which it begins."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.data import Rows, read_rows
from onebase.errors import DataError

ROWS = [{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}]
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.text(
    'a",\t\r\n\ufeff ', max_size=8
)
TABLE = st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8)


def lines_where_rows_begin(written: list[str]) -> list[int]:
    """The lines on which each of these pieces of a file begins, counted by its line feeds."""
    out, line = [], 1
    for piece in written:
        out.append(line)
        line += piece.count("\n")
    return out


def read_bytes(name: str, data: bytes, **more: Any) -> Rows:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        rows = read_rows(path, (), **more)
        rows.places = [p.removeprefix(f"{path}:") for p in rows.places]
        return rows


@settings(max_examples=150, deadline=None)
@given(
    TABLE,
    st.sampled_from([("a.csv", ","), ("a.tsv", "\t")]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_separated_cells_come_back_with_their_lines(
    cells: list[tuple[str, str]],
    kind: tuple[str, str],
    end: str,
    quoting: Any,
    mark: bool,
    blank: list[int],
) -> None:
    if any("\r" in text for row in cells for text in row):
        quoting = (
            csv.QUOTE_ALL
        )  # the library writes a lone carriage return without quotes, which nobody can read
    pieces = []
    for row, empty in zip([("x", "y"), *cells], [0, *blank], strict=False):
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=kind[1], lineterminator=end, quoting=quoting).writerow(row)
        pieces += [end] * empty + [out.getvalue()]
    data = "".join(pieces).encode("utf-8-sig" if mark else "utf-8")
    rows = read_bytes(kind[0], data)
    assert [(r["x"], r["y"]) for r in rows] == cells
    begins = [n for n, p in zip(lines_where_rows_begin(pieces), pieces, strict=True) if p != end]
    assert rows.places == [str(n) for n in begins[1:]]


VALUE = st.recursive(
    CELL | st.integers() | st.booleans() | st.floats(allow_nan=False), lambda x: st.lists(x, max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.dictionaries(CELL, VALUE, max_size=3), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_json_lines_come_back_with_their_lines(
    made: list[dict[str, Any]], ascii: bool, end: str, blank: list[int]
) -> None:
    pieces = []
    for row, empty in zip(made, blank, strict=False):
        pieces += [end] * empty + [json.dumps(row, ensure_ascii=ascii) + end]
    rows = read_bytes("a.jsonl", "".join(pieces).encode())
    assert rows == made
    begins = [n for n, p in zip(lines_where_rows_begin(pieces), pieces, strict=True) if p != end]
    assert rows.places == [str(n) for n in begins]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.dictionaries(CELL, VALUE, max_size=3), min_size=1, max_size=8),
    st.sampled_from([None, 1]),
    st.lists(st.sampled_from(["", "\n", " \r\n\n"]), min_size=9, max_size=9),
)
def test_a_json_list_comes_back_with_its_lines(
    made: list[dict[str, Any]], indent: int | None, gaps: list[str]
) -> None:
    pieces, begins = [gaps[-1] + "["], []
    for i, (row, gap) in enumerate(zip(made, gaps, strict=False)):
        pieces.append((gap + "," if i else "") + gap)
        begins.append(1 + "".join(pieces).count("\n"))
        pieces.append(json.dumps(row, indent=indent))
    rows = read_bytes("a.json", ("".join(pieces) + "\n]\n").encode())
    assert rows == made
    assert rows.places == [str(n) for n in begins]


def test_all_kinds_of_files_give_the_same_rows(tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, ROWS))
    for name, text in {
        "a.jsonl": lines,
        "b.json": lines,
        "c.json": json.dumps(ROWS, indent=2),
        "d.csv": "text,label\ngood,yes\nbad,no\n",
        "e.tsv": "text\tlabel\ngood\tyes\nbad\tno\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert read_rows(tmp_path / name) == ROWS, name
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "f.parquet")
    rows = read_rows(tmp_path / "f.parquet")
    assert rows == ROWS == read_rows(ROWS)
    assert [p.rsplit("/", 1)[1] for p in rows.places] == ["f.parquet: row 1", "f.parquet: row 2"]
    assert read_rows(ROWS).places == ["row 1", "row 2"]


def test_rows_that_are_read_again_keep_their_places(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('body,label\n"a\nb",yes\nc,no\n')
    rows = read_rows(tmp_path / "a.csv", columns={"text": "body"})
    again = read_rows(rows)
    assert again.places == rows.places == [f"{tmp_path / 'a.csv'}:{n}" for n in (2, 4)]
    assert (again.folder, again.columns) == (tmp_path, {"text": "body"})


def test_columns_are_named_as_the_task_calls_them(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("body\ttopic\ttext\ngood\tyes\told\nbad\tno\told\n")
    wanted = [{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}]
    assert read_rows(tmp_path / "a.tsv", columns={"text": "body", "label": "topic"}) == wanted
    kept = read_rows(tmp_path / "a.tsv", columns={"label": "topic"})
    assert kept[0] == {"label": "yes", "body": "good", "text": "old"}
    twice = read_rows(
        tmp_path / "a.tsv", ("anchor", "positive"), columns={"anchor": "body", "positive": "body"}
    )
    assert twice[1] == {"anchor": "bad", "positive": "bad", "topic": "no", "text": "old"}
    swapped = read_rows([{"text": "t", "label": "l"}], columns={"text": "label", "label": "text"})
    assert swapped == [{"text": "l", "label": "t"}]


@pytest.mark.parametrize(
    ("columns", "cause", "remedy"),
    [
        ({"text": "bdy"}, "no column 'bdy'", "available columns: body, label; map it: --column text=body"),
        ({}, "no column 'text'", "available columns: body, label; map it: --column text=body"),
        ({"text": "body", "label": "labels"}, "no column 'labels'", "--column label=label"),
    ],
)
def test_a_column_that_is_not_there_names_those_that_are(
    tmp_path: Path, columns: dict[str, str], cause: str, remedy: str
) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "a", "label": "b"}\n' * 30)
    with pytest.raises(DataError) as e:
        read_rows(tmp_path / "a.jsonl", columns=columns)
    assert cause in e.value.cause and "\n" not in e.value.cause
    assert remedy in e.value.remedy
