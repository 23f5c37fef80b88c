"""Feed-forward layers. F hidden features."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.config import GATED, Activation, FFConfig
from onebase.model.proj import AdapterRouting, Proj, Projs


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": _gelu_tanh,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "gelu_sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
    "relu2": lambda x: F.relu(x).square(),
    "relu": F.relu,
    "silu": F.silu,
}


class _SwiGlu(torch.autograd.Function):
    """silu(gate) * up that saves only its two inputs; silu is recomputed for the gradient."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (g,) = upstream
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(g * up, gate), F.silu(gate).mul_(g)


class FeedForward(nn.Module):
    """down(act(up x)), or down(act(gate x) * up x) for gated activations (GLU variants, 2002.05202; ReLU^2, 2109.08668)."""

    def __init__(self, site: str, cfg: FFConfig, width: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.gate = Proj(f"{site}.gate", width, cfg.hidden, cfg.bias) if cfg.activation in GATED else None
        self.up = Proj(f"{site}.up", width, cfg.hidden, cfg.bias)
        self.down = Proj(f"{site}.down", cfg.hidden, width, cfg.bias)
        self.gate_up = Projs(self.gate, self.up) if self.gate is not None else None

    def forward(self, x_BTD: Tensor, routing: AdapterRouting | None = None) -> Tensor:
        act = ACTIVATIONS[self.cfg.activation]
        if self.gate_up is None:
            h_BTF = act(self.up(x_BTD, routing))
        else:
            gate_BTF, h_BTF = self.gate_up(x_BTD, routing)
            if (
                self.cfg.activation == "swiglu"
                and torch.is_grad_enabled()
                and not torch.compiler.is_compiling()
            ):
                h_BTF = _SwiGlu.apply(gate_BTF, h_BTF)  # type: ignore[no-untyped-call]
            else:
                h_BTF = act(gate_BTF) * h_BTF
        out: Tensor = self.down(h_BTF, routing)
        return out
