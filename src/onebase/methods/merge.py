"""Adapters into the weights of the base under them, whatever their methods. V vocabulary, D width."""

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
"""The two ends of the text as places of a merge, beside the sites of projections."""


@dataclass
class Rounding:
    """What is lost of deltas where the merged weights are stored in half precision. Sums of squares, in fp64, over all matrices that were changed: of what rounding took away, and of the deltas. by: each matrix's own."""

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


@torch.no_grad()
def merge(model: BaseModel, adapters: Sequence[tuple[Method, str]]) -> Rounding:
    """Put the adapters of these methods and names into the weights, and take all that adapters have put on the model off. Each changes what the base
    alone would say, so their order does not matter. The base is then another base, with another fingerprint.

    Tied ends are untied first where one of them changes: one matrix cannot hold two deltas. A projection in few bits is rounded
    anew: measure what that does (`derive.merging` does). Returned is what storing the others in half precision takes away. Raises UserError
    for a change of the matrix that makes logits where that is kept in few bits.
    """
    made: dict[str, list[Callable[[], Whole]]] = {}
    for method, name in adapters:
        if not isinstance(method.merge, str):
            for place, whole in method.merge(model, name).items():
                made.setdefault(place, []).append(whole)
    if made.keys() & {STEM, HEAD}:
        _open_ends(model)
    rounding, sites = Rounding(), model.sites()
    for place, each in made.items():
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
            f"the base keeps the matrix that makes logits in {storage.head} bits: what the adapter changes of it would be rounded away",
            "serve the adapter beside the base, or merge first and quantize the result",
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
    """The base's own matrix with what each of several changes of it."""
    if len(wholes) == 1 or own is None:
        return wholes[0]
    own = own.to(wholes[0].dtype)
    return own + torch.stack([w - own for w in wholes]).sum(0)


def _square(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2


def _ratio(lost: float, delta: float) -> float:
    return math.sqrt(lost / delta) if delta > 0 else 0.0
