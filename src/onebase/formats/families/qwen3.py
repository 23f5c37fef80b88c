"""Qwen 3 (dense): norms on the queries and keys of each head, a separate head_dim, no biases unless the config has them.

Source: transformers `models/qwen3/configuration_qwen3.py`, read for names and defaults.
"""

from onebase.formats.families.decoder import DECODER, LATER, Rope, decoder_family, decoder_lines, patterned
from onebase.formats.families.llama import BIASES
from onebase.formats.fields import number
from onebase.model.config import NormConfig

FAMILY = decoder_family(
    "qwen3",
    *decoder_lines("qwen3", "Qwen3", context=32768, kv_heads=32, head_dim=128),
    number("rms_norm_eps", "block.attn.qk_norm.eps", 1e-6),
    Rope(),
    *LATER,
    BIASES[0],
    trunk=patterned(DECODER, attn={"qk_norm": NormConfig()}),
)
