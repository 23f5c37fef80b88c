"""Sound as patches of log-mel frames, and back by Griffin-Lim. N samples, F frames, M mel bands, K frequencies, n patches, P values of a patch."""

import io
import wave
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.errors import DataError
from onebase.modality.audio.config import AudioCodecConfig
from onebase.modality.audio.mel import log_mel, mel_filters
from onebase.modality.patches.config import SoundPatchesConfig

MOMENTUM = 0.99
"""Of the quick Griffin-Lim (Perraudin et al., 2013)."""


def sound_patches(sound_N: Tensor, cfg: SoundPatchesConfig) -> Tensor:
    """Patches [n, P] of samples at `cfg.mel.rate`; the last is filled up with the sound's least value. Raises DataError for a sound that is empty
    or too long."""
    mel_MF = log_mel(sound_N, cfg.mel)
    if not mel_MF.shape[1]:
        raise DataError("a sound shorter than a frame", f"give at least {cfg.mel.hop} samples")
    over = -mel_MF.shape[1] % cfg.stack
    mel_MF = F.pad(mel_MF, (0, over), value=float(mel_MF.min()))
    found = mel_MF.T.reshape(-1, cfg.values)
    if len(found) > cfg.limit:
        raise DataError(
            f"a sound of {len(sound_N) / cfg.mel.rate:,.1f} seconds",
            f"give at most {cfg.seconds:g} seconds, or cut it into pieces",
        )
    return found


def mel_of(patch_nP: Tensor, cfg: SoundPatchesConfig) -> Tensor:
    """The frames [M, F] of patches."""
    return patch_nP.reshape(-1, cfg.mel.mels).T


def griffin_lim(mel_MF: Tensor, cfg: AudioCodecConfig, steps: int = 64, seed: int = 0) -> Tensor:
    """Samples [N] whose log-mel frames are near the ones given: the magnitudes that are the nearest under the mel filters, with phases that
    agree with their neighbours (Griffin and Lim, 1984). The loudness is that of the frames."""
    power_MF = (10.0 ** (mel_MF.float() * 4.0 - 4.0)).clamp(min=0)
    filters_MK = mel_filters(cfg).to(mel_MF.device)
    size_KF = _nearest_powers(power_MF, filters_MK).sqrt()
    window, hop, shape = cfg.window, cfg.hop, torch.hann_window(cfg.window, device=mel_MF.device)
    size_KF = F.pad(size_KF, (0, 1))  # the transform's last frame, centred behind the last sample
    generator = torch.Generator().manual_seed(seed)
    phase_KF = torch.exp(2j * torch.pi * torch.rand(size_KF.shape, generator=generator)).to(mel_MF.device)
    before = torch.zeros_like(phase_KF)

    def sound(z_KF: Tensor) -> Tensor:
        return torch.istft(z_KF, window, hop, window=shape, length=mel_MF.shape[1] * hop)

    for _ in range(steps):
        x_N = sound(size_KF * phase_KF)
        z_KF = torch.stft(x_N, window, hop, window=shape, return_complex=True)
        quick_KF = z_KF + MOMENTUM * (z_KF - before)
        phase_KF, before = quick_KF / quick_KF.abs().clamp(min=1e-12), z_KF
    return sound(size_KF * phase_KF)


def _nearest_powers(power_MF: Tensor, filters_MK: Tensor, steps: int = 100) -> Tensor:
    """Powers [K, F], none below zero, whose mel bands are near the ones given: multiplicative updates (Lee and Seung, 2000)."""
    found_KF = filters_MK.T @ power_MF + 1e-12
    wanted_KF = filters_MK.T @ power_MF
    gram_KK = filters_MK.T @ filters_MK
    for _ in range(steps):
        found_KF = found_KF * wanted_KF / (gram_KK @ found_KF).clamp(min=1e-20)
    return found_KF


def wav(patch_nP: Tensor, cfg: SoundPatchesConfig) -> bytes:
    """Patches as the bytes of a WAV file."""
    out = io.BytesIO()
    write_wav(out, griffin_lim(mel_of(patch_nP, cfg), cfg.mel), cfg.mel.rate)
    return out.getvalue()


def write_wav(path: str | Path | io.BytesIO, sound_N: Tensor, rate: int) -> None:
    """Samples from -1 to 1 as a WAV file of 16 bits; louder ones are clipped."""
    pcm = (sound_N.detach().float().cpu().clamp(-1, 1) * 32767).round().to(torch.int16)
    with wave.open(path if isinstance(path, io.BytesIO) else str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes(pcm.numpy().astype("<i2").tobytes())
