"""Idefics3 and SmolVLM: SigLIP's tower without its head, squares of adjacent patches concatenated to one vector, one matrix, a text decoder.

An image is read as a whole; tiles of a large one are separate images. The positions of patches come from fractions of the image's
sides; for a whole image those are the rows of the table in order, except for sizes where the fractions round to other rows.
Source: transformers `models/idefics3/` and `models/smolvlm/`, read for names, defaults and the rounding; Laurençon et al., 2408.12637.
"""

from dataclasses import replace
from functools import partial

import torch

from onebase.base.config import BaseConfig
from onebase.base.links import ConnectorConfig, Link, connector_places
from onebase.formats.families.compose import (
    ImageToken,
    OneMatrix,
    TextTrunkPart,
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
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Rules
from onebase.modality.image.config import PoolConfig
from onebase.modality.text.codec import TextCodec

AROUND, WHOLE = "<fake_token_around_image>", "<global-img>"
CONNECTOR = ("model.connector.modality_projection.proj", "link.first")


def _ordered(r: ConfigReader, found: Found) -> None:
    """Refuse sizes whose fractions of a side, in fp32, do not map one by one to the rows of the table."""
    side = found["codec.size"] // found["codec.patch"]
    bounds = torch.arange(1 / side, 1.0, 1 / side) if side else torch.empty(0)
    at = (torch.arange(side, dtype=torch.float32) * (1.0 / torch.tensor(side))).clamp(max=1 - 1e-6)
    if not torch.equal(torch.bucketize(at, bounds, right=True), torch.arange(side)):
        accepted = f"a size other than {side} patches per side, whose positions are rounded"
        raise r.refuse("image_size", accepted)


def with_tokenizer(cfg: BaseConfig, codec: TextCodec) -> BaseConfig:
    """The config with the tokens around a whole image, if the tokenizer has them."""
    ids = [codec.tokenizer.specials.get(name) for name in (AROUND, WHOLE)]
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
    """The config of their processor of images and text."""
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
            TextTrunkPart({"model.text_model.": "model."}, own_tie=False),
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
        with_tokenizer=with_tokenizer,
        beside=partial(beside, name=name),
    )


FAMILY = _family("idefics3", "Idefics3")
SMOLVLM = _family("smolvlm", "SmolVLM")
