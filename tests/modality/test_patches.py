"""Pictures and sound as patches: there and back, what the ends do with the time, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onebase.errors import ConfigError, DataError
from onebase.modality.audio.config import AudioCodecConfig
from onebase.modality.audio.mel import log_mel
from onebase.modality.audio.read import read_audio
from onebase.modality.media import MEDIA
from onebase.modality.patches.config import ImagePatchesConfig, SoundPatchesConfig, patch_parameters
from onebase.modality.patches.modules import PatchModule, positions
from onebase.modality.patches.pictures import (
    fitted,
    from_patches,
    grid,
    picture_values,
    to_image,
    to_patches,
)
from onebase.modality.patches.sounds import griffin_lim, mel_of, sound_patches, write_wav
from onebase.modality.patches.tokens import END_MEDIA, MEDIA_SPECIALS, PATCHES, MediaCodec
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.sample import SPECIALS, Sample, Segment
from onebase.modality.text.tokenizer import Tokenizer

PICTURES = ImagePatchesConfig(kind="image_patches", patch=4, bottleneck=12, limit=64)
SOUNDS = SoundPatchesConfig(kind="sound_patches", bottleneck=12)
MEL_ERROR = 0.04  # mean, of log-mel values that span 2: 0.033 was measured, 0.078 after one step, 0.131 with random phases


@given(width=st.integers(1, 300), height=st.integers(1, 300), limit=st.integers(16, 200))
def test_a_picture_fits_and_keeps_its_shape(width: int, height: int, limit: int) -> None:
    cfg = ImagePatchesConfig(kind="image_patches", patch=4, limit=limit)
    try:
        w, h = fitted(width, height, cfg)
    except DataError:
        assert max(width, height) / min(width, height) > limit / 4
        return
    assert 1 <= w * h <= limit
    if width * height <= 16 * limit and min(width, height) >= 4:
        assert abs(w - width / 4) <= 1 and abs(h - height / 4) <= 1  # nothing was made smaller
    if min(w, h) >= 4:
        assert w / h == pytest.approx(width / height, rel=0.35)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (28, 12), (12, 28)])
def test_patches_are_the_picture(tmp_path: Path, channels: int, size: tuple[int, int]) -> None:
    cfg = ImagePatchesConfig(kind="image_patches", channels=channels)
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    image = image.convert("RGB" if channels == 3 else "L")
    image.save(tmp_path / "a.png")
    found = MEDIA["image"].content(tmp_path / "a.png", cfg)
    down, across = found.shape
    patch_NP, at_NK = (torch.from_numpy(x) for x in found.load())
    assert (across * 4, down * 4) == size and patch_NP.shape == (found.count, cfg.values)
    assert torch.equal(patch_NP, to_patches(picture_values(image, cfg), 4)) and torch.equal(
        at_NK, grid(across, down)
    )
    same = MEDIA["image"].content((tmp_path / "a.png").read_bytes(), cfg)
    assert same.digest == found.digest and np.array_equal(same.load()[0], patch_NP)
    assert grid(across, down).tolist() == [[r, c] for r in range(down) for c in range(across)]
    values = from_patches(patch_NP, across, cfg)
    assert torch.equal(values, picture_values(image, cfg))
    first = values[:, :4, 4:8].reshape(-1)  # the second patch of the first row
    assert torch.equal(patch_NP[1], first)
    to_image(values).save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as again:
        assert again.mode == image.mode and np.array_equal(np.asarray(again), np.asarray(image))


def test_what_is_no_picture_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    with pytest.raises(DataError, match="a.png"):
        MEDIA["image"].content(tmp_path / "a.png", PICTURES)
    with pytest.raises(DataError, match="row 3"):
        MEDIA["image"].content((tmp_path / "a.png").read_bytes(), PICTURES, "row 3")
    Image.new("RGB", (4000, 4)).save(tmp_path / "long.png")
    with pytest.raises(DataError, match=r"long.png: a picture of 4,000 x 4 pixels"):
        MEDIA["image"].content(tmp_path / "long.png", PICTURES)
    with pytest.raises(ConfigError, match="patch is 0"):
        ImagePatchesConfig(kind="image_patches", patch=0)


def speech(seconds: float = 0.7, rate: int = 16000) -> torch.Tensor:
    """Something like a voice: harmonics of a gliding pitch, with pauses."""
    t = torch.arange(int(seconds * rate)) / rate
    pitch = (120 * t + 20 * torch.sin(6 * t)) * 2 * torch.pi
    voice = sum(torch.sin(k * pitch) / k for k in range(1, 12))
    return 0.2 * voice * (torch.sin(9 * t) > -0.3)


def test_sound_comes_back_from_its_patches(tmp_path: Path) -> None:
    x_N = speech()
    patch_nP = sound_patches(x_N, SOUNDS)
    mel_MF = mel_of(patch_nP, SOUNDS)
    wanted = log_mel(x_N, SOUNDS.mel)
    assert torch.equal(mel_MF[:, : wanted.shape[1]], wanted) and patch_nP.shape == (18, 320)
    made_N = griffin_lim(mel_MF, SOUNDS.mel)
    assert torch.equal(made_N, griffin_lim(mel_MF, SOUNDS.mel))
    found = log_mel(made_N, SOUNDS.mel)
    assert (found - mel_MF).abs().mean() < MEL_ERROR
    assert made_N.square().mean().sqrt() == pytest.approx(float(x_N.square().mean().sqrt()), rel=0.25)
    write_wav(tmp_path / "a.wav", made_N, 16000)
    again = read_audio(tmp_path / "a.wav", 16000)
    torch.testing.assert_close(again, made_N.clamp(-1, 1), atol=1e-4, rtol=0)


def test_a_sound_too_short_or_too_long_is_refused() -> None:
    with pytest.raises(DataError, match="at least 160 samples"):
        sound_patches(torch.zeros(100), SOUNDS)
    short = SoundPatchesConfig(kind="sound_patches", mel=AudioCodecConfig(kind="audio"), limit=25)
    with pytest.raises(DataError, match=r"1.1 seconds\n.*at most 1 seconds"):
        sound_patches(torch.zeros(17600), short)


def test_the_header_says_how_large_a_turned_photo_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (40, 16)).save(tmp_path / "turned.jpg", exif=exif)
    found = MEDIA["image"].content(tmp_path / "turned.jpg", PICTURES)
    assert (
        found.shape == (10, 4) and found.shown == "image 16x40" and len(found.load()[0]) == found.count == 40
    )


def test_a_damaged_body_is_named_when_it_is_read(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    found = MEDIA["image"].content((tmp_path / "a.jpg").read_bytes()[:900], PICTURES, "cats.parquet, row 7")
    with pytest.raises(DataError, match="cats.parquet, row 7"):
        found.load()


def test_a_sound_file_is_a_content(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", speech(), 16000)
    found = MEDIA["audio"].content(tmp_path / "a.wav", SOUNDS)
    patch_nP, at_n1 = found.load()
    assert found.count == len(patch_nP) == 18 and at_n1[:, 0].tolist() == list(range(18))
    again = MEDIA["audio"].content((tmp_path / "a.wav").read_bytes(), SOUNDS, "row 2")
    assert again.digest == found.digest and np.array_equal(again.load()[0], patch_nP)
    short = SoundPatchesConfig(kind="sound_patches", limit=10)
    with pytest.raises(DataError, match=r"a.wav has 700 ms of audio"):
        MEDIA["audio"].content(tmp_path / "a.wav", short)
    with pytest.raises(DataError, match="row 2"):
        MEDIA["audio"].content(b"RIFF", SOUNDS, "row 2")


def media_codec() -> MediaCodec:
    texts = ["a red square of 28x12 beside 7x7 others"] * 3
    tokenizer = Tokenizer.train(texts, 320, specials=(*SPECIALS, *MEDIA_SPECIALS))
    return MediaCodec(TextCodec(tokenizer), {"image_patches": PICTURES, "sound_patches": SOUNDS})


def test_media_stand_among_the_tokens(tmp_path: Path) -> None:
    codec = media_codec()
    tok = codec.text.tokenizer
    Image.new("RGB", (28, 12), "red").save(tmp_path / "a.png")
    write_wav(tmp_path / "b.wav", speech(0.4), 16000)
    segments = (
        Segment("text", "<|image|> is text", loss=True),
        Segment("image", tmp_path / "a.png"),
        Segment("text", "red", loss=True),
        Segment("audio", (tmp_path / "b.wav").read_bytes(), loss=True),
        Segment("end", None, loss=True),
    )
    found = codec.tokens(Sample(segments, "s", "mine"))
    image, sound = found.media
    assert (image.kind, len(image), image.noise) == ("image_patches", 21, False)
    assert (sound.kind, len(sound), sound.noise) == ("sound_patches", 10, True)
    mark, end = tok.id_of(PATCHES), tok.id_of(END_MEDIA)
    for media, size in ((image, (3, 7)), (sound, (10,))):
        assert found.ids[media.start - media.opening : media.start].tolist() == codec.opening(
            media.kind, size
        )
        assert (found.ids[media.start : media.stop] == mark).all() and found.ids[media.stop] == end
        assert not found.loss[media.start : media.stop].any()
    assert (found.ids == tok.id_of("<|image|>")).sum() == 1, "the name in a text stays text"
    assert found.loss[sound.start - 1] and not found.loss[sound.stop] and found.loss[-1]
    assert not found.loss[image.start - 1] and found.id == "s" and found.source == "mine"
    plain = Sample((Segment("text", "red"),))
    assert codec.tokens(plain).ids.tolist() == codec.text.tokens(plain).ids.tolist()
    with pytest.raises(DataError, match="'video'"):
        codec.text.tokens(Sample((Segment("video", b""),)))
    with pytest.raises(DataError, match="no codec for segments of kind 'audio'.*\n.*text, image"):
        MediaCodec(codec.text, {"image_patches": PICTURES}).tokens(Sample((Segment("audio", b""),)))


@pytest.mark.parametrize("cfg", [PICTURES, SOUNDS], ids=["image", "sound"])
def test_the_ends(cfg: ImagePatchesConfig | SoundPatchesConfig) -> None:
    module = PatchModule(cfg, 32)
    module.reset(torch.Generator().manual_seed(0))
    assert patch_parameters(cfg, 32) == sum(p.numel() for p in module.parameters())
    draw = torch.Generator().manual_seed(1)
    patch_NP = torch.rand(6, cfg.values, generator=draw) * 2 - 1
    at_NK = torch.arange(6 * cfg.axes).reshape(6, cfg.axes)
    t_N = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0, 1.0])
    x_ND = module.embed(patch_NP, at_NK, t_N, torch.float32)
    assert x_ND.shape == (6, 32) and 0.3 < x_ND.std() < 3
    alone = module.embed(patch_NP[4:5], at_NK[4:5], torch.ones(1), torch.float32)
    torch.testing.assert_close(alone[0], x_ND[4])
    assert not torch.allclose(module.embed(patch_NP, at_NK, torch.ones(6), torch.float32)[0], x_ND[0])
    assert not module.predict(x_ND, t_N).any()  # before it has learnt anything
    torch.nn.init.normal_(module.head.weight, generator=draw)
    torch.nn.init.normal_(module.modulate.weight, generator=draw)
    found = module.predict(x_ND, t_N)
    assert found.shape == (6, cfg.values)
    assert not torch.allclose(found[0], module.predict(x_ND[:1], torch.ones(1))[0])  # the head knows the time


def test_positions_tell_rows_from_columns() -> None:
    at_NK = grid(3, 3)
    found = positions(at_NK, 30)
    assert found.shape == (9, 30) and len({tuple(x.tolist()) for x in found}) == 9
    assert torch.equal(found[1][:14], found[0][:14])  # of one row
    assert not found[:, 28:].any()
