"""Rotary positions in GGUF: base, number of rotated features, and scaling, from keys and from two kinds of small tensors.

Source: llama.cpp's src/llama-model.cpp and src/llama-context.cpp. Only the llama architecture reads `rope_freqs.weight` (divisors of the
angles), only phi3 the two tables of LongRoPE.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from onebase.errors import ConfigError
from onebase.formats.family import Tree
from onebase.formats.fields import Found, View
from onebase.formats.reader import ConfigReader
from onebase.model.config import RopeConfig, RopeScaling
from onebase.model.position import rotary_table

TABLES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that are read with the metadata because they are part of the config."""


@dataclass(frozen=True)
class RopeLine:
    """The line for rotary positions; the note `rope` is for lines that give each block its own. tables: those of TABLES that the architecture
    reads; partial: only some features of a head may be rotated."""

    arch: str
    tables: tuple[str, ...] = ()
    partial: bool = False

    def read(self, r: ConfigReader, found: Found) -> None:
        head_dim = found["block.attn.head_dim"]
        key = f"{self.arch}.rope.dimension_count"
        dim = r.size(key, head_dim, head_dim)
        if dim != head_dim and not self.partial:
            raise r.refuse(key, f"{head_dim}, the width of a head")
        base = r.positive(f"{self.arch}.rope.freq_base", 10000.0)
        scaling = _scaling(r, f"{self.arch}.rope.scaling", base, dim, found["codec.context"])
        found["rope"] = found["block.attn.rope"] = RopeConfig(
            base=base, dim=None if dim == head_dim else dim, scaling=scaling
        )

    def write(self, base: View, tree: Tree) -> None:
        # Blocks with a window may have other rotary positions: the line for windows writes those.
        windows, ropes = base.each("block.attn.window"), base.each("block.attn.rope")
        rope = next((x for w, x in zip(windows, ropes, strict=True) if w is None), ropes[0])
        if rope is None:
            raise ConfigError(
                f"the GGUF architecture {self.arch} has rotary positions, this base has none",
                "export to hf",
            )
        dim = rope.dim or base["block.attn.head_dim"]
        tree |= {f"{self.arch}.rope.dimension_count": dim, f"{self.arch}.rope.freq_base": rope.base}
        if rope.scaling is not None:
            tree |= _scaling_tree(rope.scaling, f"{self.arch}.rope.scaling", rope.base, dim, self.tables)


def _scaling(r: ConfigReader, key: str, base: float, dim: int, context: int) -> RopeScaling | None:
    factor = r.positive(f"{key}.factor", 1.0)
    kind = r.get(f"{key}.type", str, "linear")
    original = r.get(f"{key}.original_context_length", int, 0)
    # Cos and sin are multiplied by it for every kind (llama-context.cpp).
    attention = r.positive(f"{key}.attn_factor", 1.0)
    if r.has(TABLES[1]) or r.has(TABLES[2]):
        return RopeScaling(
            kind="longrope",
            short=tuple(r.get(TABLES[2], list)),
            long=tuple(r.get(TABLES[1], list)),
            original=original or context,
            attention=attention,
        )
    if r.has(TABLES[0]):
        r.must(f"{key}.factor", 1.0, 1.0, "rope_freqs.weight scales the angles already")
        table = tuple(r.get(TABLES[0], list))
        return _divided(table, base, dim, original or 8192, context, attention=attention)
    if kind == "yarn":
        return _yarn(r, key, factor, original or context, attention)
    if kind not in ("none", "linear"):
        raise r.refuse(f"{key}.type", "none, linear, yarn, longrope with its two tables")
    factor = 1.0 if kind == "none" else factor
    if attention != 1.0:  # as a table of divisors: only this kind also scales cos and sin
        return _table((factor,) * (dim // 2), context, attention)
    return None if factor == 1.0 else RopeScaling(kind="linear", factor=factor)


def _yarn(r: ConfigReader, key: str, factor: float, original: int, attention: float) -> RopeScaling:
    """YaRN as in llama.cpp: cos and sin grow with the logarithm of the factor."""
    for name in ("yarn_ext_factor", "yarn_attn_factor"):
        r.must(f"{key}.{name}", 1.0, 1.0, "its effect is not known")
    r.must(f"{key}.yarn_log_multiplier", 0.0, 0.0, "its effect is not known")
    return RopeScaling(
        kind="yarn",
        factor=factor,
        high=r.positive(f"{key}.yarn_beta_fast", 32.0),
        low=r.positive(f"{key}.yarn_beta_slow", 1.0),
        original=original,
        attention=attention * (1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0),
    )


def _table(divided: tuple[float, ...], context: int, attention: float = 1.0) -> RopeScaling:
    """The same list of divisors for texts of any length."""
    return RopeScaling(kind="longrope", short=divided, long=divided, original=context, attention=attention)


def _divided(
    table: tuple[float, ...], base: float, dim: int, original: int, context: int, attention: float
) -> RopeScaling:
    """Llama 3's scaling if its formula gives these divisors, otherwise a table of divisors."""
    if len(table) != dim // 2:
        raise ConfigError(
            f"{TABLES[0]} has {len(table)} values for {dim // 2} rotary angles", "use another file"
        )
    factor = float(f"{max(table):.5g}")
    scaling = RopeScaling(kind="llama3", factor=factor, low=1.0, high=4.0, original=original)
    if attention == 1.0 and np.allclose(_divisors(scaling, base, dim), table, rtol=1e-4, atol=0):
        return scaling
    return _table(table, context, attention)


def _divisors(cfg: RopeScaling, base: float, dim: int) -> list[float]:
    """The divisors of the angles, dim / 2 numbers: the ratio of unscaled to scaled angles at position 1."""
    one = torch.ones(1, 1, dtype=torch.long)
    tables = [rotary_table(RopeConfig(base=base, scaling=s), dim, one) for s in (None, cfg)]
    plain, scaled = (torch.atan2(sin, cos).flatten() for cos, sin in tables)
    return [float(x) for x in plain / scaled]


def _scaling_tree(s: RopeScaling, key: str, base: float, dim: int, tables: tuple[str, ...]) -> Tree:
    """Keys, and the values of tables by name. What the architecture cannot express is left out and detected when the tree is read back."""
    tree: Tree = {}
    if s.kind in ("linear", "yarn"):
        tree = {f"{key}.type": s.kind, f"{key}.factor": s.factor}
    if s.kind == "yarn":
        tree |= {f"{key}.yarn_beta_fast": s.high, f"{key}.yarn_beta_slow": s.low}
    if s.kind == "longrope" and TABLES[1] in tables:
        tree |= {TABLES[1]: list(s.long), TABLES[2]: list(s.short), f"{key}.attn_factor": s.attention}
    elif s.kind in ("llama3", "longrope") and TABLES[0] in tables:
        tree[TABLES[0]] = _divisors(s, base, dim)  # llama.cpp has no formula for these
        tree |= {} if s.attention == 1 else {f"{key}.attn_factor": s.attention}
    return tree | ({} if s.kind == "linear" else {f"{key}.original_context_length": s.original})
