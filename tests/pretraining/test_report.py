"""A run that saw little of its data says so, and how it stands beside counting."""

import itertools
import re
import time
from pathlib import Path

import numpy as np
import pytest

from examples.pretrain_tiny import write_corpus
from onebase.base.config import TextShape
from onebase.data import Dataset, SourceConfig, TokenSet
from onebase.evaluation.ngram import NGram
from onebase.pretraining.recipe import DataConfig, Recipe
from onebase.pretraining.report import fit_ngram, share
from onebase.pretraining.run import run_recipe
from onebase.train.config import TrainConfig


def recipe(folder: Path, train: TrainConfig) -> Recipe:
    corpus = write_corpus(folder / "corpus.jsonl", documents=100)
    return Recipe(
        name="short",
        data=DataConfig(sources=(SourceConfig(name="made up", kind="jsonl", path=str(corpus)),), holdout=0.1),
        model=TextShape(width=32, depth=1, head_dim=16, context=64, vocab_size=300),
        train=train,
    )


@pytest.mark.parametrize(
    ("epochs", "text"),
    [(0.0004, "0.0% of an epoch"), (0.004, "0.4% of an epoch"), (0.03, "3% of an epoch"), (0.994, "99% of an epoch"), (1, "1.0 epochs"), (23.46, "23.5 epochs")],
)  # fmt: skip
def test_share(epochs: float, text: str) -> None:
    assert share(epochs) == text


def test_a_short_run_says_so_before_and_after_and_in_its_record(tmp_path: Path) -> None:
    said: list[str] = []
    train = TrainConfig(steps=3, batch_size=4, sequence_length=64, device="cpu")
    base = run_recipe(recipe(tmp_path, train), tmp_path / "run", log=said.append).base
    assert base is not None
    documents = TokenSet.build(
        Dataset.open(tmp_path / "run" / "data"), "train", base.codec.tokenizer, tmp_path / "run" / "tokens"
    )
    percent = round(100 * base.record.get("train.epochs"))
    assert 0 < percent < 20
    text = "\n".join(said)
    assert f"3 steps, {percent}% of an epoch" in said
    assert f"4 x 64 tokens per step, 3 steps, {percent}% of an epoch" in text
    # The 5-gram of all of the text, on the same documents by hand.
    field = "bits_per_byte.made up"
    found, ours = (base.record.get(f"scores.{kind}_{field}") for kind in ("ngram", "heldout"))
    grams = NGram(base.model.cfg.text.vocab_size, 5).fit([t.ids[1:].astype(np.int64) for t in documents])
    held = list(Dataset.open(tmp_path / "run" / "data").documents("holdout"))
    ids = [np.asarray(base.codec.tokenizer.encode(d.text, eos=True)) for d in held]
    bits = grams.totals(ids).sum() / np.log(2) / sum(len(d.text.encode()) for d in held)
    assert found["value"] == pytest.approx(bits, rel=1e-9)
    assert found["n"] == ours["n"] == len(held)
    counted = sum(len(t) - 1 for t in documents)
    assert base.record.event(f"scores.ngram_{field}").origin.endswith(
        f"a 5-gram of {counted:,} training tokens"
    )  # type: ignore[union-attr]
    assert f"; a 5-gram of the same text has {bits:.3f}" in text
    assert f"warning: on made up the base is no better than a 5-gram that counted {counted:,} tokens" in text
    assert base.record.get("train.summary") == (
        f"3 steps, {percent}% of an epoch; held-out bits per byte: made up {ours['value']:.3f} (a 5-gram: {bits:.3f})"
    )


def test_minutes_say_their_share_when_they_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(looks) * 0.01)  # of a step: four
    said: list[str] = []
    train = TrainConfig(minutes=0.01, batch_size=4, sequence_length=64, device="cpu")
    base = run_recipe(recipe(tmp_path, train), tmp_path / "run", log=said.append).base
    assert base is not None
    told = [
        found
        for line in said
        if (found := re.match(r"the first steps are timed: ([\d,]+) steps, (.*)", line))
    ]
    assert len(told) == 1
    assert int(told[0][1].replace(",", "")) == base.record.get("train.steps")
    assert told[0][2] == share(base.record.get("train.epochs"))


def test_the_5_gram_counts_no_more_than_it_may() -> None:
    from onebase.modality.text.sample import Tokens

    made = [Tokens(np.arange(10, dtype=np.int32), np.ones(10, bool), str(i), "a") for i in range(9)]
    tokens = TokenSet.from_tokens(made)
    assert fit_ngram(tokens, 300, 40)[1] == 40
    assert fit_ngram(tokens, 300, 1000)[1] == 81
