"""A file as pixels: what transformers' image processor makes of it; broken and hostile files are refused by name."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onebase.errors import ConfigError, DataError, UserError
from onebase.formats.hf.pictures import processor_tree
from onebase.modality.image import pixels as module
from onebase.modality.image.config import ImageCodecConfig, PixelsConfig
from onebase.modality.image.pixels import MAX_PIXELS, pixels, prepared, read_picture

Image = pytest.importorskip("PIL.Image")
transformers = pytest.importorskip("transformers")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Any:
    """Smooth random colours: what resizing is for."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 4), np.uint8).view(np.uint8), "RGBA")
    return small.resize((width, height), 3).convert(mode)


def codec(channels: int = 3, size: int = 32, **how: Any) -> ImageCodecConfig:
    return ImageCodecConfig(
        kind="image",
        size=size,
        patch=8,
        channels=channels,
        places_fit="bicubic",
        pixels=PixelsConfig(**how),
    )


def theirs(cfg: ImageCodecConfig, image: Any) -> torch.Tensor:
    """What the processor that we write for transformers makes of it."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    made = CLIPImageProcessorPil(**processor_tree(cfg))
    out: torch.Tensor = made(image, return_tensors="pt")["pixel_values"][0]
    return out


@pytest.mark.parametrize("size", [(32, 32), (50, 40), (40, 51), (20, 20), (17, 90), (1, 1), (200, 7)])
@pytest.mark.parametrize(
    "how",
    [
        {"filter": "bilinear"},
        {"resize": "crop", "edge": 40, "mean": MEAN, "std": STD},
        {"resize": "crop", "edge": 25, "filter": "bicubic"},  # the middle is wider than the picture: black
        {"resize": "stretch", "edge": 45, "filter": "lanczos"},
        {"resize": "crop", "size": 24, "edge": 31, "filter": "nearest", "mean": (0.0,), "std": (1.0,)},
        {"filter": "box"},
        {"filter": "hamming"},
    ],
)
def test_as_transformers_prepares_it(size: tuple[int, int], how: dict[str, Any]) -> None:
    cfg, image = codec(**how), picture(*size)
    made = prepared(image, cfg)
    assert made.shape == (3, cfg.side, cfg.side) and made.dtype == torch.float32
    torch.testing.assert_close(made, theirs(cfg, image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "gif", "jpg", "bmp"])
def test_every_mode_in_every_format(mode: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{suffix}"
    try:
        picture(40, 30, mode).save(file, lossless=True) if suffix == "webp" else picture(40, 30, mode).save(
            file
        )
    except (OSError, ValueError):
        pytest.skip("Pillow does not write this")
    cfg = codec(resize="crop")
    with Image.open(file) as stored:
        want = theirs(cfg, stored.copy())
    torch.testing.assert_close(pixels([file], cfg)[0], want, atol=1e-5, rtol=0)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(tmp_path / "a.png")
    named = Image.new("P", (8, 8), 1)
    named.putpalette([0, 0, 0, 200, 0, 0])
    named.save(tmp_path / "b.png", transparency=1)
    made = pixels([tmp_path / "a.png", tmp_path / "b.png"], codec(mean=(0.0,), std=(1.0,)))
    assert torch.equal(made, torch.ones_like(made))


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    grey = np.array([[0, 65535], [32768, 257]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "x.png")
    assert np.asarray(read_picture(tmp_path / "x.png"))[..., 0].tolist() == [[0, 255], [128, 1]]


def test_pixels_without_a_brightest_value_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(DataError, match=r"x\.tiff cannot be read as an image: pixels of mode F"):
        read_picture(tmp_path / "x.tiff")


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_photo_is_upright(turn: int, tmp_path: Path) -> None:
    image = picture(20, 12)
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(tmp_path / "x.png", exif=exif)
    seen = read_picture(tmp_path / "x.png")
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's numbers of the turns that undo it
    want = image if turn == 1 else image.transpose(back[turn])
    assert np.array_equal(np.asarray(seen), np.asarray(want))


def test_grey_models(tmp_path: Path) -> None:
    picture(20, 12, "RGBA").save(tmp_path / "x.png")
    made = pixels([tmp_path / "x.png"], codec(1))
    want = np.asarray(read_picture(tmp_path / "x.png").convert("L").resize((32, 32), 3), np.float32)
    torch.testing.assert_close(made[0, 0], torch.from_numpy(want) / 127.5 - 1, atol=1e-5, rtol=0)


def test_of_several_frames_the_first(tmp_path: Path) -> None:
    first, second = picture(8, 8, seed=1), picture(8, 8, seed=2)
    first.save(tmp_path / "x.tiff", save_all=True, append_images=[second])
    assert np.array_equal(np.asarray(read_picture(tmp_path / "x.tiff")), np.asarray(first))


def announced(width: int, height: int) -> bytes:
    """A PNG of some bytes that says it is so large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_500, 30_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_opened(side: int, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(announced(side, side))
    with pytest.raises(DataError, match=r"bomb\.png"):
        read_picture(tmp_path / "bomb.png")


def test_a_bomb_is_refused_where_pillow_s_own_limit_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(announced(9_500, 9_500))
    with pytest.raises(DataError, match=r"bomb\.png: 9,500 x 9,500 pixels are too many"):
        read_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("kind", ["PPM", "TGA", "PCX", "ICO"])
def test_formats_that_nobody_asked_for_are_not_decoded(kind: str, tmp_path: Path) -> None:
    picture(16, 16).save(tmp_path / "x.png", kind)
    with pytest.raises(DataError, match=r"x\.png cannot be read"):
        read_picture(tmp_path / "x.png")


def test_a_picture_that_resizing_would_blow_up_is_refused() -> None:
    with pytest.raises(DataError, match=r"too many"):
        prepared(Image.new("L", (1, 500_000)), codec(resize="crop", edge=224))
    assert MAX_PIXELS < 224 * 224 * 500_000
    with pytest.raises(DataError, match=r"20,000 x 20,000 pixels are too many"):
        prepared(Image.new("L", (9, 9)), codec(resize="crop", edge=224, size=20_000))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_a_cut_file_is_refused_by_name(suffix: str, tmp_path: Path) -> None:
    whole = io.BytesIO()
    kind = {"jpg": "JPEG", "tiff": "TIFF"}.get(suffix, suffix.upper())
    picture(60, 50).convert("P" if suffix == "gif" else "RGB").save(whole, kind)
    data = whole.getvalue()
    for part in (0.02, 0.3, 0.8):
        (tmp_path / f"x.{suffix}").write_bytes(data[: int(len(data) * part)])
        with pytest.raises(DataError, match=rf"x\.{suffix} cannot be read as an image"):
            read_picture(tmp_path / f"x.{suffix}")


@pytest.mark.parametrize(
    "make",
    [
        lambda p: p.write_text("<svg/>"),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
        ),  # Pillow would run Ghostscript
        lambda p: p.write_bytes(bytes(range(256)) * 9),
    ],
)
def test_what_is_no_picture_is_refused_by_name(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png cannot be read as an image(.|\n)*intact file"):
        read_picture(tmp_path / "x.png")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(DataError, match="there is no such file"):
            read_picture(path)


def test_flipped_bytes_never_do_more_than_be_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = io.BytesIO()
        picture(24, 18).convert("P" if kind == "GIF" else "RGB").save(whole, kind)
        for _ in range(60):
            data = np.frombuffer(whole.getvalue(), np.uint8).copy()
            data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            (tmp_path / "x").write_bytes(data.tobytes())
            with contextlib.suppress(DataError):
                assert pixels([tmp_path / "x"], codec()).isfinite().all()


def test_without_pillow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(9, 9).save(tmp_path / "x.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match=r"pip install \"onebase\[vision\]\""):
        read_picture(tmp_path / "x.png")


def test_pillow_is_imported_on_use() -> None:
    code = (
        "import sys, onebase.modality.kinds, onebase.modality.image.pixels; assert 'PIL' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert module.FORMATS


@pytest.mark.parametrize(
    "how", [{"std": (0.0,)}, {"mean": (0.1, 0.2)}, {"edge": 0}, {"size": -1}, {"std": ()}]
)
def test_steps_that_make_no_sense(how: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        codec(**how)
