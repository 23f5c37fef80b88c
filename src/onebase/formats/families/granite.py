"""Granite 3 (dense): Llama with multipliers of embeddings, attention scores and residual updates, and a divisor of logits.

Source: transformers `models/granite/configuration_granite.py` and `modeling_granite.py`, read for names, defaults and use of the multipliers.
"""

from onebase.formats.families.decoder import Rope, decoder_family, decoder_lines
from onebase.formats.families.llama import BIASES
from onebase.formats.family import Tree
from onebase.formats.fields import Field, Found, View, number
from onebase.formats.reader import ConfigReader


def multiplier(key: str, path: str) -> Field:
    """A factor; 1 is None in our config."""
    return Field(
        key,
        path,
        ConfigReader.positive,
        1.0,
        into=lambda x: None if x == 1 else x,
        back=lambda x: 1.0 if x is None else x,
    )


class ScaleLine:
    """The attention scale; our default if it is 1/sqrt(head_dim)."""

    def read(self, r: ConfigReader, found: Found) -> None:
        scale, default = r.positive("attention_multiplier", 1.0), found["block.attn.head_dim"] ** -0.5
        found["block.attn.scale"] = None if scale == default else scale

    def write(self, base: View, tree: Tree) -> None:
        scale = base["block.attn.scale"]
        tree["attention_multiplier"] = base["block.attn.head_dim"] ** -0.5 if scale is None else scale


FAMILY = decoder_family(
    "granite",
    *decoder_lines("granite", "Granite", context=2048),
    Rope(),
    ScaleLine(),
    multiplier("embedding_multiplier", "codec.scale"),
    multiplier("logits_scaling", "codec.divisor"),
    number("residual_multiplier", "block.residual", 1.0),
    *BIASES,
)
