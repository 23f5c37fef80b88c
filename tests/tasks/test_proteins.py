"""A protein base (ESM) learns classes and values of sequences, by LoRA and by all weights."""

import random

import pytest

import onebase
from onebase.api.base import Base
from tests.residues import esm


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    pytest.importorskip("transformers")
    return onebase.load(esm(tmp_path_factory.mktemp("esm")))


@pytest.mark.parametrize(("method", "lr"), [("lora", 1e-2), ("full", 1e-3)])
def test_sequences_are_classified_and_measured(method: str, lr: float, base: Base) -> None:
    """Two kinds of residues, told apart on sequences that were not seen."""
    draw = random.Random(0)
    rows = [
        {"text": "".join(draw.choices("LKR" if i % 2 else "GAV", k=12)), "label": "ab"[i % 2], "value": i % 2}
        for i in range(24)
    ]
    for task, score, least in (("classify", "accuracy", 1.0), ("regress", "spearman", 0.8)):
        adapter = base.adapt(rows[:16], task=task, method=method, lr=lr, epochs=4)
        assert onebase.evaluate(base.with_adapter(adapter), rows[16:])[score].value >= least
