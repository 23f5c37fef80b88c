"""What an image codec is, by its config. Sizes count pixels unless said otherwise."""

from typing import Literal

from onebase.config import config
from onebase.errors import ConfigError
from onebase.model.config import FFConfig, NormConfig
from onebase.model.count import norm_parameters


@config
class PixelsConfig:
    """How a picture becomes the pixels that the stem reads.

    resize: the whole picture to `size` x `size` (`stretch`), or its shorter side to `edge` and then the middle `size` x `size` of it
    (`crop`). A value 0 .. 1 of a channel becomes (value - mean) / std.
    """

    resize: Literal["stretch", "crop"] = "stretch"
    edge: int | None = None
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


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
    class token and patches (`place_class`: to the class token too), not to registers. classes: names of what the head predicts from the
    pooled vector; none: no head.
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

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size < self.patch or self.size % self.patch:
            raise ConfigError(
                f"images of {self.size} pixels cannot be cut into patches of {self.patch}",
                "let patch divide size",
            )
        if len(self.pixels.mean) != self.channels or len(self.pixels.std) != self.channels:
            raise ConfigError(
                f"{self.channels} channels with {len(self.pixels.mean)} means and {len(self.pixels.std)} deviations",
                "give one of each for each channel",
            )

    @property
    def patches(self) -> int:
        """How many patches an image has."""
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
