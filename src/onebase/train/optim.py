"""Optimizers by kind of parameter behind one interface (step, rates, state as named tensors), and the learning rate schedule."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.errors import ArtifactError
from onebase.train.config import AdamWConfig, MuonConfig, ScheduleConfig
from onebase.train.ema import Ema
from onebase.train.muon import Muon, newton_schulz_dtype
from onebase.train.parallel import is_split, split_like, whole


class Optimizers:
    """Muon for the trunk's matrices (when given), AdamW for the rest, both over trainable parameters only; and their running average, where `ema` is
    its decay."""

    def __init__(
        self, model: BaseModel, muon: MuonConfig | None, adamw: AdamWConfig, ema: float | None = None
    ) -> None:
        groups = model.groups()
        self.names: dict[nn.Parameter, str] = {p: n for g in groups.values() for n, p in g}
        self.parts: dict[str, torch.optim.Optimizer] = {}
        rest = dict(groups)
        if muon is not None and groups["matrix"]:
            rest.pop("matrix")
            matrices = [p for _, p in groups["matrix"]]
            self.parts["muon"] = Muon(
                matrices,
                lr=muon.lr,
                momentum=muon.momentum,
                weight_decay=muon.weight_decay,
                ns_steps=muon.ns_steps,
                dtype=newton_schulz_dtype(matrices[0].device),
            )
        rates = {"matrix": adamw.matrix, "embed": adamw.embed, "head": adamw.head, "other": adamw.other}
        adam = [{"params": [p for _, p in g], "lr": rates[k]} for k, g in rest.items() if g]
        if adam:
            fused = all(p.device.type in ("cpu", "cuda") for g in adam for p in g["params"])  # type: ignore[attr-defined]
            self.parts["adamw"] = torch.optim.AdamW(
                adam, betas=adamw.betas, eps=adamw.eps, weight_decay=adamw.weight_decay, fused=fused
            )
        if ema is not None:
            self.parts["ema"] = Ema(self.names, ema)  # last: it averages what the others have made
        self.base_rates = {k: [g["lr"] for g in o.param_groups] for k, o in self.parts.items()}

    def parameters(self) -> list[nn.Parameter]:
        """All trainable parameters."""
        return list(self.names)

    def set_factor(self, factor: float) -> None:
        """Scale every group's rate."""
        for k, o in self.parts.items():
            for group, rate in zip(o.param_groups, self.base_rates[k], strict=True):
                group["lr"] = rate * factor

    def step(self) -> None:
        for o in self.parts.values():
            o.step()
            # Fused steps do not increment version counters, on which weight caches (`model.derived`) depend.
            torch.autograd.graph.increment_version(p for g in o.param_groups for p in g["params"])

    def zero_grad(self) -> None:
        for o in self.parts.values():
            o.zero_grad(set_to_none=True)

    def use_average(self) -> None:
        """Put the running averages into the weights, if there are any."""
        for o in self.parts.values():
            if isinstance(o, Ema):
                o.use()

    def _states(self) -> Iterator[tuple[str, nn.Parameter, dict[str, Tensor]]]:
        for k, o in self.parts.items():
            for p, name in self.names.items():
                if p in o.state:
                    yield f"{k}/{name}", p, o.state[p]

    def state_tensors(self) -> dict[str, Tensor]:
        """Whole tensors named `optimizer/parameter/key`. A collective: every rank must call it."""
        out: dict[str, Tensor] = {}
        for prefix, _, state in self._states():
            for key, value in state.items():
                out[f"{prefix}/{key}"] = whole(value).detach().cpu()
        return out

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load the tensors of `state_tensors` onto this run's devices and shards."""
        left = dict(tensors)
        for k, o in self.parts.items():
            for group in o.param_groups:
                for p in group["params"]:
                    prefix = f"{k}/{self.names[p]}/"
                    state = {n[len(prefix) :]: left.pop(n) for n in list(left) if n.startswith(prefix)}
                    if state:
                        o.state[p] = {key: _place(key, t, p) for key, t in state.items()}
        if left:
            raise ArtifactError(
                f"the checkpoint has optimizer state of {next(iter(left))!r}, which this run does not train",
                "resume with the recipe of the checkpoint",
            )


def _place(key: str, tensor: Tensor, like: nn.Parameter) -> Tensor:
    if key != "step" and tensor.numel() == like.numel() == 1:  # sharded runs hold scalars as [1]
        tensor = tensor.reshape(like.shape)
    if key != "step" and tensor.shape == like.shape and is_split(like):  # step counters stay plain tensors
        return split_like(tensor, like)
    return tensor.to(like.device, copy=True)  # on the parameter's device, as fused kernels need it


def factor(cfg: ScheduleConfig, step: int, total: int) -> float:
    """Factor at `step` (from 0) of `total`: warm-up, flat, linear warm-down; the last step is just above `final`."""
    up = min(1.0, (step + 1) / cfg.warmup) if cfg.warmup else 1.0
    return up * _down(cfg, step, total)


def _down(cfg: ScheduleConfig, step: int, total: int) -> float:
    left = (total - step) / max(1.0, cfg.warmdown * total)
    return min(1.0, left * (1 - cfg.final) + cfg.final) if cfg.warmdown else 1.0


def flat_steps(cfg: ScheduleConfig, total: int) -> int:
    """Steps of `total` before the warm-down, at least 1. They do not depend on the total: a longer run begins with the same steps."""
    steps = max(1, min(total, int(total - max(1.0, cfg.warmdown * total))))
    while steps < total and _down(cfg, steps, total) == 1.0:
        steps += 1
    return steps
