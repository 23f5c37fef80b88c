"""Task prefer: the answers that are liked better become likelier, from a start that is the reference; what cannot teach is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.api.base import Adapter, Base
from onebase.base.folder import base_tensors, load_base, save_base
from onebase.data import BadRows
from onebase.errors import ArtifactError, ConfigError, DataError, UserError
from onebase.train.callbacks import StepInfo
from tests.helpers import tiny_base
from tests.pretrained import onebase as command

WORDS = ("so", "a dog", "brown", "add", "lazy", "fox", "quick", "over")
ROWS = [
    {"prompt": f"Is it {a} or {b}?", "chosen": f" Yes, it is {a}.", "rejected": f" No {b}, jumps."}
    for a in WORDS
    for b in WORDS
    if a != b
]
TRAIN, TEST = ROWS[::2], ROWS[1::2]
METHODS = {
    "lora": {"lr": 1e-2},
    "full": {"lr": 1e-3},
    "soft": {"lr": 5e-3, "virtual": 4},
    "prefix": {"lr": 5e-3, "virtual": 4},
}


def chats(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same as conversations, with an answer of the assistant that is given."""
    begun = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]
    return [{**r, "prompt": [*begun, {"role": "user", "content": r["prompt"]}]} for r in rows]


class Losses:
    """Hears the loss of each step."""

    def __init__(self) -> None:
        self.heard: list[float] = []

    def start(self, done: int, total: int | None) -> None: ...

    def step(self, info: StepInfo) -> None:
        self.heard.append(info.loss)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("loss", "method"),
    [
        *(("dpo", m) for m in METHODS),
        ("ipo", "lora"),
        ("kto", "lora"),
        ("kto", "soft"),
        ("orpo", "lora"),
        ("orpo", "full"),
    ],
)
def test_held_out_pairs_are_preferred_and_the_base_stays(loss: str, method: str, tmp_path: Path) -> None:
    """Every method, and every loss; saved and loaded it answers the same; without it the base is bitwise what it was."""
    base = Base(tiny_base())
    before = {k: t.clone() for k, t in base_tensors(base.loaded.model).items()}
    chat = method in ("lora", "prefix")
    train, test = (chats(TRAIN), chats(TEST[:9])) if chat else (TRAIN, TEST[:9])
    adapter = base.adapt(
        train[:16], task="prefer", method=method, prefer={"loss": loss}, batch_size=8, **METHODS[method]
    )
    assert all(torch.equal(t, before[k]) for k, t in base_tensors(base.loaded.model).items())
    on = base.with_adapter(adapter)
    found = onebase.evaluate(on, test)
    if loss == "orpo":
        assert found.keys() == {"preferred"}
        assert (
            found["preferred"].value > onebase.evaluate(base, test, task="prefer")["preferred"].value - 0.01
        )
    else:
        assert found.keys() == {"reward_accuracy", "margin", "preferred"}
        assert found["reward_accuracy"].value >= 0.8 and found["margin"].value > 0
    again = base.with_adapter(Adapter.load(adapter.save(tmp_path / "a")))
    assert torch.equal(again.logits([1, 2, 3]), on.logits([1, 2, 3]))
    assert not torch.equal(base.logits([1, 2, 3]), on.logits([1, 2, 3]))
    assert again.attached is not None and again.attached.config.prefer is not None
    assert again.attached.config.prefer.loss == loss and again.attached.config.chats == chat


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("loss", "first"), [("dpo", math.log(2)), ("ipo", 25.0), ("kto", 0.5)])
def test_the_first_step_starts_at_the_reference(loss: str, first: float, method: str) -> None:
    """Policy and reference are one: DPO begins at ln 2 within 1e-6 in fp32 (IPO at 1 / (2 beta)^2 within 1e-4 of it, KTO at a half), however
    rows stand together."""
    base, heard = Base(tiny_base()), Losses()
    base.adapt(
        chats(TRAIN),
        task="prefer",
        method=method,
        batch_size=5,
        micro_batch=2,
        epochs=1,
        callbacks=[heard],
        prefer={"loss": loss},
    )
    assert heard.heard[0] == pytest.approx(first, abs=1e-6 if loss != "ipo" else 1e-4)
    assert heard.heard[-1] < first


def test_micro_batches_learn_the_same() -> None:
    """The adapters of 1 x 8, 2 x 4 and 8 x 1 pairs a step."""
    base = Base(tiny_base())
    for loss in ("dpo", "kto"):
        made = [
            base.adapt(
                TRAIN[:16],
                task="prefer",
                method="lora",
                batch_size=8,
                micro_batch=m,
                epochs=1,
                prefer={"loss": loss},
            ).parts.tensors
            for m in (8, 4, 1)
        ]
        for other in made[1:]:
            for k, t in made[0].items():
                torch.testing.assert_close(
                    other[k], t, atol=1e-4, rtol=0
                )  # AdamW divides by small gradients' size


