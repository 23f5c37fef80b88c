"""The tasks with a head at the command line: adapt, eval, apply, and what is refused."""

import json
from pathlib import Path

import pytest

from onebase.api.base import Base
from onebase.base.folder import load_base
from onebase.errors import UserError
from onebase.serve.adapters import attach_all
from tests.helpers import posted, served
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
        (("x", "--data", adapters / "tag.jsonl"), "both TEXT and --data"),
    ]:
        said = onebase("apply", tiny_run(), "--adapter", adapters / "tag", *words)
        assert said.status == 1 and says in said.err and len(said.err.splitlines()) <= 2


def test_a_server_answers_each_at_its_own_path(adapters: Path) -> None:
    texts = ["The dog is good.", "No."]
    words = [w for task in ROWS for w in ("--adapter", f"my-{task}={adapters / task}")]
    with served(tiny_run(), *words) as url:
        for task in ROWS:
            said = onebase(
                "apply", tiny_run(), "--adapter", adapters / task, *texts, "--json", "--device", "cpu"
            )
            want = [json.loads(line) for line in said.out.splitlines()]
            status, found = posted(url, f"/v1/{task}", {"model": f"my-{task}", "input": texts})
            assert status == 200, found
            for i, (one, line) in enumerate(zip(found["data"], want, strict=True)):
                assert one.pop("index") == i and {"text": texts[i], **one} == line
            record = json.loads((adapters / task / "record.json").read_text())
            assert found["adapter_fingerprint"] == record["hashes"]["fingerprint"] and found["task"] == task
            assert found["system_fingerprint"] == load_base(tiny_run() / "base").fingerprint
            rows = [{"text": t} for t in texts]
            again = posted(url, f"/v1/{task}", {"model": f"my-{task}", "input": rows})[1]
            assert [{k: v for k, v in d.items() if k != "index"} for d in again["data"]] == found["data"]
            assert len(posted(url, f"/v1/{task}", {"model": f"my-{task}", "input": rows[0]})[1]["data"]) == 1
        status, found = posted(url, "/v1/tag", {"model": "my-regress", "input": "x"})
        assert status == 400 and "is served at /v1/regress; known here: my-tag" in found["error"]["message"]
        long = posted(url, "/v1/tag", {"model": "my-tag", "input": "x " * 400})
        assert long[0] == 200 and len(long[1]["data"]) == 1
        assert posted(url, "/v1/reward", {"model": "my-tag", "input": "x"})[0] == 400, (
            "no adapter of this task"
        )
        assert posted(url, "/v1/rate", {"model": "my-tag", "input": "x"})[0] == 404


def test_a_server_has_no_answer_for_vectors(tmp_path: Path) -> None:
    base = Base(load_base(tiny_run() / "base"))
    rows = [{"anchor": w, "positive": w * 2} for w in ("so", "no", "it")]
    base.adapt(rows, task="embed", method="lora", epochs=1).save(tmp_path / "x")
    with pytest.raises(UserError, match="is for task embed, which the server does not support"):
        attach_all(base, {"x": tmp_path / "x"})
