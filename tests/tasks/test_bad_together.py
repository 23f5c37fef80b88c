"""One error for all rows that a task cannot use, whatever is wrong with each: unreadable, without a column, a bad value, too long."""

import json
from pathlib import Path
from typing import Any

import pytest

import onebase
from onebase.api.base import Base
from onebase.data import BadRows
from tests.helpers import tiny_base

LONG = "red sun " * 80
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "classify": (
        {"text": "a", "labels": ["x"]},
        {"text": "a", "labels": [3]},
        {"text": LONG, "labels": ["y"]},
        "a list of texts",
    ),
    "regress": (
        {"text": "a", "value": 1},
        {"text": "a", "value": "x"},
        {"text": LONG, "value": 2},
        "a number",
    ),
    "tag": (
        {"text": "red", "spans": [{"start": 0, "end": 3, "label": "x"}]},
        {"text": "red", "spans": [{"start": 0, "end": 9, "label": "x"}]},
        {"text": LONG, "spans": []},
        "not in the text",
    ),
    "reward": (
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        {"prompt": "a", "chosen": LONG, "rejected": "c"},
        "are the same",
    ),
}
"""A row that is right, one with a bad value, one that is too long, and what is said of the second."""


@pytest.mark.parametrize("what", ["adapt", "evaluate"])
@pytest.mark.parametrize("task", ROWS)
def test_bad_values_and_long_rows_are_in_one_error_with_their_lines(
    task: str, what: str, tmp_path: Path
) -> None:
    right, bad, long, says = ROWS[task]
    other = {"value": 3} if task == "regress" else {"labels": ["y"]} if task == "classify" else {}
    base, path = Base(tiny_base()), tmp_path / "rows.jsonl"
    how = {"method": "head", "long": "refuse"}
    learnt = [right, {**right, **other}] * 6
    lines = [json.dumps(r) for r in (right, bad, right, long)]
    path.write_text("\n".join([*lines, "{", "{}"]) + "\n")
    with pytest.raises(BadRows) as said:
        if what == "adapt":
            base.adapt(path, task=task, **how)
        else:
            onebase.evaluate(base.with_adapter(base.adapt(learnt, task=task, **how)), path)
    text = str(said.value)
    assert [b.at for b in said.value.bad] == [1, 3, 4, 5] and "4 of 6 rows cannot be used" in text
    for line, words in ((2, says), (4, "the limit is 64"), (5, "not valid JSON"), (6, "no column")):
        assert any(f"rows.jsonl:{line}" in x and words in x for x in text.splitlines()), (line, words, text)
