"""Attention with grouped queries, rotary positions and QK-norm. N query heads, G key heads, H head features."""

from torch import Tensor, nn

from onebase.model.attend import Lowered, attend
from onebase.model.cache import LayerCache
from onebase.model.config import AttnConfig
from onebase.model.norm import Norm
from onebase.model.position import rotate
from onebase.model.proj import Active, Proj


class Attention(nn.Module):
    """Self-attention under a lowered mask; q, k and v are stored apart."""

    def __init__(self, site: str, cfg: AttnConfig, width: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.q = Proj(f"{site}.q", width, cfg.heads * cfg.head_dim, "q" in cfg.bias)
        self.k = Proj(f"{site}.k", width, cfg.kv_heads * cfg.head_dim, "k" in cfg.bias)
        self.v = Proj(f"{site}.v", width, cfg.kv_heads * cfg.head_dim, "v" in cfg.bias)
        self.o = Proj(f"{site}.o", cfg.heads * cfg.head_dim, width, "o" in cfg.bias)
        self.q_norm = Norm(cfg.qk_norm, cfg.head_dim) if cfg.qk_norm else None
        self.k_norm = Norm(cfg.qk_norm, cfg.head_dim) if cfg.qk_norm else None
        self.scale = cfg.scale if cfg.scale is not None else cfg.head_dim**-0.5

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        lowered: Lowered,
        cache: LayerCache | None = None,
        active: Active | None = None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        H = self.cfg.head_dim
        q_BTNH = self.q(x_BTD, active).view(B, T, self.cfg.heads, H)
        k_BTGH = self.k(x_BTD, active).view(B, T, self.cfg.kv_heads, H)
        v_BTGH = self.v(x_BTD, active).view(B, T, self.cfg.kv_heads, H)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTNH, k_BTGH = self.q_norm(q_BTNH), self.k_norm(k_BTGH)
        q_BNTH, k_BGTH, v_BGTH = (t.transpose(1, 2) for t in (q_BTNH, k_BTGH, v_BTGH))
        if rope is not None:
            q_BNTH, k_BGTH = rotate(q_BNTH, *rope), rotate(k_BGTH, *rope)
        if cache is not None:
            k_BGTH, v_BGTH = cache.append(k_BGTH, v_BGTH)
        o_BNTH = attend(q_BNTH, k_BGTH, v_BGTH, lowered, scale=self.scale, softcap=self.cfg.softcap)
        out: Tensor = self.o(o_BNTH.transpose(1, 2).reshape(B, T, -1), active)
        return out
