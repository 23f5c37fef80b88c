"""Merges adapters of any method into the weights of their base. V vocabulary, D width."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.errors import UserError
from onebase.methods.method import Method, Whole
from onebase.methods.parts import holders
from onebase.model.kernels.storage import Int4, Int8
from onebase.model.proj import Proj

STEM, HEAD = "text.stem", "text.head"
"""Names of the text codec's embedding and head in a merge, besides the sites of projections."""


@dataclass
class Rounding:
    """The loss of deltas by rounding, where merged weights are stored in half precision. by: for each changed matrix the sums of squares, in
    fp64, of the rounding error and of the delta."""

    by: dict[str, tuple[float, float]] = field(default_factory=dict)

    def note(self, name: str, before: Tensor, exact: Tensor, stored: Tensor) -> None:
        """Add one matrix: before the merge, with its delta, and as stored. A matrix that is stored without rounding is not counted."""
        wide = torch.promote_types(exact.dtype, torch.float32)
        if stored.dtype == wide:
            return
        delta = exact.to(wide) - before.to(wide)
        lost = stored.to(wide) - exact.to(wide)
        old = self.by.get(name, (0.0, 0.0))
        self.by[name] = (old[0] + _square(lost), old[1] + _square(delta))

    @property
    def lost(self) -> float:
        """|round(W + d) - (W + d)| / |d| over all matrices together (Euclidean norms); 0 where nothing was rounded."""
        return _ratio(sum(a for a, _ in self.by.values()), sum(b for _, b in self.by.values()))

    @property
    def worst(self) -> tuple[str, float]:
        """The matrix with the largest loss, by that measure; an empty name where nothing was rounded."""
        ratios = {name: _ratio(*pair) for name, pair in self.by.items()}
        return max(ratios.items(), key=lambda x: x[1], default=("", 0.0))


@torch.no_grad()
def merge(model: BaseModel, adapters: Sequence[tuple[Method, str]]) -> Rounding:
    """Merge the adapters of these methods and names into the weights, and remove all adapters from the model. Each delta is relative to the
    base alone, so their order does not matter. The result is another base, with another fingerprint.

    Tied embeddings are untied first where one of the two changes: one matrix cannot hold two deltas. A quantized projection is quantized
    again; `derive.merging` measures the effect. Returns the loss by storing the other matrices in half precision. Raises UserError for a
    change of a quantized language-model head.
    """
    changes: dict[str, list[Callable[[], Whole]]] = {}
    for method, name in adapters:
        if not isinstance(method.merge, str):
            for place, whole in method.merge(model, name).items():
                changes.setdefault(place, []).append(whole)
    if changes.keys() & {STEM, HEAD}:
        _open_ends(model)
    rounding, sites = Rounding(), model.sites()
    for place, each in changes.items():
        if place in (STEM, HEAD):
            _merge_end(model, place, each, rounding)
        else:
            _merge_site(sites[place], each, rounding)
    for holder in holders(model):
        holder.clear()
    return rounding


def _open_ends(model: BaseModel) -> None:
    storage = model.cfg.storage
    if storage is not None and storage.head is not None:
        raise UserError(
            f"the base's language-model head is quantized to {storage.head} bits, and rounding would remove the adapter's change of it",
            "serve the adapter with the base, or merge first and quantize the result",
        )
    model.untie()


def _merge_end(model: BaseModel, place: str, each: Sequence[Callable[[], Whole]], rounding: Rounding) -> None:
    end = model.text.stem if place == STEM else model.text.head
    assert end.weight is not None
    own_VD = end.weight.clone()
    whole_VD = _together([w().weight for w in each], own_VD)
    end.weight.copy_(whole_VD)
    rounding.note(place, own_VD, whole_VD, end.weight)


def _merge_site(proj: Proj, each: Sequence[Callable[[], Whole]], rounding: Rounding) -> None:
    wholes = [w() for w in each]
    whole_OI = _together(
        [w.weight for w in wholes], None if len(wholes) == 1 else proj.matrix_OI(wholes[0].weight.dtype)
    )
    if proj.weight is None:
        assert isinstance(proj.store, Int8 | Int4)
        proj.store.take(whole_OI)
    else:
        own_OI = proj.weight.clone()
        proj.weight.copy_(whole_OI)
        rounding.note(proj.site, own_OI, whole_OI, proj.weight)
    if biases := [w.bias for w in wholes if w.bias is not None]:
        assert proj.bias is not None
        proj.bias.copy_(_together(biases, proj.bias.clone()))


def _together(wholes: Sequence[Tensor], own: Tensor | None) -> Tensor:
    """The base's matrix with the deltas of several adapters."""
    if len(wholes) == 1 or own is None:
        return wholes[0]
    own = own.to(wholes[0].dtype)
    return own + torch.stack([w - own for w in wholes]).sum(0)


def _square(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2


def _ratio(lost: float, delta: float) -> float:
    return math.sqrt(lost / delta) if delta > 0 else 0.0
