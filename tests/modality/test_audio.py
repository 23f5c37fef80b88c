"""Sound: files of every kind to samples, samples to another rate, samples to the frames that Whisper was trained on."""

import io
import struct
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onebase.errors import ConfigError, DataError, UserError
from onebase.modality.audio.config import AudioCodecConfig
from onebase.modality.audio.mel import log_mel, mel_filters
from onebase.modality.audio.modules import AudioModule
from onebase.modality.audio.read import read_audio, resampled
from onebase.modality.audio.speech import SpeechConfig

WHISPER = AudioCodecConfig(kind="audio")
Array = npt.NDArray[Any]


def tone(seconds: float, rate: int = 16000, hertz: float = 440.0) -> Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * rate)) / rate)


def speechlike(seconds: float) -> Tensor:
    """Tones that come and go over a little noise."""
    t = torch.arange(round(seconds * 16000)) / 16000
    x = sum(
        torch.sin(2 * torch.pi * f * t) * torch.sin(3 * f / 200 * t).clamp(min=0) for f in (180, 720, 2400)
    )
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    return 0.2 * torch.as_tensor(x) + 0.003 * noise


# --- frames ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mels", [80, 128])
def test_frames_are_those_of_transformers(mels: int) -> None:
    transformers = pytest.importorskip("transformers")
    cfg = AudioCodecConfig(kind="audio", mels=mels)
    theirs = transformers.WhisperFeatureExtractor(feature_size=mels)
    np.testing.assert_allclose(mel_filters(cfg), theirs.mel_filters.T, atol=1e-8)
    sound = speechlike(7.3)
    want = theirs(sound.numpy(), sampling_rate=16000, return_tensors="pt").input_features[0]
    padded = torch.nn.functional.pad(sound, (0, 480_000 - len(sound)))
    found = log_mel(padded, cfg)
    assert found.shape == (mels, 3000)
    torch.testing.assert_close(found, want, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_frames_are_those_of_faster_whisper() -> None:
    there = pytest.importorskip("faster_whisper.feature_extractor")
    for sound in (speechlike(4.11), tone(1.0), torch.zeros(5000), speechlike(40.0)):
        want = torch.from_numpy(there.FeatureExtractor()(sound.numpy()))
        found = log_mel(torch.nn.functional.pad(sound, (0, 160)), WHISPER)
        assert found.shape == want.shape
        # Theirs takes the spectrum in fp64 and rounds it; where a band is near silence the rounding shows.
        torch.testing.assert_close(found, want, atol=1e-4, rtol=0)


def test_frames_by_a_transform_written_out() -> None:
    """One frame in the middle, by the definition of the Fourier transform."""
    sound, f = speechlike(0.5), 20
    n = torch.arange(400, dtype=torch.float64)
    shape = 0.5 - 0.5 * torch.cos(2 * torch.pi * n / 400)
    part = sound[f * 160 - 200 : f * 160 + 200].double() * shape
    k = torch.arange(201, dtype=torch.float64)[:, None]
    power = (part * torch.cos(2 * torch.pi * k * n / 400)).sum(1) ** 2
    power += (part * torch.sin(2 * torch.pi * k * n / 400)).sum(1) ** 2
    want = (mel_filters(WHISPER).double() @ power).clamp(min=1e-10).log10()
    found = log_mel(sound, WHISPER).double()
    unscaled = found * 4 - 4
    loud = want > float(unscaled.max()) - 8
    torch.testing.assert_close(unscaled[loud, f], want[loud], atol=1e-4, rtol=0)


def test_long_sounds_are_framed_in_runs_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from onebase.modality.audio import mel

    sound = speechlike(3.0)
    whole = log_mel(sound, WHISPER)
    monkeypatch.setattr(mel, "RUN", 7)
    torch.testing.assert_close(log_mel(sound, WHISPER), whole, atol=1e-6, rtol=0)


def test_the_shortest_sounds() -> None:
    assert log_mel(torch.zeros(0), WHISPER).shape == (80, 0)
    assert log_mel(torch.zeros(159), WHISPER).shape == (80, 0)
    assert log_mel(torch.zeros(160), WHISPER).shape == (80, 1)
    assert bool(log_mel(torch.randn(200), WHISPER).isfinite().all())


def test_silence_is_the_floor() -> None:
    assert log_mel(torch.zeros(16000), WHISPER).unique().tolist() == [-1.5]


def test_codec_ends_are_reset_and_counted() -> None:
    from onebase.modality.audio.config import audio_parameters

    cfg = AudioCodecConfig(kind="audio", mels=8, context=20)
    ends = AudioModule(cfg, 16)
    ends.reset(torch.Generator().manual_seed(0))
    assert audio_parameters(cfg, 16) == sum(p.numel() for p in ends.parameters())
    x, cols = ends.embed(torch.randn(2, 8, 12), torch.float32)
    assert x.shape == (2, 6, 16) and cols.shape == (2, 6)
    with pytest.raises(UserError, match="22 frames"):
        ends.embed(torch.randn(2, 8, 22), torch.float32)


# --- rates -----------------------------------------------------------------------------------------------------------------


def at_rate(sound: Tensor, rate: int, wanted: int = 16000) -> Tensor:
    return torch.from_numpy(resampled(sound.numpy(), rate, wanted))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 44101])
