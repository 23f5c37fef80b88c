"""A base in few bits: saved, loaded, verified, adapted and asked like any other, with its cost in its record."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.api.base import Base
from onebase.base.folder import LoadedBase, base_fingerprint, load_base, save_base
from onebase.data import Document
from onebase.derive.quantising import measured, quantise
from onebase.errors import ConfigError, DataError, UserError
from onebase.evaluation.likelihood import document_nats, reference
from onebase.govern.verify import verify_artifact
from onebase.model.config import StorageConfig
from tests.helpers import LINES, tiny_base

DOCUMENTS = [Document(line * 3, "lines") for line in LINES]
STORAGES = [
    StorageConfig(bits=8),
    StorageConfig(bits=4),
    StorageConfig(bits=4, group=16, head=4),
    StorageConfig(bits=4, head=None),
]


def untied(**more: Any) -> LoadedBase:
    return tiny_base(std=0.3, **more)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_of_few_bits_is_a_base_like_any_other(
    storage: StorageConfig, tied: bool, tmp_path: Path
) -> None:
    base = untied(tied=tied)
    before = base_fingerprint(base.model)
    small, cost = quantise(base, storage, DOCUMENTS)
    assert base_fingerprint(base.model) == before and base.model.cfg.storage is None
    save_base(tmp_path / "small", small)
    again = load_base(tmp_path / "small")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        said, dense = again.model.logits(ids), base.model.logits(ids)
        assert torch.equal(said, small.model.logits(ids))
    assert 0 < float((said - dense).abs().max()) < 0.5 * float(dense.abs().max())
    assert again.fingerprint == base_fingerprint(again.model) != before
    assert "fingerprint recomputed" in verify_artifact(tmp_path / "small").checks
    assert again.record.parents[0]["fingerprint"] == before
    assert again.record.get("quantised.perplexity") == cost.perplexity
    assert cost.bytes < (0.35 if storage.head else 0.7) * cost.bytes_before or tied is False
    assert cost.bytes == sum(t.numel() * t.element_size() for t in again.model.parameters())


def test_the_cost_is_what_scoring_says() -> None:
    base = untied()
    small, cost = quantise(base, StorageConfig(bits=4), DOCUMENTS)
    for b, found in ((base, cost.perplexity_before), (small, cost.perplexity)):
        nats = document_nats(b, DOCUMENTS)
        assert found == pytest.approx(
            math.exp(sum(d.nats for d in nats) / sum(d.tokens for d in nats)), rel=1e-6
        )
    assert cost.perplexity != cost.perplexity_before and 0 < cost.agreement < 1
    same = measured(base, base, DOCUMENTS, 1000)
    assert same.agreement == 1 and same.perplexity == same.perplexity_before
    _, finer = quantise(base, StorageConfig(bits=8), DOCUMENTS)
    assert finer.agreement > cost.agreement
    assert "perplexity" in finer.line and "%" in finer.line


@pytest.mark.parametrize("bits", [8, 4])
def test_adapters_learn_over_few_bits(bits: Any) -> None:
    small, _ = quantise(untied(), StorageConfig(bits=bits), DOCUMENTS)
    base = Base(small)
    before = base.fingerprint
    rows = [{"prompt": "Is this a question?", "completion": " No."}] * 8
    adapter = base.adapt(rows, task="complete", method="lora", epochs=30, lr=0.02)
    assert base_fingerprint(small.model) == before
    adapted = base.with_adapter(adapter)
    assert adapted.generate("Is this a question?", max_tokens=8) == " No."
    assert adapter.record.parents[0]["fingerprint"] == before


def test_cached_decoding_is_the_whole_forward() -> None:
    small, _ = quantise(untied(endless=True), StorageConfig(bits=4), DOCUMENTS)
    small.model.compute_dtype = torch.float32
    base = Base(small)
    text = base.generate("The quick", max_tokens=12)
    ids = base.tokenizer.encode("The quick", bos=True)
    for _ in range(12):
        ids.append(int(base.logits(ids)[-1].argmax()))
    assert base.tokenizer.decode(ids[len(base.tokenizer.encode("The quick", bos=True)) :]) == text


def test_refusals() -> None:
    small, _ = quantise(untied(), StorageConfig(bits=8), DOCUMENTS)
    with pytest.raises(ConfigError, match="already quantized to 8 bits"):
        quantise(small, StorageConfig(bits=4), DOCUMENTS)
    with pytest.raises(ConfigError, match="groups of 24"):
        quantise(untied(), StorageConfig(bits=4, group=24), DOCUMENTS)
    with pytest.raises(DataError, match="empty"):
        quantise(untied(), StorageConfig(bits=8), [])
    base = Base(small)
    adapter = base.adapt([{"prompt": "a", "completion": "b"}] * 2, task="complete", method="lora")
    from onebase.methods.folder import attach
    from onebase.methods.merge import merge
    from onebase.methods.table import METHODS

    attached = attach(small, adapter.parts, "a")
    with pytest.raises(UserError, match="would remove the adapter's change"):
        merge(attached.base.model, [(METHODS["lora"], "a")])


def test_every_python_brings_text_to_measure_on() -> None:
    found = list(reference())
    assert len(found) > 50 and sum(len(d.text) for d in found) > 100_000


def test_by_the_python_face(tmp_path: Path) -> None:
    base = Base(untied())
    text = tmp_path / "text.txt"
    text.write_text("".join(LINES) * 3, encoding="utf-8")
    small = base.quantize(4, data=text)
    assert small.config.storage == STORAGES[1] and "perplexity" in small.record.get("quantised.line")
    with pytest.raises(ConfigError, match="bits"):
        base.quantize(5)
