"""Attention with grouped queries, rotary positions and QK-norm. N query heads, G key heads, H head features."""

from torch import Tensor, nn

from onebase.model.cache import LayerCache
from onebase.model.config import AttnConfig
from onebase.model.kernels.attention import Lowered, attend
from onebase.model.norm import Norm
from onebase.model.position import rotate
from onebase.model.proj import AdapterRouting, Proj, Projs


class Attention(nn.Module):
    """Self-attention under a lowered mask; q, k and v are stored separately."""

    def __init__(self, site: str, cfg: AttnConfig, width: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.q = Proj(f"{site}.q", width, cfg.heads * cfg.head_dim, "q" in cfg.bias)
        self.k = Proj(f"{site}.k", width, cfg.kv_heads * cfg.head_dim, "k" in cfg.bias)
        self.v = Proj(f"{site}.v", width, cfg.kv_heads * cfg.head_dim, "v" in cfg.bias)
        self.o = Proj(f"{site}.o", cfg.heads * cfg.head_dim, width, "o" in cfg.bias)
        self.qkv = Projs(self.q, self.k, self.v)
        q_heads, k_heads = (cfg.heads, cfg.kv_heads) if cfg.qk_norm_whole else (1, 1)
        self.q_norm = Norm(cfg.qk_norm, q_heads * cfg.head_dim) if cfg.qk_norm else None
        self.k_norm = Norm(cfg.qk_norm, k_heads * cfg.head_dim) if cfg.qk_norm else None
        self.scale = cfg.scale if cfg.scale is not None else cfg.head_dim**-0.5

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        lowered: Lowered,
        cache: LayerCache | None = None,
        routing: AdapterRouting | None = None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BTNH, k_BTGH, v_BTGH = self._read(x_BTD, rope, routing)
        q_BNTH, k_BGTH, v_BGTH = q_BTNH.transpose(1, 2), k_BTGH.transpose(1, 2), v_BTGH.transpose(1, 2)
        if cache is not None:
            k_BGTH, v_BGTH = cache.append(k_BGTH, v_BGTH)
        o_BNTH = attend(q_BNTH, k_BGTH, v_BGTH, lowered, scale=self.scale, softcap=self.cfg.softcap)
        out: Tensor = self.o(o_BNTH.transpose(1, 2).reshape(B, T, -1), routing)
        return out

    def _read(
        self, x_BTD: Tensor, rope: tuple[Tensor, Tensor] | None, routing: AdapterRouting | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, T, N, H], keys and values [B, T, G, H], normalised and rotated."""
        B, T, _ = x_BTD.shape
        N, G, H = self.cfg.heads, self.cfg.kv_heads, self.cfg.head_dim
        joined = self.qkv.joined(x_BTD, routing)
        if (
            joined is not None and self.q_norm is None
        ):  # queries and keys are rotated in one call: with few tokens the number of operations is the cost
            qk_BTXH, v_BTGH = joined.view(B, T, N + 2 * G, H).split_with_sizes((N + G, G), 2)
            q_BTNH, k_BTGH = (qk_BTXH if rope is None else rotate(qk_BTXH, *rope)).split_with_sizes((N, G), 2)
            return q_BTNH, k_BTGH, v_BTGH
        q, k, v = (
            (p(x_BTD, routing) for p in (self.q, self.k, self.v))
            if joined is None
            else joined.split_with_sizes((N * H, G * H, G * H), -1)
        )
        if self.cfg.qk_norm_whole and self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q_BTNH, k_BTGH, v_BTGH = q.view(B, T, N, H), k.view(B, T, G, H), v.view(B, T, G, H)
        if not self.cfg.qk_norm_whole and self.q_norm is not None and self.k_norm is not None:
            q_BTNH, k_BTGH = self.q_norm(q_BTNH), self.k_norm(k_BTGH)
        if rope is not None:
            q_BTNH, k_BTGH = rotate(q_BTNH, *rope), rotate(k_BTGH, *rope)
        return q_BTNH, k_BTGH, v_BTGH
