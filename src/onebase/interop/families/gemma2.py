"""Gemma 2: norms on both sides of each part whose weights count from 1, soft-caps on scores and logits, every other block with a
window, embeddings times the root of the width.

Source: transformers `models/gemma2/configuration_gemma2.py` and `modeling_gemma2.py`, read for names, defaults and the norms' order.
"""

from collections.abc import Mapping, Sequence

from onebase.base.config import BaseConfig
from onebase.interop.families.decoder import (
    FULL,
    GATED,
    SLIDING,
    Sizes,
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
from onebase.interop.rules import Ignore, Rule, Tie
from onebase.model.config import ALL, NormConfig, Norms, RopeConfig

SANDWICH = (
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "attn_out_norm"),
    ("pre_feedforward_layernorm", "ff_norm"),
    ("post_feedforward_layernorm", "ff_out_norm"),
)


def gemma_sizes(r: Reader) -> Sizes:
    """Sizes with the defaults that Gemma 2 and 3 share."""
    return sizes(r, kv_heads=4, head_dim=256)


def gemma(
    r: Reader,
    s: Sizes,
    windows: Sequence[int | None],
    ropes: Mapping[str, RopeConfig],
    *,
    context: int,
    caps: tuple[float | None, float | None],
    qk_norm: bool = False,
) -> BaseConfig:
    """What Gemma 2 and 3 share. caps: of scores and of logits; ropes: by kind of block."""
    r.must("use_bidirectional_attention", False, False, "this family is read as a decoder")
    norm = NormConfig(eps=r.positive("rms_norm_eps", 1e-6), offset=1.0)
    divisor = r.size("query_pre_attn_scalar", 256)
    attns = [
        attention(
            r,
            s,
            rope=ropes[FULL if window is None else SLIDING],
            window=window,
            bias=ALL if r.get("attention_bias", bool, False) else (),
            qk_norm=norm if qk_norm else None,
            scale=None if divisor == s.head_dim else divisor**-0.5,
            softcap=caps[0],
        )
        for window in windows
    ]
    codec = text_codec(r, tied=True, context=context, scale=s.width**0.5, softcap=caps[1])
    activation = r.one_of("hidden_activation", GATED, "gelu_pytorch_tanh")
    return gated_decoder(r, s, attns, Norms(norm=norm, where="sandwich"), codec, activation=activation)


def read(r: Reader) -> BaseConfig:
    s = gemma_sizes(r)
    windows = layer_windows(r, s.layers, r.size_or_none("sliding_window", 4096), lambda i: i % 2 == 0)
    turned = rope(r, 10000.0, s.head_dim)
    caps = (
        r.positive_or_none("attn_logit_softcapping", 50.0),
        r.positive_or_none("final_logit_softcapping", 30.0),
    )
    return gemma(r, s, windows, {FULL: turned, SLIDING: turned}, context=8192, caps=caps)


def gemma_tree(cfg: BaseConfig, model_type: str, name: str) -> Tree:
    """The keys that Gemma 2 and 3 share."""
    attn = text_trunk(cfg).blocks[0].attn
    tree = common_tree(cfg, model_type, name) | windows_tree(cfg)
    return tree | {
        # They ask for a size even where no block has a window.
        "sliding_window": tree["sliding_window"] or 4096,
        "hidden_activation": tree["hidden_act"],
        "query_pre_attn_scalar": attn.head_dim if attn.scale is None else round(attn.scale**-2),
        "attention_bias": bool(attn.bias),
        "attn_logit_softcapping": attn.softcap,
        "final_logit_softcapping": cfg.text.softcap,
    }


def write(cfg: BaseConfig) -> Tree:
    return gemma_tree(cfg, "gemma2", "Gemma2")


def rules(cfg: BaseConfig) -> list[Rule | Tie | Ignore]:
    return decoder_rules(cfg, SANDWICH)


FAMILY = Family(("gemma2",), read, write, rules, prefix="model.")
