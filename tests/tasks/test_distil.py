"""Task distil: what a teacher says is learnt, whoever it is; what cannot be taught is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.api.base import Base
from onebase.base.folder import base_tensors, save_base
from onebase.engine.features import completion_rows
from onebase.errors import DataError, UserError
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.modality.text.tokenizer import Tokenizer
from onebase.objective.distil import TeacherOutput
from onebase.tasks.teachers import token_agreement
from tests.helpers import taken, tiny_base
from tests.pretrained import onebase as command

LABELLED = [
    {"text": f"{w} {i} {v}", "label": "fox" if w == "The quick" else "sum" if w == "def add" else "cafe"}
    for i in range(24)
    for v, w in (("dog", "The quick"), ("return", "def add"), ("Köln", "Is this"))
]
TEXTS = [{"text": r["text"].replace(" ", " - ", 1)} for r in LABELLED]
ASKS = [{"prompt": f"Say {i}", "completion": f" {'ab' if i % 2 else 'cd'}"} for i in range(16)]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders: a base, its adapter that classifies, and one that completes."""
    folder = tmp_path_factory.mktemp("teacher")
    save_base(folder / "base", tiny_base(5))
    base = onebase.load(folder / "base")
    base.adapt(LABELLED, task="classify", method="head", pooling="mean").save(folder / "sorts")
    base.adapt(ASKS, task="complete", method="lora", lr=2e-2, epochs=12, batch_size=4).save(folder / "says")
    return {n: str(folder / n) for n in ("base", "sorts", "says")}


def bits(base: Base) -> dict[str, torch.Tensor]:
    return {k: t.clone() for k, t in base_tensors(base.loaded.model).items()}


@pytest.mark.parametrize(("method", "lr"), [("lora", 1e-2), ("full", 1e-3), ("prefix", 1e-2)])
def test_a_student_learns_to_classify_from_texts_alone(
    method: str, lr: float, taught: dict[str, str], tmp_path: Path
) -> None:
    """Another base, another width, no labels: on held-out rows it says what the teacher says, and its own accuracy is measured."""
    student = Base(tiny_base(1, width=48))
    before = bits(student)
    distil = {"teacher": taught["base"], "adapter": taught["sorts"], "temperature": 2.0}
    test = [r for i, r in enumerate(LABELLED) if i % 3 == 0]
    adapter = student.adapt(
        TEXTS,
        task="distil",
        method=method,
        lr=lr,
        epochs=4,
        pooling="mean",
        **taken(method, virtual=4),
        distil=distil,
        test=test,
    )
    assert all(torch.equal(t, before[k]) for k, t in base_tensors(student.loaded.model).items())
    record = adapter.record
    assert adapter.task == "classify" and record.get("distilled") == "classify"
    kinds = {p["kind"]: p for p in record.parents}
    assert kinds["teacher"]["fingerprint"] == onebase.load(taught["base"]).fingerprint
    assert kinds["teacher's adapter"]["name"] == "sorts"
    adapter.save(tmp_path / "a")
    on = student.with_adapter(tmp_path / "a")
    teacher = onebase.load(taught["base"]).with_adapter(taught["sorts"])
    texts = [r["text"] for r in test]
    same = [a.label == b.label for a, b in zip(on.classify(texts), teacher.classify(texts), strict=True)]
    agreement = record.get("scores.agreement")
    assert agreement["value"] == pytest.approx(sum(same) / len(same)) and agreement["value"] >= 0.9
    accuracy = onebase.evaluate(on, test)["accuracy"].value
    assert record.get("scores.student_accuracy")["value"] == pytest.approx(accuracy)
    gap = record.get("scores.student_minus_teacher")
    assert gap["value"] == pytest.approx(accuracy - record.get("scores.teacher_accuracy")["value"])


def test_steps_bring_the_student_nearer_than_the_fit_that_it_starts_from(taught: dict[str, str]) -> None:
    student = Base(tiny_base(1))
    distil = {"teacher": taught["base"], "adapter": taught["sorts"], "hidden": 1.0}
    far = {}
    for lr in (1e-9, 3e-3):
        record = student.adapt(
            TEXTS, task="distil", method="full", lr=lr, epochs=6, pooling="mean", distil=distil, test=LABELLED
        ).record
        far[lr] = record.get("scores.kl")["value"]
    assert far[3e-3] < 0.7 * far[1e-9]


