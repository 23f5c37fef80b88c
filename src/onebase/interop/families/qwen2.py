"""Qwen 2 and 2.5: Llama with biases on q, k and v, and windows in the later blocks where they are switched on.

Source: transformers `models/qwen2/configuration_qwen2.py`, read for names and defaults.
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
)
from onebase.interop.families.rotary import rope
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.model.config import NormConfig, Norms


def read(r: Reader) -> BaseConfig:
    s = sizes(r, kv_heads=32)
    turned = rope(r, 10000.0, s.head_dim)
    attns = [
        attention(r, s, rope=turned, window=window, bias=("q", "k", "v"))
        for window in switched_windows(r, s.layers)
    ]
    norms = Norms(norm=NormConfig(eps=r.positive("rms_norm_eps", 1e-6)))
    return gated_decoder(r, s, attns, norms, text_codec(r, tied=False, context=32768))


def write(cfg: BaseConfig) -> Tree:
    return common_tree(cfg, "qwen2", "Qwen2") | switched_windows_tree(cfg)


FAMILY = Family(("qwen2",), read, write, decoder_rules, prefix="model.")
