"""Work is done once, whatever the task: a file is opened and parsed once (a pipe gives its rows once), a text is tokenised once, by adapt with its
test rows, by a plan, and by an evaluation. Where a text has to be tokenised again, a table says why."""

import csv
import json
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import onebase
from onebase.api.base import Adapter, Base
from onebase.base.folder import save_base
from onebase.errors import DataError
from onebase.opening import names
from onebase.tasks.table import PREDICTIONS, TASKS
from tests.counting import Work, counted
from tests.helpers import taken, tiny_base

N, TEST, HELD = 24, 8, 1000
"""Rows, test rows, and the number of the first test row: a text says by its number which row it is of."""
WORDS = ("red", "blue", "grey", "green")


def text(i: int) -> str:
    return f"{WORDS[i % 4]} {i}"


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "classify": lambda i: {"text": text(i), "label": WORDS[i % 4]},
    "many": lambda i: {"text": text(i), "labels": [["a"], ["b"], ["a", "b"]][i % 3]},
    "regress": lambda i: {"text": text(i), "value": i},
    "tag": lambda i: {"text": text(i), "spans": [{"start": 0, "end": 3, "label": "x"}]},
    "complete": lambda i: {"prompt": f"p{i}", "completion": f" c{i}"},
    "chat": lambda i: {
        "messages": [{"role": "user", "content": f"p{i}"}, {"role": "assistant", "content": f"c{i}"}]
    },
    "prefer": lambda i: {"prompt": f"p{i}", "chosen": f" c{i}", "rejected": f" r{i}"},
    "preferred chats": lambda i: {
        "prompt": [{"role": "user", "content": f"p{i}"}],
        "chosen": f"c{i}",
        "rejected": f"r{i}",
    },
    "reward": lambda i: {"prompt": f"p{i}", "chosen": f" c{i}", "rejected": f" r{i}"},
    "embed": lambda i: {"anchor": f"a{i}", "positive": f"b{i}"},
    "triples": lambda i: {"anchor": f"a{i}", "positive": f"b{i}", "negative": f"n{i}"},
    "rerank": lambda i: {"query": f"q{i}", "texts": [f"t{i}", f"u{i}"], "grades": [1, 0]},
    "extract": lambda i: {
        "question": f"q{i}",
        "context": f"c{i} so",
        "answers": {"text": [f"c{i}"], "answer_start": [0]},
    },
    "continue": lambda i: {"text": text(i)},
    "text": lambda i: {"text": text(i)},
    "reinforce": lambda i: {"prompt": f"say {i}"},
    "distil": lambda i: {"text": text(i)},
    "distil writing": lambda i: {"prompt": f"p{i}", "completion": f" c{i}"},
    "distil answers": lambda i: {"prompt": f"p{i}"},
    "prompted": lambda i: {"text": text(i), "label": WORDS[i % 4]},
    "prompted by examples": lambda i: {"text": text(i), "label": WORDS[i % 4]},
}
TASK = {"many": "classify", "preferred chats": "prefer", "triples": "embed"} | {
    k: k.split()[0].replace("prompted", "classify") for k in ROWS if k.startswith(("distil", "prompted"))
}
TEXTS = {"complete": 2, "chat": 2, "prefer": 3, "preferred chats": 3, "reward": 3, "embed": 2, "triples": 3, "rerank": 3, "extract": 2, "distil writing": 2}  # fmt: skip
"""Texts of a row, where it has more than one."""
COMPARED = (
    "classify",
    "many",
    "regress",
    "tag",
    "embed",
    "triples",
    "rerank",
    "extract",
    "reinforce",
    "prompted",
    "prompted by examples",
)
"""Test rows of these are found among the rows by their text: they are not tokenised."""
REPEATED = {
    "distil": "the teacher reads each text too, with a tokenizer of its own, and student and teacher the test rows",
    "distil writing": "the teacher has a tokenizer of its own, and is shown the prompts of test rows that lack an answer",
    "distil answers": "a prompt is asked of the teacher, and learnt with what it has written",
    "prompted by examples": "a question is tokenised with so many examples as may fit, then with fewer, and examples are texts of rows themselves",
}
"""Where a text is tokenised more than once, and why it has to be."""
OPTIONS: dict[str, dict[str, Any]] = {
    "reinforce": {"reinforce": {"reward": "format:.*", "max_tokens": 1, "group": 2}},
    "prompted": {"answers": {w: f" {w}" for w in WORDS}, "prompt": "{text}"},
    "prompted by examples": {"answers": {w: f" {w}" for w in WORDS}, "prompt": "{text}", "shots": {"n": 2}},
}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """`with work() as done:` counts."""
    return partial(counted, monkeypatch)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """In the format that the name says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as f:
            table = csv.DictWriter(f, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return path


def asked(kind: str, folder: Path, method: str = "lora") -> dict[str, Any]:
    """What `adapt` takes beside rows."""
    method = "prompt" if kind.startswith("prompted") else method
    more = OPTIONS.get(kind, {})
    if kind.startswith("distil"):
        save_base(folder / "teacher", tiny_base())
        more = {"distil": {"teacher": str(folder / "teacher"), "max_tokens": 2}}
    if kind == "distil":
        rows = [ROWS["classify"](i) for i in range(8)]
        Base(tiny_base()).adapt(rows, task="classify", method="head").save(folder / "sorts")
        more["distil"]["adapter"] = str(folder / "sorts")
    if kind == "distil answers":
        more["distil"]["level"] = "sequence"
    own = {} if method == "prompt" else {"epochs": 1, **taken(method, rank=2, virtual=2)}
    return {"task": TASK.get(kind, kind), "method": method, **own, **more}


def files(kind: str, folder: Path) -> tuple[Path, Path]:
    """Rows and test rows."""
    return (
        write(folder / "rows.jsonl", [ROWS[kind](i) for i in range(N)]),
        write(folder / "test.jsonl", [ROWS[kind](HELD + i) for i in range(TEST)]),
    )


def check(kind: str, done: Work, first: int, rows: int, texts: int) -> None:
    """Each text once, but for what the table says."""
    found = done.numbers(first, rows)
    more = {t: n for t, n in found.items() if n > 1}
    assert not more or kind in REPEATED, more
    if kind in REPEATED:
        assert len(found) >= rows * texts
    else:
        assert sum(found.values()) == len(found) == rows * texts


def test_every_task_is_looked_at() -> None:
    """Tasks that read files have tests of their own (test_transcribe)."""
    of_files = {name for name, t in TASKS.items() if t.files}
    assert {TASK.get(kind, kind) for kind in ROWS} == (TASKS.keys() | PREDICTIONS.keys()) - of_files
    assert REPEATED.keys() <= ROWS.keys()


LEARNT = [k for k in ROWS if k != "text"]


@pytest.mark.parametrize("how", ["adapt", "plan_adapt"])
@pytest.mark.parametrize("kind", LEARNT)
def test_to_learn_each_text_is_tokenised_once_and_each_file_opened_once(
    kind: str, how: str, work: Any, tmp_path: Path
) -> None:
    base, options, (rows, test) = Base(tiny_base()), asked(kind, tmp_path), files(kind, tmp_path)
    unfinished = (
        pytest.raises(DataError, match="none of the teacher's") if kind == "distil answers" else nullcontext()
    )
    with work() as done, unfinished:
        getattr(base, how)(rows, test=test, **options)
    check(kind, done, 0, N, TEXTS.get(kind, 1))
    check(kind, done, HELD, TEST, 0 if kind in COMPARED or kind.startswith("distil") else TEXTS.get(kind, 1))
    assert (done.files["rows.jsonl"], done.files["test.jsonl"]) == (1, 1)


@pytest.mark.parametrize("method", ["head", "soft", "full"])
@pytest.mark.parametrize(
    "kind", ["classify", "many", "regress", "tag", "complete", "chat", "reward", "embed"]
)
def test_by_other_methods_too(kind: str, method: str, work: Any, tmp_path: Path) -> None:
    options = asked(kind, tmp_path, method)
    if method not in TASKS[options["task"]].makers:
        pytest.skip("this method does not go with the task")
    with work() as done:
        Base(tiny_base()).adapt([ROWS[kind](i) for i in range(N)], **options)
    check(kind, done, 0, N, TEXTS.get(kind, 1))


@pytest.mark.parametrize("kind", [k for k in ROWS if TASK.get(k, k) in PREDICTIONS])
def test_to_score_each_text_is_tokenised_once_and_each_file_opened_once(
    kind: str, work: Any, tmp_path: Path
) -> None:
    base, (rows, test) = Base(tiny_base()), files(kind, tmp_path)
    if kind not in ("text", "reinforce"):
        adapter: Adapter = base.adapt(rows, **asked(kind, tmp_path))
        base = base.with_adapter(adapter)
    more = {"judge": {"reward": "format:.*", "max_tokens": 1}} if kind == "reinforce" else {}
    with work() as done:
        onebase.evaluate(base, test, task=TASK.get(kind, kind), max_tokens=1, **more)
    check(kind, done, HELD, TEST, TEXTS.get(kind, 1))
    assert done.files["test.jsonl"] == 1


def test_to_tune_too(work: Any, tmp_path: Path) -> None:
    """Trials learn of what was tokenised for all of them; what they are judged on is read for each."""
    rows, test = files("classify", tmp_path)
    with work() as done:
        Base(tiny_base()).tune(rows, task="classify", method="lora", trials=2, test=test, epochs=1)
    found = done.numbers(0, N)
    assert len(found) == N and set(found.values()) == {1, 3}
    assert (done.files["rows.jsonl"], done.files["test.jsonl"]) == (1, 1)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_of_any_format_a_file_is_opened_once(ending: str, work: Any, tmp_path: Path) -> None:
    made = [ROWS["classify"](i) for i in range(N)]
    path = write(tmp_path / f"rows.{ending}", made)
    if ending == "tsv":
        path.write_text(path.read_text().replace(",", "\t"))
    with work() as done:
        Base(tiny_base()).adapt(path, task="classify", method="head")
    assert done.files[path.name] == 1
    path = path.with_suffix(".json")
    path.write_text("\n".join(map(json.dumps, made)))  # no list, but lines
    with work() as done:
        Base(tiny_base()).adapt(path, task="classify", method="head")
    assert done.files[path.name] == 1


def test_the_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asks: list[str] = []
    path = files("classify", tmp_path)[0]
    monkeypatch.setattr(names.datasets, "fetch", lambda name: asks.append(name) or ([path], {"repo": name}))
    made = Base(tiny_base()).adapt("hf:some/rows", **asked("classify", tmp_path))
    assert asks == ["hf:some/rows"] and made.record.get("data.source") == {"repo": "hf:some/rows"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_pipe_is_read(ending: str, tmp_path: Path) -> None:
    plain = write(tmp_path / f"plain.{ending}", [ROWS["classify"](i) for i in range(N)])
    pipe, said = tmp_path / f"rows.{ending}", plain.read_text()
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(said), daemon=True)
    writer.start()
    found = Base(tiny_base()).adapt(pipe, method="head", task="classify")
    assert found.fingerprint == Base(tiny_base()).adapt(plain, method="head", task="classify").fingerprint
