"""The transformer. Independent of tokens, tasks, losses and files. B batch, T time, D width."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from onebase.errors import UserError
from onebase.model.adaptive import adapted
from onebase.model.attention import Attention
from onebase.model.cache import Cache, LayerCache
from onebase.model.config import BlockConfig, TrunkConfig
from onebase.model.cross import CrossAttention, KeysValues, Memory
from onebase.model.feedforward import FeedForward, TokenGroups, by_group
from onebase.model.kernels.attention import Lowered, lower
from onebase.model.kernels.decode import FastDecode
from onebase.model.kernels.weight_cache import place
from onebase.model.mask import Causal, Cols, Everything, Mask, SameDocument, Window
from onebase.model.norm import Norm
from onebase.model.position import refuse_crossing, relative_bias, rotary_factors, rotary_table
from onebase.model.proj import AdapterRouting, Proj


@dataclass(frozen=True)
class TrunkOutput:
    """`hidden` [B, T, D] after the final norm; `taps`: outputs of the requested blocks, before it."""

    hidden: Tensor
    taps: dict[int, Tensor] = field(default_factory=dict)


class Block(nn.Module):
    """Attention, optional cross-attention to a memory, and feed-forward, each with its residual; the config sets the position of norms."""

    def __init__(
        self,
        site: str,
        cfg: BlockConfig,
        width: int,
        memory: int | None = None,
        groups: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.where, self.residual = cfg.norms.where, cfg.residual
        self.attn = Attention(f"{site}.attn", cfg.attn, width)
        self.ff = FeedForward(f"{site}.ff", cfg.ff, width)
        self.group_ff = nn.ModuleDict({g: FeedForward(f"{site}.ff.{g}", cfg.ff, width) for g in groups[1:]})
        before, behind = self.where != "out", self.where in ("sandwich", "out")
        norm = cfg.norms.norm
        self.attn_norm = Norm(norm, width) if cfg.norms.attn and before else nn.Identity()
        ff_norm = norm if cfg.norms.ff_eps is None else replace(norm, eps=cfg.norms.ff_eps)
        self.ff_norm = Norm(ff_norm, width) if before else nn.Identity()
        self.attn_out_norm = Norm(norm, width) if behind else None
        self.ff_out_norm = Norm(norm, width) if behind else None
        self.cross = CrossAttention(f"{site}.cross", cfg.cross, width, memory or width) if cfg.cross else None
        self.cross_norm = (Norm(norm, width) if before else nn.Identity()) if cfg.cross else None
        self.cross_out_norm = Norm(norm, width) if cfg.cross and behind else None
        self.attn_scale = Scale(width) if cfg.layer_scale else None
        self.cross_scale = Scale(width) if cfg.layer_scale and cfg.cross else None
        self.ff_scale = Scale(width) if cfg.layer_scale else None
        self.adapt = Proj(f"{site}.adapt", width, 6 * width, True) if cfg.adaptive else None

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        lowered: Lowered,
        cache: LayerCache | None = None,
        routing: AdapterRouting | None = None,
        memory: tuple[KeysValues, Lowered] | None = None,
        tokens: TokenGroups | None = None,
        condition_BD: Tensor | None = None,
    ) -> Tensor:
        if self.adapt is not None:
            return self._adapted(x_BTD, rope, lowered, cache, routing, tokens, condition_BD)
        post = self.where == "post"
        a_BTD = self.attn(x_BTD if post else self.attn_norm(x_BTD), rope, lowered, cache, routing)
        x_BTD = self._sum(x_BTD, a_BTD, self.attn_scale, self.attn_norm if post else None, self.attn_out_norm)
        if self.cross is not None and self.cross_norm is not None and memory is not None:
            c_BTD = self.cross(x_BTD if post else self.cross_norm(x_BTD), *memory, routing)
            after = self.cross_norm if post else None
            x_BTD = self._sum(x_BTD, c_BTD, self.cross_scale, after, self.cross_out_norm)
        f_BTD = self._feed_forward(x_BTD if post else self.ff_norm(x_BTD), tokens, routing)
        return self._sum(x_BTD, f_BTD, self.ff_scale, self.ff_norm if post else None, self.ff_out_norm)

    def _adapted(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        lowered: Lowered,
        cache: LayerCache | None,
        routing: AdapterRouting | None,
        tokens: TokenGroups | None,
        condition_BD: Tensor | None,
    ) -> Tensor:
        """`forward` where both parts are shifted, scaled and gated by the conditions."""
        assert self.adapt is not None and condition_BD is not None, "an adaptive block is given no conditions"
        attn, ff = adapted(self.adapt, condition_BD, routing)
        a_BTD = self.attn(attn.shifted(self.attn_norm(x_BTD)), rope, lowered, cache, routing)
        x_BTD = torch.addcmul(x_BTD, attn.gate_B1D, a_BTD)
        f_BTD = self._feed_forward(ff.shifted(self.ff_norm(x_BTD)), tokens, routing)
        return torch.addcmul(x_BTD, ff.gate_B1D, f_BTD)

    def _feed_forward(
        self, x_BTD: Tensor, tokens: TokenGroups | None, routing: AdapterRouting | None
    ) -> Tensor:
        if tokens is None:
            out: Tensor = self.ff(x_BTD, routing)
            return out
        return by_group([self.ff, *self.group_ff.values()], x_BTD, tokens, routing)  # type: ignore[list-item]

    def _sum(
        self,
        x_BTD: Tensor,
        part_BTD: Tensor,
        scale: "Scale | None",
        after: nn.Module | None,
        out: nn.Module | None,
    ) -> Tensor:
        """Add a sub-layer's output to the residual stream; `after` normalises the sum, `out` the output."""
        if scale is not None:
            part_BTD = part_BTD * scale.weight.to(part_BTD.dtype)
        if out is not None:
            part_BTD = out(part_BTD)
        x_BTD = x_BTD + (part_BTD if self.residual == 1.0 else part_BTD * self.residual)
        return x_BTD if after is None else after(x_BTD)


