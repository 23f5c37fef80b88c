"""Llama 1, 2 and 3, SmolLM and SmolLM2, and what else is saved as `llama`.

Source: transformers `models/llama/configuration_llama.py`, read for names and defaults.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families.decoder import (
    attention,
    common_tree,
    decoder_rules,
    gated_decoder,
    sizes,
    text_codec,
    text_trunk,
)
from onebase.interop.families.rotary import rope
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.model.config import ALL, NormConfig, Norms


def read(r: Reader) -> BaseConfig:
    r.must("pretraining_tp", 1, 1, "tensor-parallel slices change the sums")
    r.must("rope_interleaved", False, False, "its rotary pairs are neighbours, not halves")
    s = sizes(r)
    attn = attention(
        r, s, rope=rope(r, 10000.0, s.head_dim), bias=ALL if r.get("attention_bias", bool, False) else ()
    )
    return gated_decoder(
        r,
        s,
        [attn] * s.layers,
        Norms(norm=NormConfig(eps=r.positive("rms_norm_eps", 1e-6))),
        text_codec(r, tied=False, context=2048),
        ff_bias=r.get("mlp_bias", bool, False),
    )


def write(cfg: BaseConfig) -> Tree:
    block = text_trunk(cfg).blocks[0]
    tree = common_tree(cfg, "llama", "Llama")
    return tree | {"attention_bias": bool(block.attn.bias), "mlp_bias": block.ff.bias}


FAMILY = Family(("llama",), read, write, decoder_rules, prefix="model.")
