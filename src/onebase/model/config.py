"""The config tree of a trunk: small typed parts, no family names. Widths are in features, not bytes."""

from typing import Literal

from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError

Activation = Literal[
    "swiglu", "geglu", "geglu_tanh", "gelu", "gelu_tanh", "gelu_sigmoid", "relu2", "relu", "silu"
]
"""`_tanh` is GELU's tanh approximation; `gelu_sigmoid` is x * sigmoid(1.702 x) (CLIP)."""
GATED = ("swiglu", "geglu", "geglu_tanh")
Part = Literal["q", "k", "v", "o"]
ALL: tuple[Part, ...] = ("q", "k", "v", "o")


@config
class NormConfig:
    """RMS or layer norm. `offset` is added to the weight (Gemma stores w of 1 + w); `affine=False`: no weight; `bias=False`: a layer norm
    without bias."""

    kind: Literal["rms", "layer"] = "rms"
    eps: float = 1e-6
    affine: bool = True
    offset: float = 0.0
    bias: bool = True


@config
class RopeScaling:
    """Scaling of rotary positions to a longer context than the original training context (`original` tokens).

    linear: positions are divided by `factor`. llama3: low frequencies are divided, high ones are not, and wavelengths between
    original / `high` and original / `low` are interpolated (Llama 3.1). yarn: interpolated by the index of the frequency, between those with
    `high` and `low` rotations over the original context, rounded to whole indices if `truncate` (2309.00071). longrope: each frequency has
    its own divisor, from `short` up to `original` tokens and from `long` beyond (2402.13753). In the last two, cos and sin are multiplied
    by `attention`. dynamic: no change up to `original` tokens; beyond, angles would depend on how the text was processed, so longer texts
    are refused.
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
    """Rotary positions (Su et al., 2104.09864), half-split layout; `dim` features of each head are rotated (all when null). `half`: the
    frequencies are rounded to fp16 (as the published ESM-2 weights were trained)."""

    base: float = 10000.0
    dim: int | None = None
    scaling: RopeScaling | None = None
    half: bool = False


@config
class RelativeConfig:
    """A learned bias on attention scores per head and bucket of distances, shared by all blocks (T5, 1910.10683). Half of the `buckets` are
    for later keys. In each half, half of the buckets have a single distance; the others grow logarithmically up to `distance` tokens, and
    the last has all larger distances."""

    buckets: int = 32
    distance: int = 128

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.buckets % 4 or self.distance <= self.buckets // 4:
            raise ConfigError(
                f"relative positions have {self.buckets} buckets and distance {self.distance}",
                "buckets must be a multiple of 4, and distance above a quarter of it",
            )


@config
class AttnConfig:
    """Grouped-query attention. `window`: at most this many keys back, the token itself included (and as many ahead where the mask allows);
    `softcap` c bounds scores to c*tanh(s/c); `bias`: the projections that have one. `qk_norm` normalises each head of queries and keys, or
    with `qk_norm_whole` all heads together (OLMo 2)."""

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
                    f"attention {name} is {getattr(self, name)}", "use a whole number of at least 1"
                )
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"{self.heads} query heads cannot share {self.kv_heads} key heads",
                "kv_heads must divide heads",
            )
        if self.rope and (self.rope.dim or self.head_dim) % 2:
            raise ConfigError(
                f"head_dim is {self.head_dim}, rotary positions need an even number", "use 32, 64 or 128"
            )
        if self.window is not None and self.window < 1:
            raise ConfigError(f"attention window is {self.window}", "use at least 1, or null for no window")


@config
class FFConfig:
    """Feed-forward of `hidden` features; gated activations have a third matrix."""

    hidden: int
    activation: Activation = "swiglu"
    bias: bool = False


@config
class Norms:
    """The norm and its position: before each sub-layer, after the residual sum, before and after the sub-layer, or only on its output (`out`:
    OLMo 2). `attn=False`: none before attention (ModernBERT's first block, whose input is already normalised). `ff_eps`: epsilon of the one
    before the feed-forward, where it is another."""

    norm: NormConfig = NormConfig()
    where: Literal["pre", "post", "sandwich", "out"] = "pre"
    attn: bool = True
    ff_eps: float | None = later(None)


@config
class BlockConfig:
    """One block. `cross`: cross-attention to the trunk's memory, between attention and feed-forward. `layer_scale`: each sub-layer's output
    is multiplied by a learned vector before it is added to the residual stream (2103.17239). `residual`: a factor on each sub-layer's output
    (Granite). `adaptive`: a vector of conditions shifts and scales what each norm gives, and gates each sub-layer's output (adaLN-Zero,
    2212.09748)."""

    attn: AttnConfig
    ff: FFConfig
    norms: Norms = Norms()
    cross: AttnConfig | None = None
    layer_scale: bool = False
    residual: float = later(1.0)
    adaptive: bool = later(False)

    def __post_init__(self) -> None:
        if self.adaptive and (
            self.cross is not None or self.layer_scale or self.residual != 1.0 or self.norms.where != "pre"
        ):
            raise ConfigError(
                "an adaptive block has cross-attention, layer scale, a residual factor, or norms that do not stand before its parts",
                "use attention and feed-forward with norms before them alone, or set adaptive to false",
            )
        if self.cross is not None and (self.cross.rope is not None or self.cross.window is not None):
            raise ConfigError(
                "cross-attention has rope or a window, but the memory's states contain their own positions",
                "set cross.rope and cross.window to null",
            )
        if self.cross is not None and self.cross.qk_norm_whole:
            raise ConfigError(
                "cross-attention has qk_norm_whole, but normalises each head",
                "set cross.qk_norm_whole to false",
            )


@config
class StorageConfig:
    """Quantized storage of projections: 8 bits with a scale per row, or 4 bits with a scale and a minimum per `group` inputs.

    head: bits of the output matrix (and of the embedding if tied); null: not quantized.
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

    `input_norm` acts on the stem's output. `lambdas`: every block has two learned numbers (a, b) and the input a*x + b*x_0, with x_0
    the stem's output (modded-nanogpt). `memory`: width of the states that cross-attention reads (the trunk's width when null).
    `relative`: relative position bias on scores. `groups`: names of the kinds of tokens that have a feed-forward of their own in every
    block, of one shape, text first; none: all tokens share one (2603.03276).
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
                "relative positions are shared by all blocks, but their numbers of heads differ",
                "use the same attn.heads in all blocks, or relative: null",
            )
        if self.width < 1 or not self.blocks:
            raise ConfigError(
                f"a trunk has width {self.width} and {len(self.blocks)} blocks", "both must be at least 1"
            )
