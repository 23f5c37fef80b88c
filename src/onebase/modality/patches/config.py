"""Modalities of continuous patches, by their configs. R features of the bottleneck, P values of a patch, D width."""

from typing import Literal, Protocol

from onebase.config import config
from onebase.errors import ConfigError
from onebase.modality.audio.config import AudioCodecConfig

TIMES = 64
"""Features that the time of the flow becomes, half of them cosines."""


@config
class ImagePatchesConfig:
    """Pictures of any size and shape, cut into patches of `patch` x `patch` pixels from -1 to 1, each a vector by a matrix through
    `bottleneck` features (JiT, 2511.13720). limit: patches of one picture; larger pictures are made smaller. trunk: the one that reads them; group: their feed-forward in it."""

    kind: Literal["image_patches"]
    patch: int = 4
    channels: Literal[1, 3] = 3
    bottleneck: int = 128
    limit: int = 1024
    trunk: str = "text"
    group: str = "vision"

    def __post_init__(self) -> None:
        _check(self, "patch", "bottleneck", "limit")

    @property
    def values(self) -> int:
        """Numbers of one patch, P."""
        return self.channels * self.patch**2

    @property
    def axes(self) -> int:
        """Coordinates of a patch: its row and its column."""
        return 2

    def shown(self, shape: tuple[int, ...]) -> str:
        """What patches of this shape are, by pixels."""
        down, across = shape
        return f"image {across * self.patch}x{down * self.patch}"


@config
class SoundPatchesConfig:
    """Sound as log-mel frames (`mel`), `stack` of them a patch (4 of 10 ms: 25 patches a second). limit: patches of one sound; longer ones are
    refused. trunk: the one that reads them; group: their feed-forward in it."""

    kind: Literal["sound_patches"]
    mel: AudioCodecConfig = AudioCodecConfig(kind="audio")
    stack: int = 4
    bottleneck: int = 128
    limit: int = 750
    trunk: str = "text"
    group: str = "audio"

    def __post_init__(self) -> None:
        _check(self, "stack", "bottleneck", "limit")

    @property
    def values(self) -> int:
        """Numbers of one patch, P."""
        return self.mel.mels * self.stack

    @property
    def axes(self) -> int:
        """Coordinates of a patch: its time."""
        return 1

    def shown(self, shape: tuple[int, ...]) -> str:
        """What patches of this shape are, by seconds."""
        return f"audio {shape[0] * self.stack * self.mel.hop / self.mel.rate:.2g} s"

    @property
    def seconds(self) -> float:
        """Of the longest sound."""
        return self.limit * self.stack * self.mel.hop / self.mel.rate


class PatchConfig(Protocol):
    """The config of a modality of patches: those here, and those of other packages. shown: what patches of a shape are, in a few words."""

    @property
    def kind(self) -> str: ...
    @property
    def bottleneck(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def trunk(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def values(self) -> int: ...
    @property
    def axes(self) -> int: ...
    def shown(self, shape: tuple[int, ...]) -> str: ...


def _check(cfg: PatchConfig, *names: str) -> None:
    for name in names:
        if (value := getattr(cfg, name)) < 1:
            raise ConfigError(f"{cfg.kind}: {name} is {value}", "give at least 1")


def patch_flops(cfg: PatchConfig, width: int) -> tuple[float, float]:
    """Forward FLOPs (two per multiply-add) of a patch that is read, and further ones of a patch that is learnt."""
    times = 2.0 * width * (TIMES + width)
    stem = 2.0 * cfg.bottleneck * (cfg.values + width)
    return stem + times, times + 2.0 * width * (2 * width + cfg.values)


def patch_parameters(cfg: PatchConfig, width: int) -> int:
    """All learned numbers of the stem, the times and the head."""
    stem = cfg.bottleneck * (cfg.values + width) + width
    times = width * (TIMES + 1) + width * (width + 1)
    head = 2 * width * (width + 1) + cfg.values * (width + 1)
    return stem + times + head
