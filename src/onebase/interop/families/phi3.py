"""Phi 3 and 4: q, k and v in one tensor, gate and up in one, rotary positions on a part of each head, LongRoPE.

Source: transformers `models/phi3/configuration_phi3.py` and `modeling_phi3.py`, read for names, defaults and the order of fused parts.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families.decoder import (
    attention,
    common_tree,
    decoder_rules,
    gated_decoder,
    sizes,
    text_codec,
    text_trunk,
)
from onebase.interop.families.rotary import ORIGINAL, rope
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rule, Tie, rename, split
from onebase.model.config import NormConfig, Norms, TrunkConfig


def read(r: Reader) -> BaseConfig:
    for key in ("attention_bias", "mlp_bias", "lm_head_bias"):
        r.must(key, False, False, "this layout has no biases")
    s = sizes(r)
    turned = rope(r, 10000.0, s.head_dim, original=4096, partial=True)
    if turned.scaling is not None and turned.scaling.kind != "longrope":
        raise r.refuse("rope_scaling" if r.has("rope_scaling") else "rope_parameters", "default or longrope")
    attn = attention(r, s, rope=turned, window=r.size_or_none("sliding_window", None))
    norms = Norms(norm=NormConfig(eps=r.positive("rms_norm_eps", 1e-5)))
    return gated_decoder(r, s, [attn] * s.layers, norms, text_codec(r, tied=False, context=4096))


def write(cfg: BaseConfig) -> Tree:
    attn = text_trunk(cfg).blocks[0].attn
    tree = common_tree(cfg, "phi3", "Phi3") | {"sliding_window": attn.window}
    scaling = attn.rope.scaling if attn.rope else None
    if scaling is not None and scaling.kind == "longrope":
        tree[ORIGINAL] = scaling.original
    return tree


def _attention(trunk: TrunkConfig, i: int) -> list[Rule]:
    a, b = f"model.layers.{i}.self_attn", f"trunks.text.blocks.{i}.attn"
    cfg = trunk.blocks[i].attn
    q, kv = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
    parts = [f"{b}.{x}.weight" for x in ("q", "k", "v")]
    return [split(f"{a}.qkv_proj.weight", parts, (q, kv, kv)), rename(f"{a}.o_proj.weight", f"{b}.o.weight")]


def _feedforward(trunk: TrunkConfig, i: int) -> list[Rule]:
    a, b = f"model.layers.{i}.mlp", f"trunks.text.blocks.{i}.ff"
    hidden = trunk.blocks[i].ff.hidden
    parts = [f"{b}.gate.weight", f"{b}.up.weight"]
    return [
        split(f"{a}.gate_up_proj.weight", parts, (hidden, hidden)),
        rename(f"{a}.down_proj.weight", f"{b}.down.weight"),
    ]


def rules(cfg: BaseConfig) -> list[Rule | Tie | Ignore]:
    return decoder_rules(cfg, attention=_attention, feedforward=_feedforward)


FAMILY = Family(("phi3",), read, write, rules, prefix="model.")
