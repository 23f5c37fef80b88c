"""Parity with transformers for encoders: a tiny random model there, imported here, says the same; and back."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.formats.rules import Rule
from onebase.formats.weight_loading import shortened
from onebase.model.mask import Cols
from tests.formats.parity import close, exported, imported, shaken


def said_there(theirs: Any, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Last hidden states and, from a model with a head, logits."""
    hidden = theirs.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    headless = theirs.base_model is theirs
    return hidden, None if headless else theirs(input_ids=ids, attention_mask=mask).logits


def said_here(model: BaseModel, ids: Tensor, cols: Cols | None = None) -> tuple[Tensor, Tensor | None]:
    """The same of ours."""
    hidden = model.hidden(ids, cols).hidden
    return hidden, model.text.logits(hidden) if model.text.cfg.head else None


def check_encoder(theirs: Any, tmp_path: Path, length: int = 12, pad: int = 1) -> BaseModel:
    """Hidden states and logits with and without padding, gradients, and the way back. `theirs` is a bare tiny encoder of
    transformers or one with a head for masked tokens; `pad` is its padding token, which RoBERTa's positions look at."""
    shaken(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    ids = torch.randint(3, 31, (2, length), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = said_there(theirs, ids)
        _same(said_here(model, ids), want)
        short = length - 5
        cols = Cols.padded(torch.tensor([length, short]), length)
        live = cols.doc >= 0
        padded = ids.where(live, pad)
        there = said_there(theirs, padded, live.long())
        here = said_here(model, padded, cols)
        _same([x if x is None else x[live] for x in here], [x if x is None else x[live] for x in there])
        # Two texts in one row do not see each other.
        pos = torch.cat([torch.arange(short), torch.arange(length - short)])[None]
        doc = (torch.arange(length) >= short).long()[None]
        packed = said_here(model, ids[:1], Cols(pos, doc))[0]
        close(packed[:, :short], said_there(theirs, ids[:1, :short])[0])
    model.requires_grad_(True)
    last = want[0] if want[1] is None else want[1]
    weights = torch.randn(last.shape, generator=torch.Generator().manual_seed(2))
    ours = _grads((_last(said_here(model, ids)) * weights).sum(), model)
    # Their gradients in fp64, so that only our rounding counts: theirs in fp32 has been seen to reach the tolerance.
    exact = copy.deepcopy(theirs).double()
    peers = _grads((_last(said_there(exact, ids)) * weights).sum(), exact)
    shapes = {name: tuple(g.shape) for name, g in peers.items()}
    for rule in shortened(family.rules(model.cfg), family.prefix, shapes):
        if isinstance(rule, Rule):
            for name, made in zip(rule.theirs, rule.back([ours[n] for n in rule.ours]), strict=True):
                close(made, peers[name].float())
    exported(tmp_path / "back", family, model)
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        _same(said_there(again, ids), want)
    _, third = imported(tmp_path / "back")
    assert third.cfg == model.cfg
    for (name, a), (_, b) in zip(model.named_parameters(), third.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    return model


def _last(said: tuple[Tensor, Tensor | None]) -> Tensor:
    return said[0] if said[1] is None else said[1]


def _grads(loss: Tensor, model: torch.nn.Module) -> dict[str, Tensor]:
    """Gradients by name, a tied weight's under each of its names."""
    loss.backward()
    named = model.named_parameters(remove_duplicate=False)
    return {name: p.grad for name, p in named if p.grad is not None}


def _same(a: Any, b: Any) -> None:
    for x, y in zip(a, b, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            close(x, y)
