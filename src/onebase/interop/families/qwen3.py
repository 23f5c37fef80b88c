"""Qwen 3 (dense): norms on the queries and keys of each head, a head_dim of its own, no biases unless the config asks.

Source: transformers `models/qwen3/configuration_qwen3.py`, read for names and defaults.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families.decoder import (
    attention,
    common_tree,
    decoder_rules,
    gated_decoder,
    sizes,
    switched_windows,
    switched_windows_tree,
    text_codec,
    text_trunk,
)
from onebase.interop.families.rotary import rope
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.model.config import ALL, NormConfig, Norms


def read(r: Reader) -> BaseConfig:
    s = sizes(r, kv_heads=32, head_dim=128)
    turned = rope(r, 10000.0, s.head_dim)
    norm = NormConfig(eps=r.positive("rms_norm_eps", 1e-6))
    bias = ALL if r.get("attention_bias", bool, False) else ()
    attns = [
        attention(r, s, rope=turned, window=window, bias=bias, qk_norm=norm)
        for window in switched_windows(r, s.layers)
    ]
    return gated_decoder(r, s, attns, Norms(norm=norm), text_codec(r, tied=False, context=32768))


def write(cfg: BaseConfig) -> Tree:
    bias = bool(text_trunk(cfg).blocks[0].attn.bias)
    return common_tree(cfg, "qwen3", "Qwen3") | switched_windows_tree(cfg) | {"attention_bias": bias}


FAMILY = Family(("qwen3",), read, write, decoder_rules, prefix="model.")
