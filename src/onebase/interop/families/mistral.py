"""Mistral: Llama with a sliding window in every block.

Source: transformers `models/mistral/configuration_mistral.py`, read for names and defaults.
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
from onebase.model.config import NormConfig, Norms


def read(r: Reader) -> BaseConfig:
    r.must("layer_types", None, None, "windows that differ between blocks are of other families")
    s = sizes(r, kv_heads=8)
    # A key that is missing means 4,096; a null means none (version 0.2 and later).
    window = r.size_or_none("sliding_window", 4096)
    attn = attention(r, s, rope=rope(r, 10000.0, s.head_dim), window=window)
    norms = Norms(norm=NormConfig(eps=r.positive("rms_norm_eps", 1e-6)))
    codec = text_codec(r, tied=False, context=4096 * 32)
    return gated_decoder(r, s, [attn] * s.layers, norms, codec)


def write(cfg: BaseConfig) -> Tree:
    window = text_trunk(cfg).blocks[0].attn.window
    return common_tree(cfg, "mistral", "Mistral") | {"sliding_window": window}


FAMILY = Family(("mistral",), read, write, decoder_rules, prefix="model.")
