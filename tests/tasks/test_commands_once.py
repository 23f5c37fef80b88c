"""Commands that do several things with the same data do its work once: a file is parsed once, a text is tokenised once, a sample is decoded once."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onebase
from onebase.api.base import Base
from onebase.api.loading import run_recipe
from onebase.base.folder import save_base
from onebase.data import Document, prepare
from onebase.engine.features import chat_rows, completion_rows
from onebase.modality.text.ledger import token_ledger
from onebase.rewards import RewardInput
from onebase.rewards.model import model
from tests.counting import counted
from tests.helpers import taken, tiny_base
from tests.pretrained import onebase as command
from tests.tasks.test_work_once import ROWS, files, write


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """`with work() as done:` counts."""
    return partial(counted, monkeypatch)


def test_eval_with_the_gate_opens_each_file_once(work: Any, tmp_path: Path) -> None:
    rows, test = files("classify", tmp_path)
    save_base(tmp_path / "base", tiny_base())
    Base(tiny_base()).adapt(rows, task="classify", method="head").save(tmp_path / "head")
    with work() as done:
        said = command(
            "eval", tmp_path / "base", "--adapter", tmp_path / "head", "--data", test, "--train", rows
        )
    assert said.status == 0 and "accuracy" in said.out, said.err
    assert (done.files["rows.jsonl"], done.files["test.jsonl"]) == (1, 1)


def test_what_the_gate_does_not_compare_is_said_before_a_row_is_read(work: Any, tmp_path: Path) -> None:
    rows, test = files("classify", tmp_path)
    save_base(tmp_path / "base", tiny_base())
    with work() as done:
        said = command("eval", tmp_path / "base", "--data", test, "--train", rows)
    assert said.status == 1 and "the gate needs an adapter that predicts labels" in said.err
    assert not done.files["test.jsonl"]


def test_all_bad_rows_are_said_at_once_beside_the_gate_too(tmp_path: Path) -> None:
    rows, test = files("classify", tmp_path)
    save_base(tmp_path / "base", tiny_base())
    Base(tiny_base()).adapt(rows, task="classify", method="head").save(tmp_path / "head")
    test.write_text('{"text": "red 1", "label": "red"}\n{broken\n{"text": "", "label": "red"}\n')
    said = command("eval", tmp_path / "base", "--adapter", tmp_path / "head", "--data", test, "--train", rows)
    assert said.status == 1 and "2 of 3 rows cannot be used" in said.err


def test_a_win_rate_beside_preferences_opens_the_file_once(work: Any, tmp_path: Path) -> None:
    rows, test = files("prefer", tmp_path)
    base = Base(tiny_base())
    base = base.with_adapter(
        base.adapt(rows, task="prefer", method="lora", epochs=1, **taken("lora", rank=2))
    )
    judge = {"reward": "format:.*", "max_tokens": 1}
    with work() as done:
        found = onebase.evaluate(base, test, task="prefer", judge=judge)
    assert "win_rate" in found and done.files["test.jsonl"] == 1


def test_a_reward_model_tokenises_the_prompt_of_many_answers_once(work: Any, tmp_path: Path) -> None:
    base = Base(tiny_base())
    base.adapt(files("reward", tmp_path)[0], task="reward", method="head").save(tmp_path / "reward")
    asked = [RewardInput("p1001", f" c{i}", {}, f"row {i}") for i in range(8)]
    with model(tmp_path / "reward", base.loaded) as reward, work() as done:
        reward.scores(asked)
    assert done.texts["p1001"] == 1 and sum(done.texts.values()) == 1 + len(asked)


def test_the_ledger_decodes_each_token_once_however_many_answers_there_are(work: Any) -> None:
    base = tiny_base()
    tok = base.codec.tokenizer
    talk = [{"role": r, "content": f"{r} says {i}"} for i in range(12) for r in ("user", "assistant")]
    samples = [*chat_rows(base, [{"messages": talk}]), *completion_rows(base, [ROWS["complete"](1)])]
    text = sum(int((~np.isin(t.ids, list(tok.special_ids))).sum()) for t in samples)
    with work() as done:
        found = token_ledger(samples, tok, rows=0)
    assert found.samples == 2 and done.decoded == text


def test_adapt_decodes_a_row_no_more_often_than_that(work: Any, tmp_path: Path) -> None:
    """What is shown of the first rows comes on top."""
    talk = [{"role": r, "content": "so"} for _ in range(3) for r in ("user", "assistant")]
    rows = write(
        tmp_path / "rows.jsonl", [{"messages": [*talk, *ROWS["chat"](i)["messages"]]} for i in range(9)]
    )
    base = Base(tiny_base())
    with work() as done:
        made = base.adapt(rows, task="chat", method="lora", epochs=1, **taken("lora", rank=2))
    tokens = made.record.get("ledger")["tokens"]
    assert tokens / 2 < done.decoded < tokens * (1 + 3 / 9)


RECIPE = """
name: tiny
data: {{sources: [{{name: a, kind: jsonl, path: {data}}}, {{name: b, kind: jsonl, path: {other}}}], holdout: 0.3}}
tokenizer: {{train_bytes: 100000}}
model: {{width: 32, depth: 1, head_dim: 16, vocab_size: 300, context: 64}}
train: {{steps: 4, batch_size: 2, sequence_length: 64, eval_every: 1, dtype: fp32}}
"""


def test_pretraining_reads_a_shard_as_often_as_it_needs_and_tokenises_held_out_text_once(
    work: Any, tmp_path: Path
) -> None:
    """A shard is read for the tokenizer, for the tokens that are learnt, and for the documents held out, of all sources together."""
    for name in ("a", "b"):
        write(
            tmp_path / f"{name}.jsonl", [{"text": f"{name}{i} is a text of {name}, " * 4} for i in range(40)]
        )
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.format(data=tmp_path / "a.jsonl", other=tmp_path / "b.jsonl"))
    with work() as done:
        run_recipe(recipe, tmp_path / "run")
    assert done.files["shard-00000.parquet"] == 3
    texts = {t: n for t, n in done.texts.items() if " is a text of " in t}
    assert len(texts) == 80 and set(texts.values()) == {1}


def test_the_first_documents_of_each_source(tmp_path: Path) -> None:
    made = prepare(
        (Document(f"{s} {i}", s) for i in range(30) for s in ("a", "b", "c")),
        tmp_path / "set",
        holdout=0.4,
        shard_bytes=100,
    )
    for split in ("train", "holdout"):
        for most in (0, 3, 100):
            wanted = {s: list(made.documents(split, s))[:most] for s in made.stats}
            assert made.first(split, most) == wanted
        assert made.count(split) == sum(made.count(split, s) for s in made.stats)
