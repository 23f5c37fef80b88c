"""The compiled loops say what torch's operations say, to the rounding of the number format."""

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onebase.model.cache import LayerCache
from onebase.model.config import RopeConfig
from onebase.model.kernels.attention import Lowered, attend
from onebase.model.kernels.compiled import loops_for
from onebase.model.position import rotary_factors, rotary_table, rotate

fused = loops_for(torch.bfloat16, torch.device("cpu"))
pytestmark = pytest.mark.skipif(fused is None, reason="numba is not installed")
# Two roundings to bf16 where the operations have up to four: 2^-7 of a number, and as much of the largest where sums cancel. In fp32 sums of
# up to a thousand numbers are made in another order.
CLOSE = {torch.bfloat16: 2**-7, torch.float32: 3e-6}
few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**20)


formats = st.sampled_from([torch.bfloat16, torch.float32])


def numbers(seed: int, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(found: Tensor, true: Tensor, least: float = 0.0) -> None:
    """least: what a number may miss besides."""
    close = CLOSE[found.dtype]
    torch.testing.assert_close(
        found.float(), true.float(), rtol=close, atol=close * float(true.abs().max()) + least
    )


def filled(
    seed: int, rows: int, heads: int, width: int, used: int, slots: int, dtype: torch.dtype = torch.bfloat16
) -> LayerCache:
    cache = LayerCache(rows, heads, slots, width, torch.device("cpu"), dtype)
    cache.k[:, :, :used] = numbers(seed, rows, heads, used, width, dtype=dtype)
    cache.v[:, :, :used] = numbers(seed + 1, rows, heads, used, width, dtype=dtype)
    cache.used = used
    return cache


@few
@given(seeds, st.integers(1, 5), st.sampled_from([1, 7, 32, 576]), st.sampled_from([1e-3, 1.0, 1e3]), formats)
def test_rms(seed: int, rows: int, width: int, size: float, dtype: torch.dtype) -> None:
    x, gain = numbers(seed, rows, 1, width, dtype=dtype) * size, numbers(seed + 1, width).float()
    floor = math.sqrt(width * 1e-5)
    wide = x.float()
    true = wide / torch.hypot(wide.norm(dim=-1, keepdim=True), torch.tensor(floor)) * gain
    assert_close(fused.rms(x, gain, floor), true)


@few
@given(seeds, st.integers(1, 4), st.sampled_from([1, 8, 100]), st.sampled_from([0.1, 1.0, 30.0]), formats)
def test_gated(seed: int, rows: int, hidden: int, size: float, dtype: torch.dtype) -> None:
    gu = numbers(seed, rows, 1, 2 * hidden, dtype=dtype) * size
    g, u = gu.float().chunk(2, -1)
    least = 2**-24 * float((g * u).abs().max())  # 1 + tanh in fp32 is no nearer than that to 0
    assert_close(fused.gated(gu, *fused.CURVES["swiglu"]), F.silu(g) * u, least)
    assert_close(fused.gated(gu, *fused.CURVES["geglu_tanh"]), F.gelu(g, approximate="tanh") * u, least)


@few
@given(
    seeds,
    st.integers(1, 3),
    st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    st.sampled_from([None, 16, 8]),
    st.booleans(),
    st.integers(0, 6),
    formats,
)
def test_turned(
    seed: int, rows: int, heads: tuple[int, int], dim: int | None, normed: bool, used: int, dtype: torch.dtype
) -> None:
    (N, G), H = heads, 16
    cache = filled(seed, rows, G, H, used, 8, dtype)
    qkv = numbers(seed + 2, rows, 1, (N + 2 * G) * H, dtype=dtype)
    before = qkv.clone()
    q, k, v = qkv.float().view(rows, 1, N + 2 * G, H).split((N, G, G), 2)
    gains = (numbers(seed + 3, H).float(), numbers(seed + 4, H).float(), 0.1) if normed else None
    if gains is not None:
        q, k = (
            x / torch.hypot(x.norm(dim=-1, keepdim=True), torch.tensor(0.1)) * g
            for x, g in ((q, gains[0]), (k, gains[1]))
        )
    table = None
    if dim is not None:
        pos = torch.arange(rows)[:, None] * 3 + used
        table = rotary_factors(*rotary_table(RopeConfig(dim=dim), H, pos))
        q, k = rotate(q, *table), rotate(k, *table)
    old = cache.k[:, :, :used].clone()
    found = fused.rotate_into_cache(qkv, (N, G, H), table, gains, cache)
    assert cache.used == used + 1 and torch.equal(qkv, before)
    assert_close(found, q[:, 0])
    assert_close(cache.k[:, :, used], k[:, 0])
    assert torch.equal(cache.v[:, :, used].float(), v[:, 0])
    assert torch.equal(cache.k[:, :, :used], old)


@few
@given(
    seeds,
    st.integers(1, 4),
    st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    st.integers(1, 40),
    st.sampled_from(["all", "each", "one"]),
    st.sampled_from([None, 2.0]),
    st.sampled_from([1, 2]),
    formats,
)
def test_looked(
    seed: int,
    rows: int,
    heads: tuple[int, int],
    used: int,
    mask: str,
    softcap: float | None,
    threads: int,
    dtype: torch.dtype,
) -> None:
    (N, G), H = heads, 24
    cache = filled(seed, rows, G, H, used, used + 3, dtype)
    q_BNH = numbers(seed + 2, rows, N, H, dtype=dtype) * 3
    cache.k[:, :, used:], cache.v[:, :, used:] = math.nan, math.nan  # not to be looked at
    generator = torch.Generator().manual_seed(seed)
    seen = torch.rand(rows if mask == "each" else 1, 1, 1, used, generator=generator) < 0.7
    seen[..., -1] = True
    lowered = Lowered("plain", None if mask == "all" else seen)
    k, v = cache.k[:, :, :used].float(), cache.v[:, :, :used].float()
    true = attend(q_BNH.float()[:, :, None], k, v, lowered, scale=0.3, softcap=softcap)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = fused.attend_cached(q_BNH, cache, lowered.seen, 0.3, softcap)
    finally:
        torch.set_num_threads(before)
    assert_close(found, true.reshape(rows, N * H))


def test_rounding_is_torchs() -> None:
    """A gain of one over a length of one: what comes out is the number itself, rounded as torch rounds."""
    bits = torch.randint(-(2**31), 2**31 - 1, (20_000,), generator=torch.Generator().manual_seed(0)).int()
    gain = torch.cat(
        (bits.view(torch.float32), torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 3e38]))
    )
    one = torch.zeros(len(gain)).bfloat16()
    one[:] = 1.0
    length = math.sqrt(len(gain))
    found = fused.rms(one, gain * length, 0.0)
    true = (gain * length * torch.tensor(1 / length)).bfloat16()
    whole = true.isfinite()
    torch.testing.assert_close(
        found[whole].float(), true[whole].float(), rtol=CLOSE[torch.bfloat16], atol=1e-37
    )
    assert torch.equal(found.isnan(), true.isnan())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_damaged_numbers_stay_visible(dtype: torch.dtype) -> None:
    """NaN in, NaN out: the sampler refuses it, and no number is made of it."""
    x = numbers(0, 1, 1, 8, dtype=dtype)
    x[..., 3] = math.nan
    assert fused.rms(x, torch.ones(8), 0.1).isnan().all()
    assert bool(fused.gated(x, 1.0, 0.0).isnan().any())
    cache, q_BNH = filled(0, 1, 1, 8, 4, 4, dtype), numbers(1, 1, 1, 8, dtype=dtype)
    cache.k[0, 0, 2, 1] = math.nan
    assert fused.attend_cached(q_BNH, cache, None, 1.0, None).isnan().all()


ALONE = """
import math, torch
from onebase.model.cache import LayerCache
from onebase.model.kernels.compiled import loops_for
fused = loops_for(torch.bfloat16, torch.device("cpu"))
cache = LayerCache(1, 1, 4, 8, torch.device("cpu"), torch.bfloat16)
cache.k.zero_(), cache.v.zero_()
cache.used = 4
fused.attend_cached(torch.zeros(1, 1, 8).bfloat16(), cache, None, 1.0, None)
print(torch.get_num_threads())
"""


def test_torch_keeps_its_number_of_threads() -> None:
    """The start of numba's pool sets OpenMP's number: a process held to one thread would spin with two from then on."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", ALONE], env=env, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["1"]
