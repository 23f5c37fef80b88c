"""Merging into weights in half precision: what rounding takes of the deltas is measured, recorded, and said where it is much."""

import logging
from pathlib import Path

import pytest
import torch

from onebase.api.base import Base
from onebase.base.folder import load_base
from onebase.cli import _guard, app
from onebase.derive.merging import MAX_LOST
from onebase.errors import UserError
from onebase.methods import lora
from onebase.methods.merge import merge
from tests.helpers import tiny_base

CHATS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}] * 6


def adapted(dtype: torch.dtype, lr: float) -> Base:
    """A base stored in `dtype` with a LoRA on it: the larger lr, the larger its deltas."""
    loaded = tiny_base()
    loaded.model.to(dtype)
    base = Base(loaded)
    return base.with_adapter(base.adapt(CHATS, task="chat", method="lora", rank=2, epochs=4, lr=lr))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_lost_is_what_a_plain_sum_says(dtype: torch.dtype) -> None:
    on = adapted(dtype, 1e-3)
    assert on.attached is not None
    before = {n: p.detach().double() for n, p in on.loaded.model.named_parameters()}
    wide = {
        f"{n}.weight": m.deltas[on.attached.name].merged_OI(m).double()
        for n, m in on.loaded.model.named_modules()
        if getattr(m, "deltas", None) and hasattr(m, "site")
    }
    made = on.merged()
    after = dict(made.loaded.model.named_parameters())
    assert all(p.dtype == dtype for p in after.values())
    if not on.attached.config.lora.tokens:  # type: ignore[union-attr]
        lost = sum(float((after[n].double() - w).square().sum()) for n, w in wide.items())
        delta = sum(float((w - before[n]).square().sum()) for n, w in wide.items())
        assert made.record.get("merged.lost") == pytest.approx((lost / delta) ** 0.5, rel=1e-3)
    assert 0 < made.record.get("merged.lost") <= made.record.get("merged.lost_most")["lost"]
    assert made.record.get("merged.lost_limit") == MAX_LOST


def test_small_deltas_are_warned_of_and_large_ones_are_not(caplog: pytest.LogCaptureFixture) -> None:
    for lr, much in ((1e-4, True), (1.0, False)):
        on = adapted(torch.bfloat16, lr)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            made = on.merged()
        assert (made.record.get("merged.lost") > MAX_LOST) == much
        assert ("fp32" in caplog.text) == much


def test_in_fp32_nothing_is_lost_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    on = adapted(torch.bfloat16, 1e-4)
    ids = on.loaded.codec.chat_ids(CHATS[0]["messages"])
    with caplog.at_level(logging.WARNING):
        made = on.merged(fp32=True)
    assert not caplog.text and made.record.get("merged.lost") is None
    assert {p.dtype for p in made.loaded.model.parameters()} == {torch.float32}
    near, far = (float((x.logits(ids) - on.logits(ids)).abs().max()) for x in (made, on.plain))
    assert near < 1e-3 * far
    assert {p.dtype for p in on.plain.loaded.model.parameters() if p.shape} >= {torch.bfloat16}
    whole = adapted(torch.float32, 1e-4).merged()
    assert whole.record.get("merged.lost") is None


def test_few_bits_cannot_become_fp32() -> None:
    small = Base(tiny_base()).quantize(8, head=None)
    on = small.with_adapter(small.adapt(CHATS, task="chat", method="lora", rank=2, epochs=4))
    with pytest.raises(UserError, match="8 bits"):
        on.merged(fp32=True)


def test_rows_of_tokens_count_too() -> None:
    loaded = tiny_base()
    loaded.model.to(torch.bfloat16)
    cfg = lora.LoraConfig(rank=2, alpha=2.0, sites=("q",), tokens=(3, 5))
    for p in lora.inject(loaded.model, "x", cfg):
        p.data.normal_(0, 1e-3)
    found = merge(loaded.model, [(lora.METHOD, "x")])
    assert {"text.stem", "text.head"} < found.by.keys() and all(b > 0 for _, b in found.by.values())


def test_the_command_says_what_is_lost_and_keeps_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on = adapted(torch.bfloat16, 1e-4)
    on.plain.save(tmp_path / "base")
    base = Base(load_base(tmp_path / "base"))
    base.adapt(CHATS, task="chat", method="lora", rank=2, epochs=4, lr=1e-4).save(tmp_path / "on")
    line = ["merge", str(tmp_path / "base"), str(tmp_path / "on"), "--out"]
    _guard(lambda: app([*line, str(tmp_path / "a")], standalone_mode=False))
    assert "of the adapter's weight deltas" in capsys.readouterr().out
    _guard(lambda: app([*line, str(tmp_path / "b"), "--fp32"], standalone_mode=False))
    assert "weight deltas" not in capsys.readouterr().out
    assert {p.dtype for p in load_base(tmp_path / "b").model.parameters()} == {torch.float32}
