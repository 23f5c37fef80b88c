"""Documents with any number of images and sounds, in any order, beside text or without: all train, and what is absent gets a gradient of zero."""

import pytest
import torch

from onebase.base.config import TextShape, native_base
from onebase.base.model import BaseModel
from onebase.modality.patches.tokens import MediaCodec
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.sample import Sample, Segment, Tokens
from onebase.objective.flow_config import FlowConfig
from onebase.objective.mixed import Mixed
from tests.data.test_media_tokens import PATCHES, TOKENIZER, png, wav

LENGTH = 160
ORDERS = ("T", "I", "A", "TIA", "AIT", "ITATI", "TAAI", "IIIT", "AAT", "TITITA")
"""T: a text, I: an image, A: a sound."""


def document(order: str) -> Tokens:
    made = {"T": lambda i: "a red square", "I": lambda i: png(i), "A": lambda i: wav(2000 + 100 * i)}
    kinds = {"T": "text", "I": "image", "A": "audio"}
    segments = [Segment(kinds[x], made[x](i), loss=x == "T") for i, x in enumerate(order)]
    codec = MediaCodec(TextCodec(TOKENIZER), PATCHES)
    return codec.tokens(Sample((*segments, Segment("end", None, loss=True)), order, "mixed"))


def model() -> BaseModel:
    shape = TextShape(
        width=32, depth=2, head_dim=16, context=LENGTH, vocab_size=TOKENIZER.vocab_size, zero_out=False
    )
    base = BaseModel(native_base(shape, *PATCHES.values()))
    base.reset(0)
    return base


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("generate", [0.0, 1.0])
def test_each_order_trains_and_what_is_absent_has_a_gradient_of_zero(order: str, generate: float) -> None:
    base = model()
    objective = Mixed.of(base, LENGTH, FlowConfig(generate=generate))
    batch = objective.batch([[document(order)]], 0)
    total = sum(s / max(1, n) for s, n in objective.losses(base, batch).values())
    assert isinstance(total, torch.Tensor) and bool(total.isfinite())
    total.backward()
    for letter, codec, group in (("I", "image_patches", "vision"), ("A", "sound_patches", "audio")):
        own = {
            n: p.grad
            for n, p in base.named_parameters()
            if n.startswith(f"codecs.{codec}.") or f".group_ff.{group}." in n
        }
        assert len(own) > 8 and all(g is not None for g in own.values()), "all ranks reduce the same tensors"
        if letter not in order:
            assert all(not bool(g.any()) for g in own.values() if g is not None)
        else:  # where nothing comes after it, what is only read has no effect
            effect = any(bool(g.any()) for g in own.values() if g is not None)
            assert effect or (generate == 0.0 and not order[order.rindex(letter) + 1 :])


def test_all_orders_together_are_learnt() -> None:
    base = model()
    objective = Mixed.of(base, LENGTH, FlowConfig(generate=1.0, drop=0.0))
    batch = objective.batch([[document(order)] for order in ORDERS], 0)
    optimizer, seen = torch.optim.AdamW(base.parameters(), lr=3e-3), []
    for _ in range(12):
        parts = {k: s / max(1, n) for k, (s, n) in objective.losses(base, batch).items()}
        assert set(parts) == {"next_token", "flow.image_patches", "flow.sound_patches"}
        sum(parts.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append({k: float(v) for k, v in parts.items()})
    assert all(seen[-1][k] < 0.9 * seen[0][k] for k in seen[0]), (seen[0], seen[-1])
