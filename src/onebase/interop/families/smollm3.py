"""SmolLM 3: Llama without rotary positions in some blocks (NoPE). SmolLM and SmolLM2 are saved as `llama`.

Source: transformers `models/smollm3/configuration_smollm3.py`, read for names and defaults.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families.decoder import (
    attention,
    common_tree,
    decoder_rules,
    gated_decoder,
    layer_windows,
    sizes,
    text_codec,
    text_trunk,
    windows_tree,
)
from onebase.interop.families.rotary import rope
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.model.config import ALL, NormConfig, Norms


def read(r: Reader) -> BaseConfig:
    s = sizes(r, kv_heads=4)
    interval = r.size("no_rope_layer_interval", 4)
    turning = r.get("no_rope_layers", list, [int((i + 1) % interval != 0) for i in range(s.layers)])
    if len(turning) < s.layers or any(x not in (0, 1) for x in turning):
        raise r.refuse("no_rope_layers", f"a list of {s.layers}, each 1 (rotary positions) or 0 (none)")
    window = r.size_or_none("sliding_window", None) if r.get("use_sliding_window", bool, False) else None
    windows = layer_windows(r, s.layers, window, lambda i: not turning[i])
    turned = rope(r, 2_000_000.0, s.head_dim)
    bias = ALL if r.get("attention_bias", bool, False) else ()
    attns = [
        attention(r, s, rope=turned if turns else None, window=windows[i], bias=bias)
        for i, turns in enumerate(turning[: s.layers])
    ]
    return gated_decoder(
        r,
        s,
        attns,
        Norms(norm=NormConfig(eps=r.positive("rms_norm_eps", 1e-6))),
        text_codec(r, tied=True, context=32768),
        ff_bias=r.get("mlp_bias", bool, False),
    )


def write(cfg: BaseConfig) -> Tree:
    blocks = text_trunk(cfg).blocks
    windows = windows_tree(cfg)
    return (
        common_tree(cfg, "smollm3", "SmolLM3")
        | windows
        | {
            "use_sliding_window": windows["sliding_window"] is not None,
            "no_rope_layers": [int(b.attn.rope is not None) for b in blocks],
            "attention_bias": bool(blocks[0].attn.bias),
            "mlp_bias": blocks[0].ff.bias,
        }
    )


FAMILY = Family(("smollm3",), read, write, decoder_rules, prefix="model.")
