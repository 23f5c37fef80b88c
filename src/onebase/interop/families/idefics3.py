"""Idefics3 and SmolVLM: SigLIP's tower without its head, squares of neighbouring patches as one vector, one matrix, a text decoder.

An image is one picture; tiles of a large one are images of their own. The positions of patches come from fractions of the picture's
sides; for a whole picture those are the rows of the table in order, but for sizes where the fractions round to others.
Source: transformers `models/idefics3/` and `models/smolvlm/`, read for names, defaults and the rounding; Laurençon et al., 2408.12637.
"""

from dataclasses import replace
from functools import partial

import torch

from onebase.base.config import BaseConfig
from onebase.base.links import ConnectorConfig, Link, connector_places
from onebase.codec.image.config import PoolConfig
from onebase.codec.text.codec import TextCodec
from onebase.errors import ConfigError
from onebase.interop.families.compose import image_token, part_rules, part_tree, read_text, the_connector
from onebase.interop.families.towers import (
    LINK,
    half,
    image_codec,
    image_rules,
    image_tree,
    linked,
    moved,
    prefixed,
    tower,
)
from onebase.interop.family import Family, Tree
from onebase.interop.pictures import PROCESSOR
from onebase.interop.reader import Reader
from onebase.interop.rules import Rules, rename

LIKE = {"hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16}
AROUND, WHOLE = "<fake_token_around_image>", "<global-img>"


def read(r: Reader) -> BaseConfig:
    text = read_text(r, {"model.text_model.": "model."}, own_tie=False)
    image = _read_image(r.part("vision_config"))
    connector = ConnectorConfig(
        token=image_token(r, "image_token_id", 128257, text.text.vocab_size),
        shuffle=r.size("scale_factor", 2),
        bias=False,
    )
    r.checked(lambda: connector_places(connector, image.image))
    return linked(text, image, Link(src="image", dst="text", how="embed", connector=connector))


def _read_image(r: Reader) -> BaseConfig:
    trunk = tower(r, LIKE, activation="gelu_pytorch_tanh", eps=1e-6)
    codec = image_codec(r, 32, PoolConfig(kind="mean"), bias=True, class_token=False)
    side = codec.size // codec.patch
    if not _in_order(side):
        raise r.refuse(
            "image_size", f"one that does not give {side} patches a side, whose positions are rounded"
        )
    return BaseConfig(trunks={"image": trunk}, codecs={"image": codec})


def _in_order(side: int) -> bool:
    """Whether fractions of a side, in fp32, fall into as many boxes one by one."""
    bounds = torch.arange(1 / side, 1.0, 1 / side)
    at = (torch.arange(side, dtype=torch.float32) * (1.0 / torch.tensor(side))).clamp(max=1 - 1e-6)
    return torch.equal(torch.bucketize(at, bounds, right=True), torch.arange(side))


def told(cfg: BaseConfig, words: TextCodec) -> BaseConfig:
    """The tokens around a whole picture, where the tokenizer has them."""
    ids = [words.tokenizer.specials.get(name) for name in (AROUND, WHOLE)]
    if ids[0] is None or ids[1] is None:
        return cfg
    connector = replace(the_connector(cfg), before=(ids[0], ids[1]), after=(ids[0],))
    return replace(cfg, links=(replace(cfg.links[0], connector=connector),))


def write(cfg: BaseConfig, model_type: str, name: str) -> Tree:
    connector = the_connector(cfg)
    if connector.hidden is not None or connector.block is not None or connector.skip:
        raise ConfigError(
            f"its connector reads block {connector.block}, skips {connector.skip} and is {connector.hidden} wide inside",
            "there a connector of one matrix reads all states after the last norm",
        )
    return {
        "architectures": [f"{name}ForConditionalGeneration"],
        "model_type": model_type,
        "image_token_id": connector.token,
        "scale_factor": connector.shuffle,
        "tie_word_embeddings": cfg.text.tied,
        "text_config": part_tree(cfg, "text"),
        "vision_config": image_tree(cfg) | {"model_type": f"{model_type}_vision"},
    }


def rules(cfg: BaseConfig) -> Rules:
    return [
        *moved(part_rules(cfg, "text"), {"model.": "model.text_model."}),
        *prefixed(image_rules(half(cfg, "image")), "model.vision_model."),
        rename("model.connector.modality_projection.proj.weight", f"{LINK}.first.weight"),
    ]


def beside(cfg: BaseConfig, name: str) -> dict[str, Tree]:
    """What their processor of images and text needs to know."""
    places = connector_places(the_connector(cfg), cfg.image)
    return {PROCESSOR: {"processor_class": f"{name}Processor", "image_seq_len": places}}


def _family(model_type: str, name: str) -> Family:
    return Family(
        (model_type,),
        read,
        partial(write, model_type=model_type, name=name),
        rules,
        told=told,
        beside=partial(beside, name=name),
    )


FAMILY = _family("idefics3", "Idefics3")
SMOLVLM = _family("smolvlm", "SmolVLM")
