"""What the architectures of GGUF share: the names of their tensors, and the metadata that says their sizes.

Source: ggml docs/gguf.md for keys, the tables in `gguf.constants` for tensor names. Where metadata is silent (whether there is a bias,
an output matrix, stretched rotary angles) the tensors say it: by their names, and small tables by their numbers under their own name.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig
from onebase.errors import ConfigError
from onebase.interop.gguf.keys import refuse_others
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rotary, Rule, Step, Tie, rename, split
from onebase.model.config import GATED, AttnConfig, Part, RopeConfig, RopeScaling, TrunkConfig
from onebase.model.position import rotary_table

TABLES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that are read with the metadata, because they belong to the config."""
MAX_ROWS = 2**31
"""Positions and tokens there may be at most."""
BIASED: dict[Part, str] = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}


def arch(r: Reader) -> str:
    """The prefix of the model's own keys."""
    return r.get("general.architecture", str)


def finish(r: Reader, cfg: BaseConfig) -> BaseConfig:
    """Refuse keys of the architecture that nobody asked for: they may switch on what the trunk lacks."""
    r.has(f"{arch(r)}.pooling_type")  # of the vectors of texts, see pooling.py
    refuse_others(r, arch(r))
    return cfg


def codec(r: Reader, **more: Any) -> TextCodecConfig:
    """Vocabulary, context, and whether the file has an output matrix of its own."""
    a = arch(r)
    tokens = "tokenizer.ggml.tokens"
    vocab = len(r.get(tokens, list)) if r.has(tokens) or not r.has(f"{a}.vocab_size") else None
    return TextCodecConfig(
        vocab_size=r.size(f"{a}.vocab_size", vocab, MAX_ROWS),
        context=r.size(f"{a}.context_length", most=MAX_ROWS),
        tied="output.weight" not in r.tensors,
        **more,
    )


def attention(r: Reader, rope: RopeConfig | None, **more: Any) -> AttnConfig:
    """Heads and their features; biases where the tensors of the first block say so."""
    a = arch(r)
    heads, head_dim = _heads(r, a)
    r.must(f"{a}.attention.value_length", head_dim, head_dim, "keys and values have one width here")
    return AttnConfig(
        heads=heads,
        kv_heads=r.size(f"{a}.attention.head_count_kv", heads),
        head_dim=head_dim,
        rope=rope,
        bias=tuple(p for p, name in BIASED.items() if f"blk.0.{name}.bias" in r.tensors),
        **more,
    )


