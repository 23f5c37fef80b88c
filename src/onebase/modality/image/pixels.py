"""Image files to the pixels that a stem reads. C channels, H rows, W columns.

Files are untrusted: a broken, far too large or unsupported file raises one error that names it. The arithmetic is that of transformers'
image processors on Pillow (`PilBackend`), with which published models were trained.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onebase.errors import DataError, UserError
from onebase.modality.image.config import ImageCodecConfig, PixelsConfig

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
REMEDY = f"give an intact file: {', '.join(FORMATS)}"
MAX_PIXELS = 89_478_485
"""Limit for an image and for its resized forms (256 MB in three channels; Pillow's own limit). A small file can announce any size."""
STRIP = 1 << 20
"""Pixels that are put on white at a time."""
ORIENTATION = 0x0112
"""EXIF tag: 5 to 8 exchange width and height."""
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow modes with 16 bits per pixel."""


def pixels(paths: Sequence[str | Path | bytes], cfg: ImageCodecConfig) -> Tensor:
    """Images (files, or their bytes) of any sizes as float32 [N, C, side, side]. Raises DataError naming the file that cannot be read."""
    names = ["the image" if isinstance(path, bytes) else str(path) for path in paths]
    images = [prepared(read_picture(path, n), cfg, n) for path, n in zip(paths, names, strict=True)]
    return torch.stack(images) if images else torch.empty(0, cfg.channels, cfg.side, cfg.side)


def read_picture(source: str | Path | bytes, name: str = "") -> "Image":
    """Read a file, or its bytes, as an 8-bit RGB image, rotated by EXIF, with transparency on white; of several frames the first.

    16 bits are scaled to 8. Raises DataError naming the file (`name` for bytes); UserError without Pillow.
    """
    with _opened(source, name) as found:
        found.load()
        return _plain(found)


def read_cutout(source: str | Path | bytes, name: str = "") -> "Image":
    """The same as 8-bit RGBA: transparency is kept, and a picture without any is opaque. Raises DataError, UserError."""
    from PIL import ImageOps

    with _opened(source, name) as found:
        found.load()
        if not found.has_transparency_data:
            return _plain(found).convert("RGBA")
        return ImageOps.exif_transpose(found).convert("RGBA")


def picture_size(source: str | Path | bytes, name: str = "") -> tuple[int, int]:
    """Width and height that `read_picture` returns, from the header. Raises DataError, UserError."""
    with _opened(source, name) as found:
        turned = found.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        width, height = found.size
        return (height, width) if turned else (width, height)


def check_picture(source: str | Path | bytes, name: str = "") -> None:
    """Decode the first frame and let it go: a header says nothing about a truncated file. Raises DataError, UserError."""
    with _opened(source, name) as found:
        found.load()


@contextmanager
def _opened(source: str | Path | bytes, name: str) -> "Iterator[Image]":
    """The image of a file, not decoded yet."""
    library = pillow()
    named = source if isinstance(source, (str, Path)) else name or "the image"
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise DataError(f"{named}: there is no such file", "give image files")
    if not (len(source) if isinstance(source, bytes) else Path(source).stat().st_size):
        raise DataError(f"{named} cannot be read as an image: it is empty", REMEDY)
    with _refusing(named), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # accept what a decoder could still read
        warnings.simplefilter("error", library.DecompressionBombWarning)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with _counting(library, named), library.open(file, formats=FORMATS) as found:
            width, height = found.size
            _check_size(width, height, named)
            yield found


def _plain(found: "Image") -> "Image":
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(found, in_place=True)  # each copy of the largest picture would be 360 MB
    image = found
    if image.mode in DEEP:
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no maximum value")
    if image.has_transparency_data:
        return _on_white(image)
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: "Image") -> "Image":
    """A picture with transparency, on white, some rows at a time."""
    library, (width, height) = pillow(), image.size
    out: Image = library.new("RGB", image.size)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(height, top + rows))
        seen = image.crop(box).convert("RGBA")
        white = library.new("RGBA", seen.size, (255, 255, 255, 255))
        out.paste(library.alpha_composite(white, seen).convert("RGB"), box)
    return out


def prepared(image: "Image", cfg: ImageCodecConfig, name: str = "the image") -> Tensor:
    """An 8-bit image (RGB or grey) as float32 [C, side, side]. Raises DataError for one too narrow to be resized."""
    assert cfg.channels in (1, 3), cfg.channels
    how = cfg.pixels
    image = image.convert("RGB" if cfg.channels == 3 else "L")
    if how.long is not None:
        image = image.resize(lengthened(image.size, how.long), _filter(how.filter))
    width, height = resized(image.size, how, cfg.side)
    _check_size(max(width, cfg.side), max(height, cfg.side), name)
    image = image.resize((width, height), _filter(how.filter))
    values_HWC = middle(np.asarray(image).reshape(height, width, cfg.channels), cfg.side)
    mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
    pixels_HWC = (values_HWC.astype(np.float32) / np.float32(255) - mean) / std
    return torch.from_numpy(np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)))


def whole_picture(cfg: ImageCodecConfig) -> ImageCodecConfig:
    """The codec with the whole picture stretched to its square, nothing cropped or added: each pixel has its place."""
    return replace(cfg, pixels=replace(cfg.pixels, resize="stretch", edge=None, long=None))


def lengthened(size: tuple[int, int], long: int) -> tuple[int, int]:
    """Width and height after the longer side is resized to `long`; the other is rounded down, then up to an even number."""
    shape = size[0] / size[1]
    short = int(long / shape) if shape >= 1 else int(long * shape)
    short = max(short + short % 2, 1)
    return (long, short) if shape >= 1 else (short, long)


def resized(size: tuple[int, int], how: PixelsConfig, side: int) -> tuple[int, int]:
    """Width and height after resizing, before the centre crop."""
    edge = how.edge or side
    if how.resize == "stretch":
        return edge, edge
    short, long = min(size), max(size)
    other = int(edge * long / short)
    return (edge, other) if size[0] <= size[1] else (other, edge)


def middle(values_HWC: np.ndarray, side: int) -> np.ndarray:
    """Centre crop to `side` x `side`, padded with black where the image is smaller."""
    for axis in (0, 1):
        have = values_HWC.shape[axis]
        if have >= side:
            start = (have - side) // 2
            values_HWC = values_HWC.take(np.arange(start, start + side), axis)
        else:
            before = -((have - side) // 2)
            pad = [(0, 0), (0, 0), (0, 0)]
            pad[axis] = (before, side - have - before)
            values_HWC = np.pad(values_HWC, pad)
    return values_HWC


def pillow() -> Any:
    """The `Image` module of Pillow. Raises UserError where it is not installed."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise UserError("reading images needs Pillow", 'run: pip install "onebase[vision]"') from None
    return Image


def _filter(name: str) -> Any:
    return pillow().Resampling[name.upper()]


@contextmanager
def _counting(library: Any, name: str | Path) -> Iterator[None]:
    """Pillow's own refusal of too many pixels, in the words of ours: it comes before the size can be read."""
    try:
        yield
    except (library.DecompressionBombError, library.DecompressionBombWarning) as e:
        count = int(re.findall(r"\d+", str(e))[0])
        raise DataError(
            f"{name}: {count:,} pixels are too many", f"give an image of at most {MAX_PIXELS:,}"
        ) from None


def _check_size(width: int, height: int, name: str | Path) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name}: {width:,} x {height:,} pixels are too many", f"give an image of at most {MAX_PIXELS:,}"
        )


@contextmanager
def _refusing(path: str | Path) -> Iterator[None]:
    """Turn any exception of a decoder on a broken file into one error that names the file."""
    try:
        yield
    except UserError:
        raise
    # Decoders raise many types on broken files (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, ...).
    except Exception as e:
        known = not isinstance(e, pillow().UnidentifiedImageError)
        reason = (str(e) if known else "no known format").replace(str(path), "the file") or type(e).__name__
        raise DataError(f"{path} cannot be read as an image: {reason}", REMEDY) from None
