"""The kinds of codecs, each a record: its config, its learned ends, its count. A new modality is one entry here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from torch import nn

from onebase.codec.audio.config import AudioCodecConfig, audio_parameters
from onebase.codec.audio.modules import AudioModule
from onebase.codec.image.config import ImageCodecConfig, image_parameters
from onebase.codec.image.modules import ImageModule
from onebase.codec.text.config import TextCodecConfig, codec_parameters
from onebase.codec.text.modules import TextModule
from onebase.config import OneOf

CodecConfig = Annotated[
    TextCodecConfig | ImageCodecConfig | AudioCodecConfig,
    OneOf(lambda: {name: kind.config for name, kind in CODECS.items()}, "text"),
]
CodecModule = TextModule | ImageModule | AudioModule


@dataclass(frozen=True)
class CodecKind:
    """ends: makes the learned ends of a codec beside a trunk of a width; parameters: their count."""

    config: type
    module: Callable[[Any, int], nn.Module]
    parameters: Callable[[Any, int], int]


CODECS: Mapping[str, CodecKind] = {
    "text": CodecKind(TextCodecConfig, TextModule, codec_parameters),
    "image": CodecKind(ImageCodecConfig, ImageModule, image_parameters),
    "audio": CodecKind(AudioCodecConfig, AudioModule, audio_parameters),
}
