"""The table of tasks and methods in docs/adaptation.md is true. The rows that docs/data.md shows for each task are rows of it, and none of their columns can be left out or empty."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from onebase.base.folder import load_base
from onebase.errors import DataError
from onebase.tasks import rows as reading
from onebase.tasks import table
from onebase.tasks.options import read_options
from onebase.tasks.table import TASKS
from tests.helpers import tiny_base
from tests.methods.conformance.made import folder

PAGE = Path(__file__).parents[2] / "docs/data.md"
LINE = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| `(\{.*?\})` \|", re.MULTILINE)
SHOWN = [
    (task, json.loads(row))
    for tasks, row in LINE.findall(PAGE.read_text(encoding="utf-8"))
    for task in re.findall(r"\w+", tasks)
]
FREE = ("negative", "spans")
"""What a row may have, and what is looked at later (tests/tasks/test_tag.py)."""


METHODS = ("prompt", "head", "lora", "soft", "full")
"""Columns of the table of docs/adaptation.md; `prefix` stands with `soft`."""


def test_the_table_of_tasks_and_methods_is_true() -> None:
    page = PAGE.with_name("adaptation.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `(\w+)`([^|]*)\|.*?((?:\| (?:yes|-) ){5})\|$", page, re.MULTILINE)
    assert {task for task, _, _ in lines} == set(TASKS)
    for task, kind, cells in lines:
        said = {m for m, cell in zip(METHODS, cells.split("|")[1:], strict=True) if cell.strip() == "yes"}
        if "images" in kind:
            assert TASKS[task].images and said == {m for m in METHODS if not table.METHODS[m].text}
        elif "many labels" in kind:
            assert said == {m for m in METHODS if m in TASKS[task].makers} - {"prompt"}
        else:
            assert said == {m for m in METHODS if m in TASKS[task].makers}, task
            assert ("prefix" in TASKS[task].makers) == ("soft" in said)


def test_every_task_has_a_row() -> None:
    assert {task for task, _ in SHOWN} == set(TASKS)


@pytest.mark.parametrize(
    ("task", "row"),
    [
        x
        for x in SHOWN
        if not TASKS[x[0]].files
        and x != ("embed", {"image": "cat.png", "text": "a cat"})
        and "audio" not in x[1]
    ],
)  # files: test_transcribe, test_media_classes
def test_a_row_that_is_shown_is_read(task: str, row: dict[str, Any]) -> None:
    base = load_base(folder("both")) if "image" in row else tiny_base(context=128)
    options = read_options({}, task, "lora")

    def read(*rows: dict[str, Any]) -> list[dict[str, Any]]:
        return reading.read(base, list(rows), TASKS[task], "lora", options)

    assert read(row, {**row, "other": 1}) == [row, {**row, "other": 1}]
    for key in row.keys() - set(FREE):
        with pytest.raises(DataError, match=f"'{key}'|'text'|'label'"):
            read({k: v for k, v in row.items() if k != key})
        with pytest.raises(DataError, match=f"'{key}'.* is empty|'label'|'text'"):
            read({**row, key: " "})
