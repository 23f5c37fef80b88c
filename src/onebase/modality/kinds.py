"""The table of codec kinds: config, module and parameter count of each. A new modality is one entry here.

Configs are read without torch (`onebase verify`), so modules are imported on first use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from onebase.config import OneOf
from onebase.modality.audio.config import AudioCodecConfig, audio_parameters
from onebase.modality.image.config import ImageCodecConfig, image_parameters
from onebase.modality.latents.config import LatentsConfig, latents_parameters
from onebase.modality.patches.config import ImagePatchesConfig, SoundPatchesConfig, patch_parameters
from onebase.modality.text.config import TextCodecConfig, codec_parameters

if TYPE_CHECKING:
    from onebase.modality.audio.modules import AudioModule
    from onebase.modality.image.modules import ImageModule
    from onebase.modality.latents.modules import LatentModule
    from onebase.modality.patches.modules import PatchModule
    from onebase.modality.text.modules import TextModule

CodecConfig = Annotated[
    TextCodecConfig
    | ImageCodecConfig
    | AudioCodecConfig
    | ImagePatchesConfig
    | SoundPatchesConfig
    | LatentsConfig,
    OneOf(lambda: {name: kind.config for name, kind in CODECS.items()}, "text"),
]


PatchesConfig = Annotated[
    object,
    OneOf(lambda: {name: k.config for name, k in CODECS.items() if k.module is _patches}, "image_patches"),
]
"""The config of any modality of patches, those of other packages included."""


def _text(cfg: TextCodecConfig, width: int) -> "TextModule":
    from onebase.modality.text.modules import TextModule

    return TextModule(cfg, width)


def _image(cfg: ImageCodecConfig, width: int) -> "ImageModule":
    from onebase.modality.image.modules import ImageModule

    return ImageModule(cfg, width)


def _audio(cfg: AudioCodecConfig, width: int) -> "AudioModule":
    from onebase.modality.audio.modules import AudioModule

    return AudioModule(cfg, width)


def _patches(cfg: ImagePatchesConfig | SoundPatchesConfig, width: int) -> "PatchModule":
    from onebase.modality.patches.modules import PatchModule

    return PatchModule(cfg, width)


def _latents(cfg: LatentsConfig, width: int) -> "LatentModule":
    from onebase.modality.latents.modules import LatentModule

    return LatentModule(cfg, width)


@dataclass(frozen=True)
class CodecKind:
    """config: the config class; module: builds the codec module for a trunk width; parameters: counts its parameters."""

    config: type
    module: "Callable[[Any, int], TextModule | ImageModule | AudioModule | PatchModule | LatentModule]"
    parameters: Callable[[Any, int], int]


def patch_kind(config: type) -> CodecKind:
    """The kind of a modality of patches with this config class."""
    return CodecKind(config, _patches, patch_parameters)


CODECS: dict[str, CodecKind] = {
    "text": CodecKind(TextCodecConfig, _text, codec_parameters),
    "image": CodecKind(ImageCodecConfig, _image, image_parameters),
    "audio": CodecKind(AudioCodecConfig, _audio, audio_parameters),
    "image_patches": patch_kind(ImagePatchesConfig),
    "sound_patches": patch_kind(SoundPatchesConfig),
    "latents": CodecKind(LatentsConfig, _latents, latents_parameters),
}