def test_the_record_and_the_plan() -> None:
    base, said = Base(tiny_base()), []
    plan = base.plan_adapt(TRAIN, task="prefer", method="lora", batch_size=8, epochs=2)
    adapter = base.adapt(
        TRAIN,
        task="prefer",
        method="lora",
        batch_size=8,
        epochs=2,
        test=TEST,
        log=said.append,
        prefer={"beta": 0.3},
    )
    record = adapter.record
    assert record.get("prefer.loss") == "dpo" and record.get("prefer.beta") == 0.3
    assert record.get("reference.base") == base.fingerprint and len(record.get("reference.hash")) == 64
    texts = [base.tokenizer.encode(r["prompt"], bos=True) for r in TRAIN]
    logps = []
    for r, ids in zip(TRAIN, texts, strict=True):
        after = [*base.tokenizer.encode(r["chosen"], follows="text"), base.tokenizer.eos]
        logp = base.logits([*ids, *after]).log_softmax(-1)
        logps.append(sum(float(logp[len(ids) - 1 + i, t]) for i, t in enumerate(after)))
    assert record.get("reference.chosen") == pytest.approx(sum(logps) / len(logps), abs=1e-3)
    ledger = record.get("ledger")
    assert ledger["samples"] == 2 * len(TRAIN) and ledger["supervised"] > 0 and ledger["test_in_train"] == 0
    assert "token ledger: 56 samples" in said[0] and "«" in said[0]
    assert plan.facts["steps"] == record.get("train.steps") == 7
    assert plan.facts["tokens"] == pytest.approx(record.get("tokens.read"), rel=0.15)
    other = base.adapt(TRAIN[::-1], task="prefer", method="lora", epochs=1).record
    assert other.get("reference.hash") != record.get("reference.hash")
    alone = base.adapt(TRAIN, task="prefer", method="lora", epochs=1, prefer={"loss": "orpo"}).record
    assert alone.get("reference.hash") is None and alone.get("prefer.loss") == "orpo"


def test_a_plain_base_is_scored_by_what_it_finds_likelier() -> None:
    base = Base(tiny_base())
    assert onebase.evaluate(base, TEST, task="prefer").keys() == {"preferred"}
    row = {"prompt": "Is it", "chosen": " so", "rejected": " so so so so so so"}
    a, b = (
        onebase.evaluate(base, [r], task="prefer")["preferred"].value
        for r in (row, {**row, "chosen": row["rejected"], "rejected": row["chosen"]})
    )
    assert {a, b} == {0.0, 1.0}


def bad(**change: Any) -> dict[str, Any]:
    return TRAIN[0] | change


