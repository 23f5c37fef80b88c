"""The public face: names, types and shapes as documented, and mistakes as one clear message."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import onebase
from onebase.errors import ArtifactError, ConfigError, UserError
from onebase.train.callbacks import read_log

RECIPE = """
name: tiny
data:
  sources: [{{name: text, kind: jsonl, path: {data}, licence: CC0-1.0}}]
  holdout: 0.2
model: {{width: 32, depth: 2, head_dim: 16, vocab_size: 300, context: 64}}
train: {{steps: 6, batch_size: 4, sequence_length: 64, checkpoint: {{every: 2}}, eval_every: 3, dtype: fp32}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    lines = [
        {"text": f"The number {i} comes after {i - 1}, and {i * 7} is seven times it. " * 3}
        for i in range(60)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (folder / "recipe.yaml").write_text(RECIPE.format(data=folder / "data.jsonl"))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "tiny"
    onebase.pretrain(recipe, out=out)
    return out


@pytest.fixture(scope="module")
def base(run: Path) -> onebase.Base:
    return onebase.load(run)


def test_what_a_base_offers(base: onebase.Base) -> None:
    ids = base.tokenizer.encode("The number 5")
    assert base.tokenizer.decode(ids) == "The number 5"
    logits, hidden = base.logits(ids), base.hidden(ids)
    assert logits.shape == (len(ids), base.config.text.vocab_size)
    assert hidden.shape == (len(ids), 32)
    assert logits.dtype == hidden.dtype == torch.float32
    vectors = base.embed(["one", "two and three"])
    assert vectors.shape == (2, 32)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(base.embed(["two and three"])[0], vectors[1], atol=1e-5, rtol=1e-5)
    text = base.generate("The number", max_tokens=12)
    assert "".join(base.stream("The number", max_tokens=12)) == text
    assert isinstance(base.chat([{"role": "user", "content": "Hi"}], max_tokens=4), str)
    assert base.generate("The number", max_tokens=8, temperature=1.0, seed=1) == base.generate(
        "The number", max_tokens=8, temperature=1.0, seed=1
    )


def test_the_record_says_what_it_is_made_of(base: onebase.Base, run: Path) -> None:
    r = base.record
    assert base.fingerprint.startswith("ob1-")
    assert r.hashes["fingerprint"] == base.fingerprint
    assert r.parents[0]["kind"] == "dataset"
    assert r.get("tokens.by_source") == {"text": r.get("tokens.read")}
    assert r.get("data.licences") == {"text": "CC0-1.0"}
    formula, counted = r.get("flops.formula"), r.get("flops.counted")
    assert counted == pytest.approx(formula, rel=0.25)
    score = r.get("scores.heldout_bits_per_byte.text")
    assert score["low"] <= score["value"] <= score["high"]
    assert r.get("machine")
    assert r.get("versions")["torch"]
    log = read_log(run / "log.jsonl")
    assert [line["step"] for line in log] == list(range(6))
    assert "heldout_bits_per_byte/text" in log[-1]


def test_finished_runs_are_not_done_again(recipe: Path, run: Path, base: onebase.Base) -> None:
    before = (run / "log.jsonl").stat().st_mtime_ns
    assert onebase.pretrain(recipe, out=run).fingerprint == base.fingerprint
    assert (run / "log.jsonl").stat().st_mtime_ns == before
    with pytest.raises(ArtifactError, match="another recipe"):
        onebase.pretrain(recipe, out=run, train__steps=7)


def test_pretraining_is_repeatable(recipe: Path, tmp_path: Path, base: onebase.Base) -> None:
    assert onebase.pretrain(recipe, out=tmp_path / "again").fingerprint == base.fingerprint
    assert onebase.pretrain(recipe, out=tmp_path / "other", train__seed=1).fingerprint != base.fingerprint


def test_evaluate(base: onebase.Base, tmp_path: Path) -> None:
    scores = onebase.evaluate(base, [{"text": "The number 3 comes after 2."}, {"text": "Seven."}])
    assert scores["bits_per_byte"].low <= scores["bits_per_byte"].value
    pairs = [{"prompt": "The number", "completion": " 5"}, {"prompt": "It", "completion": " is"}]
    assert set(onebase.evaluate(base, pairs, task="complete")) == {
        "nats_per_token",
        "exact_match",
        "rouge_l",
        "chrf",
        "bleu",
    }
    rows = [{"text": f"number {i}", "label": "ab"[i % 2]} for i in range(12)]
    adapted = base.with_adapter(base.adapt(rows, task="classify", method="head"))
    assert onebase.evaluate(adapted, rows)["accuracy"].value > 0.9
    with pytest.raises(UserError, match="does not have"):
        onebase.evaluate(adapted, [{"text": "x", "label": "c"}])


def test_the_store_knows_a_base_by_name(run: Path, base: onebase.Base) -> None:
    from onebase.govern.store import Store

    Store().add(run / "base", "my-base")
    assert onebase.load("my-base").fingerprint == base.fingerprint
    with pytest.raises(UserError, match="my-base"):
        onebase.load("my-bse")


def test_mistakes(base: onebase.Base, recipe: Path) -> None:
    with pytest.raises(UserError, match="context"):
        base.generate("number " * 200)
    with pytest.raises(UserError, match="vocabulary"):
        base.logits([0, 10**6])
    with pytest.raises(UserError, match="0 token ids"):
        base.logits([])
    with pytest.raises(ConfigError, match=r"train\.stpes"):
        onebase.pretrain(recipe, train__stpes=3)


def test_import_is_light() -> None:
    """`import onebase` and the command's help load neither torch nor anything that takes long."""
    code = "import sys, onebase, onebase.cli; print([m for m in ('torch', 'numpy', 'pyarrow', 'rich', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
