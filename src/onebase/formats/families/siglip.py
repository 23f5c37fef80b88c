"""SigLIP, and SigLIP 2 of fixed size: bidirectional image and text towers with a shared space, and the image tower alone.

A text is padded to the whole context with the padding token, which is attended like any other; its embedding comes from the last
position. The image embedding is pooled by a learned query. Scores are computed per pair, with a learned bias.
Source: transformers `models/siglip/`, read for names and defaults; Zhai et al., 2303.15343.
"""

from dataclasses import replace

from onebase.base.config import BaseConfig
from onebase.base.links import Link, PairConfig
from onebase.formats.families import towers
from onebase.formats.families.decoder import TEXT
from onebase.formats.families.vision import IMAGE, picture_lines
from onebase.formats.family import Family, Tree
from onebase.formats.fields import Found, Part, Put, Table, View
from onebase.formats.names import Names, rules_of, table_family
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Lead, Rules
from onebase.modality.image.config import PoolConfig
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.model.config import FFConfig, NormConfig

LIKE = (768, 3072, 12, 12)


class PoolLine:
    """The pooling of an image: attention of a learned query, or without a head the mean of the patches."""

    def read(self, r: ConfigReader, found: Found) -> None:
        found["codec.pool"] = PoolConfig(kind="mean")
        if r.get("vision_use_head", bool, True):
            found["codec.pool"] = PoolConfig(
                kind="attention",
                heads=found["block.attn.heads"],
                ff=FFConfig(
                    hidden=found["block.ff.hidden"], activation=found["block.ff.activation"], bias=True
                ),
                norm=NormConfig(kind="layer", eps=found["block.norms.norm.eps"]),
            )

    def write(self, base: View, tree: Tree) -> None:
        tree["vision_use_head"] = base["codec.pool.kind"] == "attention"


class Width:
    """The width of the shared space: that of the image tower, which has no projection."""

    def read(self, r: ConfigReader, found: Found) -> None:
        text, width = towers.sub_config(r, "text_config"), found["parts"][0].trunks["text"].width
        image = found["parts"][1].trunks["image"].width
        towers.sub_config(r, "vision_config").must(
            "vision_use_head", True, True, "the tower's head computes the image embedding"
        )
        found["link.pair.width"] = text.size("projection_size", width)
        if found["link.pair.width"] != image:
            raise text.refuse("projection_size", f"{image}, the hidden_size of the image tower")

    def write(self, base: View, tree: Tree) -> None:
        tree["text_config"]["projection_size"] = base["link.pair.width"]


TEXT_TABLE = Table(
    (
        *towers.tower_lines("siglip_text_model", LIKE, "gelu_pytorch_tanh", 1e-6),
        *towers.text_lines(32000, 64),
    ),
    towers.TOWER,
    replace(TEXT, head=False),
)
VISION_TABLE = Table(
    (
        Put({"architectures": ["SiglipVisionModel"]}),
        *towers.tower_lines("siglip_vision_model", LIKE, "gelu_pytorch_tanh", 1e-6),
        *picture_lines(16),
        PoolLine(),
    ),
    towers.TOWER,
    replace(IMAGE, class_token=False),
)
PAIR = PairConfig(
    project_src=False, dst_bias=True, shift=True, pool=EmbeddingConfig(pooling="last", filled=True)
)
TABLE = Table(
    (
        Put({"architectures": ["SiglipModel"], "model_type": "siglip"}),
        Part("text_config", TEXT_TABLE, towers.sub_config),
        Part("vision_config", VISION_TABLE, towers.sub_config),
        Width(),
    ),
    link=Link(src="image", dst="text", how="pair", pair=PAIR),
)
POOL: Names = [
    (
        "head.attention.in_proj_weight",
        "codec.pool.attn.q.weight codec.pool.attn.k.weight codec.pool.attn.v.weight",
    ),
    ("head.attention.in_proj_bias", "codec.pool.attn.q.bias codec.pool.attn.k.bias codec.pool.attn.v.bias"),
    ("head.probe", "codec.pool.probe", Lead(2)),
    ("head.attention.out_proj", "codec.pool.attn.o"),
    ("head.layernorm", "codec.pool.norm"),
    ("head.mlp.fc1", "codec.pool.ff.up"),
    ("head.mlp.fc2", "codec.pool.ff.down"),
]
SPACE: Names = [
    ("text_model.head", "link.dst"),
    ("logit_scale", "link.scale", Lead()),
    ("logit_bias", "link.shift", Lead()),
]


def vision_names(cfg: BaseConfig) -> Names:
    return [*towers.image_names(cfg), *POOL]


def rules(cfg: BaseConfig) -> Rules:
    text, image = rules_of(cfg, "text", towers.TEXT_NAMES), rules_of(cfg, "image", vision_names(cfg))
    return [
        *towers.prefixed(text, "text_model."),
        *towers.prefixed(image, "vision_model."),
        *rules_of(cfg, "text", SPACE),
    ]


FAMILY = Family(("siglip",), TABLE.read, TABLE.write, rules)
VISION_FAMILY = table_family(
    "siglip_vision_model", VISION_TABLE, vision_names, checkpoint_prefixes=(("vision_model.", ""),)
)
