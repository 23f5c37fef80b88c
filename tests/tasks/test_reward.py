"""Task reward: a number for each answer, larger for what is liked better; by a head alone or with what a method learns."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.api.base import Adapter, Base
from onebase.base.folder import base_tensors, save_base
from onebase.errors import DataError, UserError
from tests.helpers import taken, tiny_base
from tests.pretrained import onebase as command
from tests.tasks.test_prefer import TEST, TRAIN, chats


@pytest.mark.parametrize("method", ["head", "lora", "soft", "prefix", "full"])
def test_held_out_pairs_are_told_apart(method: str, tmp_path: Path) -> None:
    base = Base(tiny_base())
    before = {k: t.clone() for k, t in base_tensors(base.loaded.model).items()}
    chat = method in ("head", "prefix")
    train, test = (chats(TRAIN), chats(TEST)) if chat else (TRAIN, TEST)
    adapter = base.adapt(train, task="reward", method=method, epochs=1, **taken(method, virtual=4))
    assert all(torch.equal(t, before[k]) for k, t in base_tensors(base.loaded.model).items())
    assert not base.loaded.model.heads
    on = base.with_adapter(adapter)
    found = onebase.evaluate(on, test)
    assert found["accuracy"].value >= 0.95 and found["margin"].value > 0
    assert found["accuracy"].n == len(test) and found["accuracy"].low <= found["accuracy"].value
    answers = [(test[0]["prompt"], test[0][side]) for side in ("chosen", "rejected")]
    good, poor = on.reward(answers)
    assert good > poor and on.reward([]) == []
    again = base.with_adapter(Adapter.load(adapter.save(tmp_path / "a")))
    assert again.reward(answers) == [good, poor]
    assert again.reward([answers[1], *answers]) == pytest.approx([poor, good, poor], abs=1e-4)
    assert on.reward([" Yes, it is so."])[0] > on.reward([" No so, jumps."])[0]
    assert adapter.parts.config.chats == chat


def test_few_pairs_are_enough_and_only_differences_count() -> None:
    """Three pairs, too few to hold any out; the same constant in all states would cancel, so the head has none of its own."""
    base = Base(tiny_base())
    adapter = base.adapt(TRAIN[:3], task="reward", method="head")
    assert onebase.evaluate(base.with_adapter(adapter), TRAIN[:3])["accuracy"].value == 1.0
    assert float(adapter.parts.tensors["head.bias"].abs()) < 1e-3
    assert adapter.parts.tensors["head.weight"].shape[0] == 1


def test_a_plan(tmp_path: Path) -> None:
    base = Base(tiny_base())
    for method in ("head", "lora"):
        plan = base.plan_adapt(TRAIN, task="reward", method=method, epochs=2)
        assert plan.facts["rows"] == len(TRAIN) and "token ledger" in plan.text
    assert plan.facts["steps"] == base.adapt(TRAIN, task="reward", method="lora", epochs=2).record.get(
        "train.steps"
    )


@pytest.mark.parametrize(
    ("data", "options", "error", "says"),
    [
        ([TRAIN[0] | {"rejected": TRAIN[0]["chosen"]}], {}, DataError, "are the same"),
        (TRAIN, {"test": [*TEST, TRAIN[0]]}, DataError, "test-in-train"),
        (TRAIN, {"method": "prompt"}, UserError, "not numbers"),
    ],
)
def test_what_cannot_teach_is_refused(data: Any, options: dict[str, Any], error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        Base(tiny_base()).adapt(data, **{"task": "reward", "method": "head", **options})


def test_what_cannot_be_asked() -> None:
    base = Base(tiny_base())
    with pytest.raises(UserError, match="no adapter that rates answers"):
        base.reward(["a"])
    with pytest.raises(UserError, match="no adapter that rates answers"):
        onebase.evaluate(base, TEST, task="reward")
    on = base.with_adapter(base.adapt(TRAIN[:3], task="reward", method="head"))
    with pytest.raises(DataError, match="answer 2 has"):
        on.reward(["a", ("Is it?", " fox" * 80)])


def test_the_commands(tmp_path: Path) -> None:
    save_base(tmp_path / "base", tiny_base())
    for name, rows in (("train", TRAIN), ("test", TEST)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = [
        "--task",
        "reward",
        "--method",
        "head",
        "--data",
        tmp_path / "train.jsonl",
        "--out",
        tmp_path / "out",
    ]
    said = command("adapt", tmp_path / "base", *words)
    assert said.status == 0, said.err
    found = command(
        "eval", tmp_path / "base", "--data", tmp_path / "test.jsonl", "--adapter", tmp_path / "out", "--json"
    )
    assert json.loads(found.out)["accuracy"]["value"] >= 0.95
    rated = command("apply", tmp_path / "base", "--adapter", tmp_path / "out", " Yes, it is so.", "--json")
    assert rated.status == 0 and isinstance(json.loads(rated.out)["reward"], float), rated.err