def test_a_student_that_gives_vectors_reads_its_own(taught: dict[str, str]) -> None:
    """By itself it starts from a head on the vector, learns through it, and classifies by it."""
    student = Base(replace(tiny_base(1), embedding=EmbeddingConfig(pooling="mean", normalise=True)))
    distil = {"teacher": taught["base"], "adapter": taught["sorts"]}
    scores = {}
    for lr in (1e-9, 1e-2):
        adapter = student.adapt(
            TEXTS, task="distil", method="full", lr=lr, epochs=8, distil=distil, test=LABELLED
        )
        head = adapter.parts.config.head
        assert head is not None and head.pooling == "vector"
        scores[lr] = adapter.record.get("scores.kl")["value"]
        told = student.with_adapter(adapter).classify([r["text"] for r in LABELLED])
        right = [t.label == r["label"] for t, r in zip(told, LABELLED, strict=True)]
        assert adapter.record.get("scores.student_accuracy")["value"] == pytest.approx(
            sum(right) / len(right)
        )
    assert scores[1e-2] < 0.9 * scores[1e-9]


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_student_learns_to_write(level: str, taught: dict[str, str]) -> None:
    """From the prompts alone: the teacher writes the answers first. Token level learns its distributions over them as well."""
    student = Base(tiny_base(5))  # the teacher's base: what there is to learn is the adapter
    prompts = [{"prompt": r["prompt"]} for r in ASKS]
    distil = {"teacher": taught["base"], "adapter": taught["says"], "level": level, "max_tokens": 12}
    adapter = student.adapt(
        prompts, task="distil", method="lora", lr=2e-2, epochs=12, batch_size=4, distil=distil
    )
    assert adapter.task == "complete"
    record = adapter.record
    assert record.get("distil.written_rows") + record.get("distil.unfinished") == len(prompts)
    on, teacher = student.with_adapter(adapter), onebase.load(taught["base"]).with_adapter(taught["says"])
    asked = [r["prompt"] for r in prompts]
    said = [[b.generate(p, max_tokens=12) for p in asked] for b in (student, on, teacher)]
    near = [sum(a == b for a, b in zip(each, said[2], strict=True)) for each in said[:2]]
    assert near[1] >= near[0] + 8, near


def test_token_level_brings_distributions_nearer_and_measures_it(taught: dict[str, str]) -> None:
    """A tiny student of other weights and the same tokenizer: the KL to the teacher on held-out rows falls, and the record has it."""
    student, test = Base(tiny_base(1)), ASKS[12:]
    teacher = onebase.load(taught["base"]).with_adapter(taught["says"])
    before = bits(teacher)
    samples = completion_rows(student.loaded, test)
    knows = TeacherOutput(teacher.loaded.model, teacher.routing)
    start = token_agreement(TeacherOutput(student.loaded.model), knows, samples, 0)
    adapter = student.adapt(
        ASKS[:12],
        task="distil",
        method="full",
        lr=3e-3,
        epochs=10,
        batch_size=4,
        distil={"teacher": taught["base"], "adapter": taught["says"], "hard": 0.2},
        test=test,
    )
    said = adapter.record.get("scores.kl")
    assert said["value"] < 0.5 * start["kl"].value
    on = student.with_adapter(adapter)
    end = token_agreement(TeacherOutput(on.loaded.model, on.routing), knows, samples, 0)
    assert said["value"] == pytest.approx(end["kl"].value, rel=1e-4)
    assert end["agreement"].value >= start["agreement"].value
    after = bits(onebase.load(taught["base"]).with_adapter(taught["says"]))
    assert all(torch.equal(t, after[k]) for k, t in before.items())


def test_texts_and_chats_and_a_plan(taught: dict[str, str]) -> None:
    student = Base(tiny_base(1))
    distil = {"teacher": taught["base"]}
    texts = student.adapt(TEXTS, task="distil", method="lora", epochs=1, batch_size=4, distil=distil)
    assert texts.task == "continue"
    chat = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"No {i}"}]}
        for i in range(6)
    ]
    assert (
        student.adapt(chat, task="distil", method="soft", virtual=4, epochs=1, distil=distil).task == "chat"
    )
    plan = student.plan_adapt(TEXTS, task="distil", method="lora", epochs=1, batch_size=4, distil=distil)
    assert plan.facts["steps"] == texts.record.get("train.steps")
    held = plan.facts["memory_bytes"]["weights"]
    teacher = sum(t.numel() * 4 for t in base_tensors(onebase.load(taught["base"]).loaded.model).values())
    assert held > 2 * teacher, "the teacher's weights are not counted"
    sorts = {"distil": {"teacher": taught["base"], "adapter": taught["sorts"]}}
    assert student.plan_adapt(TEXTS, task="distil", method="full", **sorts).facts["steps"] == -(
        -3 * len(TEXTS) // 16
    )


