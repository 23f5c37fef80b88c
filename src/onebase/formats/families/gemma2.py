"""Gemma 2: norms before and after attention and feed-forward with weights 1 + w, soft-caps on attention scores and logits, a sliding window in
every other block, embeddings scaled by the square root of the width.

Source: transformers `models/gemma2/configuration_gemma2.py` and `modeling_gemma2.py`, read for names, defaults and the norms' order.
"""

from dataclasses import replace
from typing import Any

from onebase.formats.families import decoder
from onebase.formats.families.llama import BIASES
from onebase.formats.family import Tree
from onebase.formats.fields import Found, Line, Must, Set, View, number
from onebase.formats.reader import ConfigReader
from onebase.model.config import NormConfig, Norms, TrunkConfig

SANDWICH = decoder.PLAIN | {
    "input_layernorm": "block.attn_norm",
    "post_attention_layernorm": "block.attn_out_norm",
    "pre_feedforward_layernorm": "block.ff_norm",
    "post_feedforward_layernorm": "block.ff_out_norm",
}
NORM = NormConfig(offset=1.0)


def gemma_trunk(**attn: Any) -> TrunkConfig:
    """The pattern of Gemma 2 and 3; `attn`: fields of their attention."""
    trunk = replace(decoder.DECODER, final_norm=NORM)
    return decoder.patterned(trunk, norms=Norms(norm=NORM, where="sandwich"), attn=attn)


class Divisor:
    """The square of the divisor of attention scores; our scale is the default if it equals the head width."""

    def read(self, r: ConfigReader, found: Found) -> None:
        divisor = r.size("query_pre_attn_scalar", 256)
        found["block.attn.scale"] = None if divisor == found["block.attn.head_dim"] else divisor**-0.5

    def write(self, base: View, tree: Tree) -> None:
        scale = base["block.attn.scale"]
        tree["query_pre_attn_scalar"] = base["block.attn.head_dim"] if scale is None else round(scale**-2)


class Activated:
    """The activation under the key that older readers use."""

    def read(self, r: ConfigReader, found: Found) -> None:
        pass

    def write(self, base: View, tree: Tree) -> None:
        tree["hidden_act"] = tree["hidden_activation"]


def gemma_lines(model_type: str, name: str, context: int) -> tuple[Line, ...]:
    """The lines that Gemma 2 and 3 share."""
    return (
        Must("use_bidirectional_attention", False, "this family is a decoder"),
        *decoder.decoder_lines(
            model_type,
            name,
            context=context,
            kv_heads=4,
            head_dim=256,
            tied=True,
            activation=("hidden_activation", "gelu_pytorch_tanh"),
        ),
        Activated(),
        Set("codec.scale", lambda r, found: found["trunk.width"] ** 0.5),
        Divisor(),
        BIASES[0],
    )


FAMILY = decoder.decoder_family(
    "gemma2",
    *gemma_lines("gemma2", "Gemma2", 8192),
    decoder.Rope(),
    decoder.Windows(lambda found, i: i % 2 == 0, always=True),
    number("attn_logit_softcapping", "block.attn.softcap", 50.0, null=None),
    number("final_logit_softcapping", "codec.softcap", 30.0, null=None),
    trunk=gemma_trunk(),
    block=SANDWICH,
)
