"""The config of the image codec, and its parameter count. Sizes are in pixels unless stated otherwise."""

from typing import Literal

from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError
from onebase.model.config import FFConfig, NormConfig
from onebase.model.count import norm_parameters

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
"""Interpolation filters, as Pillow names them."""


@config
class PixelsConfig:
    """How an image becomes the `size` x `size` pixels that the stem reads (the codec's size when null).

    resize: the whole image to `edge` x `edge` (`stretch`), or its shorter side to `edge`, keeping proportions (`crop`); `edge` is
    `size` when null. The result is cropped at the centre, or padded with black where it is smaller. A channel value 0 .. 1 becomes
    (value - mean) / std; a single mean or std is for all channels. long: first resize the longer side to this length, the other in
    proportion and to an even number (Idefics3).
    """

    resize: Literal["stretch", "crop"] = "stretch"
    edge: int | None = None
    filter: Filter = "bicubic"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    size: int | None = None
    long: int | None = None

    def __post_init__(self) -> None:
        if 0 in self.std or not self.mean or not self.std:
            raise ConfigError(
                f"pixels with mean {self.mean} and std {self.std}", "give numbers, and no std of 0"
            )
        for name in ("edge", "size", "long"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"pixels.{name} is {value}", "use at least 1, or null")


@config
class PoolConfig:
    """Pools the trunk's states after its final norm into one vector per image.

    first: the class token; mean: the mean of the patches; both: those two, concatenated (DINOv2's classifier). attention: a learned
    query attends to all states with `heads` heads, then a feed-forward after `norm` is added (SigLIP).
    """

    kind: Literal["first", "mean", "both", "attention"] = "first"
    heads: int = 1
    ff: FFConfig | None = None
    norm: NormConfig | None = None

    def __post_init__(self) -> None:
        if (self.kind == "attention") != (self.ff is not None and self.norm is not None):
            raise ConfigError(
                f"pooling of kind {self.kind} with ff {self.ff} and norm {self.norm}",
                "attention needs both, the others neither",
            )


@config
class ImageCodecConfig:
    """`size` x `size` pixels of `channels` values, split into patches of `patch` x `patch`; one matrix maps each patch to a vector.

    class_token: a learned vector before the patches, followed by `registers` more (2309.16588). A table of positions is added to the
    patches (`place_class`: to the class token too), not to registers. The table is for `size` pixels; `places_fit` sets how it is
    interpolated for other sizes (`smooth`: bicubic with antialiasing; `fixed`: other sizes are refused).
    classes: class names of the head on the pooled vector; empty: no head. starts: how the positions begin when the base is initialised: as
    small random numbers, or as sines of row and column (`sines`), by which patches near each other are alike from the first step.
    """

    kind: Literal["image"]
    size: int
    patch: int
    channels: int = 3
    bias: bool = True
    class_token: bool = True
    registers: int = 0
    place_class: bool = True
    pixels: PixelsConfig = PixelsConfig()
    pool: PoolConfig = PoolConfig()
    classes: tuple[str, ...] = ()
    places_fit: Literal["fixed", "bicubic", "smooth"] = "fixed"
    starts: Literal["random", "sines"] = later("random")

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size < self.patch:  # pixels left over at an edge are not read
            raise ConfigError(
                f"images of {self.size} pixels cannot be split into patches of {self.patch}",
                "patch must be at least 1 and at most size",
            )
        if not {len(self.pixels.mean), len(self.pixels.std)} <= {1, self.channels}:
            raise ConfigError(
                f"{self.channels} channels with {len(self.pixels.mean)} means and {len(self.pixels.std)} stds",
                "give one of each per channel, or one for all",
            )
        if self.places_fit == "fixed" and self.side != self.size:
            raise ConfigError(
                f"images are resized to {self.side} pixels, but the positions are for {self.size}",
                "set pixels.size to null, or places_fit to bicubic or smooth",
            )

    @property
    def side(self) -> int:
        """Side length of the stem's input, in pixels."""
        return self.pixels.size or self.size

    @property
    def patches(self) -> int:
        """Number of patches in an image of `size`."""
        return (self.size // self.patch) ** 2

    @property
    def places(self) -> int:
        """Rows of the position table."""
        return self.patches + (self.class_token and self.place_class)


def image_vectors(cfg: ImageCodecConfig) -> int:
    """Vectors of one picture: its patches, the class token, the registers."""
    return (cfg.side // cfg.patch) ** 2 + cfg.class_token + cfg.registers


def image_parameters(cfg: ImageCodecConfig, width: int) -> int:
    """Parameters of stem, pooling and head."""
    patch = cfg.channels * cfg.patch**2 * width + (width if cfg.bias else 0)
    total = patch + (cfg.places + cfg.class_token + cfg.registers) * width
    pool = cfg.pool
    if pool.ff is not None and pool.norm is not None:
        ff = 2 * width * pool.ff.hidden + (width + pool.ff.hidden if pool.ff.bias else 0)
        total += width + 4 * width * (width + 1) + ff + norm_parameters(pool.norm, width)
    pooled = width * (2 if pool.kind == "both" else 1)
    return total + len(cfg.classes) * (pooled + 1)
