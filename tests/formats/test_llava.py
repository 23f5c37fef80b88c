"""LLaVA: images in the sequence of a decoder, with towers and decoders of several kinds."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from onebase.artifact.tensors import save_tensors
from onebase.base.config import base_parameters
from onebase.base.model import BaseModel
from onebase.errors import ConfigError, UserError
from onebase.formats.families import llava
from onebase.formats.family import written
from onebase.formats.reader import ConfigReader
from onebase.model.mask import Cols
from tests.formats.parity import close, imported, shaken, weights_of
from tests.formats.together import TOWER, VISION, check_back, check_grads, grads, pixels

TOKEN = 39
DECODER = TOWER | {
    "hidden_size": 16,
    "vocab_size": 40,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}


def tiny(text: Any = None, vision: Any = None, **more: object) -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=text or LlamaConfig(**DECODER),
            vision_config=vision or CLIPVisionConfig(**VISION),
            image_token_index=TOKEN,
            **more,
        )
    )


def row(*parts: int) -> list[int]:
    """Ids of so much text, the image's token, text, ...: every second part counts places of an image."""
    out: list[int] = []
    for i, n in enumerate(parts):
        out += [TOKEN] * n if i % 2 else [3 + (7 * len(out) + 5 * k) % 36 for k in range(n)]
    return out


def check(theirs: Any, tmp_path: Path, rows: list[list[int]], images: int) -> BaseModel:
    """Logits with images in the rows (the first alone, then padded together, then with a cache that has them in its prefill), gradients,
    and the way back."""
    shaken(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    assert base_parameters(model.cfg) == sum(p.numel() for p in theirs.parameters())
    longest = max(map(len, rows))
    ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
    cols = Cols.padded(torch.tensor([len(r) for r in rows]), longest)
    live, seen = cols.doc >= 0, pixels(images)

    def there(m: Any) -> Tensor:
        out: Tensor = m(input_ids=ids, pixel_values=seen.to(m.dtype), attention_mask=live.long()).logits
        return out

    def here() -> Tensor:
        return model.text.logits(model.hidden(ids, cols, inserts=model.seen(seen)).hidden)

    with torch.no_grad():
        want = there(theirs)
        close(here()[live], want[live])
        cut = len(rows[0]) - 3  # the images lie before it in every row
        cache = model.new_cache(len(rows), longest)
        first = model.hidden(ids[:, :cut], cols.cut(0, cut), cache=cache, inserts=model.seen(seen)).hidden
        rest = model.hidden(ids[:, cut:], cols.cut(cut, longest), cache=cache).hidden
        close(model.text.logits(torch.cat((first, rest), 1))[live], want[live])
    model.requires_grad_(True)
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(2)) * live[..., None]
    ours = grads((here() * weights).sum(), model)
    exact = copy.deepcopy(theirs).double()
    peers = grads((there(exact) * weights).sum(), exact)
    check_grads(family, model, ours, peers, in_memory)
    check_back(theirs, family, model, tmp_path, lambda m: close(there(m)[live], want[live]))
    return model


def in_memory(name: str) -> str:
    """A name in a file as transformers' own model has it."""
    if name == "language_model.lm_head.weight":
        return "lm_head.weight"
    return "model." + name.replace("language_model.model.", "language_model.")


def test_clip_and_llama_say_the_same(tmp_path: Path) -> None:
    model = check(tiny(), tmp_path, [row(4, 16, 9), row(2, 16, 5)], 2)
    link = model.cfg.link("embed")
    assert link is not None and link.connector is not None
    assert (link.connector.block, link.connector.skip) == (1, 1)


def test_two_images_in_one_row_and_none_in_another(tmp_path: Path) -> None:
    check(tiny(), tmp_path, [row(3, 16, 2, 16, 5), row(20)], 2)


def test_siglip_and_qwen2_with_every_place_of_the_last_block(tmp_path: Path) -> None:
    theirs = tiny(
        Qwen2Config(**DECODER),
        SiglipVisionConfig(**VISION),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        multimodal_projector_bias=False,
        projector_hidden_act="relu",
    )
    model = check(theirs, tmp_path, [row(4, 16, 9)], 1)
    assert "q" in model.cfg.trunks["text"].blocks[0].attn.bias


