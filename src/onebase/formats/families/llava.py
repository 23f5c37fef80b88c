"""LLaVA: an image tower, a connector of two matrices, and a text decoder that reads the image vectors at the positions of a token.

Source: transformers `models/llava/`, read for names, defaults and the states that are read; Liu et al., 2304.08485 and 2310.03744.
"""

from functools import partial

from onebase.base.config import BaseConfig
from onebase.base.links import ConnectorConfig, Link, connector_places
from onebase.errors import ConfigError
from onebase.formats.families import compose
from onebase.formats.families.encoder import PLAIN
from onebase.formats.families.towers import prefixed
from onebase.formats.family import Family, Tree
from onebase.formats.fields import Found, Put, Set, Table, View, choice, flag
from onebase.formats.hf.pictures import PROCESSOR
from onebase.formats.names import Names, rules_of
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Rules

CHECKPOINT_PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.vision_tower.vision_model.", "vision_tower."),
    ("model.vision_tower.", "vision_tower."),
    ("vision_tower.vision_model.", "vision_tower."),
)
"""Prefixes of names in memory, and in checkpoints of other versions."""


class LayerLine:
    """The block whose output is read, counted from the last. Theirs count depth + 1 states, of which the tower's input is the first."""

    def read(self, r: ConfigReader, found: Found) -> None:
        depth = len(found["parts"][1].trunks["image"].blocks)
        layer = r.get("vision_feature_layer", int, -2)
        block = -1 - layer if layer < 0 else depth - layer
        if not 0 <= block < depth:
            accepted = f"-{depth} to -1, or 1 to {depth}: the output of one block"
            raise r.refuse("vision_feature_layer", accepted)
        found["link.connector.block"] = block

    def write(self, base: View, tree: Tree) -> None:
        connector = compose.the_connector(base.cfg)
        if connector.block is None or connector.skip > 1 or connector.hidden is None:
            raise ConfigError(
                f"the connector reads block {connector.block}, skips {connector.skip} positions and has hidden size {connector.hidden}",
                "this layout needs a connector of two matrices that reads one block's output and skips at most one position",
            )
        tree["vision_feature_layer"] = -1 - connector.block
        tree["image_seq_length"] = connector_places(connector, base.cfg.image)


TABLE = Table(
    (
        Put({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"}),
        compose.TextTrunkPart({"language_model.": "", "model.language_model.": "model."}, own_tie=True),
        compose.ImagePart("clip_vision_model"),
        compose.ImageToken(("image_token_id", "image_token_index"), 32000),
        LayerLine(),
        choice("vision_feature_select_strategy", "link.connector.skip", {"default": 1, "full": 0}, "default"),
        Set("link.connector.hidden", lambda r, found: found["parts"][0].trunks["text"].width),
        choice("projector_hidden_act", "link.connector.activation", PLAIN, "gelu"),
        flag("multimodal_projector_bias", "link.connector.bias", True),
    ),
    link=Link(src="image", dst="text", how="embed", connector=ConnectorConfig(token=0)),
)
CONNECTOR: Names = [
    ("multi_modal_projector.linear_1", "link.first"),
    ("multi_modal_projector.linear_2", "link.second"),
]


def rules(cfg: BaseConfig) -> Rules:
    text, image = compose.part_rules(cfg, "text"), compose.part_rules(cfg, "image")
    connector = rules_of(cfg, "text", CONNECTOR)
    return [*prefixed(text, "language_model."), *prefixed(image, "vision_tower."), *connector]


def beside(cfg: BaseConfig) -> dict[str, Tree]:
    """The config of their processor of images and text."""
    extra = int(cfg.image.class_token) + cfg.image.registers
    tree = {
        "processor_class": "LlavaProcessor",
        "patch_size": cfg.image.patch,
        "num_additional_image_tokens": extra,
        "vision_feature_select_strategy": "default" if compose.the_connector(cfg).skip else "full",
    }
    return {PROCESSOR: tree}


MEMORY = (
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.(?=lm_head\.)", ""),
    (r"^(?=vision_tower\.|multi_modal_projector\.)", "model."),
)
FAMILY = Family(
    ("llava",),
    partial(compose.read_whole, table=TABLE),
    TABLE.write,
    rules,
    checkpoint_prefixes=CHECKPOINT_PREFIXES,
    beside=beside,
    memory=MEMORY,
)
