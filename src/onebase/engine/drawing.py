"""Media made by a base: a block of noise behind a prompt becomes clean patches step by step. B pictures, N patches, P values, K coordinates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.base.patches import Patches
from onebase.errors import UserError
from onebase.model.cache import Cache
from onebase.model.mask import Cols, mixed
from onebase.model.proj import AdapterRouting
from onebase.objective.flow_config import FlowConfig
from onebase.objective.mixed import NEAREST

LATEST = 1 / (1 + math.exp(-(FlowConfig.mean + 2.5 * FlowConfig.std)))
"""The latest time that a base is told, 0.77. Training draws later ones one time in 160: a short run has not learnt them, and the end of each
drawing would be anything."""


@dataclass(frozen=True)
class Drawing:
    """How media are made. steps: of the solver (`heun` reads the block twice a step). guidance: how far the prompt is followed beyond what it
    asks for (classifier-free guidance, 2207.12598); 1: as it is."""

    steps: int = 25
    guidance: float = 2.0
    seed: int = 0
    solver: Literal["euler", "heun"] = "euler"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps is {self.steps}", "give at least 1")
        if self.solver not in ("euler", "heun"):
            raise UserError(f"solver is {self.solver!r}", "give euler or heun")
        if not 0 <= self.guidance < float("inf"):
            raise UserError(f"guidance is {self.guidance}", "give a number of at least 0, such as 2")


@torch.no_grad()
def drawn(
    base: BaseModel,
    codec: str,
    prompt: Sequence[int],
    at_NK: Tensor,
    count: int,
    how: Drawing,
    *,
    unprompted: Sequence[int] | None = None,
    known: tuple[Tensor, Tensor] | None = None,
    start: tuple[Tensor, float] | None = None,
    routing: AdapterRouting | None = None,
) -> Tensor:
    """Clean patches fp32 [B, N, P] of `count` pictures behind the ids of a prompt, their opening at its end.

    unprompted: the ids that stand for no prompt (first token and opening), without which there is no guidance. known: patches [N, P] and which of
    them are given (bool [N]); only the others are made. start: patches [N, P] to begin with instead of noise, and from which time (0: they are all noise). The same seed gives the same picture, whatever `count` is. Raises UserError beyond the
    context.
    """
    module = base.patches[codec]
    N, context = len(at_NK), base.cfg.text.context
    if len(prompt) + N > context:
        raise UserError(
            f"a prompt of {len(prompt)} tokens and {N} patches, the context is {context}",
            "shorten the prompt or ask for a smaller picture",
        )
    guided = unprompted is not None and how.guidance != 1.0
    heads = [
        _Prefix(base, codec, ids, at_NK, count, routing)
        for ids in ([prompt, unprompted] if guided else [prompt])
        if ids is not None
    ]
    noise_BNP = starting_noise(how.seed, count, (N, module.cfg.values)).to(base.device)
    begin = 0.0 if start is None else start[1]
    z_BNP = noise_BNP if start is None else begin * start[0] + (1.0 - begin) * noise_BNP

    def velocity(z_BNP: Tensor, t: float) -> Tensor:
        found = [head.clean(z_BNP, min(t, LATEST)) for head in heads]
        x_BNP = found[0] if len(found) == 1 else found[1] + how.guidance * (found[0] - found[1])
        return (x_BNP - z_BNP) / max(1.0 - t, NEAREST)

    def clamped(z_BNP: Tensor, t: float) -> Tensor:
        if known is None:
            return z_BNP
        return torch.where(known[1][:, None], t * known[0] + (1.0 - t) * noise_BNP, z_BNP)

    times = torch.linspace(begin, 1.0, how.steps + 1, dtype=torch.float64).tolist()
    for t, then in pairwise(times):
        v_BNP = velocity(z_BNP, t)
        ahead_BNP = z_BNP + (then - t) * v_BNP
        if how.solver == "heun" and then < 1.0:
            ahead_BNP = z_BNP + (then - t) * 0.5 * (v_BNP + velocity(clamped(ahead_BNP, then), then))
        z_BNP = clamped(ahead_BNP, then)
    return z_BNP


class _Prefix:
    """A prompt that was read once, and the block behind it that is read again at every step."""

    def __init__(
        self,
        base: BaseModel,
        codec: str,
        ids: Sequence[int],
        at_NK: Tensor,
        count: int,
        routing: AdapterRouting | None,
    ) -> None:
        self.base, self.codec, self.routing = base, codec, routing
        self.module = base.patches[codec]
        B, N, device = count, len(at_NK), base.device
        self.cache: Cache = base.new_cache(B, len(ids) + N, routing)
        ids_BT = torch.tensor(ids, device=device).expand(B, -1)
        base.hidden(ids_BT, Cols.simple(B, len(ids), device), mixed(), cache=self.cache, routing=routing)
        self.used = self.cache.used
        names = base.trunk.cfg.groups
        kind = names.index(self.module.cfg.group) if names else 0
        one = torch.ones(B, N, dtype=torch.long, device=device)
        self.cols = Cols(one * len(ids), one * 0, one * 0, one * kind, one.bool())
        self.ids_BN = one * 0
        self.at_MK, self.place_M = at_NK.to(device).repeat(B, 1), torch.arange(B * N, device=device)

    def clean(self, z_BNP: Tensor, t: float) -> Tensor:
        """The clean patches that the base predicts of noised ones."""
        B, N, P = z_BNP.shape
        t_M = torch.full((B * N,), t, device=z_BNP.device)
        media = {self.codec: Patches(z_BNP.reshape(-1, P), self.at_MK, t_M, self.place_M)}
        h_BND = self.base.hidden(
            self.ids_BN, self.cols, mixed(), cache=self.cache, media=media, routing=self.routing
        ).hidden
        self.cache.rewind(self.used)
        return self.module.predict(h_BND.flatten(0, 1), t_M).reshape(B, N, P)


def starting_noise(seed: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """fp32 [B, *shape]: the noise of a picture is that of its own seed."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)]
    )
