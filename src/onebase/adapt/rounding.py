"""What is lost of an adapter's deltas when they are merged into weights that are stored in half precision."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Rounding:
    """Sums of squares, in fp64, over all matrices that were changed: of what rounding took away, and of the deltas. by: each matrix's own."""

    by: dict[str, tuple[float, float]] = field(default_factory=dict)

    def note(self, name: str, before: Tensor, exact: Tensor, stored: Tensor) -> None:
        """One matrix: as it was, with its delta, and as that was stored. A matrix that keeps what it was given is not counted."""
        wide = torch.promote_types(exact.dtype, torch.float32)
        if stored.dtype == wide:
            return
        was = exact.to(wide) - before.to(wide)
        lost = stored.to(wide) - exact.to(wide)
        old = self.by.get(name, (0.0, 0.0))
        self.by[name] = (old[0] + _square(lost), old[1] + _square(was))

    @property
    def lost(self) -> float:
        """|round(W + d) - (W + d)| / |d| over all matrices together (Euclidean lengths); 0 where nothing was rounded."""
        return _ratio(sum(a for a, _ in self.by.values()), sum(b for _, b in self.by.values()))

    @property
    def worst(self) -> tuple[str, float]:
        """The matrix that loses most, by that measure; an empty name where nothing was rounded."""
        ratios = {name: _ratio(*pair) for name, pair in self.by.items()}
        return max(ratios.items(), key=lambda x: x[1], default=("", 0.0))


def _square(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2


def _ratio(lost: float, delta: float) -> float:
    return math.sqrt(lost / delta) if delta > 0 else 0.0
