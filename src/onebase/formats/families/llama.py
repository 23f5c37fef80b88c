"""Llama 1, 2 and 3, SmolLM, SmolLM2, and other models saved as `llama`.

Source: transformers `models/llama/configuration_llama.py`, read for names and defaults.
"""

from onebase.formats.families.decoder import Rope, decoder_family, decoder_lines
from onebase.formats.fields import Must, flag
from onebase.model.config import ALL

BIASES = (
    flag("attention_bias", "block.attn.bias", False, on=ALL, off=()),
    flag("mlp_bias", "block.ff.bias", False),
)
FAMILY = decoder_family(
    "llama",
    Must("pretraining_tp", 1, "tensor-parallel slices change the sums"),
    Must("rope_interleaved", False, "its rotary embedding pairs adjacent features, not halves"),
    *decoder_lines("llama", "Llama", context=2048),
    Rope(),
    *BIASES,
)
