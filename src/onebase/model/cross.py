"""Attention to another trunk's states. N query heads, G key heads, H head features, M memory tokens of E features."""

from dataclasses import dataclass

from torch import Tensor, nn

from onebase.model.config import AttnConfig
from onebase.model.kernels.attention import Lowered, attend
from onebase.model.mask import Cols
from onebase.model.norm import Norm
from onebase.model.proj import AdapterRouting, Proj

KeysValues = tuple[Tensor, Tensor]
"""K and V of one block's memory, each [B, G, M, H]."""


@dataclass(frozen=True)
class Memory:
    """The input of cross-attention: states [B, M, E] and their columns (document -1 is padding)."""

    states_BME: Tensor
    cols: Cols


class CrossAttention(nn.Module):
    """Queries from the trunk's own states, keys and values from the memory. No positions: the memory's states contain theirs."""

    def __init__(self, site: str, cfg: AttnConfig, width: int, memory: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.q = Proj(f"{site}.q", width, cfg.heads * cfg.head_dim, "q" in cfg.bias)
        self.k = Proj(f"{site}.k", memory, cfg.kv_heads * cfg.head_dim, "k" in cfg.bias)
        self.v = Proj(f"{site}.v", memory, cfg.kv_heads * cfg.head_dim, "v" in cfg.bias)
        self.o = Proj(f"{site}.o", cfg.heads * cfg.head_dim, width, "o" in cfg.bias)
        self.q_norm = Norm(cfg.qk_norm, cfg.head_dim) if cfg.qk_norm else None
        self.k_norm = Norm(cfg.qk_norm, cfg.head_dim) if cfg.qk_norm else None
        self.scale = cfg.scale if cfg.scale is not None else cfg.head_dim**-0.5

    def keys(self, memory_BME: Tensor, routing: AdapterRouting | None = None) -> KeysValues:
        """K and V of the memory: computed once, however many tokens attend to it."""
        B, M, _ = memory_BME.shape
        k_BMGH = self.k(memory_BME, routing).view(B, M, self.cfg.kv_heads, -1)
        v_BMGH = self.v(memory_BME, routing).view(B, M, self.cfg.kv_heads, -1)
        k_BMGH = k_BMGH if self.k_norm is None else self.k_norm(k_BMGH)
        return k_BMGH.transpose(1, 2).contiguous(), v_BMGH.transpose(1, 2).contiguous()

    def forward(
        self, x_BTD: Tensor, keys: KeysValues, lowered: Lowered, routing: AdapterRouting | None = None
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BTNH = self.q(x_BTD, routing).view(B, T, self.cfg.heads, -1)
        q_BTNH = q_BTNH if self.q_norm is None else self.q_norm(q_BTNH)
        o_BNTH = attend(q_BTNH.transpose(1, 2), *keys, lowered, scale=self.scale, softcap=self.cfg.softcap)
        out: Tensor = self.o(o_BNTH.transpose(1, 2).reshape(B, T, -1), routing)
        return out
