"""Task reinforce: what is rewarded becomes likelier, the ratio begins at 1, runs go on where they stopped, and what cannot be judged is refused."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.api.base import Base
from onebase.base.folder import base_tensors, save_base
from onebase.errors import DataError, UserError
from onebase.methods.folder import detach
from onebase.tasks.learning import SCRATCH
from onebase.train.callbacks import NoCallback, StepInfo
from onebase.train.signals import Stopped
from tests.helpers import taken, tiny_base
from tests.pretrained import onebase as command

ROWS = [{"prompt": f"say {w}:"} for w in "abcdefghijklmnop"]
LETTERS = {"reward": "format:[a-z ]*", "max_tokens": 1, "kl": 0.0}
"""A completion of one token, which shall be letters: about one of four that a random base writes."""


def adapt(base: Base, reinforce: dict[str, Any], **options: Any) -> onebase.Adapter:
    given = {"method": "lora", "lr": 2e-2, "epochs": 1, "batch_size": 8} | options
    given |= taken(given["method"], virtual=4)
    return base.adapt(given.pop("data", ROWS), task="reinforce", reinforce=LETTERS | reinforce, **given)


def curve(adapter: onebase.Adapter, name: str) -> list[float]:
    return [x[name] for x in adapter.record.get("reinforce.curve")]


@pytest.mark.parametrize(
    ("method", "lr", "least", "seed", "more"),
    [
        ("lora", 5e-2, 0.9, 0, {}),
        ("full", 1e-2, 0.9, 0, {}),
        # Four virtual tokens learn little in 16 rollouts, and how little hangs on the draws: of seeds 0 to 3 one soft prompt answers right.
        ("soft", 2e-1, 0.3, 1, {}),
        ("prefix", 2e-1, 0.9, 3, {}),
        ("lora", 5e-2, 0.9, 0, {"advantages": "mean", "length": "constant"}),
        ("lora", 5e-2, 0.9, 0, {"how": "ppo", "passes": 2}),
    ],
)
def test_what_is_rewarded_becomes_likelier(
    method: str, lr: float, least: float, seed: int, more: dict[str, Any]
) -> None:
    """Greedy answers of the plain base are right in 1 of 16 rows; 16 rollouts make it nearly all, a soft prompt of 4 tokens 12."""
    base = Base(tiny_base())
    before = base.logits([1, 5, 9])
    adapter = adapt(base, more, method=method, lr=lr, epochs=8, seed=seed)
    success = curve(adapter, "success")
    assert sum(success[-4:]) / 4 > sum(success[:2]) / 2 + (0.2 if least > 0.5 else 0.05), success
    assert torch.equal(base.logits([1, 5, 9]), before), "the plain base has changed"
    assert not base.loaded.model.heads and not any(p.requires_grad for p in base.loaded.model.parameters())
    on = base.with_adapter(adapter)
    asked = {"reward": "format:[a-z ]*", "max_tokens": 1, "samples": 16}
    scores = onebase.evaluate(on, ROWS, judge=asked)
    sampled = scores["sampled_success"]  # as a rollout draws them, after the last step
    assert abs(sampled.value - sum(success[-4:]) / 4) < 0.25 and sampled.n == 16
    plain = onebase.evaluate(base, ROWS, task="reinforce", judge=asked)["sampled_success"]
    assert plain.value + (0.2 if least > 0.5 else 0) < sampled.value and sampled.low <= sampled.value
    assert scores["success"].value >= least and scores["success"].n == 16
    assert scores["reward"].low <= scores["reward"].value <= scores["reward"].high


def test_the_ratio_is_1_while_nothing_was_learnt_and_moves_afterwards() -> None:
    """fp32: 1e-5, whatever the batch that the tokens were read in. With one step a rollout every step is the first of its own."""
    adapter = adapt(Base(tiny_base()), {"max_tokens": 5}, epochs=3, micro_batch=4)
    assert len(curve(adapter, "ratio")) == 6 and max(curve(adapter, "ratio")) <= 1e-5
    assert adapter.record.get("reinforce.gap")["most"] <= 1e-5
    twice = adapt(Base(tiny_base()), {"max_tokens": 5, "passes": 2}, epochs=3)
    assert max(curve(twice, "ratio")) > 1e-3
    assert twice.record.get("train.steps") == 2 * adapter.record.get("train.steps") == 12


def test_in_bf16_the_gap_to_the_engine_is_in_the_record() -> None:
    base = Base(tiny_base())
    base.loaded.model.compute_dtype = torch.bfloat16
    gap = adapt(base, {"max_tokens": 5}).record.get("reinforce.gap")
    assert 0 <= gap["mean"] <= gap["most"] < 0.5


@pytest.mark.parametrize(("method", "lr"), [("lora", 2e-2), ("full", 5e-3)])
def test_the_divergence_is_from_the_plain_base_and_holds_back(method: str, lr: float) -> None:
    free = adapt(Base(tiny_base()), {"kl": 1e-6}, method=method, lr=lr, epochs=5)
    held = adapt(Base(tiny_base()), {"kl": 1.0}, method=method, lr=lr, epochs=5)
    assert curve(free, "kl")[0] == curve(held, "kl")[0] == 0.0
    assert 0 < curve(held, "kl")[-1] < 0.5 * curve(free, "kl")[-1]


def test_a_run_that_was_stopped_goes_on_bit_by_bit(tmp_path: Path) -> None:
    """What a rollout says hangs on the seed, its number and the weights alone."""

    class Stop(NoCallback):
        def step(self, info: StepInfo) -> None:
            if info.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    more: dict[str, Any] = {"epochs": 3, "seed": 3}
    whole = adapt(Base(tiny_base()), {"how": "ppo"}, **more)
    with pytest.raises(Stopped):
        adapt(Base(tiny_base()), {"how": "ppo"}, resume=tmp_path, callbacks=[Stop()], **more)
    again = adapt(Base(tiny_base()), {"how": "ppo"}, resume=tmp_path, **more)
    assert curve(again, "rollout") == [3.0, 4.0, 5.0]
    assert curve(again, "reward") == curve(whole, "reward")[3:]
    for k, t in whole.parts.tensors.items():
        assert torch.equal(again.parts.tensors[k], t), k
    other = adapt(Base(tiny_base()), {"how": "ppo"}, **more | {"seed": 4})
    assert any(not torch.equal(other.parts.tensors[k], t) for k, t in whole.parts.tensors.items())


def test_a_reward_model_judges_beside_the_policy(tmp_path: Path) -> None:
    """Its own numbers, also while `full` changes the base that it stands on."""
    base = Base(tiny_base())
    pairs = [
        {"prompt": "say:", "chosen": x, "rejected": y} for x, y in zip("abcdefgh", "12345678", strict=True)
    ]
    model = base.adapt(pairs, task="reward", method="head", pooling="last")
    model.save(tmp_path / "model")
    before = {k: t.clone() for k, t in base_tensors(base.loaded.model).items()}
    for method, lr in (("lora", 2e-2), ("full", 5e-3)):
        adapter = adapt(base, {"reward": str(tmp_path / "model")}, method=method, lr=lr, epochs=6)
        reward = curve(adapter, "reward")
        assert sum(reward[-2:]) > sum(reward[:2]), reward
        assert adapter.record.get("reinforce.reward.adapter") == model.fingerprint
        asked = {"reward": str(tmp_path / "model"), "max_tokens": 1}
        better = onebase.evaluate(base.with_adapter(adapter), ROWS, judge=asked)["reward"].value
        plain = onebase.evaluate(base, ROWS, task="reinforce", judge=asked)["reward"].value
        assert better > plain
        assert all(torch.equal(t, before[k]) for k, t in base_tensors(base.loaded.model).items())
    detach(base.loaded, SCRATCH)
    assert not base.loaded.model.heads, "a head is left on the base"


def test_groups_of_one_reward_teach_nothing_and_are_counted() -> None:
    adapter = adapt(Base(tiny_base()), {"reward": "format:.*"})
    assert curve(adapter, "no_signal") == [1.0, 1.0] and adapter.record.get("reinforce.no_signal") == 1.0
    assert all(not t.any() for k, t in adapter.parts.tensors.items() if k.endswith("b_OR"))
    assert adapter.record.get("reinforce.completions") == 2 * 8 * 8
    assert adapter.record.get("tokens.supervised") == 2 * 8 * 8


def test_messages_are_asked_and_listeners_hear() -> None:
    heard: list[StepInfo] = []

    class Ear(NoCallback):
        def step(self, info: StepInfo) -> None:
            heard.append(info)

    rows = [{"prompt": [{"role": "user", "content": f"say {w}"}], "answer": "a"} for w in "abcdefgh"]
    adapt(Base(tiny_base()), {"reward": "exact"}, data=rows, callbacks=[Ear()])
    assert [h.step for h in heard] == [0]
    assert {"reward", "success", "length", "ended", "no_signal", "gap", "ratio", "clipped"} <= heard[
        0
    ].scores.keys()


@pytest.mark.parametrize(
    ("data", "reinforce", "options", "says"),
    [
        ([{"text": "a"}], {}, {}, "prompt"),
        ([{"prompt": 3}], {}, {}, "'prompt' is 3"),
        ([*ROWS, {"prompt": " "}], {}, {}, "row 17: 'prompt' is empty"),
        (ROWS, {"reward": "exact"}, {}, "answer"),
        ([{"prompt": "a", "answer": "many"}], {"reward": "number"}, {}, "expected a number"),
        ([{"prompt": "abc " * 30}], {}, {}, "of the completion exceed the limit of 64"),
        (ROWS, {"reward": "nice"}, {}, "reward 'nice' is not known"),
        (ROWS, {"parts": 5}, {}, "64 completions of a rollout cannot be split into 5 equal parts"),
        (ROWS, {"group": 1}, {}, "reinforce.group"),
        (ROWS, {"grup": 4}, {}, "group"),
        (ROWS, {}, {"method": "head"}, "task 'reinforce' cannot use method 'head'"),
        (ROWS, {}, {"test": ROWS[:1]}, "test-in-train"),
    ],
)
def test_what_cannot_teach_is_refused(data: Any, reinforce: Any, options: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        adapt(Base(tiny_base()), reinforce, data=data, **options)


def test_a_reward_that_fails_stops_the_run_and_leaves_the_base(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "calls = []\ndef worth(prompt, completion, row):\n    calls.append(1)\n    return 1 / (len(calls) < 70)\n"
    )
    base = Base(tiny_base())
    before = base.fingerprint, base.loaded.reread()
    with pytest.raises(UserError, match=r"failed at row \d+, completion .*ZeroDivisionError"):
        adapt(base, {"reward": f"{file}:worth", "how": "ppo"}, epochs=3)
    assert (base.fingerprint, base.loaded.reread()) == before and not base.loaded.model.heads
    with pytest.raises(DataError):
        onebase.evaluate(base, [], task="reinforce")
    for wrong, says in (({"samples": -1}, "'samples' is -1"), ({"group": 4}, "unknown key 'group'")):
        with pytest.raises(UserError, match=says):
            onebase.evaluate(base, ROWS, task="reinforce", judge=wrong)


def test_a_plan_writes_and_learns_nothing() -> None:
    base = Base(tiny_base())
    before = base.loaded.reread()
    facts = base.plan_adapt(
        ROWS,
        task="reinforce",
        method="lora",
        batch_size=8,
        epochs=2,
        reinforce=LETTERS | {"how": "ppo", "parts": 2},
    ).facts
    assert facts["steps"] == 8 and facts["batch_size"] == 32 and facts["seconds"]["step"] > 0
    assert "completions" in facts["seconds"]["how"]
    assert base.loaded.reread() == before and not base.loaded.model.heads


def test_the_commands(tmp_path: Path) -> None:
    save_base(tmp_path / "base", tiny_base())
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    out = tmp_path / "adapter"
    words = ["-o", "lr=0.02", "-o", "epochs=6", "-o", "batch_size=8"]
    judged = [
        "-o",
        "reinforce.reward=format:[a-z ]*",
        "-o",
        "reinforce.max_tokens=1",
        "-o",
        "reinforce.kl=0.0",
    ]
    said = command(
        *("adapt", tmp_path / "base", "--data", data, "--task", "reinforce", "--method", "lora"),
        *(*words, *judged, "--out", out),
    )
    assert said.status == 0, said.err
    asked = (
        "eval",
        tmp_path / "base",
        "--data",
        data,
        "-o",
        "reward=format:[a-z ]*",
        "-o",
        "max_tokens=1",
        "--json",
    )
    before, after = command(*asked, "--task", "reinforce"), command(*asked, "--adapter", out)
    assert before.status == after.status == 0, before.err + after.err
    old, new = json.loads(before.out), json.loads(after.out)
    assert new["success"]["value"] > old["success"]["value"] + 0.5
    wrong = command("eval", tmp_path / "base", "--data", data, "--task", "reinforce", "-o", "reward=nice")
    assert wrong.status == 1 and "reward 'nice' is not known" in wrong.err
