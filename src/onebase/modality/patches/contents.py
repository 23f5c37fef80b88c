"""Encoded images and sounds as contents of samples: their size is known from the header, their patches are decoded when they are needed."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onebase.errors import DataError
from onebase.modality.audio.read import read_audio
from onebase.modality.image.pixels import picture_size, read_picture
from onebase.modality.patches.config import ImagePatchesConfig, SoundPatchesConfig
from onebase.modality.patches.pictures import fitted, grid, picture_values, to_patches
from onebase.modality.patches.sounds import sound_patches
from onebase.modality.text.sample import MediaContent

Raw = str | Path | bytes
"""A file, or what is in one."""


def image_content(
    source: Raw, cfg: ImagePatchesConfig, name: str = ""
) -> tuple[MediaContent, tuple[int, int]]:
    """An image, and its patches across and down. Raises DataError naming it where the header cannot be read or the image does not fit; a damaged
    body is an error when it is loaded."""
    named = name or ("the image" if isinstance(source, bytes) else str(source))
    try:
        across, down = fitted(*picture_size(source, named), cfg)
    except DataError as e:
        raise DataError(e.cause if named in e.cause else f"{named}: {e.cause}", e.remedy) from None

    def load() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        values = picture_values(read_picture(source, named), cfg)
        return to_patches(values, cfg.patch).numpy(), grid(across, down).numpy()

    return MediaContent(_digest(source), across * down, load, named), (across, down)


def sound_content(source: Raw, cfg: SoundPatchesConfig, name: str = "") -> MediaContent:
    """A sound. It is decoded once to count its patches, because not every format knows its length. Raises DataError naming it."""
    named = name or ("the audio" if isinstance(source, bytes) else str(source))

    def load() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        sound_N = read_audio(source, cfg.mel.rate, name=named, longest=cfg.seconds)
        try:
            patch_nP = sound_patches(sound_N, cfg).numpy()
        except DataError as e:
            raise DataError(f"{named}: {e.cause}", e.remedy) from None
        return patch_nP, np.arange(len(patch_nP))[:, None]

    return MediaContent(_digest(source), len(load()[0]), load, named)


def _digest(source: Raw) -> str:
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    return hashlib.sha256(data).hexdigest()
