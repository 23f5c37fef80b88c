"""The config of an image tower and a text tower with one space for both, as a recipe states it."""

from dataclasses import replace

from onebase.base.config import BaseConfig, TextShape, image_base, text_base
from onebase.base.links import Link, PairConfig
from onebase.config import config
from onebase.errors import ConfigError
from onebase.modality.image.config import ImageCodecConfig, PixelsConfig, PoolConfig
from onebase.modality.text.config import TextCodecConfig
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.model.config import (
    ALL,
    AttnConfig,
    BlockConfig,
    FFConfig,
    InitConfig,
    NormConfig,
    Norms,
    TrunkConfig,
)


@config
class ImageShape:
    """An image tower by its sizes: pictures of `size` x `size` pixels in patches of `patch` x `patch`."""

    width: int
    depth: int
    size: int = 64
    patch: int = 8
    head_dim: int = 64

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise ConfigError(
                f"image.size {self.size} is not a multiple of image.patch {self.patch}",
                "choose a patch that divides the size",
            )


def pair_base(
    text: TextShape, image: ImageShape, *, width: int, shift: bool = False, end: int | None = None
) -> BaseConfig:
    """The config of a causal text tower, whose last token is a caption's vector, and an image tower, projected into one space of `width` features.

    shift: a learned bias is added to the scores, as SigLIP's loss needs it. end: the token that ends a caption, where it is known. A
    `portable` shape gives both towers in CLIP's layout (2103.00020), which exports. Raises ConfigError for sizes that do not fit.
    """
    if text.portable and shift:
        raise ConfigError(
            "model.portable is CLIP's layout, which has no bias of the scores (objective.loss: sigmoid)",
            "set objective.loss=softmax or model.portable=false",
        )
    if width < 1:
        raise ConfigError(f"objective.width is {width}", "give at least 1 feature, for example 256")
    made = _clip(text, image) if text.portable else _own(text, image)
    pool = EmbeddingConfig(pooling="last", ends=end)
    link = Link(src="image", dst="text", how="pair", pair=PairConfig(width=width, pool=pool, shift=shift))
    return replace(made, links=(link,))


def _own(text: TextShape, image: ImageShape) -> BaseConfig:
    words = text_base(text)
    seen = image_base(image.size, image.patch, width=image.width, depth=image.depth, head_dim=image.head_dim)
    codec = replace(words.text, head=False, tied=False, softcap=None)
    return BaseConfig(trunks=words.trunks | seen.trunks, codecs={"text": codec} | seen.codecs)


def _clip(text: TextShape, image: ImageShape) -> BaseConfig:
    norm = NormConfig(kind="layer", eps=1e-5)
    trunk = replace(_tower(text.width, text.depth, text.head_dim, text.ff_hidden, norm), direction="causal")
    words = TextCodecConfig(
        vocab_size=text.vocab_size,
        context=text.context,
        positions=text.context,
        head=False,
        embed_std=0.02,
    )
    seen = replace(_tower(image.width, image.depth, image.head_dim, None, norm), input_norm=norm)
    codec = ImageCodecConfig(
        kind="image",
        size=image.size,
        patch=image.patch,
        bias=False,
        pixels=PixelsConfig(),
        pool=PoolConfig(kind="first"),
        starts="sines",
    )
    return BaseConfig(trunks={"text": trunk, "image": seen}, codecs={"text": words, "image": codec})


def _tower(width: int, depth: int, head_dim: int, hidden: int | None, norm: NormConfig) -> TrunkConfig:
    if width % head_dim:
        raise ConfigError(
            f"width {width} is not a multiple of head_dim {head_dim}", "choose a head_dim that divides width"
        )
    heads = width // head_dim
    block = BlockConfig(
        attn=AttnConfig(heads=heads, kv_heads=heads, head_dim=head_dim, rope=None, bias=ALL),
        ff=FFConfig(hidden=hidden or 4 * width, activation="gelu", bias=True),
        norms=Norms(norm=norm),
    )
    return TrunkConfig(
        width=width,
        blocks=(block,) * depth,
        final_norm=norm,
        direction="both",
        init=InitConfig(std=0.5 * width**-0.5, zero_out=True),
    )
