"""A plan of an adaptation: all that comes before step 1, what the rest would take, and nothing done."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.api.base import Base
from onebase.base.folder import base_tensors
from onebase.data import BadRows
from onebase.errors import DataError, UserError
from onebase.tasks.table import TASKS
from tests.helpers import taken
from tests.pretrained import onebase as command
from tests.pretrained import tiny_run

LABELLED = [
    {"text": f"The text {i} is {'good' if i % 3 else 'bad'}.", "label": "ab"[i % 3 == 0]} for i in range(30)
]
WRITTEN = [{"prompt": f"Say {i}.", "completion": f" It is {i}."} for i in range(20)]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": p["prompt"]},
            {"role": "assistant", "content": p["completion"]},
        ]
    }
    for p in WRITTEN
]
PAIRS = [{"anchor": f"number {i}", "positive": f"it is {i}"} for i in range(20)]
DATA: dict[str, list[dict[str, Any]]] = {
    "classify": LABELLED,
    "complete": WRITTEN,
    "chat": CHATS,
    "embed": PAIRS,
}


@pytest.fixture(scope="module")
def base() -> Base:
    return onebase.load(tiny_run() / "base")


def state(base: Base) -> tuple[Any, ...]:
    """All that a plan must leave as it was."""
    model = base.loaded.model
    return (
        {k: t.clone() for k, t in base_tensors(model).items()},
        [(n, p.requires_grad, p.grad is None) for n, p in model.named_parameters()],
        [list(p.deltas.keys()) for p in model.sites().values()],
        list(model.heads),
        model.compute_dtype,
        model.training,
        torch.get_rng_state(),
    )


def same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return (
        a[0].keys() == b[0].keys()
        and all(torch.equal(t, b[0][k]) for k, t in a[0].items())
        and a[1:6] == b[1:6]
        and torch.equal(a[6], b[6])
    )


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("task", ["classify", "complete", "chat"])
def test_a_plan_says_what_the_run_then_does_and_leaves_the_base(task: str, method: str, base: Base) -> None:
    before = state(base)
    plan = base.plan_adapt(DATA[task], task=task, method=method, epochs=2, batch_size=8)
    assert same(before, state(base))
    record = base.adapt(DATA[task], task=task, method=method, epochs=2, batch_size=8).record
    facts = plan.facts
    assert facts["rows"] == record.get("data.rows") == len(DATA[task])
    assert facts["steps"] == record.get("train.steps")
    assert facts["tokens"] == pytest.approx(record.get("tokens.read"), rel=0.15)
    assert facts["tokens_supervised"] == pytest.approx(record.get("tokens.supervised"), rel=0.15)
    assert facts["flops"] == pytest.approx(record.get("flops.formula"), rel=0.15)
    if method == "lora":
        assert facts["parameters_learnt"] == record.get("parameters")
    memory, seconds = facts["memory_bytes"], facts["seconds"]
    assert memory["total"] == sum(v for k, v in memory.items() if k != "total")
    assert memory["optimizer"] == 2 * memory["gradients"] == 8 * facts["parameters_learnt"]
    assert facts["fits"] and facts["free_bytes"] > memory["total"]
    assert 0 < seconds["step"] < 60 and seconds["steps"] == pytest.approx(seconds["step"] * facts["steps"])
    assert "token ledger" in plan.text and "forward and back" in plan.text


@pytest.mark.parametrize(
    ("task", "method"), [("classify", "soft"), ("complete", "prefix"), ("embed", "lora")]
)
def test_other_methods_and_tasks_are_planned_by_the_same_code(task: str, method: str, base: Base) -> None:
    before = state(base)
    facts = base.plan_adapt(DATA[task], task=task, method=method, **taken(method, virtual=4)).facts
    assert same(before, state(base))
    assert facts["steps"] > 0 and facts["seconds"]["steps"] > 0


TEXTS = [r["text"] for r in LABELLED[:8]]
MANY = [{"text": t, "labels": ["ab"[i % 2], "c"][: 1 + i % 3]} for i, t in enumerate(TEXTS)]
ANSWERS = [{**r, "chosen": r["completion"], "rejected": " no"} for r in WRITTEN[:8]]
EVERY: list[tuple[str, list[dict[str, Any]]]] = [
    ("classify", LABELLED[:8]),
    ("classify", MANY),
    ("regress", [{"text": t, "value": i} for i, t in enumerate(TEXTS)]),
    ("tag", [{"text": t, "spans": [{"start": 0, "end": 3, "label": "a"}]} for t in TEXTS]),
    ("complete", WRITTEN[:8]),
    ("chat", CHATS[:8]),
    ("embed", [{**r, "negative": "none"} for r in PAIRS[:8]]),
    ("prefer", ANSWERS),
    ("reward", ANSWERS),
    ("rerank", [{"query": t, "texts": [t, "none"], "grades": [1, 0]} for t in TEXTS]),
    (
        "extract",
        [
            {"question": "Who?", "context": t, "answers": {"text": [t[:3]], "answer_start": [0]}}
            for t in TEXTS
        ],
    ),
    ("reinforce", [{"prompt": r["prompt"]} for r in WRITTEN[:8]]),
    ("continue", [{"text": t} for t in TEXTS]),
    ("distil", [{"text": t} for t in TEXTS]),
    ("distil", WRITTEN[:8]),
]
PLANNED = [
    (task, method, i)
    for i, (task, rows) in enumerate(EVERY)
    for method in TASKS[task].makers
    if not (method == "prompt" and rows is MANY)
]


def test_every_task_has_rows_here() -> None:
    """Tasks that read files have tests of their own (test_transcribe)."""
    assert {task for task, _ in EVERY} == {name for name, t in TASKS.items() if not t.files}


@pytest.mark.parametrize(("task", "method", "which"), PLANNED)
def test_every_task_is_planned_by_every_method(task: str, method: str, which: int, base: Base) -> None:
    rows = EVERY[which][1]
    options: dict[str, Any] = {
        "soft": {"virtual": 4},
        "prefix": {"virtual": 4},
        "prompt": {"shots": {"n": 2}},
    }.get(method, {})
    if method == "prompt" and task == "classify":
        options["answers"] = {"a": " yes", "b": " no"}
    if task == "distil":
        options["distil"] = {"teacher": str(tiny_run() / "base")}
    if task == "reinforce":
        options["reinforce"] = {"reward": "format:[a-z ]*", "max_tokens": 2, "group": 2}
    before = state(base)
    plan = base.plan_adapt(rows, task=task, method=method, epochs=1, batch_size=4, **options)
    facts = plan.facts
    assert same(before, state(base))
    assert facts["rows"] == len(rows) and facts["tokens"] > 0 and facts["memory_bytes"]["total"] > 0
    if method in ("head", "prompt"):
        assert "steps" not in facts and facts["seconds"]["reading"] > 0
    else:
        assert facts["steps"] > 0 and facts["tokens_supervised"] > 0 and facts["seconds"]["steps"] > 0
        writes = task not in ("classify", "regress", "tag", "embed", "reward", "rerank", "extract")
        assert (facts["memory_bytes"]["logits"] > 0) == writes
    assert f"{task} by {method}: a plan" in plan.text and "token ledger" in plan.text
    if rows is MANY:
        assert facts["labels"] == {"c": 5, "a": 4, "b": 4}


@pytest.mark.parametrize(
    ("task", "rows", "says"),
    [
        ("classify", [{"text": t, "label": "a"} for t in TEXTS], "have the label 'a'"),
        ("classify", [{"text": t, "labels": ["a"]} for t in TEXTS], "have the label 'a'"),
        ("regress", [{"text": t, "value": 1} for t in TEXTS], "have the value 1"),
        ("tag", [{"text": t, "spans": []} for t in TEXTS], "has a span"),
        ("reward", [{**r, "rejected": r["chosen"]} for r in ANSWERS], "row"),
    ],
)
def test_a_plan_of_a_head_refuses_what_the_head_refuses(
    task: str, rows: list[dict[str, Any]], says: str, base: Base
) -> None:
    said = []
    for go in (base.adapt, base.plan_adapt):
        with pytest.raises(DataError, match=says) as e:
            go(rows, task=task, method="head")
        said.append(str(e.value))
    assert said[0] == said[1]


def test_a_head_and_a_prompt_are_planned_by_reading_a_part(base: Base) -> None:
    plan = base.plan_adapt(LABELLED, task="classify", method="head")
    assert plan.facts["labels"] == {"a": 20, "b": 10} and plan.facts["tokens"] > 30 * 5
    assert plan.facts["seconds"]["reading"] > 0 and "steps" not in plan.facts
    answers = {"a": " yes", "b": " no"}
    plan = base.plan_adapt(LABELLED, task="classify", method="prompt", answers=answers)
    assert plan.facts["rows"] == 30 and plan.facts["seconds"]["reading"] > 0
    assert base.plan_adapt([], task="classify", method="prompt", answers=answers).facts["rows"] == 0


def test_the_time_does_not_hang_on_what_is_remembered(base: Base) -> None:
    with base.remembering():
        base.adapt(LABELLED, task="classify", method="head")
        assert base.plan_adapt(LABELLED, task="classify", method="head").facts["seconds"]["reading"] > 0


def test_a_plan_refuses_what_the_run_refuses(base: Base) -> None:
    for wrong in (
        {"task": "sing", "method": "lora"},
        {"task": "complete", "method": "head"},
        {"task": "classify", "method": "lora", "rnak": 3},
        {"task": "classify", "method": "lora", "sites": ["gate"]},
        {"task": "classify", "method": "prompt"},
    ):
        said = []
        for go in (base.adapt, base.plan_adapt):
            with pytest.raises(UserError) as e:
                go(LABELLED, **wrong)  # type: ignore[arg-type]
            said.append(str(e.value))
        assert said[0] == said[1]


@pytest.mark.parametrize("task", ["classify", "complete", "chat"])
def test_one_error_has_bad_rows_and_those_that_are_too_long_with_their_lengths(
    task: str, base: Base, tmp_path: Path
) -> None:
    long = json.loads(json.dumps(DATA[task][1]).replace(" is ", " is " * 300))
    limit = base.config.text.context
    rows = [json.dumps(r) for r in (DATA[task][0], long, DATA[task][2], long)]
    rows.insert(2, '{"text": ')
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    for method in ("lora", "full"):
        with pytest.raises(BadRows) as e:
            long_too = {"long": "refuse"} if task == "classify" else {}
            base.adapt(tmp_path / "a.jsonl", task=task, method=method, **long_too)
        lines = e.value.cause.splitlines()
        assert lines[0].startswith("3 of 5 rows cannot be used")
        for line, number in zip(lines[1:], (2, 3, 5), strict=True):
            assert f"a.jsonl:{number}" in line
        for line in (lines[1], lines[3]):
            size = int(line.split(" has ")[1].split()[0])
            assert size > limit and f"the limit is {limit}" in line


def test_columns_are_mapped_and_recorded(base: Base) -> None:
    named = [{"body": r["text"], "topic": r["label"]} for r in LABELLED]
    columns = {"text": "body", "label": "topic"}
    adapter = base.adapt(named, task="classify", method="head", columns=columns)
    plain = base.adapt(LABELLED, task="classify", method="head")
    assert adapter.fingerprint == plain.fingerprint
    assert adapter.record.get("data.columns") == columns and plain.record.get("data.columns") is None
    assert adapter.record.get("data.fingerprint") == plain.record.get("data.fingerprint")
    base.adapt(named, task="classify", method="head", columns=columns, test=[{"body": "new", "topic": "a"}])


def test_the_command(tmp_path: Path) -> None:
    data = tmp_path / "a.tsv"
    data.write_text("body\tlabel\n" + "".join(f"{r['text']}\t{r['label']}\n" for r in LABELLED))
    words = ["adapt", tiny_run(), "--data", data, "--column", "text=body", "--method", "lora", "--dry-run"]
    before = sorted(tmp_path.rglob("*"))
    said = command(*words, "--out", tmp_path / "out")
    assert said.status == 0, said.err
    for part in (
        "columns text, label",
        "labels        2: a 20, b 10",
        "token ledger",
        "steps  ",
        "MiB",
        "time  ",
    ):
        assert part in said.out, said.out
    assert command(*words).status == 0
    assert sorted(tmp_path.rglob("*")) == before
    said = command(*words[:-1])
    assert said.status == 1 and "give --out DIR, or --dry-run" in said.err
    for column in ("text", "=a", "text="):
        said = command("adapt", tiny_run(), "--data", data, "--column", column, "--dry-run")
        assert said.status == 1 and "--column text=body" in said.err and "Traceback" not in said.err
    said = command(*words, "--column", "text=label")
    assert said.status == 1 and "names a column twice" in said.err
    said = command(*words[:4], "--column", "text=boody", "--dry-run")
    assert said.status == 1 and "map it: --column text=body" in said.err


def test_rows_with_many_labels_are_known_beside_bad_ones(base: Base, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "x", "labels": ["a", "b"]}\n{\n{"text": "y", "labels": ["c"]}\n'
    )
    with pytest.raises(BadRows, match=r"a.jsonl:2: not valid JSON"):
        base.adapt(tmp_path / "a.jsonl", task="classify", method="head")


@pytest.mark.parametrize("task", ["regress", "tag", "many"])
def test_the_same_error_has_what_a_task_has_against_its_values(task: str, base: Base, tmp_path: Path) -> None:
    """No number, spans over each other or of nothing, labels that are none: beside texts that are too long."""
    text = "the cat is here"
    good: dict[str, Any]
    if task == "regress":
        good, bad, says = {"value": 1}, [{"value": "many"}, {"value": None}], ["expected a number"]
    elif task == "tag":
        good = {"spans": [{"start": 4, "end": 7, "label": "animal"}]}
        over = {"start": 4, "end": 9, "label": "animal"}
        bad = [{"spans": [*good["spans"], over]}, {"spans": [{"start": 3, "end": 4, "label": "x"}]}]
        says = ["overlaps the one before it", "is only white space"]
    else:
        good, bad, says = (
            {"labels": ["a"]},
            [{"labels": [1]}, {"labels": "a"}],
            ["expected a list of texts"],
        )
    rows = [
        {"text": text} | good,
        *({"text": text} | b for b in bad),
        {"text": text + " and there" * 300} | good,
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BadRows) as e:
        base.adapt(
            tmp_path / "a.jsonl", task="classify" if task == "many" else task, method="head", long="refuse"
        )
    said = e.value.cause.splitlines()
    assert said[0].startswith("3 of 4 rows cannot be used")
    assert [int(b.where.rsplit(":", 1)[1]) for b in e.value.bad] == [2, 3, 4]
    assert all(x in e.value.cause for x in (*says, "tokens, the limit is"))
