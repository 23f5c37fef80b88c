"""LLaVA: a tower of images, a connector of two matrices, and a text decoder that reads its vectors in the places of a token.

Source: transformers `models/llava/`, read for names, defaults and which states are read; Liu et al., 2304.08485 and 2310.03744.
"""

from onebase.base.config import BaseConfig
from onebase.base.links import ConnectorConfig, Link, connector_places
from onebase.errors import ConfigError
from onebase.interop.families.compose import (
    image_token,
    part_rules,
    part_tree,
    read_image,
    read_text,
    the_connector,
)
from onebase.interop.families.encoder import PLAIN, THEIRS
from onebase.interop.families.towers import LINK, linked, prefixed
from onebase.interop.family import Family, Tree
from onebase.interop.pictures import PROCESSOR
from onebase.interop.reader import Reader
from onebase.interop.rules import Rules, rename

SPELLINGS = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.vision_tower.vision_model.", "vision_tower."),
    ("model.vision_tower.", "vision_tower."),
    ("vision_tower.vision_model.", "vision_tower."),
)
"""How names begin in memory, and in checkpoints of other years."""


def read(r: Reader) -> BaseConfig:
    text = read_text(r, {"language_model.": "", "model.language_model.": "model."}, own_tie=True)
    image = read_image(r, "clip_vision_model")
    key = "image_token_id" if r.has("image_token_id") else "image_token_index"
    connector = ConnectorConfig(
        token=image_token(r, key, 32000, text.text.vocab_size),
        block=_block(r, len(image.trunks["image"].blocks)),
        skip=r.one_of("vision_feature_select_strategy", {"default": 1, "full": 0}, "default"),
        hidden=text.trunks["text"].width,
        activation=r.one_of("projector_hidden_act", PLAIN, "gelu"),
        bias=r.get("multimodal_projector_bias", bool, True),
    )
    r.checked(lambda: connector_places(connector, image.image))
    return linked(text, image, Link(src="image", dst="text", how="embed", connector=connector))


def _block(r: Reader, depth: int) -> int:
    """Whose output is read, counted from the last block. Theirs are counted with the tower's input as the first of depth + 1."""
    layer = r.get("vision_feature_layer", int, -2)
    found = -1 - layer if layer < 0 else depth - layer
    if not 0 <= found < depth:
        raise r.refuse("vision_feature_layer", f"-{depth} to -1, or 1 to {depth}: the output of one block")
    return found


def write(cfg: BaseConfig) -> Tree:
    connector = the_connector(cfg)
    if connector.block is None or connector.skip > 1 or connector.hidden is None:
        raise ConfigError(
            f"its connector reads block {connector.block}, skips {connector.skip} and is {connector.hidden} wide inside",
            "there a connector of two matrices reads one block's output and skips one place at most",
        )
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": connector.token,
        "image_seq_length": connector_places(connector, cfg.image),
        "vision_feature_layer": -1 - connector.block,
        "vision_feature_select_strategy": "default" if connector.skip else "full",
        "projector_hidden_act": THEIRS.get(connector.activation, connector.activation),
        "multimodal_projector_bias": connector.bias,
        "tie_word_embeddings": cfg.text.tied,
        "text_config": part_tree(cfg, "text"),
        "vision_config": part_tree(cfg, "image"),
    }


def rules(cfg: BaseConfig) -> Rules:
    kinds = ("weight", "bias") if the_connector(cfg).bias else ("weight",)
    parts = (("linear_1", "first"), ("linear_2", "second"))
    return [
        *prefixed(part_rules(cfg, "text"), "language_model."),
        *prefixed(part_rules(cfg, "image"), "vision_tower."),
        *(rename(f"multi_modal_projector.{a}.{k}", f"{LINK}.{b}.{k}") for a, b in parts for k in kinds),
    ]


def beside(cfg: BaseConfig) -> dict[str, Tree]:
    """What their processor of images and text needs to know."""
    front = int(cfg.image.class_token) + cfg.image.registers
    tree = {
        "processor_class": "LlavaProcessor",
        "patch_size": cfg.image.patch,
        "num_additional_image_tokens": front,
        "vision_feature_select_strategy": "default" if the_connector(cfg).skip else "full",
    }
    return {PROCESSOR: tree}


MEMORY = (
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.(?=lm_head\.)", ""),
    (r"^(?=vision_tower\.|multi_modal_projector\.)", "model."),
)
FAMILY = Family(("llava",), read, write, rules, spellings=SPELLINGS, beside=beside, memory=MEMORY)
