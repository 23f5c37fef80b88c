"""A head that also reads how often each token of a long text occurs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import onebase
from onebase.api.base import Adapter, Base
from onebase.base.folder import load_base, save_base
from onebase.base.head import Head, HeadConfig
from onebase.engine.features import features, text_tokens
from onebase.errors import ConfigError, UserError
from onebase.methods.counts import with_counts
from onebase.methods.head import fit_head
from onebase.methods.logistic import solve
from onebase.modality.text.counts import TokenCounts, token_counts
from onebase.modality.text.sample import Tokens
from tests.helpers import LINES, tiny_base

WORDS = sorted({w for line in LINES for w in line.split() if w.isalpha()})
CONTEXT = 24


def mails(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Long texts of words in any order; those that are spam have a `$` somewhere."""
    draws = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        words = list(draws.choice(WORDS, 40))
        if i % 2:
            words[draws.integers(40)] = "$"
        rows.append({"text": " ".join(words), "label": "spam" if i % 2 else "ham"})
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base(context=CONTEXT, portable=True))
    return Base(load_base(path))


def some_tokens(*texts: list[int]) -> list[Tokens]:
    return [Tokens(np.array(t, np.int32), np.zeros(len(t), np.bool_), str(i)) for i, t in enumerate(texts)]


def dense(counts: TokenCounts) -> torch.Tensor:
    return counts.times(torch.eye(counts.columns, dtype=torch.float64))


def test_rows_are_sublinear_counts_of_length_one() -> None:
    counts = token_counts(some_tokens([3, 1, 3, 3], [0], [2, 1]), 5)
    three = 1 + np.log(3)
    wanted = torch.tensor([[0, 1, 0, three, 0], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0]], dtype=torch.float64)
    wanted /= wanted.norm(dim=1, keepdim=True)
    torch.testing.assert_close(dense(counts), wanted)
    torch.testing.assert_close(dense(counts.transposed()), wanted.T)
    torch.testing.assert_close(dense(counts[torch.tensor([True, False, True])]), wanted[[0, 2]])
    d = torch.arange(5, dtype=torch.float64)
    torch.testing.assert_close(dense(counts.scaled(d)), wanted * d)
    torch.testing.assert_close(counts.mean_square(), wanted.square().mean(0))
    torch.testing.assert_close(counts.gram(), wanted @ wanted.T)
    many = token_counts(some_tokens(*([n % 5, n % 3] for n in range(600))), 5)
    torch.testing.assert_close(many.gram(), dense(many) @ dense(many).T)


