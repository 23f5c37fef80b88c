"""Parity with transformers for any family: a tiny random model there, imported here, says the same; and back."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.artifact.tensors import load_tensors
from onebase.base.config import BaseConfig, base_parameters
from onebase.base.model import BaseModel
from onebase.config import from_dict
from onebase.config_plain import to_dict
from onebase.formats.families import family_of
from onebase.formats.family import Family, written
from onebase.formats.hf.folder import HFFolder, save_folder
from onebase.formats.reader import ConfigReader
from onebase.formats.weight_loading import given_back, load_weights
from onebase.model.mask import Cols

TOLERANCE = 1e-5


def shaken(model: torch.nn.Module, seed: int = 0) -> Any:
    """All weights drawn anew: starting values (zero biases, unit norms) would hide mistakes. Vectors are drawn around their start:
    norms that count from 1 (Gemma) would else double what they see, and rounding would show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise * 0.2 if p.ndim > 1 else noise * 0.5 + p)
    return model.eval()


def imported(folder: Path) -> tuple[Family, BaseModel]:
    """A folder as a model of ours."""
    source = HFFolder(folder)
    reader = ConfigReader(source.config, str(folder / "config.json"), frozenset(source.shapes()), source.read)
    family = family_of(source.config.get("model_type"), reader.where)
    return family, load_weights(family.read(reader), family, source)


def exported(folder: Path, family: Family, model: BaseModel) -> None:
    """A model of ours as a folder that transformers opens."""
    folder.mkdir(parents=True, exist_ok=True)
    save_folder(folder, written(family, model.cfg), given_back(model, family.rules(model.cfg)))


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder with one file, in memory of their own: the file may be written anew."""
    return {name: x.clone() for name, x in load_tensors(folder / "model.safetensors").items()}


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=TOLERANCE * max(1.0, float(b.detach().abs().max())), rtol=0)


def grads(loss: Tensor, model: torch.nn.Module) -> Mapping[str, Tensor]:
    """Gradients by name."""
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def check_decoder(theirs: Any, tmp_path: Path, length: int = 12, cuts: tuple[int, ...] = (5, 6)) -> BaseModel:
    """Logits with padding and with a cache (filled in parts that end at `cuts` and at the end), gradients, and the way back.
    `theirs` is a tiny causal model of transformers."""
    shaken(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    assert from_dict(BaseConfig, json.loads(json.dumps(to_dict(model.cfg)))) == model.cfg
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    ids = torch.randint(
        3, theirs.config.get_text_config().vocab_size, (2, length), generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        want = theirs(input_ids=ids).logits
        close(model.logits(ids), want)
        lengths = torch.tensor([length, length - 5])
        cols = Cols.padded(lengths, length)
        mask = (cols.doc >= 0).long()
        padded = theirs(input_ids=ids, attention_mask=mask).logits
        found = model.text.logits(model.hidden(ids, cols).hidden)
        close(found[1, : length - 5], padded[1, : length - 5])
        cache = model.new_cache(2, length)
        parts = [
            model.text.logits(model.hidden(ids[:, a:b], Cols.simple(2, b - a, start=a), cache=cache).hidden)
            for a, b in pairwise((0, *cuts, length))
        ]
        close(torch.cat(parts, 1), want)
    model.requires_grad_(True)
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(2))
    ours = grads((model.logits(ids) * weights).sum(), model)
    peers = grads((theirs(input_ids=ids).logits * weights).sum(), theirs)
    for rule in family.rules(model.cfg):
        if hasattr(rule, "steps"):
            for name, made in zip(rule.theirs, rule.back([ours[n] for n in rule.ours]), strict=True):
                close(made, peers[name])
    exported(tmp_path / "back", family, model)
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        close(again(input_ids=ids).logits, want)
    _, third = imported(tmp_path / "back")
    assert third.cfg == model.cfg
    for (name, a), (_, b) in zip(model.named_parameters(), third.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    return model
