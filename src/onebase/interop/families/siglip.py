"""SigLIP, and SigLIP 2 of fixed size: a tower of images and one of text, both seeing both ways, in one space; and the tower of images alone.

A text is filled up to the whole context with the padding token, which is attended like any other, and its vector is made of the last
place. The image's is what a learned query gathers. Scores are of one pair at a time: a learned number is added to them.
Source: transformers `models/siglip/`, read for names and defaults; Zhai et al., 2303.15343.
"""

from onebase.base.config import BaseConfig
from onebase.base.links import Link, PairConfig
from onebase.codec.image.config import PoolConfig
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
from onebase.interop.rules import Reshape, Rules, rename, split

LIKE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
POOL = f"{IMAGE}.pool"


def read(r: Reader) -> BaseConfig:
    text_r, vision_r = sub_config(r, "text_config"), sub_config(r, "vision_config")
    trunk = tower(text_r, LIKE, activation="gelu_pytorch_tanh", eps=1e-6)
    text = BaseConfig(trunks={"text": trunk}, codecs={"text": text_codec(text_r, 32000, 64)})
    vision_r.must("vision_use_head", True, True, "the image's vector is made by the tower's head")
    vision = read_vision(vision_r)
    width = text_r.size("projection_size", trunk.width)
    if width != vision.trunks["image"].width:
        raise text_r.refuse("projection_size", f"{vision.trunks['image'].width}, the images' hidden_size")
    pair = PairConfig(
        width=width,
        project_src=False,
        dst_bias=True,
        shift=True,
        pool=EmbeddingConfig(pooling="last", filled=True),
    )
    return linked(text, vision, Link(src="image", dst="text", how="pair", pair=pair))


def read_vision(r: Reader) -> BaseConfig:
    """The tower of images alone. Without a head the mean of the patches is an image's vector."""
    trunk = tower(r, LIKE, activation="gelu_pytorch_tanh", eps=1e-6)
    block, heads = trunk.blocks[0], trunk.blocks[0].attn.heads
    pool = PoolConfig(kind="mean")
    if r.get("vision_use_head", bool, True):
        pool = PoolConfig(kind="attention", heads=heads, ff=block.ff, norm=block.norms.norm)
    codec = image_codec(r, 16, pool, bias=True, class_token=False)
    return BaseConfig(trunks={"image": trunk}, codecs={"image": codec})


def write(cfg: BaseConfig) -> Tree:
    pair = the_pair(cfg)
    size = {"model_type": "siglip_text_model", "projection_size": pair.width}
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": text_tree(cfg) | size,
        "vision_config": write_vision(cfg),
    }


def write_vision(cfg: BaseConfig) -> Tree:
    return image_tree(cfg) | {
        "architectures": ["SiglipVisionModel"],
        "model_type": "siglip_vision_model",
        "vision_use_head": cfg.image.pool.kind == "attention",
    }


def vision_rules(cfg: BaseConfig) -> Rules:
    out, width = image_rules(cfg), cfg.trunks["image"].width
    if cfg.image.pool.kind == "attention":
        for kind in ("weight", "bias"):
            ours = [f"{POOL}.attn.{part}.{kind}" for part in ("q", "k", "v")]
            out.append(split(f"head.attention.in_proj_{kind}", ours, (width,) * 3))
        out += [
            rename("head.probe", f"{POOL}.probe", Reshape((1, 1, width), (width,))),
            *both("head.attention.out_proj", f"{POOL}.attn.o"),
            *both("head.layernorm", f"{POOL}.norm"),
            *both("head.mlp.fc1", f"{POOL}.ff.up"),
            *both("head.mlp.fc2", f"{POOL}.ff.down"),
        ]
    return out


def rules(cfg: BaseConfig) -> Rules:
    return [
        *prefixed(text_rules(cfg), "text_model."),
        *prefixed(vision_rules(half(cfg, "image")), "vision_model."),
        *both("text_model.head", f"{LINK}.dst"),
        rename("logit_scale", f"{LINK}.scale", Reshape((1,), ())),
        rename("logit_bias", f"{LINK}.shift", Reshape((1,), ())),
    ]


FAMILY = Family(("siglip",), read, write, rules)
VISION_FAMILY = Family(
    ("siglip_vision_model",), read_vision, write_vision, vision_rules, spellings=(("vision_model.", ""),)
)
