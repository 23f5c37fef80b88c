"""Files of images and sounds, and their bytes, as patches. N patches, P values of a patch."""

from pathlib import Path

from torch import Tensor

from onebase.errors import DataError
from onebase.modality.audio.read import read_audio
from onebase.modality.image.pixels import picture_size, read_picture
from onebase.modality.patches.config import ImagePatchesConfig, SoundPatchesConfig
from onebase.modality.patches.pictures import fitted, picture_values, to_patches
from onebase.modality.patches.sounds import sound_patches

Raw = str | Path | bytes
"""A file, or what is in one."""


def image_shape(source: Raw, cfg: ImagePatchesConfig, name: str) -> tuple[int, int]:
    """Patches down and across of an image, from its header. Raises DataError naming it."""
    return picture_shape(picture_size(source, name), cfg, name)


def picture_shape(size: tuple[int, int], cfg: ImagePatchesConfig, name: str) -> tuple[int, int]:
    """Patches down and across of an image of this width and height. Raises DataError naming it."""
    try:
        across, down = fitted(*size, cfg)
    except DataError as e:
        raise DataError(f"{name}: {e.cause}", e.remedy) from None
    return down, across


def image_patches(source: Raw, cfg: ImagePatchesConfig, name: str) -> Tensor:
    """Patches fp32 [N, P]. Raises DataError naming the image."""
    return to_patches(picture_values(read_picture(source, name), cfg), cfg.patch)


def sound_shape(source: Raw, cfg: SoundPatchesConfig, name: str) -> tuple[int]:
    """Patches of a sound, which is decoded: not every format knows its length. Raises DataError naming it."""
    return (len(file_patches(source, cfg, name)),)


def file_patches(source: Raw, cfg: SoundPatchesConfig, name: str) -> Tensor:
    """Patches fp32 [N, P]. Raises DataError naming the sound."""
    sound_N = read_audio(source, cfg.mel.rate, name=name, longest=cfg.seconds)
    try:
        return sound_patches(sound_N, cfg)
    except DataError as e:
        raise DataError(f"{name}: {e.cause}", e.remedy) from None
