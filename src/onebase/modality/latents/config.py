"""The config of latents, and its parameter count. Sizes are in latents, of which one is several pixels, unless stated otherwise."""

from typing import Literal

from onebase.config import config
from onebase.errors import ConfigError

TIMES = 256
"""Features that a time becomes, half of them cosines."""


@config
class NoiseConfig:
    """How much noise there is at each of `steps` times, and how it is taken away.

    betas: the noise that a time adds, from `first` to `last` in a line (`linear`) or in a line of its root (`scaled_linear`), or so that what is
    left of the picture follows a squared cosine (`cosine`, 2102.09672). sampler: without noise of its own (ddim, 2010.02502), or with new noise in
    every step (ddpm, 2006.11239), whose variance is the `small` or `large` bound of that paper. spacing, offset: which times a drawing of
    fewer steps visits (table 2 of 2305.08891). clip: bound of the clean latents that are predicted, if any. to_one: ddim ends without noise, not
    with that of the first time.
    """

    sampler: Literal["ddim", "ddpm"] = "ddim"
    steps: int = 1000
    betas: Literal["linear", "scaled_linear", "cosine"] = "linear"
    first: float = 0.0001
    last: float = 0.02
    spacing: Literal["leading", "trailing", "linspace"] = "leading"
    offset: int = 0
    clip: float | None = 1.0
    to_one: bool = True
    variance: Literal["small", "large"] = "small"

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.first <= self.last < 1 or self.offset < 0:
            raise ConfigError(
                f"noise of {self.steps} steps, betas from {self.first} to {self.last}, offset {self.offset}",
                "give at least 1 step, betas that grow between 0 and 1, and an offset of at least 0",
            )
        if self.clip is not None and self.clip <= 0:
            raise ConfigError(f"noise.clip is {self.clip}", "give a number above 0, or null")


@config
class LatentsConfig:
    """`size` x `size` latents of `channels` numbers, split into patches of `patch` x `patch`; one matrix maps each patch to a vector. `out`: numbers
    predicted for a latent; those after `channels` (a learned variance) are not used. classes: how many there are, beside the one for "no
    class"; names: theirs, in order, with commas between several of one class; empty: numbers alone. conditions: embeddings of time and
    class, 1 for all blocks or one for each.
    """

    kind: Literal["latents"]
    size: int
    patch: int = 2
    channels: int = 4
    out: int = 4
    classes: int = 1000
    names: tuple[str, ...] = ()
    conditions: int = 1
    noise: NoiseConfig = NoiseConfig()

    def __post_init__(self) -> None:
        if (
            min(self.size, self.patch, self.channels, self.classes, self.conditions) < 1
            or self.size % self.patch
        ):
            raise ConfigError(
                f"latents of size {self.size}, patch {self.patch}, {self.channels} channels, {self.classes} classes and {self.conditions} conditions",
                "all must be at least 1, and patch must divide size",
            )
        if self.out not in (self.channels, 2 * self.channels):
            raise ConfigError(
                f"{self.out} numbers are predicted for latents of {self.channels}",
                "predict the noise, and beside it at most as many numbers again",
            )
        if len(self.names) > self.classes:
            raise ConfigError(
                f"{len(self.names)} names of {self.classes} classes", "give at most one text per class"
            )

    @property
    def patches(self) -> int:
        """Patches of a picture."""
        return (self.size // self.patch) ** 2


def latents_parameters(cfg: LatentsConfig, width: int) -> int:
    """Parameters of the stem, the conditions and the head."""
    area = cfg.patch**2
    stem = width * (cfg.channels * area + 1)
    condition = width * (TIMES + 1) + width * (width + 1) + (cfg.classes + 1) * width
    return stem + cfg.conditions * condition + 2 * width * (width + 1) + cfg.out * area * (width + 1)
