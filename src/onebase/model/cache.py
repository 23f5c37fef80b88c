"""The key-value cache: S slots per row, with the key columns (positions, documents) beside K and V.

Rows may have prompts of different lengths: padded slots have document -1 and are never visible, so all rows write at the same
slot and need no per-row bookkeeping.
"""

import torch
from torch import Tensor

from onebase.errors import UserError
from onebase.model.config import TrunkConfig
from onebase.model.mask import Cols


class LayerCache:
    """K and V of one block, [B, G, S, H] with G key heads; the first `used` slots are filled."""

    def __init__(
        self, batch: int, heads: int, slots: int, head_dim: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.k = torch.zeros(batch, heads, slots, head_dim, device=device, dtype=dtype)
        self.v = torch.zeros_like(self.k)
        self.used = 0
        self.memory: tuple[Tensor, Tensor] | None = None
        """K and V of the cross-attention memory, once computed: [B, G, M, H]."""

    def append(self, k_BGTH: Tensor, v_BGTH: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values; returns all stored ones, views of [B, G, used, H]."""
        end = self.used + k_BGTH.shape[2]
        self.k[:, :, self.used : end] = k_BGTH
        self.v[:, :, self.used : end] = v_BGTH
        self.used = end
        return self.k[:, :, :end], self.v[:, :, :end]


class Cache:
    """A trunk's cache. `extend(cols)` adds the columns of the next tokens, then each block appends its K and V."""

    def __init__(
        self, cfg: TrunkConfig, batch: int, slots: int, device: torch.device | str, dtype: torch.dtype
    ) -> None:
        self.slots, self.batch = slots, batch
        device = torch.device(device)
        self.layers = [
            LayerCache(batch, b.attn.kv_heads, slots, b.attn.head_dim, device, dtype) for b in cfg.blocks
        ]
        self.cols: Cols | None = None
        self.memory_cols: Cols | None = None

    @property
    def used(self) -> int:
        return self.layers[0].used

    def extend(self, cols: Cols) -> Cols:
        """Add the columns of new tokens; returns the columns of all keys. Raises UserError when the cache is full."""
        if self.used + cols.pos.shape[1] > self.slots:
            raise UserError(
                f"{self.used + cols.pos.shape[1]} tokens do not fit in a cache of {self.slots}",
                "shorten the prompt or request fewer new tokens",
            )
        self.cols = cols if self.cols is None else Cols.cat((self.cols, cols))
        return self.cols

    def rewind(self, used: int) -> None:
        """Forget all slots but the first `used`, so that what came behind them can be read again in another form."""
        for layer in self.layers:
            layer.used = min(layer.used, used)
        if self.cols is not None:
            self.cols = self.cols.cut(0, used)

    def keep(self, index: Tensor) -> None:
        """Select rows of the batch (int [R]), in this order; a row may occur more than once."""
        for layer in self.layers:
            layer.k, layer.v = layer.k[index], layer.v[index]
            if layer.memory is not None:
                layer.memory = layer.memory[0][index], layer.memory[1][index]
        if self.cols is not None:
            self.cols = self.cols.rows(index)
        if self.memory_cols is not None:
            self.memory_cols = self.memory_cols.rows(index)
        self.batch = len(index)
