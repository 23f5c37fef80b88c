"""Method IA3 (2205.05638): a factor for each output of keys, values and the hidden features of feed-forward. O outputs, I inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.config import config
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.peft.folder import PREFIX, PeftFolder, Target
from onebase.formats.peft.names import modules
from onebase.methods.method import SCRATCH, Learner, Method, Part, Peft, Start, Whole, option
from onebase.methods.table import register
from onebase.model.proj import Active, Delta, Proj
from onebase.model.sites import fits


@config
class IA3Options:
    factors: tuple[str, ...] = option(
        ("attn.k", "attn.v", "ff.up"), "which projections have factors, by the ends of their names"
    )


class Scale(Delta):
    def __init__(self, factor_O: Tensor) -> None:
        super().__init__()
        self.factor_O = nn.Parameter(factor_O)

    def forward(self, x: Tensor, y: Tensor, proj: Proj) -> Tensor:
        return y * (self.factor_O - 1).to(y.dtype)


def chosen(model: BaseModel, cfg: IA3Options) -> dict[str, Proj]:
    found = {s: p for s, p in model.sites().items() if any(fits(s, f) for f in cfg.factors)}
    if not found:
        raise ConfigError(
            f"factors {list(cfg.factors)} mean no projection", "give for example [attn.k, ff.up]"
        )
    return found


def scales(model: BaseModel, name: str) -> dict[str, tuple[Proj, Scale]]:
    on = {site: (p, p.deltas[name]) for site, p in model.sites().items() if name in p.deltas}
    return {site: (p, d) for site, (p, d) in on.items() if isinstance(d, Scale)}


def owns(key: str) -> bool:
    return key.endswith(".factor")


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    return {f"{site}.factor": d.factor_O.detach() for site, (_, d) in scales(model, name).items()}


def put(model: BaseModel, name: str, cfg: IA3Options, found: dict[str, Tensor]) -> None:
    sites = chosen(model, cfg)
    if found.keys() != {f"{site}.factor" for site in sites}:
        raise ConfigError("the factors are not those of its sites", "use the adapter as it was saved")
    for site, proj in sites.items():
        proj.deltas[name] = Scale(found[f"{site}.factor"].clone())


def remove(model: BaseModel, name: str) -> None:
    for proj, _ in scales(model, name).values():
        del proj.deltas[name]


@contextmanager
def learn(start: Start) -> Iterator[Learner]:
    sites = chosen(start.base.model, start.options)
    for proj in sites.values():
        proj.deltas[SCRATCH] = Scale(torch.ones(proj.d_out, device=proj.device))
    params = [p for proj in sites.values() for p in proj.deltas[SCRATCH].parameters()]
    yield Learner(params, Active.all_rows(SCRATCH), start.options)


def scaled(proj: Proj, scale: Scale) -> Whole:
    bias = None if proj.bias is None else scale.factor_O * proj.bias
    return Whole(scale.factor_O[:, None] * proj.matrix_OI(torch.float32), bias)


def merge(model: BaseModel, name: str) -> dict[str, Callable[[], Whole]]:
    return {site: partial(scaled, *each) for site, each in scales(model, name).items()}


def read(folder: PeftFolder, target: Target) -> tuple[IA3Options, dict[str, Tensor]]:
    """Their factors [O, 1] of k and v, and [1, I] of what `down` reads: with a gated feed-forward that is the outputs of `up`."""
    folder.done("IA3", ("target_modules", "feedforward_modules", "fan_in_fan_out", "init_ia3_weights"))
    known = dict(modules(target.model, target.family()))
    found = {}
    for key, factor in folder.own.items():
        module = known.get(key.removeprefix(PREFIX).removesuffix(".ia3_l"))
        if module is None or len(module.parts) != 1:
            raise ArtifactError(
                f"{folder.where}: {key!r} is no projection here", "give an adapter of this base"
            )
        found[f"{module.parts[0][0].site.replace('.down', '.up')}.factor"] = factor.flatten().float().clone()
    return IA3Options(factors=tuple(k.removesuffix(".factor") for k in found)), found


def write(
    cfg: IA3Options, found: dict[str, Tensor], target: Target
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    out, words = {}, set()
    for name, module in modules(target.model, target.family()):
        proj = module.parts[0][0]
        down = proj.site.endswith(".ff.down")
        if (factor := found.get(f"{proj.site.replace('.down', '.up')}.factor")) is None or ".up" in proj.site:
            continue
        out[f"{PREFIX}{name}.ia3_l"] = factor[None] if down else factor[:, None]
        words.add((name.rsplit(".", 1)[-1], down))
    said = {
        "task_type": "CAUSAL_LM",
        "target_modules": sorted(word for word, _ in words),
        "feedforward_modules": sorted(word for word, down in words if down),
    }
    return said, out


register(
    Method(
        name="ia3",
        options=IA3Options,
        part=Part(owns, tensors, put, remove),
        learn=learn,
        rate=1e-2,
        tuned={"factors": (["attn.k"], ["attn.k", "attn.v", "ff.up"])},
        merge=merge,
        peft=Peft("IA3", read, write),
    )
)
