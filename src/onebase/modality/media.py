"""Media: the modalities whose raw data are files, read as patches in the trunk of text and written back as files.

Each is one entry of a table; another package adds its own with `register` (docs/plugins.md). Nothing below or above names one of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onebase.errors import ConfigError
from onebase.modality.patches.config import ImagePatchesConfig, SoundPatchesConfig

if TYPE_CHECKING:  # sources are read without torch
    from torch import Tensor

    from onebase.modality.text.sample import Media, MediaContent


@dataclass(frozen=True)
class MediaKind:
    """One modality of files.

    name: of its segments and of documents' media, and in the token that opens it (`<|image|>`). codec: the kind of its config, and the name of its
    codec in a base. config: a frozen config with `kind`, `bottleneck`, `limit`, `trunk` and `group`, the properties `values` (of a patch)
    and `axes` (coordinates of a patch), and `shown(shape)`, which says in a few words what it is ("image 28x28"). suffixes: of its files.

    check: reads an encoded file (bytes, name for messages) as far as its preparation should know it is sound. shape: patches along each coordinate of a file or its bytes (file,
    config, name), the last coordinate changing fastest. patches: the file as fp32 [N, P]. encode: patches of a shape as a file that a person can
    open, ending in `suffix`. Errors are DataError, and name the file.
    """

    name: str
    codec: str
    config: type
    suffixes: tuple[str, ...]
    suffix: str
    check: Callable[[bytes, str], None]
    shape: Callable[[Any, Any, str], tuple[int, ...]]
    patches: Callable[[Any, Any, str], Tensor]
    encode: Callable[[Tensor, tuple[int, ...], Any], bytes]

    @property
    def special(self) -> str:
        """The special token that opens it."""
        return f"<|{self.name}|>"

    def content(self, source: str | Path | bytes, cfg: Any, name: str = "") -> MediaContent:
        """A file, or what is in one, as a content of samples: its shape is read now, its patches when they are needed. Raises DataError."""
        from onebase.modality.text.sample import MediaContent

        named = name or (f"the {self.name}" if isinstance(source, bytes) else str(source))
        shape = self.shape(source, cfg, named)
        data = source if isinstance(source, bytes) else Path(source).read_bytes()

        def load() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            return self.patches(source, cfg, named).numpy(), coordinates(shape)

        digest = hashlib.sha256(data).hexdigest()
        return MediaContent(digest, int(np.prod(shape)), load, named, shape, cfg.shown(shape))


def coordinates(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Coordinates of each patch, int64 [N, K]; the last one changes fastest."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape))


class _Image:
    """Pictures, by Pillow. Nothing is imported before it is needed."""

    @staticmethod
    def check(data: bytes, name: str) -> None:
        from onebase.modality.image.pixels import check_picture

        check_picture(data, name)

    @staticmethod
    def shape(source: Any, cfg: ImagePatchesConfig, name: str) -> tuple[int, int]:
        from onebase.modality.patches.contents import image_shape

        return image_shape(source, cfg, name)

    @staticmethod
    def patches(source: Any, cfg: ImagePatchesConfig, name: str) -> Tensor:
        from onebase.modality.patches.contents import image_patches

        return image_patches(source, cfg, name)

    @staticmethod
    def encode(patch_NP: Tensor, shape: tuple[int, ...], cfg: ImagePatchesConfig) -> bytes:
        from onebase.modality.patches.pictures import png

        return png(patch_NP, shape, cfg)


class _Audio:
    """Sounds, by libsndfile and Griffin-Lim."""

    @staticmethod
    def check(data: bytes, name: str) -> None:
        from onebase.modality.audio.read import check_audio

        check_audio(data, name)

    @staticmethod
    def shape(source: Any, cfg: SoundPatchesConfig, name: str) -> tuple[int]:
        from onebase.modality.patches.contents import sound_shape

        return sound_shape(source, cfg, name)

    @staticmethod
    def patches(source: Any, cfg: SoundPatchesConfig, name: str) -> Tensor:
        from onebase.modality.patches.contents import file_patches

        return file_patches(source, cfg, name)

    @staticmethod
    def encode(patch_NP: Tensor, shape: tuple[int, ...], cfg: SoundPatchesConfig) -> bytes:
        from onebase.modality.patches.sounds import wav

        return wav(patch_NP, cfg)


IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
MEDIA: dict[str, MediaKind] = {
    "image": MediaKind(
        "image",
        "image_patches",
        ImagePatchesConfig,
        IMAGES,
        ".png",
        _Image.check,
        _Image.shape,
        _Image.patches,
        _Image.encode,
    ),
    "audio": MediaKind(
        "audio",
        "sound_patches",
        SoundPatchesConfig,
        SOUNDS,
        ".wav",
        _Audio.check,
        _Audio.shape,
        _Audio.patches,
        _Audio.encode,
    ),
}


def register(kind: MediaKind) -> None:
    """Add a modality of another package. Raises ConfigError if another one has its name, its codec's name or one of its suffixes."""
    for other in MEDIA.values():
        if other == kind:
            return
        shared = set(other.suffixes) & set(kind.suffixes)
        if other.name == kind.name or other.codec == kind.codec or shared:
            what = f"suffix {min(shared)}" if shared else f"name {kind.name!r} or codec {kind.codec!r}"
            raise ConfigError(f"there are two modalities with the {what}", "give one of them another")
    from onebase.modality.kinds import CODECS, patch_kind

    MEDIA[kind.name] = kind
    CODECS[kind.codec] = patch_kind(kind.config)


def of_codec(codec: str) -> MediaKind:
    """The modality of a codec."""
    return next(kind for kind in MEDIA.values() if kind.codec == codec)


def as_patches(media: Sequence[Media]) -> tuple[Media, ...]:
    """Those that stand as patches in the trunk of text; others (the image of a pair, a sound for an encoder) are read by a trunk of their own."""
    codecs = {kind.codec for kind in MEDIA.values()}
    return tuple(m for m in media if m.kind in codecs)


def by_suffix() -> Mapping[str, MediaKind]:
    """Modalities by the ends of their files' names."""
    return {suffix: kind for kind in MEDIA.values() for suffix in kind.suffixes}
