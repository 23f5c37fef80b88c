"""ViT: a class token and patches in a trunk with norms before each part.

The pooler is left out: a matrix and a tanh behind the class token that no head and no embedding uses. Positions can be stretched to
other sizes (transformers: `interpolate_pos_encoding=True`). Source: transformers `models/vit/`, read for names and defaults;
Dosovitskiy et al., 2010.11929.
"""

from dataclasses import replace

from onebase.base.config import BaseConfig
from onebase.codec.image.config import PixelsConfig
from onebase.interop.families.encoder import ENCODER, trunk_lines
from onebase.interop.families.vision import IMAGE, Classes, vit_lines, vit_names
from onebase.interop.family import Family
from onebase.interop.fields import Table
from onebase.interop.names import rules_of, under
from onebase.interop.rules import Ignore, Rules

ATTENTION = {
    "attention.attention.query": "block.attn.q",
    "attention.attention.key": "block.attn.k",
    "attention.attention.value": "block.attn.v",
    "attention.output.dense": "block.attn.o",
}
BLOCK = ATTENTION | {
    "layernorm_before": "block.attn_norm",
    "intermediate.dense": "block.ff.up",
    "output.dense": "block.ff.down",
    "layernorm_after": "block.ff_norm",
}
POOLER = Ignore(
    r"(.*\.)?pooler\.dense\.(weight|bias)",
    "heads and embeddings read the class token, not what the pooler makes",
)
TABLE = Table(
    (*vit_lines("vit", 16, 1e-12), *trunk_lines()[4:], Classes("ViT")),
    ENCODER,
    replace(IMAGE, pixels=PixelsConfig(filter="bilinear"), places_fit="bicubic"),
)


def rules(cfg: BaseConfig) -> Rules:
    block = under("vit.encoder.layer.{i}.", BLOCK)
    return rules_of(cfg, "image", [*vit_names(cfg, "vit."), *block, POOLER])


MEMORY = (
    (r"encoder\.layer\.(\d+)\.", r"layers.\1."),
    (r"attention\.attention\.(.)\w+$", r"attention.\1_proj"),
    (r"attention\.output\.dense$", "attention.o_proj"),
    (r"intermediate\.dense$", "mlp.fc1"),
    (r"output\.dense$", "mlp.fc2"),
)
FAMILY = Family(("vit",), TABLE.read, TABLE.write, rules, prefix="vit.", memory=MEMORY)