def test_a_tone_stays_the_tone_at_another_rate(rate: int) -> None:
    for hertz in (100.0, 997.0, 0.4 * min(rate, 16000)):
        found = at_rate(tone(0.5, rate, hertz), rate)
        assert len(found) == round(round(0.5 * rate) * 16000 / rate)
        want = tone(0.6, 16000, hertz)[: len(found)]
        middle = slice(400, -400)  # at its ends a tone begins and ends, which is no tone
        torch.testing.assert_close(found[middle], want[middle], atol=2e-3, rtol=0)


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    found = at_rate(tone(0.5, 48000, 10_000.0), 48000)
    assert float(found[400:-400].abs().max()) < 1e-3


def test_a_constant_stays_and_nothing_stays_nothing() -> None:
    found = at_rate(torch.ones(30_000), 11025)[2000:-2000]  # the ends are steps, which ring
    torch.testing.assert_close(found, torch.ones(len(found)), atol=1e-6, rtol=0)
    assert len(at_rate(torch.zeros(0), 8000)) == 0
    sound = torch.randn(10)
    assert at_rate(sound, 16000).equal(sound)


@pytest.mark.slow
def test_another_rate_as_ffmpeg_has_it() -> None:
    """swresample (through PyAV), which faster-whisper uses: to a few steps of 16 bits, below nine tenths of the band. Above that the two
    cut at different places."""
    av = pytest.importorskip("av")
    bins = torch.fft.rfft(speechlike(1.0)[:8000])
    bins[len(bins) * 9 // 10 :] = 0
    sound = (torch.fft.irfft(bins, 8000) * 32768).short()
    frame = av.AudioFrame.from_ndarray(sound.numpy()[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16000)
    parts = [f.to_ndarray()[0] for f in (*resampler.resample(frame), *resampler.resample(None))]
    want = torch.from_numpy(np.concatenate(parts)).float() / 32768
    found = at_rate(sound.float() / 32768, 8000)
    length = min(len(found), len(want))
    torch.testing.assert_close(found[:length][100:-100], want[:length][100:-100], atol=3e-4, rtol=0)


# --- files -----------------------------------------------------------------------------------------------------------------


def wav(
    data: bytes, *, kind: int = 1, channels: int = 1, rate: int = 16000, bits: int = 16, extra: bytes = b""
) -> bytes:
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * block, block, bits) + extra
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"LIST\3\0\0\0abc\0"
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


GUID = bytes.fromhex("0000000010008000 00aa00389b71")
"""How the name of every format of WAVE_FORMAT_EXTENSIBLE goes on (Microsoft, ksmedia.h)."""


def stored(x: Array, bits: int, floats: bool = False) -> bytes:
    if floats:
        return x.astype(f"<f{bits // 8}").tobytes()
    whole = np.round(x * 2.0 ** (bits - 1)).astype(np.int64)
    if bits == 8:
        return (whole + 128).astype(np.uint8).tobytes()
    if bits == 24:
        return b"".join(int(v).to_bytes(3, "little", signed=True) for v in whole.ravel())
    return whole.astype(f"<i{bits // 8}").tobytes()


@pytest.mark.parametrize(
    ("bits", "floats"), [(8, False), (16, False), (24, False), (32, False), (32, True), (64, True)]
)
@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_kind_of_wav(bits: int, floats: bool, extensible: bool, channels: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (50, channels))
    kind = 3 if floats else 1
    extra = struct.pack("<HHIH", 22, bits, 0, kind) + GUID if extensible else b""
    raw = wav(
        stored(x, bits, floats),
        kind=0xFFFE if extensible else kind,
        channels=channels,
        bits=bits,
        extra=extra,
    )
    (tmp_path / "a.wav").write_bytes(raw)
    mono = read_audio(tmp_path / "a.wav", 16000)
    np.testing.assert_allclose(mono.numpy(), x.mean(1), atol=2.0 ** -(min(bits, 24) - 1))


def test_what_the_standard_library_writes_is_read(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as f:
        f.setnchannels(2)
        f.setsampwidth(2)
        f.setframerate(8000)
        f.writeframes(struct.pack("<4h", 16384, 0, -32768, 0))
    assert read_audio(tmp_path / "a.wav", 8000).tolist() == [0.25, -0.5]
    assert len(read_audio(tmp_path / "a.wav", 16000)) == 4


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFF00, 0])
@pytest.mark.parametrize("whole", [0xFFFFFFFF, 0x7FFFF024, 0])
def test_a_file_from_a_pipe_goes_to_its_end(length: int, whole: int, tmp_path: Path) -> None:
    """What ffmpeg, sox and arecord write where they cannot go back: a length that is none."""
    x = np.linspace(-0.5, 0.5, 100)
    raw = wav(stored(x, 16)).replace(b"data\xc8\0\0\0", b"data" + length.to_bytes(4, "little"))
    (tmp_path / "a.wav").write_bytes(raw[:4] + whole.to_bytes(4, "little") + raw[8:])
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 16000).numpy(), x, atol=2.0**-15)


