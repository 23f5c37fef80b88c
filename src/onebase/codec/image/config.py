"""What an image codec is, by its config. Sizes count pixels unless said otherwise."""

from typing import Literal

from onebase.config import config
from onebase.errors import ConfigError
from onebase.model.config import FFConfig, NormConfig
from onebase.model.count import norm_parameters

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
"""How values between pixels are found."""


@config
class PixelsConfig:
    """How a picture becomes the `size` x `size` pixels that the stem reads (the codec's size when null).

    resize: the whole picture to `edge` x `edge` (`stretch`), or its shorter side to `edge` and the other in proportion (`crop`); `edge` is
    `size` when null. Of what comes out the middle is taken, with black around it where it is smaller. A value 0 .. 1 of a channel
    becomes (value - mean) / std; one number of either is for all channels. long: before all that the longer side is made so long, the other
    in proportion and even (Idefics3).
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
                f"pixels with mean {self.mean} and deviation {self.std}", "give numbers, no deviation of 0"
            )
        for name in ("edge", "size", "long"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"pixels.{name} is {value}", "give at least 1, or null")


@config
class PoolConfig:
    """One vector of an image, from the trunk's states after its final norm.

    first: of the class token; mean: of the patches; both: those two, one behind the other (DINOv2's classifier). attention: a learned
    query looks at all states with `heads` heads, then its own feed-forward behind `norm` is added (SigLIP).
    """

    kind: Literal["first", "mean", "both", "attention"] = "first"
    heads: int = 1
    ff: FFConfig | None = None
    norm: NormConfig | None = None

    def __post_init__(self) -> None:
        if (self.kind == "attention") != (self.ff is not None and self.norm is not None):
            raise ConfigError(
                f"pooling of kind {self.kind} with ff {self.ff} and norm {self.norm}",
                "attention has both, the others none",
            )


@config
class ImageCodecConfig:
    """`size` x `size` pixels of `channels` values cut into patches of `patch` x `patch`, each a vector by one matrix.

    class_token: a learned vector stands before the patches, and `registers` more behind it (2309.16588). A table of positions is added to
    class token and patches (`place_class`: to the class token too), not to registers. The table is made for `size` pixels; `places_fit`
    says how it is stretched to others (`smooth`: bicubic with antialiasing; `fixed`: other sizes are refused).
    classes: names of what the head predicts from the pooled vector; none: no head.
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

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size < self.patch:  # what no patch fills at an edge is not read
            raise ConfigError(
                f"images of {self.size} pixels cannot be cut into patches of {self.patch}",
                "let patch be at most size",
            )
        if not {len(self.pixels.mean), len(self.pixels.std)} <= {1, self.channels}:
            raise ConfigError(
                f"{self.channels} channels with {len(self.pixels.mean)} means and {len(self.pixels.std)} deviations",
                "give one of each for each channel, or one for all",
            )
        if self.places_fit == "fixed" and self.side != self.size:
            raise ConfigError(
                f"pictures become {self.side} pixels wide, the positions are for {self.size}",
                "let pixels.size be null, or places_fit stretch them",
            )

    @property
    def side(self) -> int:
        """Pixels of a side that the stem is given."""
        return self.pixels.size or self.size

    @property
    def patches(self) -> int:
        """How many patches an image of `size` has."""
        return (self.size // self.patch) ** 2

    @property
    def places(self) -> int:
        """Rows of the table of positions."""
        return self.patches + (self.class_token and self.place_class)


def image_parameters(cfg: ImageCodecConfig, width: int) -> int:
    """All learned numbers of stem, pooling and head."""
    patch = cfg.channels * cfg.patch**2 * width + (width if cfg.bias else 0)
    total = patch + (cfg.places + cfg.class_token + cfg.registers) * width
    pool = cfg.pool
    if pool.ff is not None and pool.norm is not None:
        ff = 2 * width * pool.ff.hidden + (width + pool.ff.hidden if pool.ff.bias else 0)
        total += width + 4 * width * (width + 1) + ff + norm_parameters(pool.norm, width)
    pooled = width * (2 if pool.kind == "both" else 1)
    return total + len(cfg.classes) * (pooled + 1)
