"""The config of a base: named trunks, codecs and links; and functions that build common configs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast

from onebase.base.links import Link, link_parameters
from onebase.config import config
from onebase.errors import ConfigError
from onebase.modality.audio.config import AudioCodecConfig
from onebase.modality.image.config import ImageCodecConfig, PoolConfig, image_vectors
from onebase.modality.kinds import CODECS, CodecConfig
from onebase.modality.latents.config import LatentsConfig
from onebase.modality.patches.config import PatchConfig, patch_flops
from onebase.modality.text.config import TextCodecConfig
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
    """Trunks and codecs by name, and the links between trunks. A codec's name is its kind: `text`, `image`, `audio`, `latents`; a text base has one
    trunk and one codec. Codecs of patches share the trunk that they name. `storage`: the quantization of its matrices, if any."""

    trunks: dict[str, TrunkConfig]
    codecs: dict[str, CodecConfig]
    storage: StorageConfig | None = None
    links: tuple[Link, ...] = ()

    def __post_init__(self) -> None:
        missing = [n for n in self.codecs if self.trunk_of(n) not in self.trunks]
        if missing or not self.codecs:
            raise ConfigError(
                f"codecs {sorted(self.codecs)} and trunks {sorted(self.trunks)} do not match",
                "give every codec a trunk of the same name",
            )
        for name, codec in self.codecs.items():
            if codec.kind != name:
                raise ConfigError(f"the codec {name!r} is of kind {codec.kind}", f"name it {codec.kind}")
            groups = self.trunks[self.trunk_of(name)].groups
            if groups and (group := getattr(codec, "group", groups[0])) not in groups:
                raise ConfigError(
                    f"codec {name} is of the feed-forward group {group!r}",
                    f"its trunk has: {', '.join(groups)}",
                )
        for link in self.links:
            if lost := {link.src, link.dst} - self.trunks.keys():
                raise ConfigError(
                    f"link {link.src} -> {link.dst} has no trunk {min(lost)!r}",
                    f"trunks: {', '.join(sorted(self.trunks))}",
                )

    def trunk_of(self, codec: str) -> str:
        """The name of the trunk that a codec's vectors go to."""
        return getattr(self.codecs[codec], "trunk", codec)

    @property
    def text(self) -> TextCodecConfig:
        """The text codec. Raises ConfigError when this base has none."""
        codec = self.codecs.get("text")
        if not isinstance(codec, TextCodecConfig):
            raise ConfigError(f"this base reads no text, only {_kinds(self)}", "use a base with text")
        return codec

    @property
    def image(self) -> ImageCodecConfig:
        """The image codec. Raises ConfigError when this base has none."""
        codec = self.codecs.get("image")
        if not isinstance(codec, ImageCodecConfig):
            raise ConfigError(f"this base reads no images, only {_kinds(self)}", "use a base with images")
        return codec

    @property
    def audio(self) -> AudioCodecConfig:
        """The audio codec. Raises ConfigError when this base has none."""
        codec = self.codecs.get("audio")
        if not isinstance(codec, AudioCodecConfig):
            raise ConfigError(f"this base reads no audio, only {_kinds(self)}", "use a base with audio")
        return codec

    @property
    def latents(self) -> LatentsConfig:
        """The codec of latents. Raises ConfigError when this base has none."""
        codec = self.codecs.get("latents")
        if not isinstance(codec, LatentsConfig):
            raise ConfigError(
                f"this base draws no latents, it has only {_kinds(self)}", "use a diffusion transformer"
            )
        return codec

    def link(self, how: str) -> Link | None:
        """The link of a kind (memory, embed, pair); None where there is none."""
        return next((x for x in self.links if x.how == how), None)


def _kinds(cfg: BaseConfig) -> str:
    return ", ".join(sorted(cfg.codecs))


