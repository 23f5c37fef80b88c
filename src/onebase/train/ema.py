"""A running average of the weights, which is what a run with `train.ema` ends with: pictures drawn by it are cleaner (2006.11239)."""

from collections.abc import Iterable

import torch
from torch import nn


class Ema(torch.optim.Optimizer):
    """Keeps the average of each weight as state, so that checkpoints and shards hold it as they hold moments. decay: share of the old average that stays
    at a step; less during the first steps, min(decay, (1 + n) / (10 + n))."""

    def __init__(self, params: Iterable[nn.Parameter], decay: float) -> None:
        super().__init__(params, {"lr": 0.0})
        self.decay = decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take the weights as they are now into the average."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["steps"], state["average"] = torch.zeros(()), p.detach().clone()
                n = float(state["steps"])
                state["steps"] += 1
                state["average"].lerp_(p.detach(), 1 - min(self.decay, (1 + n) / (10 + n)))

    @torch.no_grad()
    def use(self) -> None:
        """Put the averages into the weights."""
        for p, state in self.state.items():
            p.copy_(state["average"])
            torch.autograd.graph.increment_version([p])