class Scale(nn.Module):
    """A learned factor per feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))


class Trunk(nn.Module):
    """Embeddings, columns and mask in; hidden states out. `name` is the first word of its sites."""

    def __init__(self, name: str, cfg: TrunkConfig) -> None:
        super().__init__()
        self.name, self.cfg = name, cfg
        self.input_norm = Norm(cfg.input_norm, cfg.width) if cfg.input_norm else None
        self.blocks = nn.ModuleList(
            Block(f"{name}.{i}", b, cfg.width, cfg.memory, cfg.groups) for i, b in enumerate(cfg.blocks)
        )
        self.final_norm = Norm(cfg.final_norm, cfg.width) if cfg.final_norm else None
        # One pair per block: the weight of the residual stream, the weight of the trunk's input.
        self.lambdas: nn.Parameter | None
        self.register_parameter(
            "lambdas", nn.Parameter(torch.empty(len(cfg.blocks), 2)) if cfg.lambdas else None
        )
        # The bias on scores per bucket of distances and head.
        rows = None if cfg.relative is None else (cfg.relative.buckets, cfg.blocks[0].attn.heads)
        self.relative: nn.Parameter | None
        self.register_parameter("relative", None if rows is None else nn.Parameter(torch.empty(rows)))
        self.reads_memory = any(b.cross for b in cfg.blocks)
        self._turning = [repr((b.attn.rope, b.attn.head_dim)) for b in cfg.blocks]
        self._decode = FastDecode(self.blocks, place(self, "lambdas"))

    def default_mask(self) -> Mask:
        """The mask by the config: causal or bidirectional, never across documents."""
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
        routing: AdapterRouting | None = None,
        memory: Memory | None = None,
        condition_BLD: Tensor | None = None,
        taps: Sequence[int] = (),
        impl: str = "auto",
    ) -> TrunkOutput:
        """Run the blocks on x [B, T, D]; with a cache, T are only the new tokens, and keys include the cached ones.

        memory: input of cross-attention; tokens attend to the memory with the same document number. A cache stores its keys and values:
        later calls with that cache need no memory. condition: of adaptive blocks, a vector for each of them or one for all.
        """
        mask = self.default_mask() if mask is None else mask
        if cache is not None and cache.cols is not None:
            refuse_crossing(self.cfg, cache.cols.pos, cols.pos)
        keys = cache.extend(cols) if cache is not None else cols
        x_BTD = x_BTD if self.input_norm is None else self.input_norm(x_BTD)
        x0_BTD, kept = x_BTD, {}
        one = x_BTD.shape[1] == 1
        tokens = self._token_groups(cols)
        plain = self.relative is None and tokens is None and (routing is None or not routing.groups)
        ready = self._decode.ready(x_BTD.dtype, one) if cache is not None and plain else None
        memories = self._lowered_memory(memory, cols, cache, x_BTD.device, impl)
        bias = (
            None
            if self.relative is None or self.cfg.relative is None
            else relative_bias(self.cfg.relative, self.relative, cols.pos, keys.pos)
        )
        lowered: dict[tuple[int | None, float | None], Lowered] = {}
        tables: dict[str, tuple[Tensor, Tensor] | None] = {}

        def look(i: int) -> tuple[tuple[Tensor, Tensor] | None, Lowered]:
            """The rotary tables and the mask of a block: computed once per kind and forward, shared by the blocks."""
            attn, key = self.cfg.blocks[i].attn, self._turning[i]
            how = (attn.window, attn.softcap)
            if how not in lowered:
                m = mask & Window(attn.window) if attn.window else mask
                lowered[how] = lower(
                    m, cols, keys, softcap=attn.softcap, device=x_BTD.device, impl=impl, bias=bias
                )
            if key not in tables:
                tables[key] = (
                    rotary_factors(*rotary_table(attn.rope, attn.head_dim, cols.pos)) if attn.rope else None
                )
            return tables[key], lowered[how]

        chain = None if ready is None or taps else ready.chain
        if chain is not None and cache is not None and len(x_BTD) <= chain.most:
            x_BTD = chain(x_BTD, [look(i) for i in range(len(self.blocks))], cache.layers)
            return TrunkOutput(x_BTD if self.final_norm is None else self.final_norm(x_BTD))
        for i, block in enumerate(self.blocks):
            rotated, seen = look(i)
            if self.lambdas is not None:
                a, b = self.lambdas[i].to(x_BTD.dtype)
                x_BTD = a * x_BTD + b * x0_BTD
            layer = cache.layers[i] if cache is not None else None
            if ready is not None and layer is not None and (step := ready.steps[i]) is not None:
                x_BTD = step(x_BTD, rotated, seen, layer)
            else:
                read = (
                    None
                    if memories is None or block.cross is None
                    else (_memory_keys(block, memory, layer, routing), memories)
                )
                at = None if condition_BLD is None else condition_BLD[:, min(i, condition_BLD.shape[1] - 1)]
                x_BTD = block(x_BTD, rotated, seen, layer, routing, read, tokens, at)
            if i in taps:
                kept[i] = x_BTD
        return TrunkOutput(x_BTD if self.final_norm is None else self.final_norm(x_BTD), kept)

    def _token_groups(self, cols: Cols) -> TokenGroups | None:
        """The tokens by feed-forward group; None where all go through the first and no gradient is taken of the others."""
        groups, grad = len(self.cfg.groups), torch.is_grad_enabled()
        if groups < 2 or (cols.kind is None and not grad):
            return None
        tokens = TokenGroups.of(torch.zeros_like(cols.pos) if cols.kind is None else cols.kind, groups)
        return None if tokens.only == 0 and not grad else tokens

    def _lowered_memory(
        self, memory: Memory | None, cols: Cols, cache: Cache | None, device: torch.device, impl: str
    ) -> Lowered | None:
        """The lowered mask from tokens to memory; None for a trunk without cross-attention."""
        if not self.reads_memory:
            assert memory is None, "this trunk reads no memory"
            return None
        if cache is not None and memory is not None:
            cache.memory_cols = memory.cols
        keys = memory.cols if memory is not None else cache.memory_cols if cache is not None else None
        if keys is None:
            raise UserError(
                "this trunk has cross-attention, but no memory (such as audio) was given",
                "use transcribe with a speech recognition base",
            )
        return lower(SameDocument(), cols, keys, device=device, impl=impl)


def _memory_keys(
    block: nn.Module, memory: Memory | None, layer: LayerCache | None, routing: AdapterRouting | None
) -> KeysValues:
    """K and V of the memory for one block: from its cache, or computed (and stored there)."""
    assert isinstance(block, Block) and block.cross is not None
    if layer is not None and layer.memory is not None and memory is None:
        return layer.memory
    assert memory is not None
    keys = block.cross.keys(memory.states_BME, routing)
    if layer is not None:
        layer.memory = keys
    return keys


@torch.no_grad()
def init_trunk(trunk: Trunk, generator: torch.Generator) -> None:
    """Normal(0, std) projections, plain norms; with `zero_out` the projections that end a residual branch start at zero, and always those of
    adaptive norms, so that their blocks start as the identity (adaLN-Zero)."""
    for name, module in trunk.named_modules():
        if isinstance(module, Norm):
            module.reset()
        elif isinstance(module, Proj):
            assert module.weight is not None
            last = name.rsplit(".", 1)[-1]
            if last == "adapt" or (trunk.cfg.init.zero_out and last in ("o", "down")):
                nn.init.zeros_(module.weight)
            else:
                nn.init.normal_(module.weight, 0.0, trunk.cfg.init.std, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Scale):
            nn.init.ones_(module.weight)
    if trunk.relative is not None:
        nn.init.normal_(trunk.relative, 0.0, trunk.cfg.init.std, generator)
    if trunk.lambdas is not None:
        trunk.lambdas.copy_(torch.tensor([1.0, 0.0]).expand_as(trunk.lambdas))
