"""ViT: a class token and patches in a trunk with norms before each part.

The pooler is left out: a matrix and a tanh behind the class token that no head and no embedding uses. Positions can be stretched to
other sizes (transformers: `interpolate_pos_encoding=True`). Source: transformers `models/vit/`, read for names and defaults;
Dosovitskiy et al., 2010.11929.
"""

from onebase.base.config import BaseConfig
from onebase.codec.image.config import ImageCodecConfig, PixelsConfig
from onebase.interop.families.encoder import MAX_DEPTH, PLAIN, THEIRS, block_rules, layer_norm
from onebase.interop.families.vision import (
    MASK,
    TRUNK,
    channels,
    classes_tree,
    head_rules,
    image_base,
    read_classes,
    square,
    stem_rules,
    vision_trunk,
    vision_trunk_of,
)
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rules
from onebase.model.config import NormConfig

PARTS = {
    "attn.q": "attention.attention.query",
    "attn.k": "attention.attention.key",
    "attn.v": "attention.attention.value",
    "attn.o": "attention.output.dense",
    "attn_norm": "layernorm_before",
    "ff.up": "intermediate.dense",
    "ff.down": "output.dense",
    "ff_norm": "layernorm_after",
}
POOLER = Ignore(
    r"(.*\.)?pooler\.dense\.(weight|bias)",
    "heads and embeddings read the class token, not what the pooler makes",
)


def read(r: Reader) -> BaseConfig:
    norm = NormConfig(kind="layer", eps=r.positive("layer_norm_eps", 1e-12))
    width, heads = r.size("hidden_size", 768), r.size("num_attention_heads", 12)
    r.must("head_dim", width // heads, width // heads, "heads share the width")
    trunk = vision_trunk(
        width=width,
        depth=r.size("num_hidden_layers", 12, MAX_DEPTH),
        heads=heads,
        hidden=r.size("intermediate_size", 3072),
        activation=r.one_of("hidden_act", PLAIN, "gelu"),
        norm=norm,
        qkv_bias=r.get("qkv_bias", bool, True),
    )
    codec = ImageCodecConfig(
        kind="image",
        size=square(r, "image_size", 224),
        patch=square(r, "patch_size", 16),
        channels=channels(r),
        pixels=PixelsConfig(filter="bilinear"),
        classes=read_classes(r, "classifier.weight"),
        places_fit="bicubic",
    )
    return image_base(trunk, codec)


def tree(cfg: BaseConfig, model_type: str, stem: str) -> Tree:
    """The keys that the configs of this shape share, from the first block."""
    trunk, codec = vision_trunk_of(cfg), cfg.image
    block = trunk.blocks[0]
    kind = "ForImageClassification" if codec.classes else "Model"
    return {
        "architectures": [stem + kind],
        "model_type": model_type,
        "hidden_size": trunk.width,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.heads,
        "hidden_act": THEIRS.get(block.ff.activation, block.ff.activation),
        "layer_norm_eps": block.norms.norm.eps,
        "image_size": codec.size,
        "patch_size": codec.patch,
        "num_channels": codec.channels,
        "qkv_bias": "q" in block.attn.bias,
        **classes_tree(codec.classes),
    }


def write(cfg: BaseConfig) -> Tree:
    return tree(cfg, "vit", "ViT") | {"intermediate_size": vision_trunk_of(cfg).blocks[0].ff.hidden}


def rules(cfg: BaseConfig) -> Rules:
    a = "vit.embeddings"
    return [
        *stem_rules(cfg, f"{a}.patch_embeddings.projection", f"{a}.position_embeddings", f"{a}.cls_token"),
        *block_rules(cfg, "vit.encoder.layer.{i}", PARTS, "image"),
        *layer_norm("vit.layernorm", f"{TRUNK}.final_norm"),
        *head_rules(cfg, "classifier"),
        MASK,
        POOLER,
    ]


MEMORY = (
    (r"encoder\.layer\.(\d+)\.", r"layers.\1."),
    (r"attention\.attention\.(.)\w+$", r"attention.\1_proj"),
    (r"attention\.output\.dense$", "attention.o_proj"),
    (r"intermediate\.dense$", "mlp.fc1"),
    (r"output\.dense$", "mlp.fc2"),
)
FAMILY = Family(("vit",), read, write, rules, prefix="vit.", memory=MEMORY)
