"""Mistral: Llama with a sliding window in every block.

A missing key means 4,096; null means no window (version 0.2 and later).
Source: transformers `models/mistral/configuration_mistral.py`, read for names and defaults.
"""

from onebase.formats.families.decoder import Rope, decoder_family, decoder_lines, window_line
from onebase.formats.fields import Must

FAMILY = decoder_family(
    "mistral",
    Must("layer_types", None, "this family has the same window in all blocks"),
    *decoder_lines("mistral", "Mistral", context=4096 * 32, kv_heads=8),
    window_line(4096),
    Rope(),
)
