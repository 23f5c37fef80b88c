"""Parity with transformers for models of images and text: a tiny random model there, imported here, says the same; and back."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.base.config import base_parameters
from onebase.base.link_modules import PairLink
from onebase.base.model import BaseModel
from onebase.formats.family import Family
from onebase.formats.rules import Rule
from onebase.model.mask import Cols
from tests.formats.parity import close, exported, imported, shaken

TOWER = {"intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT = TOWER | {"hidden_size": 16, "vocab_size": 40, "max_position_embeddings": 12}
VISION = TOWER | {"hidden_size": 20, "image_size": 8, "patch_size": 2}


def pixels(count: int = 3, side: int = 8) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(5))


def said_there(theirs: Any, ids: Tensor, mask: Tensor | None, seen: Tensor) -> dict[str, Tensor]:
    out = theirs(input_ids=ids, attention_mask=mask, pixel_values=seen)
    return {
        "text": out.text_model_output.last_hidden_state,
        "texts": out.text_embeds,
        "images": out.image_embeds,
        "logits": out.logits_per_image,
    }


def said_here(model: BaseModel, ids: Tensor, cols: Cols, seen: Tensor) -> dict[str, Tensor]:
    pair = model.link("pair")
    assert isinstance(pair, PairLink)
    hidden = model.hidden(ids, cols).hidden
    texts = pair.texts(hidden, cols.doc >= 0)
    images = pair.placed(model.image.pooled(model.states("image", seen).hidden), "src")
    return {"text": hidden, "texts": texts, "images": images, "logits": pair.scores(images, texts)}


def check_pair(theirs: Any, tmp_path: Path, ids: Tensor, lengths: tuple[int, ...] | None = None) -> BaseModel:
    """Hidden states, vectors of both kinds and scores, gradients, and the way back. lengths: of padded texts."""
    shaken(theirs)
    with torch.no_grad():  # a score is e^scale times a cosine: a drawn scale would only magnify rounding
        theirs.logit_scale.fill_(0.7)
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    assert base_parameters(model.cfg) == sum(p.numel() for p in theirs.parameters())
    cols = Cols.simple(*ids.shape) if lengths is None else Cols.padded(torch.tensor(lengths), ids.shape[1])
    live = cols.doc >= 0
    mask = None if lengths is None else live.long()
    with torch.no_grad():
        want = said_there(theirs, ids, mask, pixels())
        same(said_here(model, ids, cols, pixels()), want, live)
        images = model.states("image", pixels()).hidden
        there = theirs.vision_model(pixel_values=pixels()).last_hidden_state
        if model.cfg.image.class_token:  # CLIP gives the states before its last norm
            there = theirs.vision_model.post_layernorm(there)
        close(images, there)
    model.requires_grad_(True)
    weights = torch.randn(want["logits"].shape, generator=torch.Generator().manual_seed(2))
    ours = grads((said_here(model, ids, cols, pixels())["logits"] * weights).sum(), model)
    exact = copy.deepcopy(theirs).double()
    peers = grads((said_there(exact, ids, mask, pixels().double())["logits"] * weights).sum(), exact)
    check_grads(family, model, ours, peers)
    check_back(
        theirs, family, model, tmp_path, lambda m: same_dicts(said_there(m, ids, mask, pixels()), want)
    )
    return model


def grads(loss: Tensor, model: torch.nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    named = model.named_parameters(remove_duplicate=False)
    return {name: p.grad for name, p in named if p.grad is not None}


def check_grads(
    family: Family,
    model: BaseModel,
    ours: Mapping[str, Tensor],
    peers: Mapping[str, Tensor],
    there: Callable[[str], str] = lambda name: name,
) -> None:
    """Every gradient is theirs (in fp64, so that only our rounding counts). there: their name in memory of one in a file."""
    seen = 0
    for rule in family.rules(model.cfg):
        if isinstance(rule, Rule) and all(n in ours for n in rule.ours):
            for name, made in zip(rule.theirs, rule.back([ours[n] for n in rule.ours]), strict=True):
                close(made, peers[there(name)].float())
                seen += 1
    assert seen == len({g.data_ptr() for g in peers.values()})  # a tied weight has two names there


def check_back(
    theirs: Any, family: Family, model: BaseModel, tmp_path: Path, says: Callable[[Any], None]
) -> None:
    """What we export, transformers opens and says the same; and we read what we wrote, bitwise."""
    exported(tmp_path / "back", family, model)
    again, told = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"], told
    with torch.no_grad():
        says(again.eval())
    _, third = imported(tmp_path / "back")
    assert third.cfg == model.cfg
    for (name, a), (_, b) in zip(model.named_parameters(), third.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def same(ours: Mapping[str, Tensor], want: Mapping[str, Tensor], live: Tensor) -> None:
    for name, x in want.items():
        if name == "text":
            close(ours[name][live], x[live])
        else:
            close(ours[name], x)


def same_dicts(ours: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> None:
    for name, x in want.items():
        close(ours[name], x)