@config
class TextShape:
    """A text decoder by its sizes. Sizes that are not set follow from `width` and `depth`.

    `portable` stays within the Llama layout (SwiGLU, affine RMS norms, no soft-cap, no lambdas, QK-norm off), so that the base
    exports with equal logits; otherwise the recipe of docs/training.md.
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


def text_base(shape: TextShape, direction: Literal["causal", "both"] = "causal") -> BaseConfig:
    """The config of a text decoder of this shape; both: of an encoder, whose tokens also attend to later ones."""
    if shape.width % shape.head_dim:
        raise ConfigError(
            f"width {shape.width} is not a multiple of head_dim {shape.head_dim}",
            "choose a head_dim that divides width",
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
        direction=direction,
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


def native_base(
    shape: TextShape, *patches: PatchConfig, direction: Literal["causal", "both"] = "causal"
) -> BaseConfig:
    """The config tree of a decoder of this shape that reads and generates media as well: each codec of patches has a feed-forward of its group in
    every block, beside that of text (group `text`: the same one)."""
    cfg = text_base(shape, direction)
    groups = tuple(dict.fromkeys(("text", *(p.group for p in patches))))
    trunk = replace(cfg.trunks["text"], groups=groups if len(groups) > 1 else ())
    media = cast(dict[str, CodecConfig], {p.kind: p for p in patches})
    return BaseConfig(trunks={"text": trunk}, codecs=cfg.codecs | media)


def image_base(size: int, patch: int, *, width: int, depth: int, head_dim: int = 64) -> BaseConfig:
    """The config of an image encoder (ViT-shaped) in the recipe of `text_base`: pictures of `size` x `size` pixels in patches, which all attend
    to each other. Raises ConfigError for sizes that do not fit."""
    cfg = text_base(TextShape(width=width, depth=depth, head_dim=head_dim), "both").trunks["text"]
    blocks = tuple(
        replace(b, attn=replace(b.attn, rope=None)) for b in cfg.blocks
    )  # positions are the codec's
    codec = ImageCodecConfig(
        kind="image", size=size, patch=patch, class_token=False, pool=PoolConfig(kind="mean"), starts="sines"
    )
    return BaseConfig(trunks={"image": replace(cfg, blocks=blocks)}, codecs={"image": codec})


def base_parameters(cfg: BaseConfig) -> int:
    """Parameters of a base."""
    total = sum(count.parameters(t) for t in cfg.trunks.values())
    for name, codec in cfg.codecs.items():
        total += CODECS[codec.kind].parameters(codec, cfg.trunks[cfg.trunk_of(name)].width)
    return total + sum(
        link_parameters(x, cfg.trunks[x.src].width, cfg.trunks[x.dst].width) for x in cfg.links
    )


def step_flops(
    cfg: BaseConfig, length: int, tokens: Mapping[str, float], learnt: Mapping[str, float]
) -> dict[str, float]:
    """Training FLOPs of so many tokens of each codec, of which so many are patches that are made, in rows of `length`: forward and backward (three
    forwards), ends included. Text has its head at every position, the others of the row too."""
    trunk = cfg.trunks["text"]
    each = count.forward_flops(trunk, length)
    out = {}
    for name, n in tokens.items():
        codec: Any = cfg.codecs[name]
        if name == "text":
            ends = 2.0 * cfg.text.vocab_size * trunk.width * sum(tokens.values())
        else:
            read, made = patch_flops(codec, trunk.width)
            ends = n * read + learnt.get(name, 0.0) * made
        out[name] = 3.0 * (n * each + ends)
    return out


def base_flops(cfg: BaseConfig, length: int) -> float:
    """Training FLOPs per token of a text base in rows of `length`: forward and backward (three forwards), head included. For a base without
    text: per vector of an image or of latents. With a picture beside each row (a link `pair`): per token of the row, picture included."""
    if "text" not in cfg.codecs:
        return 3.0 * count.forward_flops(
            cfg.trunks["latents" if "latents" in cfg.codecs else "image"], length
        )
    trunk = cfg.trunks["text"]
    if cfg.link("pair") is not None and "image" in cfg.codecs:
        vectors = image_vectors(cfg.image)
        picture = vectors * count.forward_flops(cfg.trunks["image"], vectors)
        return 3.0 * (count.forward_flops(trunk, length) + picture / length)
    return 3.0 * (count.forward_flops(trunk, length) + 2.0 * cfg.text.vocab_size * trunk.width)
