"""What a base is made of: named trunks, codecs and (later) links; and short functions that write such trees."""

from typing import Literal

from onebase.codec.text.modules import TextCodecConfig, codec_parameters
from onebase.config import config
from onebase.errors import ConfigError
from onebase.model import count
from onebase.model.config import (
    AttnConfig,
    BlockConfig,
    FFConfig,
    InitConfig,
    NormConfig,
    Norms,
    RopeConfig,
    StorageConfig,
    TrunkConfig,
)


@config
class BaseConfig:
    """Trunks and codecs by name; a text base has one of each, both called `text`. `storage`: how its matrices are kept, if in few bits."""

    trunks: dict[str, TrunkConfig]
    codecs: dict[str, TextCodecConfig]
    storage: StorageConfig | None = None

    def __post_init__(self) -> None:
        missing = [n for n in self.codecs if n not in self.trunks]
        if missing or not self.codecs:
            raise ConfigError(
                f"codecs {sorted(self.codecs)} and trunks {sorted(self.trunks)} do not match",
                "give every codec a trunk of the same name",
            )

    @property
    def text(self) -> TextCodecConfig:
        """The text codec. Raises ConfigError when this base has none."""
        if "text" not in self.codecs:
            raise ConfigError(
                f"this base has no text codec, only {sorted(self.codecs)}", "use a base with text"
            )
        return self.codecs["text"]


@config
class TextShape:
    """A decoder for text by its sizes. Sizes not given follow from `width` and `depth`.

    `portable` keeps to what the Llama layout can express (SwiGLU, affine RMS norms, no soft-cap, no lambdas, QK-norm off), so
    that the base exports with equal logits; otherwise the recipe of docs/training.md.
    """

    width: int
    depth: int
    head_dim: int = 64
    kv_heads: int | None = None
    ff_hidden: int | None = None
    context: int = 1024
    vocab_size: int = 8192
    tied: bool = False
    portable: bool = False
    ff: Literal["swiglu", "relu2"] = "relu2"
    qk_norm: bool = True
    lambdas: bool = True
    softcap: float | None = 15.0
    zero_out: bool = True
    window: int | None = None
    window_every: int = 0
    rope_base: float = 10000.0
    embed_std: float = 1.0
    head_std: float = 0.001


def text_base(shape: TextShape) -> BaseConfig:
    """The config tree of a text decoder of this shape."""
    if shape.width % shape.head_dim:
        raise ConfigError(
            f"width {shape.width} is not a multiple of head_dim {shape.head_dim}",
            "choose head_dim that divides width",
        )
    heads = shape.width // shape.head_dim
    ff: Literal["swiglu", "relu2"] = "swiglu" if shape.portable else shape.ff
    hidden = shape.ff_hidden or (-(-8 * shape.width // (3 * 32)) * 32 if ff == "swiglu" else 4 * shape.width)
    norm = NormConfig(eps=1e-6, affine=shape.portable)
    plain = NormConfig(eps=1e-6, affine=False)
    blocks = []
    for i in range(shape.depth):
        # `window_every` n: every nth block, and the last, sees the whole context; the others see `window` tokens.
        full = (
            not shape.window
            or i == shape.depth - 1
            or (shape.window_every and (i + 1) % shape.window_every == 0)
        )
        attn = AttnConfig(
            heads=heads,
            kv_heads=shape.kv_heads or heads,
            head_dim=shape.head_dim,
            rope=RopeConfig(base=shape.rope_base),
            window=None if full else shape.window,
            qk_norm=plain if shape.qk_norm and not shape.portable else None,
        )
        blocks.append(
            BlockConfig(attn=attn, ff=FFConfig(hidden=hidden, activation=ff), norms=Norms(norm=norm))
        )
    trunk = TrunkConfig(
        width=shape.width,
        blocks=tuple(blocks),
        final_norm=norm,
        input_norm=None if shape.portable else plain,
        lambdas=shape.lambdas and not shape.portable,
        init=InitConfig(std=0.5 * shape.width**-0.5, zero_out=shape.zero_out),
    )
    codec = TextCodecConfig(
        vocab_size=shape.vocab_size,
        context=shape.context,
        tied=shape.tied,
        softcap=None if shape.portable else shape.softcap,
        embed_std=0.02 if shape.portable else shape.embed_std,
        head_std=shape.head_std,
    )
    return BaseConfig(trunks={"text": trunk}, codecs={"text": codec})


def base_parameters(cfg: BaseConfig) -> int:
    """All learned numbers of a base."""
    total = sum(count.parameters(t) for t in cfg.trunks.values())
    for name, codec in cfg.codecs.items():
        total += codec_parameters(codec, cfg.trunks[name].width)
    return total


def base_flops(cfg: BaseConfig, length: int) -> float:
    """Training FLOPs per token of a text base in rows of `length`: forward and backward (three forwards), head included."""
    trunk = cfg.trunks["text"]
    return 3.0 * (count.forward_flops(trunk, length) + 2.0 * cfg.text.vocab_size * trunk.width)