def test_the_regression_on_counts_is_that_on_the_same_matrix() -> None:
    draws = np.random.default_rng(1)
    counts = token_counts(some_tokens(*(draws.integers(0, 30, 20).tolist() for _ in range(60))), 30)
    y = torch.arange(60) % 3
    for one, two in zip(solve(counts, y, 3, 1e-3), solve(dense(counts), y, 3, 1e-3), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gram", [0, 3000])
def test_the_head_is_the_mean_of_two_and_only_where_it_is_better(
    gram: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onebase.methods.counts.GRAM_TEXTS", gram)
    monkeypatch.setattr(
        "onebase.methods.counts.STRENGTHS", (1e-2, 1e-3)
    )  # weaker: both stop far from the optimum
    draws = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    # A token tells the class of most texts, the states tell nothing.
    texts = some_tokens(*([5 + int(c) if n % 7 else 7, 1 + n % 4] for n, c in enumerate(y)))
    counts, x = token_counts(texts, 9), torch.randn(60, 4, generator=draws)
    states = fit_head(x, y, 2)
    found = with_counts(states, counts, y, 2)
    assert found.held_out is not None and states.held_out is not None and found.held_out < states.held_out
    assert found.counts is not None and found.facts["head.counts_l2"][1] == "chosen by cross-validation"
    w_CV, b_C = solve(counts, y, 2, found.counts)
    wanted = (states.head(x) + dense(counts) @ w_CV.T + b_C) / 2
    torch.testing.assert_close(found.head(x, counts), wanted.float(), atol=1e-4, rtol=1e-4)
    # States that tell the class, tokens that do not.
    sure = fit_head(torch.stack((y.float(), x[:, 0]), 1), y, 2)
    noise = token_counts(some_tokens(*([1 + n // 2 % 5] for n in range(60))), 9)
    assert with_counts(sure, noise, y, 2) is sure
    assert with_counts(sure, noise, y, 2, always=True).head.counts_VC is not None


def test_long_texts_are_told_by_a_word_everywhere_alike(base: Base, tmp_path: Path) -> None:
    train, test = mails(120), mails(60, seed=1)
    adapter = base.adapt(train, task="classify", method="head")
    cfg = adapter.parts.config.head
    assert cfg is not None and cfg.counts and adapter.record.get("head.counts_l2") is not None
    on = base.with_adapter(Adapter.load(adapter.save(tmp_path / "a")))
    without = base.with_adapter(base.adapt(train, task="classify", method="head", counts="never"))
    texts = [r["text"] for r in test]
    said, plain = on.classify(texts), without.classify(texts)
    right, less = (
        np.mean([a.label == r["label"] for a, r in zip(f, test, strict=True)]) for f in (said, plain)
    )
    assert right > less + 0.1
    assert onebase.evaluate(on, test, task="classify")["accuracy"].value == pytest.approx(right)
    # Alone as in a batch, and by hand.
    assert on.classify(texts[:1])[0].scores == pytest.approx(said[0].scores, abs=1e-5)
    read = text_tokens(base.loaded, texts[:1], long="windows")
    head = Head.of(cfg, dict(adapter.parts.tensors))
    counts = token_counts(read, len(head.counts_VC))  # type: ignore[arg-type]
    p = head(features(base.loaded, read, cfg.pooling, None), counts)[0].softmax(-1)
    assert said[0].scores == pytest.approx(dict(zip(cfg.labels, p.tolist(), strict=True)), abs=1e-4)


def test_counts_are_left_out_where_nobody_wants_them(base: Base) -> None:
    short = [{"text": r["text"][:12], "label": r["label"]} for r in mails(40)]
    for rows, options in ((short, {}), (mails(40), {"pooling": "mean"}), (mails(40), {"counts": "never"})):
        head = base.adapt(rows, task="classify", method="head", **options).parts.config.head  # type: ignore[arg-type]
        assert head is not None and not head.counts
    forced = base.adapt(short, task="classify", method="head", counts="always", pooling="mean")
    assert forced.parts.config.head is not None and forced.parts.config.head.counts
    trained = base.adapt(mails(20), task="classify", method="lora", epochs=1)
    assert trained.parts.config.head is not None and not trained.parts.config.head.counts


def test_what_cannot_be_is_refused(base: Base, tmp_path: Path) -> None:
    rows = mails(20)
    many = [{"text": r["text"], "labels": [r["label"]]} for r in rows]
    for given, method in ((rows, "lora"), (many, "head")):
        with pytest.raises(UserError, match=r"(?s)counts=always is for method head.*--method head"):
            base.adapt(given, task="classify", method=method, counts="always", epochs=1)
    with pytest.raises(ConfigError, match="'counts' is always and 'head_bias' is false"):
        base.adapt(rows, task="classify", method="head", counts="always", head_bias=False, pooling="mean")
    with pytest.raises(ConfigError, match="a head that counts tokens gives one label"):
        HeadConfig(labels=("a", "b"), gives="many", counts=True)
    adapter = base.adapt(rows, task="classify", method="head", counts="always")
    with pytest.raises(UserError, match=r"(?s)reads token counts.*-o counts=never"):
        base.with_adapter(adapter).export(tmp_path / "out")
    parts = adapter.parts
    for cut in ({"head.counts": parts.tensors["head.counts"][:-1]}, {"head.counts": torch.zeros(3)}):
        with pytest.raises(UserError, match="use the adapter as it was saved"):
            base.with_adapter(Adapter(replace(parts, tensors=parts.tensors | cut)))
