"""The fast decode path: a trunk's blocks prepared for decoding, one by one (`bound`) or as one call (`fused.Chain`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from onebase.model.kernels.bound import Fused, HasBlock, Step, bound, gain_of, places_in
from onebase.model.kernels.compiled import direct, loops_for
from onebase.model.kernels.weight_cache import Place, WeightCache
from onebase.model.norm import Norm


@dataclass(frozen=True)
class Ready:
    """Blocks prepared for decoding: one by one (None for a block with unsupported parts), and as one call (`fused.Chain`) where
    possible."""

    steps: Sequence[Step | None]
    chain: Any = None


class FastDecode:
    """Prepares the blocks of a trunk for decoding at first use, and again when a weight has changed. lambdas: the location of the weights of
    stream and input, if the trunk has any."""

    def __init__(self, blocks: nn.ModuleList, lambdas: Place) -> None:
        self._blocks, self._lambdas = blocks, lambdas
        modules = [m for block in blocks for m in block.modules()]
        self._hooks = [h for m in modules for h in (m._forward_hooks, m._forward_pre_hooks)]
        self._made: WeightCache[dict[tuple[torch.dtype, bool], Ready]] = WeightCache()

    def ready(self, dtype: torch.dtype, one: bool) -> Ready | None:
        """For `one` token per row or any number; None with gradients, under torch.compile, or if a module has hooks."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(self._hooks):
            return None
        made = self._made.current()
        if made is None:
            if any(p.requires_grad for p in self._blocks.parameters()):
                return None
            kept, name = self._lambdas
            mixed = [] if kept.get(name) is None else [self._lambdas]
            made = self._made.make([*places_in(self._blocks), *mixed], dict)
        if (dtype, one) not in made:
            made[dtype, one] = self._bind(dtype, one)
        return made[dtype, one]

    def _bind(self, dtype: torch.dtype, one: bool) -> Ready:
        blocks: list[Any] = list(self._blocks)
        fused = loops_for(dtype, blocks[0].attn.q.device) if one and blocks else None
        steps = [bound(b, dtype, fused) for b in blocks]
        if fused is None or dtype != torch.float32:
            return Ready(steps)
        parts = [parts_of(b, fused) for b in blocks]
        if any(p is None for p in parts):
            return Ready(steps)
        kept, name = self._lambdas
        return Ready(steps, fused.Chain(parts, kept.get(name)))


def parts_of(block: HasBlock, fused: Fused) -> Any:
    """A block as input of `fused.Chain`; None where it has parts that the loops do not support."""
    if block.cross is not None or block.attn_scale is not None or block.where in ("post", "out"):
        return None
    attn, ff, module = block.attn, block.ff, direct()
    if block.residual != 1.0 or attn.cfg.qk_norm_whole or block.adapt is not None:
        return None
    if module is None or ff.gate_up is None or ff.cfg.activation not in fused.CURVES:
        return None
    norms = (
        *(block.attn_norm, block.attn_out_norm, attn.q_norm, attn.k_norm),
        *(block.ff_norm, block.ff_out_norm),
    )
    each = [n if isinstance(n, Norm) else None for n in norms]
    if any(n is not None and n.cfg.kind != "rms" for n in each):
        return None
    packed = [p.packed.ready(torch.float32, True) for p in (attn.qkv, attn.o, ff.gate_up, ff.down)]
    products = [p.product for p in packed]
    if not all(isinstance(p, module.Direct) for p in products):
        return None
    cfg = attn.cfg
    return fused.Parts(
        sizes=(attn.q.d_in, cfg.heads, cfg.kv_heads, cfg.head_dim, ff.cfg.hidden),
        gains=[None if n is None else gain_of(n) for n in each],
        floors=[0.0 if n is None else float(n.floor) for n in each],
        products=products,
        most=min(p.most // q.d_in for p, q in zip(packed, (attn.q, attn.o, ff.up, ff.down), strict=True)),
        scale=attn.scale,
        softcap=cfg.softcap,
        curve=fused.CURVES[ff.cfg.activation],
    )
