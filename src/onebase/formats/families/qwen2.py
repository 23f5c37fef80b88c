"""Qwen 2 and 2.5: Llama with biases on q, k and v, and optional windows in the later blocks.

Source: transformers `models/qwen2/configuration_qwen2.py`, read for names and defaults.
"""

from onebase.formats.families.decoder import DECODER, LATER, Rope, decoder_family, decoder_lines, patterned

FAMILY = decoder_family(
    "qwen2",
    *decoder_lines("qwen2", "Qwen2", context=32768, kv_heads=32),
    Rope(),
    *LATER,
    trunk=patterned(DECODER, attn={"bias": ("q", "k", "v")}),
)
