"""The linear layer of a trunk: every projection has a site name, and adapters attach only to sites."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.config import StorageConfig
from onebase.model.kernels.packed import PackedLinear, WeightPart, places_of
from onebase.model.kernels.storage import Stored, stored


@dataclass(frozen=True)
class AdapterRouting:
    """Which adapters act on which rows of the batch: pairs (adapter name, rows or None for all). leases: keep the adapters attached to the
    base while this object exists."""

    groups: tuple[tuple[str, tuple[int, ...] | None], ...]
    leases: tuple[object, ...] = field(default=(), compare=False, repr=False)

    @staticmethod
    def all_rows(name: str) -> "AdapterRouting":
        return AdapterRouting(((name, None),))

    @staticmethod
    def per_row(names: list[str | None]) -> "AdapterRouting":
        """One adapter name (or None) per row."""
        if names and all(n == names[0] for n in names):
            return AdapterRouting(((names[0], None),) if names[0] else ())
        unique = dict.fromkeys(n for n in names if n)
        return AdapterRouting(tuple((n, tuple(i for i, m in enumerate(names) if m == n)) for n in unique))


class Delta(nn.Module):
    """What an adapter adds to a projection's output: `forward(x, y, proj)` for inputs x [..., I] and the projection's own outputs
    y [..., O], bias included. The weights of `proj` may be read, never changed."""

    def forward(self, x: Tensor, y: Tensor, proj: "Proj") -> Tensor:
        raise NotImplementedError

    def whole(self, x: Tensor, proj: "Proj") -> Tensor | None:
        """The projection of x with this delta merged, where one computation is cheaper than two; else None."""
        return None


class Proj(nn.Module):
    """y = x W^T + b, plus the deltas of the active adapters attached here.

    `site` is the projection's stable name (`text.3.attn.q`). The weight keeps its stored dtype and is cast to the input's dtype at
    use: fp32 weights trained in bf16 need no second copy, and their gradient is in fp32. A quantized projection has a `store` instead
    of a weight.
    """

    def __init__(self, site: str, d_in: int, d_out: int, bias: bool = False) -> None:
        super().__init__()
        self.site, self.d_in, self.d_out = site, d_in, d_out
        self.weight: nn.Parameter | None = nn.Parameter(torch.empty(d_out, d_in))
        self.store: Stored | None = None
        self.bias = nn.Parameter(torch.zeros(d_out)) if bias else None
        self.deltas = nn.ModuleDict()
        self.packed = PackedLinear(self)

    @property
    def part(self) -> WeightPart:
        """The matrix as it is stored, and its bias."""
        matrix = self.store if self.weight is None else self.weight
        assert matrix is not None
        return WeightPart(matrix, self.bias, places_of(self, self.store))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def keep_in(self, cfg: StorageConfig, *, take: bool) -> None:
        """Replace the weight by a quantized store: empty, or with `take` the quantized weight."""
        assert self.weight is not None
        store = stored(cfg.bits, cfg.group, self.d_in, self.d_out).to(self.weight.device)
        if take:
            store.take(self.weight)
        self.weight, self.store = None, store

    def matrix_OI(self, dtype: torch.dtype) -> Tensor:
        """The dense matrix [O, I], however it is stored."""
        if self.weight is not None:
            return self.weight.to(dtype)
        assert self.store is not None
        return self.store.dense(dtype)

    def forward(self, x: Tensor, routing: AdapterRouting | None = None) -> Tensor:
        if (delta := self._alone(routing)) is not None and (whole := delta.whole(x, self)) is not None:
            return whole
        y = self.packed(x)
        return self.changed(self._dense(x) if y is None else y, x, routing)

    def _alone(self, routing: AdapterRouting | None) -> Delta | None:
        """The delta that acts here, if a single adapter acts on all rows."""
        if routing is None or len(routing.groups) != 1:
            return None
        name, rows = routing.groups[0]
        delta = self.deltas[name] if rows is None and name in self.deltas else None
        assert delta is None or isinstance(delta, Delta)
        return delta

    def _dense(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.weight is not None:
            return F.linear(x, self.weight.to(x.dtype), bias)
        assert self.store is not None
        y: Tensor = self.store(x)
        return y if bias is None else y + bias

    def changed(self, y: Tensor, x: Tensor, routing: AdapterRouting | None) -> Tensor:
        """`y`, this projection of x, with the deltas of the active adapters added."""
        if routing is None or not self.deltas:
            return y
        own = y  # each adapter sees the base's output, not what another adapter added
        for name, rows in routing.groups:
            if name not in self.deltas:
                continue
            delta = self.deltas[name]
            if rows is None:
                y = y + delta(x, own, self)
            else:
                index = torch.tensor(rows, dtype=torch.long, device=x.device)  # there may be none
                y = y.index_add(0, index, delta(x[index], own[index], self))
        return y


class Projs:
    """Projections with the same input, computed as one product where there is a kernel for it. The modules stay separate: sites, adapters
    and stored tensors are not affected."""

    def __init__(self, *parts: Proj) -> None:
        self._parts, self.packed = parts, PackedLinear(*parts)
        self._sizes = [p.d_out for p in parts]

    def __call__(self, x: Tensor, routing: AdapterRouting | None = None) -> tuple[Tensor, ...]:
        """Each projection of x [..., I], in order."""
        y = self.joined(x, routing)
        return tuple(p(x, routing) for p in self._parts) if y is None else torch.split(y, self._sizes, -1)

    def joined(self, x: Tensor, routing: AdapterRouting | None = None) -> Tensor | None:
        """The projections of x [..., I], concatenated to [..., sum of O]; None where no kernel computes them as one."""
        y = self.packed(x)
        if y is None or routing is None or not routing.groups:
            return y
        parts = zip(self._parts, torch.split(y, self._sizes, -1), strict=True)
        return torch.cat([p.changed(part, x, routing) for p, part in parts], -1)
