"""The one matrix of a trunk: every projection has a site, and adapters attach there and nowhere else."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.config import StorageConfig
from onebase.model.store import Stored, stored


@dataclass(frozen=True)
class Active:
    """Which adapters act on which rows of the batch: pairs (adapter name, rows or None for all)."""

    groups: tuple[tuple[str, tuple[int, ...] | None], ...]

    @staticmethod
    def all_rows(name: str) -> "Active":
        return Active(((name, None),))

    @staticmethod
    def per_row(names: list[str | None]) -> "Active":
        """One adapter name (or None) for each row."""
        if names and all(n == names[0] for n in names):
            return Active(((names[0], None),) if names[0] else ())
        found = dict.fromkeys(n for n in names if n)
        return Active(tuple((n, tuple(i for i, m in enumerate(names) if m == n)) for n in found))


class Proj(nn.Module):
    """y = x W^T + b, and for each active adapter attached here y += delta(x).

    `site` is the projection's stable name (`text.3.attn.q`). The weight is kept as stored and cast to the input's dtype at
    use: fp32 weights trained in bf16 need no second copy, and their gradient arrives in fp32. A quantised projection has a `store`
    in its place.
    """

    def __init__(self, site: str, d_in: int, d_out: int, bias: bool = False) -> None:
        super().__init__()
        self.site, self.d_in, self.d_out = site, d_in, d_out
        self.weight: nn.Parameter | None = nn.Parameter(torch.empty(d_out, d_in))
        self.store: Stored | None = None
        self.bias = nn.Parameter(torch.zeros(d_out)) if bias else None
        self.deltas = nn.ModuleDict()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def keep_in(self, cfg: StorageConfig, *, take: bool) -> None:
        """Put a store in the place of the weight: empty room, or with `take` the weight's numbers rounded into it."""
        assert self.weight is not None
        made = stored(cfg.bits, cfg.group, self.d_in, self.d_out).to(self.weight.device)
        if take:
            made.take(self.weight)
        self.weight, self.store = None, made

    def forward(self, x: Tensor, active: Active | None = None) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.weight is None:
            assert self.store is not None
            y: Tensor = self.store(x)
            y = y if bias is None else y + bias
        else:
            y = F.linear(x, self.weight.to(x.dtype), bias)
        if active is None or not self.deltas:
            return y
        for name, rows in active.groups:
            if name not in self.deltas:
                continue
            delta = self.deltas[name]
            if rows is None:
                y = y + delta(x)
            else:
                index = torch.tensor(rows, device=x.device)
                y = y.index_add(0, index, delta(x[index]))
        return y
