"""The config tree of a trunk: small typed parts, no family names. Widths count features, not bytes."""

from typing import Literal

from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError

Activation = Literal[
    "swiglu", "geglu", "geglu_tanh", "gelu", "gelu_tanh", "gelu_sigmoid", "relu2", "relu", "silu"
]
"""`_tanh` is GELU's usual approximation; `gelu_sigmoid` is x * sigmoid(1.702 x) (CLIP)."""
GATED = ("swiglu", "geglu", "geglu_tanh")
Part = Literal["q", "k", "v", "o"]
ALL: tuple[Part, ...] = ("q", "k", "v", "o")


@config
class NormConfig:
    """RMS or layer norm. `offset` is added to the weight (Gemma stores w of 1 + w); `affine=False` has no weight, `bias=False`
    leaves a layer norm without its bias."""

    kind: Literal["rms", "layer"] = "rms"
    eps: float = 1e-6
    affine: bool = True
    offset: float = 0.0
    bias: bool = True


@config
class RopeScaling:
    """How rotary positions were stretched to a longer context than the one first trained on (`original` tokens).

    linear: positions are divided by `factor`. llama3: slow angles are, quick ones are not, between wavelengths of original / `high` and
    original / `low` a mixture (Llama 3.1). yarn: a mixture in the number of the angle, between those that turn `high` and `low` times over
    the original context, in whole numbers where `truncate` says so (2309.00071). longrope: each angle has a divisor of its own, from
    `short` up to `original` tokens and from `long` beyond (2402.13753). In the last two cos and sin are multiplied by `attention`.
    dynamic: nothing changes up to `original` tokens; what would beyond depends on how a text was read, so more are refused.
    """

    kind: Literal["linear", "llama3", "yarn", "longrope", "dynamic"]
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()
    attention: float = 1.0
    truncate: bool = True


@config
class RopeConfig:
    """Rotary positions (Su et al., 2104.09864), half-split layout; `dim` features of each head turn (all when null). `half`: the angles
    per position are rounded to fp16 (the published ESM-2 weights were trained and are used with such)."""

    base: float = 10000.0
    dim: int | None = None
    scaling: RopeScaling | None = None
    half: bool = False


@config
class RelativeConfig:
    """To the score of a key a number is added that is learnt for each head and bucket of distances, the same in all blocks (1910.10683). Half
    of the `buckets` are of keys ahead. Of each half one half are of one distance each; the others widen up to `distance` tokens, and the
    last is of all beyond."""

    buckets: int = 32
    distance: int = 128

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.buckets % 4 or self.distance <= self.buckets // 4:
            raise ConfigError(
                f"relative positions in {self.buckets} buckets up to a distance of {self.distance}",
                "give a multiple of 4, and a distance beyond a quarter of it",
            )


@config
class AttnConfig:
    """Grouped-query attention. `window` keys back at most, itself included (and as many ahead where the mask allows); `softcap` c
    bounds scores to c*tanh(s/c); `bias` names the projections that have one. `qk_norm` is of each head of queries and keys, or where
    `qk_norm_whole` of all heads together (OLMo 2)."""

    heads: int
    kv_heads: int
    head_dim: int
    rope: RopeConfig | None = RopeConfig()
    window: int | None = None
    softcap: float | None = None
    scale: float | None = None
    qk_norm: NormConfig | None = None
    qk_norm_whole: bool = later(False)
    bias: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        for name in ("heads", "kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"attention {name} is {getattr(self, name)}", "give a whole number of at least 1"
                )
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"{self.heads} query heads cannot share {self.kv_heads} key heads",
                "let kv_heads divide heads",
            )
        if self.rope and (self.rope.dim or self.head_dim) % 2:
            raise ConfigError(
                f"rotary positions need an even head_dim, given {self.head_dim}", "use 32, 64 or 128"
            )
        if self.window is not None and self.window < 1:
            raise ConfigError(f"attention window is {self.window}", "give at least 1, or null for none")


@config
class FFConfig:
    """Feed-forward of `hidden` features; gated activations have a third matrix."""

    hidden: int
    activation: Activation = "swiglu"
    bias: bool = False


@config
class Norms:
    """Which norm and where it stands: before each part, after the residual sum, on both sides of the part, or on what it gives alone (`out`:
    OLMo 2). `attn=False`: none before attention (ModernBERT's first block, whose input is normed already)."""

    norm: NormConfig = NormConfig()
    where: Literal["pre", "post", "sandwich", "out"] = "pre"
    attn: bool = True


@config
class BlockConfig:
    """One block. `cross`: attention to the trunk's memory, between the other two parts. `layer_scale`: each part's output is multiplied
    by a learned vector before it is added to the stream (2103.17239). `residual`: what each part adds is multiplied by it (Granite)."""

    attn: AttnConfig
    ff: FFConfig
    norms: Norms = Norms()
    cross: AttnConfig | None = None
    layer_scale: bool = False
    residual: float = later(1.0)

    def __post_init__(self) -> None:
        if self.cross is not None and (self.cross.rope is not None or self.cross.window is not None):
            raise ConfigError(
                "cross-attention has rope or a window, but a memory's states hold their own positions",
                "set cross.rope and cross.window to null",
            )
        if self.cross is not None and self.cross.qk_norm_whole:
            raise ConfigError(
                "cross-attention has qk_norm_whole", "its norms are of each head: set it to false"
            )


@config
class StorageConfig:
    """How a base keeps its projections in few bits: 8 with a scale a row, 4 with a scale and a lowest value for every `group` inputs.

    head: bits of the matrix that makes logits (and of the embedding it is tied to); null leaves it as it is.
    """

    bits: Literal[4, 8]
    group: int = 32
    head: Literal[4, 8] | None = 8


@config
class InitConfig:
    """Normal(0, std) matrices; `zero_out` starts every block as the identity (output projections at zero)."""

    std: float = 0.02
    zero_out: bool = False


@config
class TrunkConfig:
    """A transformer: vectors in, vectors out.

    `input_norm` acts on the stem's output. `lambdas` gives every block two learned numbers (a, b) and the input
    a*x + b*x_0, with x_0 the stem's output (modded-nanogpt). `memory`: features of the states that cross-attention reads (its own
    width when null). `relative`: scores know how far a key is away. `groups`: names of the kinds of tokens that have a feed-forward
    of their own in every block, of one shape, text first; none: all tokens share one (2603.03276).
    """

    width: int
    blocks: tuple[BlockConfig, ...]
    final_norm: NormConfig | None = NormConfig()
    input_norm: NormConfig | None = None
    lambdas: bool = False
    direction: Literal["causal", "both"] = "causal"
    init: InitConfig = InitConfig()
    memory: int | None = None
    relative: RelativeConfig | None = later(None)
    groups: tuple[str, ...] = later(())

    def __post_init__(self) -> None:
        if len(set(self.groups)) < len(self.groups) or not all(g.isidentifier() for g in self.groups):
            raise ConfigError(
                f"feed-forward groups {', '.join(map(repr, self.groups))}",
                "give each another name, of letters and digits",
            )
        if self.relative is not None and len({b.attn.heads for b in self.blocks}) > 1:
            raise ConfigError(
                "blocks of different heads share relative positions", "give all as many, or relative: null"
            )
        if self.width < 1 or not self.blocks:
            raise ConfigError(
                f"a trunk of width {self.width} with {len(self.blocks)} blocks", "give both at least 1"
            )
