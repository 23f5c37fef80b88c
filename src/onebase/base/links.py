"""Configs and parameter counts of links between trunks; `link_modules` has their modules."""

from typing import Literal

from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError
from onebase.modality.image.config import ImageCodecConfig
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.model.config import Activation, NormConfig
from onebase.model.count import norm_parameters


@config
class ConnectorConfig:
    """The layers between a trunk's states and another trunk's sequence.

    block: the block whose output is read, counted from the last (0); null: the states after the final norm. skip: vectors dropped at the
    front (class token, registers). pool: average squares of `pool` x `pool` patches (Gemma 3). shuffle: concatenate squares of
    `shuffle` x `shuffle` patches (pixel shuffle). norm: applied to the result; hidden: features between the two matrices (null: one
    matrix). token: the placeholder id in the text that the vectors replace; before, after: ids around the placeholders of one image.
    both: in a causal text, the vectors of one image attend to each other in both directions.
    """

    token: int
    block: int | None = None
    skip: int = 0
    shuffle: int = 1
    norm: NormConfig | None = None
    hidden: int | None = None
    activation: Activation = "gelu"
    bias: bool = True
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    pool: int = later(1)
    both: bool = later(False)

    def __post_init__(self) -> None:
        if min(self.shuffle, self.pool) < 1 or self.skip < 0 or (self.block is not None and self.block < 0):
            raise ConfigError(
                f"a connector has shuffle {self.shuffle}, pool {self.pool}, skip {self.skip}, block {self.block}",
                "shuffle and pool must be at least 1, skip and block at least 0",
            )


@config
class PairConfig:
    """A shared space for a source trunk (pooled by its codec) and a text trunk (pooled by `pool`). Each is projected to `width` features
    (null: the source's width) or used as it is. Scores are cosines times exp(scale). With `shift` a learned bias is added and each pair
    is scored independently, by a sigmoid (SigLIP); without it by a softmax over all pairs (CLIP)."""

    width: int | None = None
    pool: EmbeddingConfig = EmbeddingConfig(pooling="last")
    src_bias: bool = False
    dst_bias: bool = False
    project_src: bool = True
    project_dst: bool = True
    shift: bool = False


@config
class Link:
    """`src` and `dst` are trunks. memory: dst's cross-attention reads src's states; embed: a connector puts src's states into dst's
    sequence; pair: both are projected into one space."""

    src: str
    dst: str
    how: Literal["memory", "embed", "pair"]
    connector: ConnectorConfig | None = None
    pair: PairConfig | None = None

    def __post_init__(self) -> None:
        if (self.how == "embed") != (self.connector is not None) or (self.how == "pair") != (
            self.pair is not None
        ):
            raise ConfigError(
                f"link {self.src} -> {self.dst} ({self.how}) has connector {self.connector} and pair {self.pair}",
                "embed needs connector, pair needs pair, memory needs neither",
            )

    @property
    def name(self) -> str:
        """The link's module name."""
        return f"{self.src}_{self.dst}"


def connector_places(cfg: ConnectorConfig, codec: ImageCodecConfig) -> int:
    """Number of vectors per image. Raises ConfigError where the patches cannot be grouped into whole squares."""
    left = codec.patches + codec.class_token + codec.registers - cfg.skip
    side, by = round(max(left, 0) ** 0.5), cfg.shuffle * cfg.pool
    if left < 1 or (by > 1 and (side * side != left or side % by)):
        raise ConfigError(
            f"a connector has skip {cfg.skip}, pool {cfg.pool} and shuffle {cfg.shuffle} for {codec.patches} patches",
            "skip must be the number of vectors before the patches; pool * shuffle must divide the patches per side",
        )
    return left // by**2


def link_parameters(link: Link, src: int, dst: int) -> int:
    """Parameters of a link."""
    if (c := link.connector) is not None:
        wide, out = src * c.shuffle**2, c.hidden or dst
        total = norm_parameters(c.norm, wide) + out * (wide + c.bias)
        return total + (dst * (c.hidden + c.bias) if c.hidden else 0)
    if (p := link.pair) is None:
        return 0
    width = p.width or src
    total = width * (src + p.src_bias) if p.project_src else 0
    total += width * (dst + p.dst_bias) if p.project_dst else 0
    return total + 1 + p.shift
