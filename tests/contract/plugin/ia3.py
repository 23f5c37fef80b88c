"""Method IA3 (2205.05638): a factor for each output of keys, values and the hidden features of feed-forward. O outputs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from onebase.adapt.method import SCRATCH, Learner, Method, MethodOptions, Part
from onebase.adapt.methods import register
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.errors import ConfigError
from onebase.model.proj import Active, Delta, Proj

SITES = (".attn.k", ".attn.v", ".ff.up")


class Scale(Delta):
    def __init__(self, factor_O: Tensor) -> None:
        super().__init__()
        self.factor_O = nn.Parameter(factor_O)

    def forward(self, x: Tensor, y: Tensor, proj: Proj) -> Tensor:
        return y * (self.factor_O - 1).to(y.dtype)


def chosen(model: BaseModel) -> dict[str, Proj]:
    return {site: p for site, p in model.sites().items() if site.endswith(SITES)}


def owns(key: str) -> bool:
    return key.endswith(".factor")


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    on = {site: p.deltas[name] for site, p in chosen(model).items() if name in p.deltas}
    return {f"{site}.factor": d.factor_O.detach() for site, d in on.items() if isinstance(d, Scale)}


def put(model: BaseModel, name: str, cfg: Any, found: dict[str, Tensor]) -> None:
    for site, proj in chosen(model).items():
        if (factor_O := found.get(f"{site}.factor")) is None:
            raise ConfigError(f"{site} has no factor", "use the adapter as it was saved")
        proj.deltas[name] = Scale(factor_O.clone())


def remove(model: BaseModel, name: str) -> None:
    for proj in chosen(model).values():
        if name in proj.deltas and isinstance(proj.deltas[name], Scale):
            del proj.deltas[name]


@contextmanager
def learn(base: LoadedBase, options: MethodOptions, tokens: tuple[int, ...], trunk: str) -> Iterator[Learner]:
    sites = chosen(base.model)
    for proj in sites.values():
        proj.deltas[SCRATCH] = Scale(torch.ones(proj.d_out, device=proj.device))
    params = [p for proj in sites.values() for p in proj.deltas[SCRATCH].parameters()]
    yield Learner(params, Active.all_rows(SCRATCH), {"plugins": {"ia3": {}}})


register(Method(name="ia3", part=Part(owns, tensors, put, remove), learn=learn, rate=1e-2))
