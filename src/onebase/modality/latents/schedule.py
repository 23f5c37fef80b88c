"""Noise schedules: how much of a picture is left at each time, and one step towards the clean one. N times, z latents of any shape.

Written from DDPM (2006.11239) and DDIM (2010.02502); which times are visited, and defaults, as in diffusers `schedulers/`.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from onebase.errors import UserError
from onebase.modality.latents.config import NoiseConfig

MOST = 0.999
"""Of the noise that one time of the cosine schedule adds."""


def kept(cfg: NoiseConfig) -> Tensor:
    """The share of the picture's variance that is left at each time, fp32 [N], falling."""
    if cfg.betas == "cosine":
        left = [math.cos((i / cfg.steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(cfg.steps + 1)]
        betas = torch.tensor([min(1 - b / a, MOST) for a, b in pairwise(left)])
    elif cfg.betas == "linear":
        betas = torch.linspace(cfg.first, cfg.last, cfg.steps)
    else:
        betas = torch.linspace(cfg.first**0.5, cfg.last**0.5, cfg.steps).square()
    return torch.cumprod(1 - betas, 0)


def visited(cfg: NoiseConfig, count: int) -> list[int]:
    """The `count` times of a drawing, noisiest first. Raises UserError for more than there are."""
    if not 1 <= count <= cfg.steps:
        raise UserError(f"steps is {count}", f"this base has {cfg.steps:,} times: give 1 to {cfg.steps:,}")
    if cfg.spacing == "linspace":
        gap = (cfg.steps - 1) / max(1, count - 1)
        found = [round(i * gap) for i in reversed(range(count))]
    elif cfg.spacing == "leading":
        found = [i * (cfg.steps // count) + cfg.offset for i in reversed(range(count))]
    else:
        gap = cfg.steps - (cfg.steps - cfg.steps / count)  # rounded as there, for ties of halves
        found = [round(cfg.steps - i * gap) - 1 for i in range(count)]
    if found[0] >= cfg.steps:
        raise UserError(
            f"steps is {count}: the times begin at {found[0]}, beyond the last ({cfg.steps - 1})",
            "give fewer steps",
        )
    return found


@dataclass(frozen=True)
class NoiseStep:
    """From one time to the next: `left` and `then` of the picture's variance are there before and after it. noisy: it adds noise of its own."""

    cfg: NoiseConfig
    left: float
    then: float
    noisy: bool

    def __call__(self, z: Tensor, noise: Tensor, fresh: Tensor | None = None) -> Tensor:
        """The latents after it, by the noise that was predicted in them; fresh: the noise of its own."""
        left, then = self.left, self.then
        clean = (z - (1 - left) ** 0.5 * noise) / left**0.5
        if self.cfg.clip is not None:
            clean = clean.clamp(-self.cfg.clip, self.cfg.clip)
        if self.cfg.sampler == "ddim":
            return then**0.5 * clean + (1 - then) ** 0.5 * noise
        beta = 1 - left / then
        mean = (then**0.5 * beta * clean + (left / then) ** 0.5 * (1 - then) * z) / (1 - left)
        if fresh is None or not self.noisy:
            return mean
        small = (1 - then) / (1 - left) * beta
        return mean + fresh * (beta if self.cfg.variance == "large" else max(small, 1e-20)) ** 0.5


def steps_of(cfg: NoiseConfig, count: int) -> list[tuple[int, NoiseStep]]:
    """Each time of a drawing with its step. Raises UserError."""
    left_N, times, jump = kept(cfg).tolist(), visited(cfg, count), cfg.steps // count
    last = 1.0 if cfg.to_one or cfg.sampler == "ddpm" else left_N[0]
    out = []
    # ddim goes back by equal jumps, ddpm to the time that is visited next, as in diffusers.
    ahead = [t - jump for t in times] if cfg.sampler == "ddim" else [*times[1:], -1]
    for t, before in zip(times, ahead, strict=True):
        then = left_N[before] if before >= 0 else last
        out.append((t, NoiseStep(cfg, left_N[t], then, cfg.sampler == "ddpm" and t > 0)))
    return out
