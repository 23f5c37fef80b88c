"""Classify on vectors: what a sentence base is read by, and vectors learnt by contrast before the head is fitted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.api.base import Base
from onebase.api.evaluating import evaluate
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.engine.features import features, text_tokens, vector_of, views
from onebase.errors import ConfigError, DataError, UserError
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.objective.grouped import ContrastConfig, SupervisedContrast, supervised_contrast
from tests.helpers import tiny_base

ROWS = [
    {"text": f"{word} {i} {end}", "label": label}
    for i in range(6)
    for word, end, label in (("red", "sun", "warm"), ("blue", "sea", "cold"), ("grey", "fog", "dull"))
]
CONTRAST: dict[str, Any] = {"epochs": 6, "batch_size": 18, "lr": 0.01, "contrast": {"first": True}}


def made_for_vectors() -> LoadedBase:
    base = tiny_base()
    base.embedding = EmbeddingConfig(pooling="max", limit=64)
    return base


def test_a_vector_is_what_the_base_makes_of_a_text_and_is_read_with_the_rest() -> None:
    loaded = made_for_vectors()
    base, texts = Base(loaded), [r["text"] for r in ROWS]
    read = text_tokens(loaded, texts)
    vector = features(loaded, read, "vector", None)
    assert torch.allclose(vector, torch.nn.functional.normalize(base.embed(texts), dim=-1), atol=1e-5)
    with base.remembering():
        kept = views(loaded, read, ("vector", "all", "mean"), None)
    assert torch.equal(kept["vector"], vector)
    assert torch.equal(kept["all"], features(loaded, read, "all", None))
    assert torch.equal(kept["mean"], features(loaded, read, "mean", None))
    assert vector_of(tiny_base()) == EmbeddingConfig(normalise=True)


@pytest.mark.parametrize("method", ["head", "lora"])
def test_a_head_on_vectors_is_saved_and_read_again(method: str, tmp_path: Path) -> None:
    base = Base(made_for_vectors())
    adapter = base.adapt(ROWS, task="classify", method=method, pooling="vector", epochs=1)
    assert adapter.parts.config.head is not None and adapter.parts.config.head.pooling == "vector"
    texts = [r["text"] for r in ROWS]
    said = [x.scores for x in base.with_adapter(adapter).classify(texts)]
    adapter.save(tmp_path / "a")
    assert [x.scores for x in base.with_adapter(tmp_path / "a").classify(texts)] == said


@pytest.mark.parametrize("method", ["lora", "full", "soft"])
def test_contrast_draws_labels_together_and_leaves_the_base_alone(method: str) -> None:
    loaded = made_for_vectors()
    base, before = Base(loaded), loaded.reread()
    plain = base.adapt(ROWS, task="classify", method=method, **CONTRAST)
    with base.remembering():
        base.adapt(ROWS, task="classify", method="head")  # what it remembers now is the base's own
        adapter = base.adapt(ROWS, task="classify", method=method, **CONTRAST)
        assert adapter.parts.fingerprint == plain.parts.fingerprint
        assert evaluate(base.with_adapter(adapter), ROWS)["accuracy"].value >= 0.9
    assert loaded.reread() == before
    record = adapter.parts.record
    assert record.get("train.steps") == 6 and record.get("config.options")["contrast"]["first"] is True
    head = adapter.parts.config.head
    assert head is not None and head.pooling == "vector"
    on = base.with_adapter(adapter)
    label = torch.tensor([["warm", "cold", "dull"].index(r["label"]) for r in ROWS])
    learnt, plain = (
        features(b.loaded, text_tokens(loaded, [r["text"] for r in ROWS], None, 0), "vector", b.routing)
        for b in (on, base)
    )
    assert supervised_contrast(learnt, label, 0.1) < supervised_contrast(plain, label, 0.1)


def test_the_loss_is_the_mean_over_others_of_the_label() -> None:
    v, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1, 2])
    u = torch.nn.functional.normalize(v, dim=-1)
    total = 0.0
    for i in range(3):  # the last two have no other of their label
        others = [j for j in range(5) if j != i]
        z = torch.stack([u[i] @ u[j] / 0.5 for j in others])
        same = [z[n] for n, j in enumerate(others) if y[j] == y[i]]
        total += sum(float(z.logsumexp(0) - s) for s in same) / len(same)
    assert float(supervised_contrast(v, y, 0.5)) == pytest.approx(total, rel=1e-5)


def test_chunks_do_not_change_the_gradient() -> None:
    """The same texts in one chunk and in chunks of 4: 1e-5."""
    loaded = tiny_base()
    model: BaseModel = loaded.model
    texts = text_tokens(loaded, [r["text"] for r in ROWS])
    targets = {t.id: i % 3 for i, t in enumerate(texts)}
    found = []
    for chunk in (99, 4):
        for p in model.parameters():
            p.requires_grad_(True)
            p.grad = None
        objective = SupervisedContrast(EmbeddingConfig(), targets, 0.1, None, chunk)
        loss, count = objective.losses(model, objective.batch([[t] for t in texts], 0))["grouped"]
        loss.backward()  # type: ignore[no-untyped-call]
        assert count == len(texts)
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert found[0].norm() > 0
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-5


def test_what_contrast_is_not_for() -> None:
    base = Base(made_for_vectors())
    alone = [{"text": f"text {i}", "label": f"label {i}"} for i in range(4)]
    with pytest.raises(DataError, match="no label has two texts"):
        base.adapt(alone, task="classify", method="lora", contrast={"first": True})
    many = [{"text": r["text"], "labels": [r["label"]]} for r in ROWS]
    with pytest.raises(UserError, match="these rows are multilabel"):
        base.adapt(many, task="classify", method="lora", contrast={"first": True})
    with pytest.raises(ConfigError, match=r"contrast\.temperature"):
        replace(ContrastConfig(), temperature=0.0)
