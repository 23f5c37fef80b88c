"""How the trunks of one base meet, as configs and counts; `link_modules` has what is learnt."""

from typing import Literal

from onebase.codec.image.config import ImageCodecConfig
from onebase.codec.text.pooling import EmbeddingConfig
from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError
from onebase.model.config import Activation, NormConfig
from onebase.model.count import norm_parameters


@config
class ConnectorConfig:
    """What stands between a trunk's states and another trunk's sequence.

    block: whose output is read, counted from the last (0); null: the states after the final norm. skip: vectors at the front that are
    left out (class token, registers). pool: so many neighbouring patches of each direction become their mean (Gemma 3). shuffle: so many
    become one long vector (pixel shuffle). norm acts on what comes of it; hidden: features between the two matrices (one matrix when
    null). token: the id in the text whose places the vectors take; before, after: ids that stand around the places of one image. both:
    in a causal text, the places of one image see each other both ways.
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
                f"a connector with shuffle {self.shuffle}, pool {self.pool}, skip {self.skip}, block {self.block}",
                "give shuffle and pool at least 1, skip and block at least 0",
            )


@config
class PairConfig:
    """One space for a trunk (the source: its codec pools it) and one of text, whose states become a vector as `pool` says. Each goes through
    a matrix into `width` features (null: as many as the source has), or stays as it is. Scores are cosines times exp(scale); where `shift`,
    a learned number is added, and the score of a pair stands for itself (SigLIP) instead of beside those of others (CLIP)."""

    width: int | None = None
    pool: EmbeddingConfig = EmbeddingConfig(pooling="last")
    src_bias: bool = False
    dst_bias: bool = False
    project_src: bool = True
    project_dst: bool = True
    shift: bool = False


@config
class Link:
    """`src` and `dst` are trunks. memory: dst's cross-attention reads src's states; embed: src's states go through a connector into dst's
    sequence; pair: both in one space."""

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
                f"link {self.src} -> {self.dst} ({self.how}) with connector {self.connector} and pair {self.pair}",
                "embed has a connector, pair has pair, memory has neither",
            )

    @property
    def name(self) -> str:
        """The link's name among a base's modules."""
        return f"{self.src}_{self.dst}"


def connector_places(cfg: ConnectorConfig, codec: ImageCodecConfig) -> int:
    """How many vectors one image gives. Raises ConfigError where its patches make no whole squares."""
    left = codec.patches + codec.class_token + codec.registers - cfg.skip
    side, by = round(max(left, 0) ** 0.5), cfg.shuffle * cfg.pool
    if left < 1 or (by > 1 and (side * side != left or side % by)):
        raise ConfigError(
            f"a connector with skip {cfg.skip}, pool {cfg.pool} and shuffle {cfg.shuffle} for {codec.patches} patches",
            "skip what stands before the patches, and let pool and shuffle divide a side",
        )
    return left // by**2


def link_parameters(link: Link, src: int, dst: int) -> int:
    """All learned numbers of a link."""
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
