"""The tasks with a head at the command line: adapt, eval, apply, and what is refused."""

import json
from pathlib import Path

import pytest

from onebase.api.base import Base
from onebase.api.serving import attach_all
from onebase.base.folder import load_base
from onebase.errors import UserError
from tests.pretrained import onebase, tiny_run

ROWS = {
    "regress": [{"text": f"The text {i} is good.", "value": i} for i in range(12)],
    "tag": [{"text": f"The {w} is good.", "spans": [{"start": 4, "end": 4 + len(w), "label": "what"}]}
            for w in ("text", "number", "dog") * 3],
    "classify": [{"text": f"The {w} is good.", "labels": [w, "any"][: 1 + i % 2]}
                 for i, w in enumerate(("text", "number", "dog") * 4)],
}  # fmt: skip
FIELDS = {"regress": "value", "tag": "spans", "classify": "labels"}
SCORES = {"regress": "mae", "tag": "span_f1", "classify": "micro_f1"}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and an adapter of each task."""
    folder = tmp_path_factory.mktemp("applying")
    for task, rows in ROWS.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        said = onebase(
            "adapt", tiny_run(), "--data", folder / f"{task}.jsonl", "--task", task, "--method", "head",
            "--out", folder / task,
        )  # fmt: skip
        assert said.status == 0, said
    return folder


@pytest.mark.parametrize("task", ROWS)
def test_apply_and_eval(adapters: Path, task: str) -> None:
    said = onebase("apply", tiny_run(), "--adapter", adapters / task, "The dog is good.", "No.", "--json")
    assert said.status == 0, said
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [f["text"] for f in found] == ["The dog is good.", "No."]
    assert all(FIELDS[task] in f for f in found)
    plain = onebase("apply", tiny_run(), "--adapter", adapters / task, "-", stdin="The dog is good.\n\nNo.\n")
    assert len(plain.out.splitlines()) == 2
    rows = onebase("apply", tiny_run(), "--adapter", adapters / task, "--data", adapters / f"{task}.jsonl")
    assert len(rows.out.splitlines()) == len(ROWS[task])
    scores = onebase("eval", tiny_run(), "--adapter", adapters / task, "--data", adapters / f"{task}.jsonl")
    assert scores.status == 0 and f"{SCORES[task]}: " in scores.out and "95%" in scores.out


def test_what_apply_refuses(adapters: Path) -> None:
    for words, says in [
        ((), "no texts"),
        (("x", "--data", adapters / "tag.jsonl"), "two places"),
        (("x " * 400,), "the limit is"),
    ]:
        said = onebase("apply", tiny_run(), "--adapter", adapters / "tag", *words)
        assert said.status == 1 and says in said.err and len(said.err.splitlines()) <= 2


@pytest.mark.parametrize("task", ["regress", "tag"])
def test_a_server_has_no_answer_for_them(adapters: Path, task: str) -> None:
    base = Base(load_base(tiny_run() / "base"))
    with pytest.raises(UserError, match=f"is for task {task}"):
        attach_all(base, {"x": adapters / task})
