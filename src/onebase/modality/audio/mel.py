"""Samples to log-mel frames, as Whisper was trained on. N samples, F frames, M mel bands, K frequencies.

Sources: the mel scale of Slaney's Auditory Toolbox (1998; linear up to 1 kHz, then 27 steps for a factor of 6.4), and Whisper
(2212.04356) for what follows: log10, at most 8 below the loudest, (x + 4) / 4.
"""

import functools
import math

import torch
from torch import Tensor

from onebase.modality.audio.config import AudioCodecConfig

RUN = 3000
"""Frames per spectrum computation: an hour of audio in one would need half a gigabyte."""
_KNEE, _PER_HZ, _STEP = 1000.0, 3.0 / 200.0, math.log(6.4) / 27.0
_QUIETEST, _RANGE = 1e-10, 8.0


def log_mel(sound_N: Tensor, cfg: AudioCodecConfig) -> Tensor:
    """fp32 [M, F] of samples from -1 to 1 at `cfg.rate`; F = N // hop. Frame f is centred at sample f * hop; the ends are mirrored.

    The loudest value of the recording sets the floor: give the whole recording, not a part.
    """
    window, hop = cfg.window, cfg.hop
    x_N = sound_N.float()
    F = len(x_N) // hop
    if F == 0:
        return x_N.new_zeros(cfg.mels, 0)
    if len(x_N) <= window // 2:  # too short to be mirrored: silence follows
        x_N = torch.nn.functional.pad(x_N, (0, window))
    x_N = torch.nn.functional.pad(x_N[None], (window // 2, window // 2), mode="reflect")[0]
    shape_K, filters_MK = torch.hann_window(window, device=x_N.device), mel_filters(cfg).to(x_N.device)
    parts = []
    for a in range(0, F, RUN):
        b = min(a + RUN, F)
        piece = x_N[a * hop : (b - 1) * hop + window]
        z_KF = torch.stft(piece, window, hop, window=shape_K, center=False, return_complex=True)
        parts.append((filters_MK @ z_KF.abs().square()).clamp(min=_QUIETEST).log10())
    mel_MF = torch.cat(parts, 1)
    return (mel_MF.maximum(mel_MF.max() - _RANGE) + 4.0) / 4.0


def window_mel(sound_N: Tensor, cfg: AudioCodecConfig) -> Tensor:
    """fp32 [M, `cfg.context`]: the frames of at most one window of sound; missing ones are zeros, as in faster-whisper."""
    mel_MF = log_mel(torch.nn.functional.pad(sound_N, (0, cfg.hop)), cfg)[:, :-1]
    return torch.nn.functional.pad(mel_MF, (0, cfg.context - mel_MF.shape[1]))


@functools.lru_cache(maxsize=8)
def mel_filters(cfg: AudioCodecConfig) -> Tensor:
    """fp32 [M, K]: triangles between neighbouring points of the mel scale from 0 to half the rate, each of area 2 / Hz."""
    top = cfg.rate / 2
    freq_K = torch.linspace(0.0, top, cfg.window // 2 + 1, dtype=torch.float64)
    edges = _hertz(torch.linspace(0.0, _mels(top), cfg.mels + 2, dtype=torch.float64))
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise_MK, fall_MK = (freq_K - low) / (mid - low), (high - freq_K) / (high - mid)
    return (torch.minimum(rise_MK, fall_MK).clamp(min=0.0) * 2.0 / (high - low)).float()


def _mels(hertz: float) -> float:
    if hertz < _KNEE:
        return hertz * _PER_HZ
    return _KNEE * _PER_HZ + math.log(hertz / _KNEE) / _STEP


def _hertz(mels: Tensor) -> Tensor:
    knee = _KNEE * _PER_HZ
    return torch.where(mels < knee, mels / _PER_HZ, _KNEE * torch.exp((mels - knee) * _STEP))
