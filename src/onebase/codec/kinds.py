"""The kinds of codecs, each a record: its config, its learned ends, its count. A new modality is one entry here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from torch import nn

from onebase.codec.audio.config import AudioCodecConfig, audio_parameters
from onebase.codec.audio.modules import AudioEnds
from onebase.codec.image.config import ImageCodecConfig, image_parameters
from onebase.codec.image.modules import ImageEnds
from onebase.codec.text.modules import TextCodecConfig, TextEnds, codec_parameters
from onebase.config import OneOf

CodecConfig = Annotated[
    TextCodecConfig | ImageCodecConfig | AudioCodecConfig,
    OneOf(lambda: {name: kind.config for name, kind in KINDS.items()}, "text"),
]
Ends = TextEnds | ImageEnds | AudioEnds


@dataclass(frozen=True)
class Kind:
    """ends: makes the learned ends of a codec beside a trunk of a width; parameters: their count."""

    config: type
    ends: Callable[[Any, int], nn.Module]
    parameters: Callable[[Any, int], int]


KINDS: Mapping[str, Kind] = {
    "text": Kind(TextCodecConfig, TextEnds, codec_parameters),
    "image": Kind(ImageCodecConfig, ImageEnds, image_parameters),
    "audio": Kind(AudioCodecConfig, AudioEnds, audio_parameters),
}
