"""Feed-forward layers. B batch, T time, N = B T tokens, D width, F hidden features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class TokenGroups:
    """The tokens of a batch sorted by feed-forward group: `order` int [N] into rows laid end to end, `back` its inverse, `sizes` of the groups."""

    order_N: Tensor
    back_N: Tensor
    sizes: tuple[int, ...]

    @staticmethod
    def of(kind_BT: Tensor, groups: int) -> "TokenGroups":
        """Of group numbers [B, T], each below `groups`."""
        kind_N = kind_BT.flatten()
        order_N = torch.argsort(kind_N, stable=True)
        sizes = tuple(torch.bincount(kind_N, minlength=groups).tolist())
        assert len(sizes) == groups, "a token of a group that the trunk has not"
        return TokenGroups(order_N, torch.argsort(order_N), sizes)

    @property
    def only(self) -> int | None:
        """The one group that all tokens are of, if there is one."""
        return next((g for g, size in enumerate(self.sizes) if size == len(self.order_N)), None)


def by_group(
    parts: Sequence[FeedForward], x_BTD: Tensor, tokens: TokenGroups, routing: AdapterRouting | None
) -> Tensor:
    """Each token through the feed-forward of its group.

    Where gradients are taken a group without tokens runs on none: the gradient of its weights is zero, not missing, so that ranks that see
    different kinds of tokens reduce the same tensors.
    """
    grad = torch.is_grad_enabled()
    if (only := tokens.only) is not None:
        y_BTD: Tensor = parts[only](x_BTD, routing)
        if not grad:
            return y_BTD
        others = [p for i, p in enumerate(parts) if i != only]
        return y_BTD + torch.stack([p(x_BTD[:, :0], routing).sum() for p in others]).sum()
    T, D = x_BTD.shape[1:]
    sorted_ND = x_BTD.reshape(-1, D)[tokens.order_N]
    row_N = None if routing is None else tokens.order_N // T
    out, start = [], 0
    for part, size in zip(parts, tokens.sizes, strict=True):
        end = start + size
        if size or grad:
            own = None if routing is None or row_N is None else _of_tokens(routing, row_N[start:end])
            out.append(part(sorted_ND[start:end], own))
        start = end
    return torch.cat(out)[tokens.back_N].reshape(x_BTD.shape)


def _of_tokens(routing: AdapterRouting, row_n: Tensor) -> AdapterRouting:
    """The routing of some tokens, by the row of each: their numbers in the place of the rows."""
    groups: list[tuple[str, tuple[int, ...] | None]] = []
    for name, rows in routing.groups:
        if rows is not None:
            rows = tuple(torch.isin(row_n, torch.tensor(rows, device=row_n.device)).nonzero()[:, 0].tolist())
        groups.append((name, rows))
    return AdapterRouting(tuple(groups), routing.leases)
