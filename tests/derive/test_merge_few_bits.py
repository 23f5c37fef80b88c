"""Merging into a base in few bits: what rounding anew does is measured, recorded, and refused where it is too much."""

from pathlib import Path

import pytest
import torch

from onebase.api.base import Base
from onebase.base.folder import load_base
from onebase.cli import _guard, app
from onebase.derive import merging
from onebase.errors import UserError
from tests.helpers import tiny_base

CHATS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}] * 6


@pytest.mark.parametrize("dora", [False, True])
def test_a_merge_into_8_bits_says_what_it_does(dora: bool, tmp_path: Path) -> None:
    small = Base(tiny_base()).quantize(8, head=None)
    on = small.with_adapter(small.adapt(CHATS, task="chat", method="lora", rank=2, epochs=20, dora=dora))
    ids = small.loaded.codec.chat_ids(CHATS[0]["messages"])
    plain = small.logits(ids)
    made = on.merged()
    drift, effect = made.record.get("merged.drift"), made.record.get("merged.effect")
    assert 0 < drift < 0.05 and drift < 0.25 * effect
    assert "1000 tokens of the Python language reference" in made.record.event("merged.drift").origin  # type: ignore[union-attr]
    assert made.config.storage == small.config.storage and torch.equal(small.logits(ids), plain)
    far, near = (float((x.logits(ids) - on.logits(ids)).abs().max()) for x in (small, made))
    assert near < 0.25 * far
    made.save(tmp_path / "made")
    assert torch.equal(Base(load_base(tmp_path / "made")).logits(ids), made.logits(ids))


def test_the_drift_is_the_divergence_of_what_is_said() -> None:
    small = Base(tiny_base()).quantize(8, head=None)
    on = small.with_adapter(small.adapt(CHATS, task="chat", method="lora", rank=2, epochs=5))
    assert on.attached is not None
    text = "def add(a, b)"
    ids = small.tokenizer.encode(text, bos=True)
    found = merging.measured(on.attached, small.loaded.model, [text])
    p, q = (torch.distributions.Categorical(logits=x.logits(ids)) for x in (on, small))
    kl = float(torch.distributions.kl_divergence(p, q).mean())
    assert found.mean == pytest.approx(kl, rel=1e-4) == found.effect and found.tokens == len(ids)


def test_too_much_drift_is_refused_and_changes_nothing() -> None:
    """In 4 bits, a delta far below a step is rounded away."""
    small = Base(tiny_base()).quantize(4, group=16, head=None)
    tiny = small.adapt(CHATS, task="chat", method="lora", rank=2, epochs=1, lr=1e-5)
    on = small.with_adapter(tiny)
    ids = small.loaded.codec.chat_ids(CHATS[0]["messages"])
    before = on.logits(ids)
    with pytest.raises(UserError, match="nats a token; the adapter's own effect is"):
        on.merged()
    assert torch.equal(on.logits(ids), before)
    with pytest.raises(UserError, match=r"at most 1e-09 nats are accepted"):
        on.merged(max_drift=1e-9)
    made = on.merged(max_drift=1.0)
    assert 0 < made.record.get("merged.drift") <= made.record.get("merged.max_drift") == 1.0
    with pytest.raises(UserError, match="0 or more"):
        on.merged(max_drift=-1.0)


def test_the_command_says_what_rounding_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Base(tiny_base()).quantize(8, head=None).save(tmp_path / "base")
    small = Base(load_base(tmp_path / "base"))
    small.adapt(CHATS, task="chat", method="lora", rank=2, epochs=20).save(tmp_path / "on")
    line = ["merge", str(tmp_path / "base"), str(tmp_path / "on"), "--out", str(tmp_path / "made")]
    with pytest.raises(SystemExit):
        _guard(lambda: app([*line, "--max-drift", "1e-9"], standalone_mode=False))
    assert "1e-09 nats are accepted" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    app(line, standalone_mode=False)
    assert "nats per token; the adapter's effect is" in capsys.readouterr().out
    assert Base(load_base(tmp_path / "made")).record.get("merged.drift") > 0
