"""Idefics3 and SmolVLM: squares of patches as one vector, one matrix, a decoder."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from onebase.base.config import base_parameters
from onebase.base.model import BaseModel
from onebase.errors import ConfigError
from onebase.formats.families import idefics3
from onebase.formats.hf.pictures import read_pixels
from onebase.formats.reader import ConfigReader
from onebase.modality.image.config import ImageCodecConfig
from onebase.model.mask import Cols
from tests.formats.parity import close, imported, shaken
from tests.formats.test_llava import DECODER, TOKEN, row
from tests.formats.together import VISION, check_back, check_grads, grads, pixels


def tiny(smol: bool = False, text: dict[str, object] | None = None, **more: Any) -> Any:
    made, config = (
        (SmolVLMForConditionalGeneration, SmolVLMConfig)
        if smol
        else (Idefics3ForConditionalGeneration, Idefics3Config)
    )
    decoder = LlamaConfig(**DECODER | (text or {}))
    return made(config(text_config=decoder, vision_config=VISION, image_token_id=TOKEN, **more))


def check(theirs: Any, tmp_path: Path, rows: list[list[int]], places: int) -> BaseModel:
    """Logits with one image in each row, with a cache, gradients, and the way back."""
    shaken(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    assert base_parameters(model.cfg) == sum(p.numel() for p in theirs.parameters())
    ids, seen = torch.tensor(rows), pixels(len(rows))

    def there(m: Any) -> Tensor:
        out: Tensor = m(input_ids=ids, pixel_values=seen[:, None].to(m.dtype)).logits
        return out

    def here() -> Tensor:
        return model.text.logits(model.hidden(ids, inserts=model.seen(seen)).hidden)

    with torch.no_grad():
        want = there(theirs)
        assert model.seen(seen).shape == (len(rows) * places, 16)
        close(here(), want)
        T = ids.shape[1]
        cache, cols = model.new_cache(len(rows), T), Cols.simple(*ids.shape)
        first = model.hidden(
            ids[:, : T - 2], cols.cut(0, T - 2), cache=cache, inserts=model.seen(seen)
        ).hidden
        rest = model.hidden(ids[:, T - 2 :], cols.cut(T - 2, T), cache=cache).hidden
        close(model.text.logits(torch.cat((first, rest), 1)), want)
    model.requires_grad_(True)
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(2))
    ours = grads((here() * weights).sum(), model)
    exact = copy.deepcopy(theirs).double()
    peers = grads((there(exact) * weights).sum(), exact)
    check_grads(family, model, ours, peers)
    check_back(theirs, family, model, tmp_path, lambda m: close(there(m), want))
    return model


@pytest.mark.parametrize("smol", [False, True])
def test_it_says_the_same(tmp_path: Path, smol: bool) -> None:
    check(tiny(smol), tmp_path, [row(3, 4, 5), row(6, 4, 2)], 4)


def test_squares_of_four_and_a_tied_head(tmp_path: Path) -> None:
    model = check(tiny(scale_factor=4, tie_word_embeddings=True), tmp_path, [row(3, 1, 5)], 1)
    assert model.cfg.text.tied


def test_the_decoders_own_tie_does_not_count(tmp_path: Path) -> None:
    theirs = tiny(text={"tie_word_embeddings": True})
    assert not check(theirs, tmp_path, [row(3, 4, 5)], 4).cfg.text.tied


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"scale_factor": 3}, "shuffle"),
        ({"image_token_id": 40}, "image_token_id"),
        ({"vision_config": VISION | {"image_size": 38}}, "19 patches per side"),
    ],
)
def test_what_cannot_be_is_named(tree: dict[str, object], names: str) -> None:
    whole = {
        "text_config": {**DECODER, "model_type": "llama"},
        "vision_config": VISION,
        "image_token_id": TOKEN,
    }
    with pytest.raises(ConfigError, match=names):
        idefics3.FAMILY.read(ConfigReader(whole | tree, "config.json"))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"max_image_size": {"longest_edge": 32}}, "max_image_size"),
        ({"max_image_size": 16}, "max_image_size"),
        ({"size": {"height": 16, "width": 16}}, "longest_edge"),
        ({"size": {"longest_edge": 5000}}, "longest_edge"),
        ({"resample": 9}, "resample"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"do_normalize": False}, "do_normalize"),
        ({"do_flip": True}, "do_flip"),
    ],
)
def test_ways_to_prepare_pictures_that_we_lack_are_named(change: dict[str, object], names: str) -> None:
    tree = {"max_image_size": {"longest_edge": 16}, "size": {"longest_edge": 64}, "do_image_splitting": True}
    codec = ImageCodecConfig(kind="image", size=16, patch=4)
    assert read_pixels(ConfigReader(tree, "preprocessor_config.json"), codec).long == 64
    with pytest.raises(ConfigError, match=names):
        read_pixels(ConfigReader(tree | change, "preprocessor_config.json"), codec)
