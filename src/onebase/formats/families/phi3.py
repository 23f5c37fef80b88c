"""Phi 3 and 4: fused q, k and v, fused gate and up, rotary positions on a part of each head, LongRoPE.

Source: transformers `models/phi3/configuration_phi3.py` and `modeling_phi3.py`, read for names, defaults and the order of fused parts.
"""

from onebase.formats.families.decoder import NORMS, Rope, decoder_family, decoder_lines, window_line
from onebase.formats.families.rotary import ORIGINAL
from onebase.formats.family import Tree
from onebase.formats.fields import Found, Must, View
from onebase.formats.reader import ConfigReader


class LongRope(Rope):
    """Rotary positions, scaled only by LongRoPE; the original context is in a key of the config itself."""

    def read(self, r: ConfigReader, found: Found) -> None:
        super().read(r, found)
        scaling = found["block.attn.rope"].scaling
        if scaling is not None and scaling.kind != "longrope":
            key = "rope_scaling" if r.has("rope_scaling") else "rope_parameters"
            raise r.refuse(key, "default or longrope")

    def write(self, base: View, tree: Tree) -> None:
        super().write(base, tree)
        scaling = base["block.attn.rope.scaling"]
        if scaling is not None and scaling.kind == "longrope":
            tree[ORIGINAL] = scaling.original


FUSED = {
    "self_attn.qkv_proj": "block.attn.q block.attn.k block.attn.v",
    "self_attn.o_proj": "block.attn.o",
    "mlp.gate_up_proj": "block.ff.gate block.ff.up",
    "mlp.down_proj": "block.ff.down",
}
FAMILY = decoder_family(
    "phi3",
    *(
        Must(key, False, "this layout has no biases")
        for key in ("attention_bias", "mlp_bias", "lm_head_bias")
    ),
    *decoder_lines("phi3", "Phi3", context=4096, eps=1e-5),
    LongRope(original=4096, partial=True),
    window_line(None),
    block=FUSED | NORMS,
)
