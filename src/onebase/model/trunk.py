"""The transformer. Knows no tokens, tasks, losses or files. B batch, T time, D width."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from onebase.model.attend import Lowered, lower
from onebase.model.attention import Attention
from onebase.model.cache import Cache, LayerCache
from onebase.model.config import BlockConfig, TrunkConfig
from onebase.model.feedforward import FeedForward
from onebase.model.mask import Causal, Cols, Everything, Mask, SameDocument, Window
from onebase.model.norm import Norm
from onebase.model.position import rotary_table
from onebase.model.proj import Active, Proj


@dataclass(frozen=True)
class Out:
    """`hidden` [B, T, D] after the final norm; `taps` the outputs of the blocks asked for, before it."""

    hidden: Tensor
    taps: dict[int, Tensor] = field(default_factory=dict)


class Block(nn.Module):
    """Attention and feed-forward, each with its residual; norms stand where the config says."""

    def __init__(self, site: str, cfg: BlockConfig, width: int) -> None:
        super().__init__()
        self.where = cfg.norms.where
        self.attn = Attention(f"{site}.attn", cfg.attn, width)
        self.ff = FeedForward(f"{site}.ff", cfg.ff, width)
        self.attn_norm = Norm(cfg.norms.norm, width) if cfg.norms.attn else nn.Identity()
        self.ff_norm = Norm(cfg.norms.norm, width)
        sandwich = self.where == "sandwich"
        self.attn_out_norm = Norm(cfg.norms.norm, width) if sandwich else None
        self.ff_out_norm = Norm(cfg.norms.norm, width) if sandwich else None

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        lowered: Lowered,
        cache: LayerCache | None = None,
        active: Active | None = None,
    ) -> Tensor:
        if self.where == "post":
            x_BTD = self.attn_norm(x_BTD + self.attn(x_BTD, rope, lowered, cache, active))
            out: Tensor = self.ff_norm(x_BTD + self.ff(x_BTD, active))
            return out
        a_BTD = self.attn(self.attn_norm(x_BTD), rope, lowered, cache, active)
        x_BTD = x_BTD + (a_BTD if self.attn_out_norm is None else self.attn_out_norm(a_BTD))
        f_BTD = self.ff(self.ff_norm(x_BTD), active)
        return x_BTD + (f_BTD if self.ff_out_norm is None else self.ff_out_norm(f_BTD))


class Trunk(nn.Module):
    """Embeddings, columns and mask in; hidden states out. `name` is the first word of its sites."""

    def __init__(self, name: str, cfg: TrunkConfig) -> None:
        super().__init__()
        self.name, self.cfg = name, cfg
        self.input_norm = Norm(cfg.input_norm, cfg.width) if cfg.input_norm else None
        self.blocks = nn.ModuleList(Block(f"{name}.{i}", b, cfg.width) for i, b in enumerate(cfg.blocks))
        self.final_norm = Norm(cfg.final_norm, cfg.width) if cfg.final_norm else None
        # One pair a block: the weight of the stream, the weight of the trunk's input.
        self.lambdas = nn.Parameter(torch.empty(len(cfg.blocks), 2)) if cfg.lambdas else None

    def default_mask(self) -> Mask:
        """What this trunk was made for: causal or both ways, never across documents."""
        return (Causal() if self.cfg.direction == "causal" else Everything()) & SameDocument()

    def sites(self) -> dict[str, Proj]:
        """Every projection by its site name."""
        return {m.site: m for m in self.modules() if isinstance(m, Proj)}

    def forward(
        self,
        x_BTD: Tensor,
        cols: Cols,
        mask: Mask | None = None,
        *,
        cache: Cache | None = None,
        active: Active | None = None,
        taps: Sequence[int] = (),
        impl: str = "auto",
    ) -> Out:
        """Run the blocks on x [B, T, D]; with a cache, T are the new tokens only and keys reach back to the old ones."""
        mask = self.default_mask() if mask is None else mask
        keys = cache.extend(cols) if cache is not None else cols
        lowered: dict[tuple[int | None, float | None], Lowered] = {}
        tables: dict[str, tuple[Tensor, Tensor] | None] = {}
        x_BTD = x_BTD if self.input_norm is None else self.input_norm(x_BTD)
        x0_BTD, kept = x_BTD, {}
        for i, block in enumerate(self.blocks):
            attn = self.cfg.blocks[i].attn
            how = (attn.window, attn.softcap)
            if how not in lowered:  # once per distinct mask and forward, shared by the blocks
                m = mask & Window(attn.window) if attn.window else mask
                lowered[how] = lower(m, cols, keys, softcap=attn.softcap, device=x_BTD.device, impl=impl)
            key = repr((attn.rope, attn.head_dim))
            if key not in tables:
                tables[key] = rotary_table(attn.rope, attn.head_dim, cols.pos) if attn.rope else None
            if self.lambdas is not None:
                a, b = self.lambdas[i].to(x_BTD.dtype)
                x_BTD = a * x_BTD + b * x0_BTD
            layer = cache.layers[i] if cache is not None else None
            x_BTD = block(x_BTD, tables[key], lowered[how], layer, active)
            if i in taps:
                kept[i] = x_BTD
        return Out(x_BTD if self.final_norm is None else self.final_norm(x_BTD), kept)