@pytest.mark.parametrize(
    ("data", "options", "error", "says"),
    [
        (TEXTS, {"distil": {}}, UserError, "needs a teacher"),
        (TEXTS, {"distil": {"teacher": "nowhere/at/all"}}, UserError, "nowhere"),
        (TEXTS, {"method": "head"}, UserError, "task 'distil' cannot use method 'head'"),
        (TEXTS, {"level": "sequence"}, UserError, "without a prompt for the teacher to answer"),
        ([{"text": "a"}, {"text": ""}], {}, DataError, "row 2: 'text' is empty"),
        (TEXTS, {"adapter": "sorts", "hard": 0.5}, DataError, "they have none"),
        ([{"text": "a", "label": "x"}], {"adapter": "sorts", "hard": 0.5}, DataError, "two of its labels"),
        (
            [*LABELLED, {"text": "a", "label": "x"}],
            {"adapter": "sorts", "hard": 0.5},
            DataError,
            "the label 'x'",
        ),
        (
            [*TEXTS, {"text": "a b " * 90}],
            {"adapter": "sorts", "long": "refuse"},
            DataError,
            "the limit is 64",
        ),
        (TEXTS, {"test": [TEXTS[2]], "adapter": "sorts"}, DataError, "test-in-train"),
        (TEXTS, {"test": [TEXTS[2]]}, DataError, "test-in-train"),
    ],
)
def test_what_cannot_teach_is_refused(
    data: Any, options: dict[str, Any], error: Any, says: str, taught: dict[str, str]
) -> None:
    outer = {k: options.pop(k) for k in ("method", "test", "long") if k in options} if options else {}
    distil = options.pop("distil", {"teacher": taught["base"]} | options)
    if "adapter" in distil:
        distil["adapter"] = taught[distil["adapter"]]
    with pytest.raises(error, match=says):
        Base(tiny_base(1)).adapt(data, **{"task": "distil", "method": "lora", "distil": distil, **outer})


def test_other_tokens_are_refused_at_token_level(taught: dict[str, str]) -> None:
    other = tiny_base(1)
    other.text_codec = TextCodec(Tokenizer.train(["quite another text, with other words"] * 9, 290))
    distil = {"teacher": taught["base"], "adapter": taught["says"], "max_tokens": 12}
    with pytest.raises(UserError, match="different tokenizers") as e:
        Base(other).adapt(ASKS, task="distil", method="lora", distil=distil)
    assert "sequence" in e.value.remedy
    made = Base(other).adapt(
        ASKS, task="distil", method="lora", epochs=1, batch_size=4, distil={**distil, "level": "sequence"}
    )
    assert made.task == "complete"


def test_unfinished_answers_are_not_learnt(taught: dict[str, str], tmp_path: Path) -> None:
    """A base that never ends an answer cannot teach from prompts alone; of answers that end, the rest is counted."""
    save_base(tmp_path / "endless", tiny_base(5, endless=True))
    prompts = [{"prompt": r["prompt"]} for r in ASKS]
    student = Base(tiny_base(1))
    endless = {"teacher": str(tmp_path / "endless"), "max_tokens": 8}
    with pytest.raises(DataError, match="none of the teacher's 16 answers ends within 8 tokens"):
        student.adapt(prompts, task="distil", method="lora", distil=endless)
    distil = {"teacher": taught["base"], "adapter": taught["says"], "max_tokens": 1}
    mixed = [*ASKS[:3], *prompts[3:]]  # one token is not enough for an answer and its end
    record = student.adapt(mixed, task="distil", method="lora", epochs=1, distil=distil).record
    assert (record.get("distil.written_rows"), record.get("distil.unfinished")) == (3, 13)


def test_a_teacher_of_another_task_is_refused(taught: dict[str, str], tmp_path: Path) -> None:
    base = onebase.load(taught["base"])
    rows = [{"text": r["text"], "value": i} for i, r in enumerate(LABELLED)]
    base.adapt(rows, task="regress", method="head").save(tmp_path / "r")
    with pytest.raises(UserError, match="adapter is for task regress"):
        base.adapt(
            TEXTS,
            task="distil",
            method="lora",
            distil={"teacher": taught["base"], "adapter": str(tmp_path / "r")},
        )


def test_the_commands(taught: dict[str, str], tmp_path: Path) -> None:
    said = command("student", taught["base"], "--layers", "1", "--out", tmp_path / "student")
    assert said.status == 0, said.err
    assert "parameters)" in said.out
    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(map(json.dumps, TEXTS)), encoding="utf-8")
    words = [
        "--task",
        "distil",
        "--method",
        "lora",
        "-o",
        "epochs=1",
        "-o",
        f"distil.teacher={taught['base']}",
    ]
    more = ["-o", f"distil.adapter={taught['sorts']}", "--out", tmp_path / "a"]
    done = command("adapt", tmp_path / "student", "--data", data, *words, *more)
    assert done.status == 0, done.err
    shown = command("show", tmp_path / "a")
    assert shown.status == 0 and "teacher" in shown.out
    bad = command("student", taught["base"], "--layers", "9", "--out", tmp_path / "no")
    assert bad.status == 1 and "9 layers of 2" in bad.err
