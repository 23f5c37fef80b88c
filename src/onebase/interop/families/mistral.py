"""Mistral: Llama with a sliding window.

Source: transformers `models/mistral/configuration_mistral.py`, read for names and defaults.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families import llama
from onebase.interop.families.decoder import common_tree, decoder_rules
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader


def read(r: Reader) -> BaseConfig:
    # A key that is missing means 4,096; a null means none (version 0.2 and later).
    window = r.get("sliding_window", int) if r.has("sliding_window") else None
    return llama.read(r, 4096 if "sliding_window" not in r.data else window)


def write(cfg: BaseConfig) -> Tree:
    window = cfg.trunks["text"].blocks[0].attn.window
    return common_tree(cfg, "mistral", "MistralForCausalLM") | {"sliding_window": window}


FAMILY = Family(("mistral",), read, write, decoder_rules, prefix="model.")
