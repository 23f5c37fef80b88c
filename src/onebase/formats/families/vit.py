"""ViT: a class token and patches in a pre-norm trunk.

The pooler is left out: no head and no embedding uses its matrix and tanh after the class token. Positions can be interpolated to
other sizes (transformers: `interpolate_pos_encoding=True`). Source: transformers `models/vit/`, read for names and defaults;
Dosovitskiy et al., 2010.11929.
"""

from dataclasses import replace

from onebase.base.config import BaseConfig
from onebase.formats.families.encoder import ENCODER, trunk_lines
from onebase.formats.families.vision import IMAGE, Classes, vit_lines, vit_names
from onebase.formats.fields import Table
from onebase.formats.names import Names, block_names, table_family, under
from onebase.formats.rules import Ignore
from onebase.modality.image.config import PixelsConfig

ATTENTION = (
    "attention.attention.query attention.attention.key attention.attention.value attention.output.dense"
)
BLOCK = block_names(f"{ATTENTION} layernorm_before intermediate.dense output.dense layernorm_after")
POOLER = Ignore(
    r"(.*\.)?pooler\.dense\.(weight|bias)",
    "heads and embeddings read the class token, not the pooler's output",
)
TABLE = Table(
    (*vit_lines("vit", 16, 1e-12), *trunk_lines()[4:], Classes("ViT")),
    ENCODER,
    replace(IMAGE, pixels=PixelsConfig(filter="bilinear"), places_fit="bicubic"),
)


def names(cfg: BaseConfig) -> Names:
    return [*vit_names(cfg, "vit."), *under("vit.encoder.layer.{i}.", BLOCK), POOLER]


MEMORY = (
    (r"encoder\.layer\.(\d+)\.", r"layers.\1."),
    (r"attention\.attention\.(.)\w+$", r"attention.\1_proj"),
    (r"attention\.output\.dense$", "attention.o_proj"),
    (r"intermediate\.dense$", "mlp.fc1"),
    (r"output\.dense$", "mlp.fc2"),
)
FAMILY = table_family("vit", TABLE, names, prefix="vit.", memory=MEMORY)
