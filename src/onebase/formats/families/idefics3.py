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
from onebase.formats.families.compose import (
    ImageToken,
    OneMatrix,
    TextPart,
    part_rules,
    read_whole,
    the_connector,
)
from onebase.formats.families.towers import TOWER, image_names, moved, prefixed, tower_lines
from onebase.formats.families.vision import IMAGE, picture_lines
from onebase.formats.family import Family, Tree
from onebase.formats.fields import Found, Part, Put, Set, Table, size
from onebase.formats.hf.pictures import PROCESSOR
from onebase.formats.names import rules_of
from onebase.formats.reader import Reader
from onebase.formats.rules import Rules

AROUND, WHOLE = "<fake_token_around_image>", "<global-img>"
CONNECTOR = ("model.connector.modality_projection.proj", "link.first")


def _ordered(r: Reader, found: Found) -> None:
    """Refuse sizes at which fractions of a side, in fp32, do not fall into as many boxes one by one."""
    side = found["codec.size"] // found["codec.patch"]
    bounds = torch.arange(1 / side, 1.0, 1 / side) if side else torch.empty(0)
    at = (torch.arange(side, dtype=torch.float32) * (1.0 / torch.tensor(side))).clamp(max=1 - 1e-6)
    if not torch.equal(torch.bucketize(at, bounds, right=True), torch.arange(side)):
        accepted = f"one that does not give {side} patches a side, whose positions are rounded"
        raise r.refuse("image_size", accepted)


def told(cfg: BaseConfig, words: TextCodec) -> BaseConfig:
    """The tokens around a whole picture, where the tokenizer has them."""
    ids = [words.tokenizer.specials.get(name) for name in (AROUND, WHOLE)]
    if ids[0] is None or ids[1] is None:
        return cfg
    connector = replace(the_connector(cfg), before=(ids[0], ids[1]), after=(ids[0],))
    return replace(cfg, links=(replace(cfg.links[0], connector=connector),))


def rules(cfg: BaseConfig) -> Rules:
    return [
        *moved(part_rules(cfg, "text"), {"model.": "model.text_model."}),
        *prefixed(rules_of(cfg, "image", image_names(cfg)), "model.vision_model."),
        *rules_of(cfg, "text", [CONNECTOR]),
    ]


def beside(cfg: BaseConfig, name: str) -> dict[str, Tree]:
    """What their processor of images and text needs to know."""
    places = connector_places(the_connector(cfg), cfg.image)
    return {PROCESSOR: {"processor_class": f"{name}Processor", "image_seq_len": places}}


def _family(model_type: str, name: str) -> Family:
    vision = Table(
        (
            *tower_lines(f"{model_type}_vision", (1152, 3072, 12, 16), "gelu_pytorch_tanh", 1e-6),
            *picture_lines(32),
            Set("", _ordered),
        ),
        TOWER,
        replace(IMAGE, class_token=False, pool=PoolConfig(kind="mean")),
    )
    table = Table(
        (
            Put({"architectures": [f"{name}ForConditionalGeneration"], "model_type": model_type}),
            OneMatrix(),
            TextPart({"model.text_model.": "model."}, own_tie=False),
            Part("vision_config", vision),
            ImageToken(("image_token_id",), 128257),
            size("scale_factor", "link.connector.shuffle", 2),
        ),
        link=Link(src="image", dst="text", how="embed", connector=ConnectorConfig(token=0, bias=False)),
    )
    return Family(
        (model_type,),
        partial(read_whole, table=table),
        table.write,
        rules,
        told=told,
        beside=partial(beside, name=name),
    )


FAMILY = _family("idefics3", "Idefics3")
SMOLVLM = _family("smolvlm", "SmolVLM")
