"""Parity with transformers for vision trunks: a tiny random model there, imported here, says the same; and back."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.base.config import BaseConfig, base_parameters
from onebase.base.model import BaseModel
from onebase.config import from_dict
from onebase.config_plain import to_dict
from onebase.formats.rules import Rule
from onebase.formats.weight_loading import shortened
from tests.formats.parity import close, exported, imported, shaken, weights_of


def said_there(theirs: Any, pixels: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    """Last hidden states, and the scores of classes from a model with a head, else the class token's state."""
    hidden = theirs.base_model(pixel_values=pixels, **more).last_hidden_state
    return hidden, hidden[:, 0] if theirs.base_model is theirs else theirs(pixel_values=pixels, **more).logits


def said_here(model: BaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The same of ours."""
    hidden = model.states("image", pixels).hidden
    pooled = model.image.pooled(hidden)
    return hidden, model.image.scores(pooled) if model.cfg.image.classes else pooled


def pictures(theirs: Any, *sides: int) -> Tensor:
    """Random pixels of the model's own size, or of these."""
    cfg = theirs.config
    height, width = sides or (cfg.image_size, cfg.image_size)
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, cfg.num_channels, height, width, generator=generator)


def check_vision(
    theirs: Any,
    tmp_path: Path,
    sizes: tuple[tuple[int, int], ...] = (),
    **at_sizes: Any,
) -> BaseModel:
    """Hidden states and what is read from them, gradients, and the way back. `theirs` is a tiny vision model of transformers, bare or
    with a classifier. sizes: others than its own, at which it is called with `at_sizes`."""
    shaken(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    assert from_dict(BaseConfig, json.loads(json.dumps(to_dict(model.cfg)))) == model.cfg
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    pixels = pictures(theirs)
    with torch.no_grad():
        want = said_there(theirs, pixels)
        _same(said_here(model, pixels), want)
        for height, width in sizes:
            other = pictures(theirs, height, width)
            _same(said_here(model, other), said_there(theirs, other, **at_sizes))
    model.requires_grad_(True)
    # At another size where there is one: the gradient then goes through the stretched positions too.
    seen, how = (pictures(theirs, *sizes[0]), at_sizes) if sizes else (pixels, {})
    weights = [
        torch.randn(x.shape, generator=torch.Generator().manual_seed(2)) for x in said_here(model, seen)
    ]
    ours = _grads(_sum(said_here(model, seen), weights), model)
    exact = copy.deepcopy(theirs).double()
    said = said_there(exact, seen.double(), **how)
    peers = _grads(_sum(said, [w.double() for w in weights]), exact)
    named = _saved_names(theirs, peers, tmp_path / "grads")
    shapes = {name: tuple(g.shape) for name, g in named.items()}
    for rule in shortened(family.rules(model.cfg), family.prefix, shapes):
        if isinstance(rule, Rule):
            for name, made in zip(rule.theirs, rule.back([ours[n] for n in rule.ours]), strict=True):
                close(made, named[name].float())
    exported(tmp_path / "back", family, model)
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        _same(said_there(again, pixels), want)
    _, third = imported(tmp_path / "back")
    assert third.cfg == model.cfg
    for (name, a), (_, b) in zip(model.named_parameters(), third.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    return model


def _saved_names(theirs: Any, grads: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Gradients under the names (and in the shapes) that weights have on disk: transformers 5 keeps others in memory, so they are saved
    as if they were weights."""
    twin = copy.deepcopy(theirs).double()
    with torch.no_grad():
        for name, p in twin.named_parameters():
            p.copy_(grads[name]) if name in grads else p.zero_()
    twin.save_pretrained(folder)
    return weights_of(folder)


def _grads(loss: Tensor, model: torch.nn.Module) -> dict[str, Tensor]:
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _sum(said: tuple[Tensor, ...], weights: list[Tensor]) -> Tensor:
    return torch.stack([(x * w).sum() for x, w in zip(said, weights, strict=True)]).sum()


def _same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> None:
    for x, y in zip(a, b, strict=True):
        close(x, y)