def test_one_error_lists_all_bad_rows() -> None:
    rows = [
        TRAIN[0],
        bad(rejected=TRAIN[0]["chosen"] + " "),
        bad(prompt=3),
        bad(prompt=" "),
        bad(prompt=[{"role": "assistant", "content": "Yes."}]),
        bad(prompt=[{"role": "robot", "content": "Yes."}]),
        bad(chosen=""),
        bad(rejected=7),
        bad(chosen=" fox" * 80),
        bad(prompt=["Is it?"]),
        {k: v for k, v in TRAIN[0].items() if k != "prompt"},
    ]
    with pytest.raises(BadRows) as said:
        Base(tiny_base()).adapt(rows, task="prefer", method="lora")
    assert [b.at for b in said.value.bad] == list(range(1, 11))
    text = str(said.value)
    for words in (
        "are the same",
        "ends with a message of the assistant",
        "unknown role",
        "'chosen' is empty",
        "'rejected' is int",
        "the limit is 64",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("data", "options", "error", "says"),
    [
        ([{"chosen": "a", "rejected": "b"}], {}, DataError, "no column 'prompt'"),
        (TRAIN[:1], {"prefer": {"loss": "kto"}}, DataError, "all rows have the same prompt"),
        (TRAIN, {"prefer": {"bta": 0.1}}, ConfigError, "beta"),
        (TRAIN, {"prefer": {"beta": -1}}, ConfigError, "prefer.beta is -1"),
        (TRAIN, {"prefer": {"loss": "ppo"}}, ConfigError, "ppo"),
        (TRAIN, {"method": "head"}, UserError, "task reward"),
        (TRAIN, {"method": "prompt"}, UserError, "task 'prefer' cannot use method 'prompt'"),
        (TRAIN, {"test": [*TEST, TRAIN[0]]}, DataError, "test-in-train"),
        (TRAIN, {"method": "soft", "virtual": 50}, DataError, "after the adapter's 50 virtual tokens"),
    ],
)
def test_what_cannot_teach_is_refused(data: Any, options: dict[str, Any], error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        Base(tiny_base()).adapt(data, **{"task": "prefer", "method": "lora", **options})


def test_other_answers_are_of_other_prompts_and_cut_to_what_fits() -> None:
    from onebase.tasks.preferences import other_answers, pair_tokens, preference_rows
    from onebase.tasks.rows import reader_on

    given = [*TRAIN[:6], TRAIN[0] | {"rejected": " fox" * 10}]
    pairs = pair_tokens(preference_rows(reader_on(Base(tiny_base())), given))
    others = other_answers(pairs, 24, 0)
    assert len(others) == 7
    for (own, _), other in zip(pairs, others, strict=True):
        start = int(own.loss.argmax())
        for t, side in zip(other, (0, 1), strict=True):
            assert t.ids[:start].tolist() == own.ids[:start].tolist() and len(t) <= 24 and t.loss.any()
            answers = [
                p[side].ids[int(p[side].loss.argmax()) :].tolist()[: 24 - start]
                for p in pairs
                if p[0].ids[: int(p[0].loss.argmax())].tolist() != own.ids[:start].tolist()
            ]
            assert t.ids[start:].tolist() in answers


def test_conversations_are_bound_to_the_template(tmp_path: Path) -> None:
    from onebase.modality.text.template import DEFAULT, ChatTemplate

    save_base(tmp_path / "base", tiny_base())
    base = Base(load_base(tmp_path / "base"))
    spoken = base.adapt(chats(TRAIN[:4]), task="prefer", method="lora", epochs=1)
    written = base.adapt(TRAIN[:4], task="prefer", method="lora", epochs=1)
    other = load_base(tmp_path / "base")
    other.codec.template = ChatTemplate(DEFAULT + " ")
    Base(other).with_adapter(written)
    with pytest.raises(ArtifactError, match="template"):
        Base(other).with_adapter(spoken)


def test_the_commands(tmp_path: Path) -> None:
    save_base(tmp_path / "base", tiny_base())
    for name, rows in (("train", TRAIN), ("test", TEST)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ["--task", "prefer", "--data", tmp_path / "train.jsonl", "-o", "prefer.beta=0.2", "-o", "lr=0.01"]
    plan = command("adapt", tmp_path / "base", *words, "--dry-run")
    assert plan.status == 0 and "prefer by lora: a plan" in plan.out, plan.err
    said = command(
        "adapt", tmp_path / "base", *words, "--test", tmp_path / "test.jsonl", "--out", tmp_path / "out"
    )
    assert said.status == 0, said.err
    asked = ["eval", tmp_path / "base", "--data", tmp_path / "test.jsonl", "--json"]
    before, after = command(*asked, "--task", "prefer"), command(*asked, "--adapter", tmp_path / "out")
    assert before.status == after.status == 0, before.err + after.err
    assert json.loads(before.out).keys() == {"preferred"}
    assert json.loads(after.out)["reward_accuracy"]["value"] >= 0.9


JUDGE = "def worth(prompt, completion, row):\n    return len(set(completion.lower()) & set('aeiou'))\n"


def test_what_is_written_wins_by_a_reward(tmp_path: Path) -> None:
    """The share of prompts at which a reward likes the adapter's own answer better than the plain base's, ties counting half."""
    (tmp_path / "judge.py").write_text(JUDGE)
    how: dict[str, Any] = {"reward": f"{tmp_path / 'judge.py'}:worth", "max_tokens": 8}
    base = Base(tiny_base())
    on = base.with_adapter(base.adapt(TRAIN, task="prefer", method="lora", batch_size=8, epochs=2, lr=1e-2))
    found = onebase.evaluate(on, TEST[:12], judge=how)
    assert found.keys() == {"reward_accuracy", "margin", "preferred", "win_rate"}

    def vowels(b: Base, prompt: str) -> int:
        return len(set(b.generate(prompt, max_tokens=8, temperature=0).lower()) & set("aeiou"))

    mine, plain = ([vowels(b, r["prompt"]) for r in TEST[:12]] for b in (on, base))
    won = [1.0 if m > p else 0.5 if m == p else 0.0 for m, p in zip(mine, plain, strict=True)]
    assert {0.5, 1.0} <= set(won) or {0.5, 0.0} <= set(won), "nothing is compared"
    assert found["win_rate"].value == pytest.approx(sum(won) / 12) and found["win_rate"].n == 12
    drawn = onebase.evaluate(on, TEST[:12], judge=how | {"samples": 4})["win_rate"].value
    assert 0 < drawn < 1 and drawn * 12 * 16 * 2 == pytest.approx(round(drawn * 12 * 16 * 2))

    with pytest.raises(UserError, match="with the base without it"):
        onebase.evaluate(base, TEST, task="prefer", judge=how)
    with pytest.raises(DataError, match="answer"):  # what this reward reads is not there
        onebase.evaluate(on, TEST, judge={"reward": "exact", "max_tokens": 8})
    with pytest.raises(UserError, match="task text has no completions to judge"):
        onebase.evaluate(base, [{"text": "so"}], task="text", judge=how)
