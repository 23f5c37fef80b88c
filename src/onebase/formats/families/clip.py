"""CLIP: an image tower and a causal text tower with a shared space, and the image tower alone.

The text embedding is that of its end token. Configs from before June 2023 have `eos_token_id: 2`, which does not end a text; then the
position of the greatest id counts, which is that of the end token.
Source: transformers `models/clip/`, read for names, defaults and that rule; Radford et al., 2103.00020.
"""

from dataclasses import replace

from onebase.base.config import BaseConfig
from onebase.base.links import Link, PairConfig
from onebase.formats.families import towers
from onebase.formats.families.decoder import TEXT
from onebase.formats.families.encoder import NORM
from onebase.formats.families.vision import IMAGE, picture_lines
from onebase.formats.family import Family, Tree
from onebase.formats.fields import Found, Part, Put, Table, View, size
from onebase.formats.names import Names, rules_of, table_family
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Rules
from onebase.modality.image.config import PixelsConfig
from onebase.modality.text.pooling import EmbeddingConfig

OLD_END = 2
PIXELS = PixelsConfig(
    resize="crop",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""Defaults of the first models: means and deviations of their training data."""
TEXT_TABLE = Table(
    (
        *towers.tower_lines("clip_text_model", (512, 2048, 12, 8), "quick_gelu", 1e-5),
        *towers.text_lines(49408, 77),
    ),
    replace(towers.TOWER, direction="causal"),
    replace(TEXT, head=False),
)
VISION_TABLE = Table(
    (
        Put({"architectures": ["CLIPVisionModel"]}),
        *towers.tower_lines("clip_vision_model", (768, 3072, 12, 12), "quick_gelu", 1e-5),
        *picture_lines(32),
    ),
    replace(towers.TOWER, input_norm=NORM),
    replace(IMAGE, bias=False, pixels=PIXELS),
)


class End:
    """The end token of a text; None if the config has the old rule."""

    def read(self, r: ConfigReader, found: Found) -> None:
        text, vocabulary = towers.sub_config(r, "text_config"), found["parts"][0].text.vocab_size
        end = text.get("eos_token_id", int, 49407)
        if not 0 <= end < vocabulary:
            raise text.refuse("eos_token_id", f"a token of the vocabulary, 0 to {vocabulary - 1}")
        found["link.pair.pool.ends"] = None if end == OLD_END else end

    def write(self, base: View, tree: Tree) -> None:
        end = base["link.pair.pool.ends"]
        tree["text_config"]["eos_token_id"] = OLD_END if end is None else end


TABLE = Table(
    (
        Put({"architectures": ["CLIPModel"], "model_type": "clip"}),
        Part("text_config", TEXT_TABLE, towers.sub_config),
        Part("vision_config", VISION_TABLE, towers.sub_config),
        size("projection_dim", "link.pair.width", 512),
        End(),
    ),
    link=Link(src="image", dst="text", how="pair", pair=PairConfig(pool=EmbeddingConfig(pooling="last"))),
)
PAIR: Names = [
    ("visual_projection", "link.src"),
    ("text_projection", "link.dst"),
    ("logit_scale", "link.scale"),
]


def vision_names(cfg: BaseConfig) -> Names:
    own: Names = [
        ("embeddings.class_embedding", "codec.class_token"),
        ("pre_layrnorm", "trunk.input_norm"),  # sic
    ]
    return [*own, *towers.image_names(cfg)]


def rules(cfg: BaseConfig) -> Rules:
    text, image = rules_of(cfg, "text", towers.TEXT_NAMES), rules_of(cfg, "image", vision_names(cfg))
    return [
        *towers.prefixed(text, "text_model."),
        *towers.prefixed(image, "vision_model."),
        *rules_of(cfg, "text", PAIR),
    ]


FAMILY = Family(("clip",), TABLE.read, TABLE.write, rules)
VISION_FAMILY = table_family(
    "clip_vision_model", VISION_TABLE, vision_names, checkpoint_prefixes=(("vision_model.", ""),)
)