def test_mistral_whose_window_is_shorter_than_an_image(tmp_path: Path) -> None:
    theirs = tiny(
        MistralConfig(**DECODER, sliding_window=6), vision_feature_layer=2, tie_word_embeddings=True
    )
    model = check(theirs, tmp_path, [row(4, 16, 9)], 1)
    assert model.cfg.text.tied and model.cfg.trunks["text"].blocks[0].attn.window == 6


@pytest.mark.parametrize("year", ["2024", "2025"])
def test_names_of_other_years_are_read(tmp_path: Path, year: str) -> None:
    tiny().save_pretrained(tmp_path)
    _, model = imported(tmp_path)

    def old(name: str) -> str:
        name = name.replace("vision_tower.", "vision_tower.vision_model.")
        return name if year == "2024" else in_memory(name)

    save_tensors(tmp_path / "model.safetensors", {old(n): x for n, x in weights_of(tmp_path).items()})
    _, again = imported(tmp_path)
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_config_that_leaves_out_its_classes_defaults() -> None:
    """The published config of llava-1.5-7b says little of its decoder."""
    tree = {
        "image_token_index": 32000,
        "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064},
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
    }
    cfg = llava.FAMILY.read(ConfigReader(tree, "config.json"))
    assert cfg.trunks["text"].width == 4096 and len(cfg.trunks["text"].blocks) == 32
    assert 7.0e9 < base_parameters(cfg) < 7.1e9
    assert llava.FAMILY.write(cfg)["image_seq_length"] == 576


def test_what_the_layout_cannot_say_is_not_lost() -> None:
    cfg = llava.FAMILY.read(ConfigReader(tiny().config.to_dict(), "config.json"))
    link = cfg.links[0]
    assert link.connector is not None
    for change in (
        {"before": (1,)},
        {"block": None},
        {"hidden": None},
        {"hidden": 8},
        {"skip": 2},
        {"shuffle": 4},
    ):
        connector = (
            replace(link.connector, skip=0, **change)
            if "shuffle" in change
            else replace(link.connector, **change)
        )
        other = replace(cfg, links=(replace(link, connector=connector),))
        with pytest.raises(ConfigError):
            written(llava.FAMILY, other)


def test_as_many_vectors_as_places(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    _, model = imported(tmp_path)
    with pytest.raises(UserError, match="16 image vectors for 15 placeholder tokens"):
        model.hidden(torch.tensor([row(2, 15, 2)]), inserts=model.seen(pixels(1)))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"image_token_index": 40}, "image_token_index"),
        ({"vision_feature_layer": -4}, "vision_feature_layer"),
        ({"vision_feature_layer": 0}, "vision_feature_layer"),
        ({"vision_feature_layer": [-2, -1]}, "vision_feature_layer"),
        ({"vision_feature_select_strategy": "cls"}, "vision_feature_select_strategy"),
        ({"projector_hidden_act": "tanh"}, "projector_hidden_act"),
        ({"text_config": {"model_type": "gpt2"}}, "model_type"),
        ({"text_config": {"model_type": "bert", "vocab_size": 40}}, "model_type"),
        ({"text_config": {"model_type": "llava", "text_config": {}}}, "text_config"),
        ({"text_config": {"model_type": ["llama"]}}, "model_type"),
        ({"text_config": {**DECODER, "model_type": "phi3", "rms_norm_eps": 1e-6}}, "written as llama"),
        ({"vision_config": {"model_type": "pixtral"}}, "pixtral"),
        ({"vision_config": {**DECODER, "model_type": "llama"}}, "an image tower"),
        ({"vision_config": None}, "vision_config"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, change: dict[str, object], names: str) -> None:
    tiny().config.save_pretrained(tmp_path)
    tree = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(ConfigError, match=names):
        llava.FAMILY.read(ConfigReader(tree | change, "config.json"))
