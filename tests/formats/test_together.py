"""Families of images and text: sizes of published models, and configs that are damaged at any place."""

import contextlib
import copy
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from onebase.base.config import base_parameters
from onebase.base.links import connector_places
from onebase.errors import ConfigError
from onebase.formats.families import clip, family_of, idefics3, llava, siglip
from onebase.formats.reader import ConfigReader

VISION = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = VISION | {"vocab_size": 20, "max_position_embeddings": 12}
TREES: dict[str, dict[str, Any]] = {
    "clip": {"text_config": TEXT | {"eos_token_id": 2}, "vision_config": VISION, "projection_dim": 8},
    "siglip": {"text_config": TEXT, "vision_config": VISION},
    "llava": {
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": VISION | {"model_type": "clip_vision_model"},
        "image_token_index": 3,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    },
    "idefics3": {
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": VISION | {"image_size": 64},
        "image_token_id": 3,
        "scale_factor": 2,
    },
}
ODD = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1,
        2**63,
        2**80,
        1.5,
        float("nan"),
        float("inf"),
        "",
        "gelu",
        "llama",
        [],
        [1],
        {},
        {"a": 1},
    ]
)


@pytest.mark.parametrize("kind", sorted(TREES))
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_config_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    tree = copy.deepcopy(TREES[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from([tree, *(v for v in tree.values() if isinstance(v, dict))]))
        names = sorted(
            {*part, *TEXT, "tie_word_embeddings", "hidden_act", "rope_scaling", "patch_size", "image_size"}
        )
        part[data.draw(st.sampled_from(names))] = data.draw(ODD)
    with contextlib.suppress(ConfigError):
        family_of(kind, "config.json").read(ConfigReader(tree, "config.json"))


def test_published_models_have_their_sizes() -> None:
    """As their pages state them; what a config leaves out is the default of its class."""
    assert base_parameters(clip.FAMILY.read(ConfigReader({}, "clip-vit-base-patch32"))) == 151_277_313
    assert base_parameters(siglip.FAMILY.read(ConfigReader({}, "siglip-base-patch16-224"))) == 203_155_970
    small = idefics3.FAMILY.read(
        ConfigReader(
            {
                "image_token_id": 49190,
                "scale_factor": 4,
                "text_config": {
                    "model_type": "llama",
                    "hidden_size": 576,
                    "intermediate_size": 1536,
                    "num_hidden_layers": 30,
                    "num_attention_heads": 9,
                    "num_key_value_heads": 3,
                    "vocab_size": 49280,
                },
                "vision_config": {
                    "hidden_size": 768,
                    "num_attention_heads": 12,
                    "image_size": 512,
                    "patch_size": 16,
                },
            },
            "SmolVLM-256M",
        )
    )
    assert base_parameters(small) == 256_484_928
    link = small.link("embed")
    assert link is not None and link.connector is not None
    assert connector_places(link.connector, small.image) == 64


def test_a_decoder_within_a_decoder_within_a_decoder_is_no_model() -> None:
    tree: dict[str, Any] = TREES["llava"]
    for _ in range(300):
        tree = TREES["llava"] | {"text_config": tree | {"model_type": "llava"}}
    with pytest.raises(ConfigError, match="has its own"):
        llava.FAMILY.read(ConfigReader(tree, "config.json"))
