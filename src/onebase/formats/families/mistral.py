"""Mistral: Llama with a sliding window in every block.

A key that is missing means 4,096; a null means none (version 0.2 and later).
Source: transformers `models/mistral/configuration_mistral.py`, read for names and defaults.
"""

from onebase.formats.families.decoder import Rope, decoder_family, decoder_lines, window_line
from onebase.formats.fields import Must

FAMILY = decoder_family(
    "mistral",
    Must("layer_types", None, "windows that differ between blocks are of other families"),
    *decoder_lines("mistral", "Mistral", context=4096 * 32, kv_heads=8),
    window_line(4096),
    Rope(),
)
