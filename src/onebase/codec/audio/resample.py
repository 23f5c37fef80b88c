"""Sound at another rate, by a windowed sinc (polyphase). N samples, C outputs at a time, T taps."""

import math

import torch
from torch import Tensor

HALF, CUTOFF, BETA = 16, 0.97, 9.0
"""Zero crossings on each side, share of the lower rate's band that is kept when going down, and the Kaiser window's shape."""
RUN = 2**15
MOST = 2**22
"""Weights that are kept in a table; rates without a common measure would need more."""


def resampled(sound_N: Tensor, rate: int, wanted: int) -> Tensor:
    """fp32 samples at `wanted` instead of `rate` a second; ceil(N * wanted / rate) of them.

    Every output is a sum of its neighbours weighted by a sinc under a Kaiser window (Kaiser 1974; Smith, "Digital Audio
    Resampling Home Page"), cut at the lower of the two bands; weights add up to 1, so silence stays silent and a constant stays.
    """
    x_N = sound_N.float()
    if rate == wanted or not len(x_N):
        return x_N
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    band = 1.0 if up > down else CUTOFF * up / down
    reach = math.ceil(HALF / band)
    padded = torch.nn.functional.pad(x_N, (reach - 1, reach))
    around_NT = padded.unfold(0, 2 * reach, 1)  # the samples on both sides of every place between n and n + 1
    table = _weights(torch.arange(up) / up, reach, band) if up * 2 * reach <= MOST else None
    total = -(-len(x_N) * up // down)
    out = []
    for a in range(0, total, RUN):
        at_C = torch.arange(a, min(a + RUN, total)) * down
        phase_C = at_C % up
        w_CT = _weights(phase_C / up, reach, band) if table is None else table[phase_C]
        out.append((around_NT[at_C // up] * w_CT).sum(-1))
    return torch.cat(out)


def _weights(part_C: Tensor, reach: int, band: float) -> Tensor:
    """fp32 [C, T] for places `part` (0 to 1) of the way from one sample to the next."""
    away_CT = torch.arange(1 - reach, reach + 1, dtype=torch.float64) - part_C.double()[:, None]
    inside = (1.0 - (away_CT * band / HALF).square()).clamp(min=0.0)
    w_CT = torch.sinc(away_CT * band) * torch.special.i0(BETA * inside.sqrt())
    w_CT = w_CT.masked_fill(away_CT.abs() * band >= HALF, 0.0)
    return (w_CT / w_CT.sum(-1, keepdim=True)).float()
