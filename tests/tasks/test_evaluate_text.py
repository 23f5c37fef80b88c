"""`onebase.evaluate(..., task="text")` scores the base that it is given: with its adapter, when it has one."""

import math

import pytest
import torch

import onebase
from tests.pretrained import tiny_run

TEXTS = [{"text": "On Monday we cook soup and eat it."}, {"text": "The fog comes from the hills."}]
PAIRS = [{"prompt": "On Monday", "completion": " we cook soup and eat it."}] * 8


@pytest.fixture(scope="module")
def base() -> onebase.Base:
    return onebase.load(tiny_run(), device="cpu", dtype="fp32")


@pytest.fixture(scope="module")
def adapter(base: onebase.Base) -> onebase.Adapter:
    return base.adapt(PAIRS, task="complete", method="lora", epochs=10, seed=0)


def bits_per_byte(base: onebase.Base) -> float:
    """From the logits of one text at a time: bits of every token after BOS, and of the end, over the bytes of all texts."""
    nats = 0.0
    for row in TEXTS:
        ids = base.tokenizer.encode(row["text"], bos=True, eos=True)
        logp = base.logits(ids).log_softmax(-1)
        nats -= float(logp[:-1].gather(1, torch.tensor(ids[1:])[:, None]).sum())
    return nats / math.log(2) / sum(len(row["text"].encode()) for row in TEXTS)


def scored(base: onebase.Base) -> float:
    return onebase.evaluate(base, TEXTS, task="text")["bits_per_byte"].value


def test_an_adapter_changes_the_score_of_text(base: onebase.Base, adapter: onebase.Adapter) -> None:
    plain = scored(base)
    adapted = base.with_adapter(adapter)
    assert scored(adapted) == pytest.approx(bits_per_byte(adapted), rel=1e-5)
    assert abs(scored(adapted) - plain) > 0.01
    assert plain == pytest.approx(bits_per_byte(base), rel=1e-5)
    assert scored(base) == plain  # to the bit: the adapter sits on the same weights


def test_replaced_weights_are_scored_too(base: onebase.Base) -> None:
    adapted = base.with_adapter(base.adapt(PAIRS, task="complete", method="full", epochs=6, seed=0))
    assert scored(adapted) == pytest.approx(bits_per_byte(adapted), rel=1e-5)
    assert abs(scored(adapted) - scored(base)) > 0.01
