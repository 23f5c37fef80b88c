"""OLMo 2: norms on the output of attention and feed-forward instead of their input, and on all heads of queries and of keys together.

Source: transformers `models/olmo2/configuration_olmo2.py` and `modeling_olmo2.py`, read for names, defaults and positions of the norms.
"""

from onebase.formats.families.decoder import DECODER, PLAIN, Rope, decoder_family, decoder_lines, patterned
from onebase.formats.families.llama import BIASES
from onebase.formats.fields import number
from onebase.model.config import NormConfig, Norms

NORMS = {
    "post_attention_layernorm": "block.attn_out_norm",
    "post_feedforward_layernorm": "block.ff_out_norm",
}
FAMILY = decoder_family(
    "olmo2",
    *decoder_lines("olmo2", "Olmo2", context=2048, eps=1e-5),
    number("rms_norm_eps", "block.attn.qk_norm.eps", 1e-5),
    Rope(),
    BIASES[0],
    trunk=patterned(DECODER, norms=Norms(where="out"), attn={"qk_norm": NormConfig(), "qk_norm_whole": True}),
    block=PLAIN | NORMS,
)
