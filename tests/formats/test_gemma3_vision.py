"""Gemma 3 with images: what transformers says, with the places of an image seeing each other."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

from onebase.artifact.tensors import save_tensors
from onebase.base.config import base_parameters
from onebase.errors import ConfigError
from onebase.formats.families import family_of
from onebase.formats.family import written
from onebase.formats.reader import ConfigReader
from onebase.model.mask import Cols
from tests.formats.parity import close, imported, shaken, weights_of
from tests.formats.test_llava import TOKEN, in_memory, row
from tests.formats.together import VISION, check_back, check_grads, grads, pixels

KINDS = ["sliding_attention", "full_attention", "sliding_attention"]


def tiny(**more: Any) -> Gemma3ForConditionalGeneration:
    text = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 8,
        "max_position_embeddings": 64,
        "layer_types": KINDS,
        "pad_token_id": 0,
    }
    whole = {k: v for k, v in more.items() if k in ("mm_tokens_per_image", "tie_word_embeddings")}
    vision = SiglipVisionConfig(**VISION, vision_use_head=False, layer_norm_eps=1e-4)
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=Gemma3TextConfig(**text | {k: v for k, v in more.items() if k not in whole}),
            vision_config=vision,
            **{"mm_tokens_per_image": 4, "image_token_index": TOKEN} | whole,
        )
    )


ROWS = [row(4, 4, 3, 4, 12), row(2, 4, 9)]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"sliding_window": 4},
        {"mm_tokens_per_image": 16, "sliding_window": 64},
        {"mm_tokens_per_image": 1},
        {"tie_word_embeddings": False},
        {"attention_bias": True, "query_pre_attn_scalar": 5},
    ],
)
def test_it_says_the_same(more: dict[str, Any], tmp_path: Path) -> None:
    count = more.get("mm_tokens_per_image", 4)
    rows = [row(4, count, 3, count, 12), row(2, count, 9)]
    theirs = shaken(tiny(**more))
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    assert base_parameters(model.cfg) == sum(p.numel() for p in theirs.parameters())
    longest = max(map(len, rows))
    ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
    cols = Cols.padded(torch.tensor([len(r) for r in rows]), longest)
    live, seen = cols.doc >= 0, pixels(3)

    def there(m: Any) -> Tensor:
        made: Tensor = m(
            input_ids=ids,
            pixel_values=seen.to(m.dtype),
            attention_mask=live.long(),
            token_type_ids=(ids == TOKEN).long(),
        ).logits
        return made

    def here() -> Tensor:
        return model.text.logits(model.hidden(ids, cols, inserts=model.seen(seen)).hidden)

    with torch.no_grad():
        want = there(theirs)
        close(here()[live], want[live])
        cut = len(rows[0]) - 5
        cache = model.new_cache(2, longest)
        first = model.hidden(ids[:, :cut], cols.cut(0, cut), cache=cache, inserts=model.seen(seen)).hidden
        rest = [
            model.hidden(ids[:, i : i + 1], cols.cut(i, i + 1), cache=cache).hidden
            for i in range(cut, longest)
        ]
        close(model.text.logits(torch.cat((first, *rest), 1))[live], want[live])
    model.requires_grad_(True)
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(2)) * live[..., None]
    ours = grads((here() * weights).sum(), model)
    exact = copy.deepcopy(theirs).double()
    peers = grads((there(exact) * weights).sum(), exact)
    check_grads(family, model, ours, peers, in_memory)
    check_back(theirs, family, model, tmp_path, lambda m: close(there(m)[live], want[live]))


def test_the_places_of_an_image_see_each_other_and_no_later_text(tmp_path: Path) -> None:
    shaken(tiny()).save_pretrained(tmp_path)
    model = imported(tmp_path)[1]
    ids, seen = torch.tensor([ROWS[1]]), pixels(1)
    inserts = model.seen(seen)
    with torch.no_grad():
        plain = model.hidden(ids, inserts=inserts).hidden
        other = inserts.clone()
        other[3] += 1.0  # the last place of the image
        changed = model.hidden(ids, inserts=other).hidden
        assert not torch.allclose(plain[0, 2], changed[0, 2])  # its first place
        close(changed[0, :2], plain[0, :2])  # the text before it
        later = ids.clone()
        later[0, 8] = 5
        close(model.hidden(later, inserts=inserts).hidden[0, :8], plain[0, :8])


def test_a_config_that_leaves_out_its_classes_defaults() -> None:
    tree = {
        "model_type": "gemma3",
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
        | {"sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
        "vision_config": {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "patch_size": 14}
        | {"num_attention_heads": 16, "num_hidden_layers": 27, "vision_use_head": False},
    }
    cfg = family_of("gemma3", "").read(ConfigReader(tree, "gemma-3-4b-it"))
    assert base_parameters(cfg) == 4_300_079_472
    connector = cfg.links[0].connector
    assert connector is not None and (connector.pool, connector.both, connector.token) == (4, True, 262_144)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mm_tokens_per_image": 5}, "mm_tokens_per_image"),
        ({"mm_tokens_per_image": 9}, "mm_tokens_per_image"),
        ({"mm_tokens_per_image": 16}, "sliding_window"),
        ({"image_token_index": 40}, "image_token_index"),
        ({"boi_token_index": "x"}, "boi_token_index"),
        (
            {"text_config": tiny(final_logit_softcapping=3.0).config.text_config.to_dict()},
            "final_logit_softcapping",
        ),
        ({"vision_config": {"model_type": "llama"}}, "vision_config"),
    ],
)
def test_what_cannot_be_is_named(change: dict[str, Any], named: str) -> None:
    tree = json.loads(tiny().config.to_json_string(use_diff=False)) | {"model_type": "gemma3"}
    with pytest.raises(ConfigError) as e:
        family_of("gemma3", "").read(ConfigReader(tree | change, "config.json"))
    assert named in e.value.cause + e.value.remedy and e.value.cause.startswith("config.json")


def test_names_of_other_years_are_read(tmp_path: Path) -> None:
    theirs = shaken(tiny())
    theirs.save_pretrained(tmp_path)
    want = imported(tmp_path)[1]
    begins = {"language_model.model.": "model.language_model.", "vision_tower.": "model.vision_tower."}
    begins |= {"multi_modal_projector.": "model.multi_modal_projector."}

    def named(name: str) -> str:
        old = next(b for b in begins if name.startswith(b))
        return begins[old] + name.removeprefix(old)

    save_tensors(tmp_path / "model.safetensors", {named(k): v for k, v in weights_of(tmp_path).items()})
    found = imported(tmp_path)[1]
    for (name, a), (_, b) in zip(want.named_parameters(), found.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_llava_cannot_say_it(tmp_path: Path) -> None:
    shaken(tiny()).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="the llava layout cannot express|the connector reads"):
        written(family_of("llava", ""), imported(tmp_path)[1].cfg)