def _heads(r: Reader, a: str) -> tuple[int, int]:
    """Query heads, and features of each."""
    heads, width = r.size(f"{a}.attention.head_count"), r.size(f"{a}.embedding_length")
    return heads, r.size(f"{a}.attention.key_length", max(1, width // heads))


def rope(r: Reader, *, partial: bool = False) -> RopeConfig:
    """Rotary positions: their base, how many features turn, and how they were stretched."""
    a = arch(r)
    _, head_dim = _heads(r, a)
    dim = r.size(f"{a}.rope.dimension_count", head_dim, head_dim)
    if dim != head_dim and not partial:
        raise r.refuse(f"{a}.rope.dimension_count", f"{head_dim}, all features of a head")
    base = r.positive(f"{a}.rope.freq_base", 10000.0)
    return RopeConfig(base=base, dim=None if dim == head_dim else dim, scaling=_scaling(r, a, base, dim))


def _scaling(r: Reader, a: str, base: float, dim: int) -> RopeScaling | None:
    factor = r.positive(f"{a}.rope.scaling.factor", 1.0)
    kind = r.get(f"{a}.rope.scaling.type", str, "linear")
    context = r.size(f"{a}.context_length", most=MAX_ROWS)
    original = r.get(f"{a}.rope.scaling.original_context_length", int, 0)
    # Cos and sin are multiplied by it, whatever the kind (llama-context.cpp).
    attention = r.positive(f"{a}.rope.scaling.attn_factor", 1.0)
    if r.has(TABLES[1]) or r.has(TABLES[2]):
        return RopeScaling(
            kind="longrope",
            short=tuple(r.get(TABLES[2], list)),
            long=tuple(r.get(TABLES[1], list)),
            original=original or context,
            attention=attention,
        )
    if r.has(TABLES[0]):
        r.must(f"{a}.rope.scaling.factor", 1.0, 1.0, "the angles are stretched by rope_freqs.weight already")
        return _divided(
            tuple(r.get(TABLES[0], list)), base, dim, original or 8192, context, attention=attention
        )
    if kind == "yarn":
        return _yarn(r, a, factor, original or context, attention)
    if kind not in ("none", "linear"):
        raise r.refuse(f"{a}.rope.scaling.type", "none, linear, yarn, longrope with its two tables")
    factor = 1.0 if kind == "none" else factor
    if attention != 1.0:  # as a table of divisors, which alone has a size of cos and sin beside it
        return _table((factor,) * (dim // 2), context, attention)
    return None if factor == 1.0 else RopeScaling(kind="linear", factor=factor)


def _yarn(r: Reader, a: str, factor: float, original: int, attention: float) -> RopeScaling:
    """YaRN as llama.cpp has it: cos and sin grow with the logarithm of the factor."""
    for key in ("yarn_ext_factor", "yarn_attn_factor"):
        r.must(f"{a}.rope.scaling.{key}", 1.0, 1.0, "what it changes is not known")
    r.must(f"{a}.rope.scaling.yarn_log_multiplier", 0.0, 0.0, "what it changes is not known")
    return RopeScaling(
        kind="yarn",
        factor=factor,
        high=r.positive(f"{a}.rope.scaling.yarn_beta_fast", 32.0),
        low=r.positive(f"{a}.rope.scaling.yarn_beta_slow", 1.0),
        original=original,
        attention=attention * (1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0),
    )


def _table(divided: tuple[float, ...], context: int, attention: float = 1.0) -> RopeScaling:
    """One list of divisors for texts of any length."""
    return RopeScaling(kind="longrope", short=divided, long=divided, original=context, attention=attention)


def _divided(
    table: tuple[float, ...], base: float, dim: int, original: int, context: int, attention: float
) -> RopeScaling:
    """Divisors of the angles are Llama 3's where its formula gives them, else a table of their own."""
    if len(table) != dim // 2:
        raise ConfigError(
            f"{TABLES[0]} has {len(table)} numbers, {dim // 2} angles turn", "take another file"
        )
    factor = float(f"{max(table):.5g}")
    found = RopeScaling(kind="llama3", factor=factor, low=1.0, high=4.0, original=original)
    if attention == 1.0 and np.allclose(divisors(found, base, dim), table, rtol=1e-4, atol=0):
        return found
    return _table(table, context, attention)


def divisors(cfg: RopeScaling, base: float, dim: int) -> list[float]:
    """What each angle is divided by, dim / 2 numbers: the angles of position 1, unstretched over stretched."""
    one = torch.ones(1, 1, dtype=torch.long)
    tables = [rotary_table(RopeConfig(base=base, scaling=s), dim, one) for s in (None, cfg)]
    plain, stretched = (torch.atan2(sin, cos).flatten() for cos, sin in tables)
    return [float(x) for x in plain / stretched]


def end_rules(cfg: BaseConfig) -> Iterator[Rule | Tie | Ignore]:
    """Embedding, final norm, output; tables of angles are in the config."""
    trunk = cfg.trunks["text"]
    yield rename("token_embd.weight", "codecs.text.stem.weight")
    if cfg.text.positions:
        yield rename("position_embd.weight", "codecs.text.stem.positions")
    if not cfg.text.tied:
        yield rename("output.weight", "codecs.text.head.weight")
    if trunk.final_norm is not None:
        yield from _both("output_norm", "trunks.text.final_norm", trunk.final_norm.kind == "layer")
    for table in TABLES:
        yield Ignore(table.replace(".", r"\."), "its numbers are in the config")


def block_rules(
    trunk: TrunkConfig, i: int, *, interleaved: bool = False, fused: bool = False
) -> Iterator[Rule]:
    """All of block `i`. interleaved: heads are in llama.cpp's order for rotation. fused: q, k and v are one tensor, and so are gate and up."""
    block = trunk.blocks[i]
    attn, their, our = block.attn, f"blk.{i}.", f"trunks.text.blocks.{i}."
    if fused:
        sizes = (attn.heads * attn.head_dim, *(attn.kv_heads * attn.head_dim,) * 2)
        for kind in ("weight", "bias") if "q" in attn.bias else ("weight",):
            yield split(f"{their}attn_qkv.{kind}", [f"{our}attn.{p}.{kind}" for p in "qkv"], sizes)
    for part, name in BIASED.items():
        if fused and part != "o":
            continue
        steps: tuple[Step, ...] = ()
        if interleaved and part in "qk":
            steps = (Rotary(attn.heads if part == "q" else attn.kv_heads),)
        yield from _both(f"{their}{name}", f"{our}attn.{part}", part in attn.bias, steps)
    if attn.qk_norm is not None:
        for x in "qk":
            yield from _both(f"{their}attn_{x}_norm", f"{our}attn.{x}_norm", False)
    ups = ["gate", "up"] if block.ff.activation in GATED else ["up"]
    if fused and len(ups) == 2:
        yield split(f"{their}ffn_up.weight", [f"{our}ff.{u}.weight" for u in ups], (block.ff.hidden,) * 2)
        ups = []
    for name in [*ups, "down"]:
        yield from _both(f"{their}ffn_{name}", f"{our}ff.{name}", block.ff.bias)
    norms = {"attn_norm": "attn_norm", "ffn_norm": "ff_norm"}
    if block.norms.where == "sandwich":
        norms |= {"post_attention_norm": "attn_out_norm", "post_ffw_norm": "ff_out_norm"}
    for name, ours in norms.items():
        yield from _both(f"{their}{name}", f"{our}{ours}", block.norms.norm.kind == "layer")


def _both(theirs: str, ours: str, bias: bool, steps: tuple[Step, ...] = ()) -> Iterator[Rule]:
    for kind in ("weight", "bias") if bias else ("weight",):
        yield rename(f"{theirs}.{kind}", f"{ours}.{kind}", *steps)
