"""GPT-2: learned positions, layer norms, all biases, transposed matrices, fused q, k and v.

Source: transformers `models/gpt2/configuration_gpt2.py` and `modeling_gpt2.py`, read for names, defaults and scales.
"""

from dataclasses import replace

import torch
from torch import Tensor

from onebase.formats.families.decoder import MAX_VOCABULARY, NO_TOKENS, TEXT, UNPACKED, HeadLine
from onebase.formats.families.encoder import ENCODER, EPS, PLAIN, trunk_lines
from onebase.formats.family import Tree
from onebase.formats.fields import Each, Found, Must, Put, Table, View, choice, number, size
from onebase.formats.names import Names, table_family
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Ignore, Transpose


class Inner:
    """Width of the feed-forward; null means four times the trunk's width."""

    def read(self, r: ConfigReader, found: Found) -> None:
        found["block.ff.hidden"] = r.size_or_none("n_inner", None) or 4 * found["trunk.width"]

    def write(self, base: View, tree: Tree) -> None:
        hidden = base["block.ff.hidden"]
        tree["n_inner"] = None if hidden == 4 * base["trunk.width"] else hidden


class Scales:
    """The attention scale of block i: 1/sqrt(head_dim) or 1, divided by i + 1 if it decreases with depth."""

    def read(self, r: ConfigReader, found: Found) -> None:
        default = found["block.attn.head_dim"] ** -0.5
        scale = default if r.get("scale_attn_weights", bool, True) else 1.0
        decreasing = r.get("scale_attn_by_inverse_layer_idx", bool, False)
        scales = [scale / (i + 1 if decreasing else 1) for i in range(found["trunk.depth"])]
        found["block.attn.scale"] = Each(None if x == default else x for x in scales)

    def write(self, base: View, tree: Tree) -> None:
        scales = base.each("block.attn.scale")
        tree["scale_attn_weights"] = scales[0] is None
        tree["scale_attn_by_inverse_layer_idx"] = scales[0] != scales[min(1, len(scales) - 1)]


class Context:
    """The number of positions, under two keys."""

    def read(self, r: ConfigReader, found: Found) -> None:
        found |= dict.fromkeys(("codec.context", "codec.positions"), r.size("n_positions", 1024, 2**24))

    def write(self, base: View, tree: Tree) -> None:
        tree |= dict.fromkeys(("n_positions", "n_ctx"), base["codec.context"])


TABLE = Table(
    (
        Must("add_cross_attention", False, "the trunk has no cross-attention"),
        UNPACKED,
        NO_TOKENS,
        Put({"model_type": "gpt2"}),
        *trunk_lines(("n_embd", 768), ("n_head", 12), ("n_layer", 12))[:4],
        Inner(),
        choice("activation_function", "block.ff.activation", {"gelu_new": "gelu_tanh"} | PLAIN, "gelu_new"),
        number("layer_norm_epsilon", EPS, 1e-5),
        Scales(),
        size("vocab_size", "codec.vocab_size", 50257, MAX_VOCABULARY),
        Context(),
        HeadLine("GPT2", True, "LMHeadModel"),
    ),
    replace(ENCODER, direction="causal"),
    TEXT,
)


def _triangle(x: Tensor) -> bool:
    """Is a buffer the causal mask?"""
    side = x.shape[-1] if x.ndim else 0
    if x.numel() != side * side or x.ndim < 2:
        return False
    return torch.equal(x.reshape(side, side) != 0, torch.ones(side, side, dtype=torch.bool).tril())


def _far_below(x: Tensor) -> bool:
    return x.numel() == 1 and float(x) <= -1e4


H, TRANSPOSED = "transformer.h.{i}", Transpose()
NAMES: Names = [
    ("transformer.wte", "codec.stem"),
    ("transformer.wpe.weight", "codec.stem.positions"),
    ("transformer.ln_f", "trunk.final_norm"),
    ("lm_head", "codec.head"),
    (f"{H}.ln_1", "block.attn_norm"),
    (f"{H}.attn.c_attn", "block.attn.q block.attn.k block.attn.v", TRANSPOSED),
    (f"{H}.attn.c_proj", "block.attn.o", TRANSPOSED),
    (f"{H}.ln_2", "block.ff_norm"),
    (f"{H}.mlp.c_fc", "block.ff.up", TRANSPOSED),
    (f"{H}.mlp.c_proj", "block.ff.down", TRANSPOSED),
    Ignore(r"(transformer\.)?h\.\d+\.attn\.bias", "the causal mask follows from the trunk", _triangle),
    Ignore(r"(transformer\.)?h\.\d+\.attn\.masked_bias", "the value of masked scores", _far_below),
]


FAMILY = table_family("gpt2", TABLE, NAMES, prefix="transformer.")