@pytest.mark.parametrize("kind", ["ULAW", "ALAW", "IMA_ADPCM"])
def test_wav_that_is_coded(kind: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(str(tmp_path / "a.wav"), tone(1.0).numpy(), 16000, subtype=kind)
    found = read_audio(tmp_path / "a.wav", 16000)
    torch.testing.assert_close(found[100:16000], tone(1.0)[100:], atol=0.05, rtol=0)


def test_no_sound_is_no_samples(tmp_path: Path) -> None:
    empty = wav(b"")
    for raw in (empty, empty[:4] + struct.pack("<I", len(empty)) + empty[8:] + b"LIST\0\0\0\0"):
        (tmp_path / "a.wav").write_bytes(raw)
        assert len(read_audio(tmp_path / "a.wav", 16000)) == 0


WHOLE = wav(stored(np.zeros(100), 16))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is empty"),
        (WHOLE[:-20], "truncated: it has 180 of 200"),
        (WHOLE[:60], "truncated: it has 4 of 200"),
        (WHOLE[:40], "No 'data' chunk"),
        (WHOLE[:12], "cannot be read as audio"),
        (wav(b"ab", channels=0), "Channel count is zero"),
        (wav(b"ab", rate=0), "cannot be read as audio"),
        (wav(b"ab", rate=999), "999 Hz"),
        (wav(b"ab", kind=0x7777), "cannot be read as audio"),
        (wav(np.array([np.nan], "<f4").tobytes(), kind=3, bits=32), "NaN, infinite"),
        (wav(np.array([np.inf], "<f4").tobytes(), kind=3, bits=32), "NaN, infinite"),
        (wav(np.array([1e30], "<f8").tobytes(), kind=3, bits=64), "NaN, infinite"),
        (b"RIFF\4\0\0\0WAVEdata\4\0\0\0abcd", "cannot be read as audio"),
        (b"RIFF\4\0\0\0WAVEfmt \4\0\0\0abcd", "Short 'fmt ' chunk"),
        (b"RIFF\4\0\0\0WAVEjunk\xff\xff\xff\x7fabcd", "No 'data' chunk"),
    ],
)
def test_a_bad_file_is_one_clear_error(raw: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(raw)
    with pytest.raises(DataError, match=says):
        read_audio(tmp_path / "a.wav", 16000)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_audio(tmp_path / "none.wav", 16000)
    with pytest.raises(UserError, match="cannot be read"):
        read_audio(tmp_path, 16000)


@settings(max_examples=200)
@given(
    at=st.integers(0, len(WHOLE) - 1), new=st.binary(min_size=1, max_size=6), end=st.integers(0, len(WHOLE))
)
def test_damage_gives_an_error_or_sound(at: int, new: bytes, end: int, tmp_path_factory: Any) -> None:
    raw = bytearray(WHOLE)
    raw[at : at + len(new)] = new
    path = tmp_path_factory.mktemp("fuzz") / "a.wav"
    path.write_bytes(bytes(raw[: max(end, 1)]) if end % 3 == 0 else bytes(raw))
    try:
        assert len(read_audio(path, 16000)) <= 16 * len(WHOLE)  # 16: from the lowest rate
    except UserError:
        pass


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_other_formats_by_the_extra(kind: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    file = tmp_path / f"a.{kind.lower()}"
    soundfile.write(str(file), tone(1.0, 44100).numpy(), 44100, format=kind)
    found = read_audio(file, 16000)
    assert abs(len(found) - 16000) <= 1200
    a, b = found[4000:12000], tone(1.0)[4000:12000]
    assert float(a.abs().max()) == pytest.approx(0.5, abs=0.02)
    if kind == "FLAC":
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


@pytest.mark.parametrize("missing", ["soundfile", "soxr"])
def test_without_the_extra_it_is_said_what_to_install(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.wav").write_bytes(WHOLE)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"onebase\[audio\]"):
        read_audio(tmp_path / "a.wav", 16000)


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\4\0" + bytes(512)])
def test_half_a_file_is_an_error(kind: str, tag: bytes, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    made = io.BytesIO()
    soundfile.write(made, tone(3.0, 44100).numpy(), 44100, format=kind)
    raw = (tag if kind == "MP3" else b"") + made.getvalue()
    file = tmp_path / "a.sound"
    file.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=r"truncated|cannot be read|no audio"):
        read_audio(file, 16000)
    file.write_bytes(raw)
    assert abs(len(read_audio(file, 16000)) - 48000) <= 1200


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("tag", [b"", b"TAG" + bytes(125)])
def test_an_mp3_without_a_count_of_its_frames(mode: str, tag: bytes, tmp_path: Path) -> None:
    """Its length is a guess by the first frames: whole with a constant bit rate, a part with another, which must not pass for the whole."""
    soundfile = pytest.importorskip("soundfile")
    made, noise = io.BytesIO(), np.random.default_rng(0).standard_normal(44100 * 6)
    falling = noise * 0.3 * np.linspace(1, 0, len(noise)) ** 4
    soundfile.write(made, falling, 44100, format="MP3", bitrate_mode=mode, compression_level=0.5)
    raw = made.getvalue()
    assert b"Xing" in raw[:100] or b"Info" in raw[:100]
    (tmp_path / "a.mp3").write_bytes(raw[raw.index(b"\xff\xfb", 4) :] + tag)
    if mode == "CONSTANT":
        assert abs(len(read_audio(tmp_path / "a.mp3", 16000)) - 96000) <= 1200
    else:
        with pytest.raises(DataError, match="no frame count"):
            read_audio(tmp_path / "a.mp3", 16000)


def test_a_file_that_is_no_sound(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    (tmp_path / "a.mp3").write_bytes(b"this is a text, not a sound" * 20)
    with pytest.raises(DataError, match=r"a\.mp3 cannot be read as audio"):
        read_audio(tmp_path / "a.mp3", 16000)


def test_special_tokens_that_do_not_go_together_are_refused() -> None:
    good = {"start": 10, "end": 9, "no_timestamps": 20}
    assert SpeechConfig(**good).seconds(SpeechConfig(**good).first + 50) == pytest.approx(1.0)
    for bad in ({"start": 30}, {"end": -1}, {"languages": {"en": 25}}, {"language": "de"}, {"step": 0.0}):
        with pytest.raises(ConfigError):
            SpeechConfig(**good | bad)  # type: ignore[arg-type]
