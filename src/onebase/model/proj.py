"""The one matrix of a trunk: every projection has a site, and adapters attach there and nowhere else."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.config import StorageConfig
from onebase.model.kernels.packed import PackedLinear, WeightPart, places_of
from onebase.model.kernels.storage import Stored, stored


@dataclass(frozen=True)
class AdapterRouting:
    """Which adapters act on which rows of the batch: pairs (adapter name, rows or None for all). held: what keeps them on the base as long
    as someone has this."""

    groups: tuple[tuple[str, tuple[int, ...] | None], ...]
    leases: tuple[object, ...] = field(default=(), compare=False, repr=False)

    @staticmethod
    def all_rows(name: str) -> "AdapterRouting":
        return AdapterRouting(((name, None),))

    @staticmethod
    def per_row(names: list[str | None]) -> "AdapterRouting":
        """One adapter name (or None) for each row."""
        if names and all(n == names[0] for n in names):
            return AdapterRouting(((names[0], None),) if names[0] else ())
        found = dict.fromkeys(n for n in names if n)
        return AdapterRouting(tuple((n, tuple(i for i, m in enumerate(names) if m == n)) for n in found))


class Delta(nn.Module):
    """What an adapter adds at a projection: `forward(x, y, proj)` for inputs x [..., I] and the projection's own outputs y [..., O] of
    them, bias included. What `proj` is made of may be read, never changed."""

    def forward(self, x: Tensor, y: Tensor, proj: "Proj") -> Tensor:
        raise NotImplementedError

    def whole(self, x: Tensor, proj: "Proj") -> Tensor | None:
        """The projection of x with this delta in it, where that is shorter than one after the other; None where it is not."""
        return None


class Proj(nn.Module):
    """y = x W^T + b, and to that is added what each active adapter attached here makes of x and y.

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
        self.packed = PackedLinear(self)

    @property
    def part(self) -> WeightPart:
        """The matrix as it is kept, and its bias."""
        matrix = self.store if self.weight is None else self.weight
        assert matrix is not None
        return WeightPart(matrix, self.bias, places_of(self, self.store))

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

    def matrix_OI(self, dtype: torch.dtype) -> Tensor:
        """The matrix as numbers, however it is kept."""
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
        """The one delta that acts here, on all rows."""
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
        """`y`, which is this projection of x, with what the active adapters add."""
        if routing is None or not self.deltas:
            return y
        own = y  # each adapter sees what the base says, not what another added
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
    """Projections that read the same input, as one product where there is a kernel for it. The modules stay apart: sites, adapters and
    what is stored know nothing of it."""

    def __init__(self, *parts: Proj) -> None:
        self._parts, self.packed = parts, PackedLinear(*parts)
        self._sizes = [p.d_out for p in parts]

    def __call__(self, x: Tensor, routing: AdapterRouting | None = None) -> tuple[Tensor, ...]:
        """Each projection of x [..., I], in order."""
        y = self.joined(x, routing)
        return tuple(p(x, routing) for p in self._parts) if y is None else torch.split(y, self._sizes, -1)

    def joined(self, x: Tensor, routing: AdapterRouting | None = None) -> Tensor | None:
        """The projections of x [..., I] side by side in one tensor [..., sum of O]; None where no kernel makes them as one."""
        y = self.packed(x)
        if y is None or routing is None or not routing.groups:
            return y
        parts = zip(self._parts, torch.split(y, self._sizes, -1), strict=True)
        return torch.cat([p.changed(part, x, routing) for p, part in parts], -1)
