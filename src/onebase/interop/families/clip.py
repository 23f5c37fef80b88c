"""CLIP: a tower of images and a causal one of text in one space, and the tower of images alone.

The text's vector is that of the token that ends it. Configs written before June 2023 say `eos_token_id: 2`, which is no end of a
text; there the place of the greatest id counts, which is where the ending token is.
Source: transformers `models/clip/`, read for names, defaults and that rule; Radford et al., 2103.00020.
"""

from onebase.base.config import BaseConfig
from onebase.base.links import Link, PairConfig
from onebase.codec.image.config import PixelsConfig, PoolConfig
from onebase.codec.text.pooling import EmbeddingConfig
from onebase.interop.families.encoder import both
from onebase.interop.families.towers import (
    IMAGE,
    LINK,
    half,
    image_codec,
    image_rules,
    image_tree,
    linked,
    prefixed,
    sub_config,
    text_codec,
    text_rules,
    text_tree,
    the_pair,
    tower,
)
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Rules, rename

OLD_END = 2
TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
PIXELS = PixelsConfig(
    resize="crop",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""Those of the first models: means and deviations of what they learnt from."""


def read(r: Reader) -> BaseConfig:
    text, vision = _read_text(sub_config(r, "text_config")), read_vision(sub_config(r, "vision_config"))
    pair = PairConfig(
        width=r.size("projection_dim", 512),
        pool=EmbeddingConfig(pooling="last", ends=_ends(sub_config(r, "text_config"), text.text.vocab_size)),
    )
    return linked(text, vision, Link(src="image", dst="text", how="pair", pair=pair))


def _read_text(r: Reader) -> BaseConfig:
    trunk = tower(r, TEXT, activation="quick_gelu", eps=1e-5, direction="causal")
    return BaseConfig(trunks={"text": trunk}, codecs={"text": text_codec(r, 49408, 77)})


def _ends(r: Reader, vocabulary: int) -> int | None:
    """The token that a text ends with; None where the config has the old rule."""
    end = r.get("eos_token_id", int, 49407)
    if not 0 <= end < vocabulary:
        raise r.refuse("eos_token_id", f"a token of the vocabulary, 0 to {vocabulary - 1}")
    return None if end == OLD_END else end


def read_vision(r: Reader) -> BaseConfig:
    """The tower of images alone."""
    trunk = tower(r, VISION, activation="quick_gelu", eps=1e-5, normed=True)
    codec = image_codec(r, 32, PoolConfig(kind="first"), bias=False, class_token=True, pixels=PIXELS)
    return BaseConfig(trunks={"image": trunk}, codecs={"image": codec})


def write(cfg: BaseConfig) -> Tree:
    pair = the_pair(cfg)
    end = OLD_END if pair.pool.ends is None else pair.pool.ends
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": pair.width,
        "text_config": text_tree(cfg) | {"model_type": "clip_text_model", "eos_token_id": end},
        "vision_config": write_vision(cfg),
    }


def write_vision(cfg: BaseConfig) -> Tree:
    return {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model"} | image_tree(cfg)


def vision_rules(cfg: BaseConfig) -> Rules:
    return [
        rename("embeddings.class_embedding", f"{IMAGE}.class_token"),
        *both("pre_layrnorm", "trunks.image.input_norm"),  # spelled so
        *image_rules(cfg),
    ]


def rules(cfg: BaseConfig) -> Rules:
    return [
        *prefixed(text_rules(cfg), "text_model."),
        *prefixed(vision_rules(half(cfg, "image")), "vision_model."),
        rename("visual_projection.weight", f"{LINK}.src.weight"),
        rename("text_projection.weight", f"{LINK}.dst.weight"),
        rename("logit_scale", f"{LINK}.scale"),
    ]


FAMILY = Family(("clip",), read, write, rules)
VISION_FAMILY = Family(
    ("clip_vision_model",), read_vision, write_vision, vision_rules, spellings=(("vision_model.", ""),)
)
