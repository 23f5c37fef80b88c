"""All blocks for one token per row as one call: norms, products, attention and residuals, compiled by numba on addresses, all in fp32.

In a small base Python takes more time than arithmetic: 30 blocks of SmolLM2 take 5 ms per token when each loop is called separately.
So everything that is constant between tokens is laid out in tables (`fused.Chain`), and the loops of `loops` and `dots` call each other.
B rows, L blocks, D width, N query heads, G key heads, X = N + 2 G, H head features, F hidden features.
"""

from typing import Any

from numba import carray, njit, types

from onebase.model.kernels.dots import PRODUCT, times
from onebase.model.kernels.loops import attend_cached, gated, rms, rotate_into_cache
from onebase.model.kernels.machine_code import Compiled, singles, truths
from onebase.model.kernels.tiles import at_int64

SIZES = 5
"""First int64 fields of a block: D, N, G, H, F."""
GAINS = 6
"""Next int64 fields: addresses of the gains of the norms before and after attention, of q and k, before and after feed-forward; 0: none."""
BEFORE, BEHIND, OF_Q, OF_K, FF_BEFORE, FF_BEHIND = range(GAINS)
QKV, OUT, GATE_UP, DOWN = (SIZES + GAINS + i * PRODUCT for i in range(4))
"""Last int64 fields of a block: its products, as `dots.times` reads them."""
WHOLE = SIZES + GAINS + 4 * PRODUCT
REALS = GAINS + 6
"""fp32 fields of a block: eps * D of its norms, in the order of their gains; scale, softcap, slope and bend of the activation; the weights
of the residual stream and of the trunk's input in the block's input."""
SCALE, SOFTCAP, SLOPE, BEND, OLD, FIRST = range(GAINS, REALS)
ATTEND_FIELDS = 8
"""int64 fields of a block that change with each token: addresses of the two rotary tables (`position.rotary_factors`), rotated features;
addresses of keys and values, number of slots; addresses of visible keys, bool [B, used + 1], or 0 for all, and of live rows, bool [B], or 0."""

_times, _rms, _gated, _rotate_into_cache, _attend_cached = (
    times.inner,
    rms.inner,
    gated.inner,
    rotate_into_cache.inner,
    attend_cached.inner,
)


def room(D: int, N: int, G: int, H: int, F: int) -> int:
    """fp32 workspace of a block per row, without that of its products."""
    return 2 * D + (3 * N + 2 * G) * H + 3 * F


@njit(inline="always")
def _added(x_at: Any, y_at: Any, n: Any) -> None:
    x, y = singles(x_at, (n,)), singles(y_at, (n,))
    for i in range(n):
        x[i] += y[i]


@njit(inline="always")
def _normed(x_at: Any, gain_at: Any, out_at: Any, rows: Any, width: Any, floor: Any) -> Any:
    """The address of the normalised rows: out_at, or x_at without a norm."""
    if gain_at == 0:
        return x_at
    _rms(x_at, gain_at, out_at, rows, width, floor, 0.0)
    return out_at


def _blocks(
    n: Any,
    blocks_at: Any,
    reals_at: Any,
    looks_at: Any,
    x_at: Any,
    y_at: Any,
    rows: Any,
    used: Any,
    room_at: Any,
) -> None:
    """y [B, D] from x [B, D] after all n blocks. used: slots filled before this token; room: workspace of `room`, for B rows, and `dots.room`."""
    count = rows * carray(at_int64(blocks_at), (1,))[0]
    first, y = singles(x_at, (count,)), singles(y_at, (count,))
    for i in range(count):
        y[i] = first[i]
    for b in range(n):
        block_at = blocks_at + 8 * b * WHOLE
        size, gain = carray(at_int64(block_at), (SIZES,)), carray(at_int64(block_at + 8 * SIZES), (GAINS,))
        real = singles(reals_at + 4 * b * REALS, (REALS,))
        look = carray(at_int64(looks_at + 8 * b * ATTEND_FIELDS), (ATTEND_FIELDS,))
        D, N, G, H, F = size[0], size[1], size[2], size[3], size[4]
        own_at, other_at, dim, k_at, v_at, slots, seen_at, live_at = (
            look[0], look[1], look[2], look[3], look[4], look[5], look[6], look[7]
        )  # fmt: skip
        if real[OLD] != 1 or real[FIRST] != 0:
            for i in range(count):
                y[i] = real[OLD] * y[i] + real[FIRST] * first[i]
        h_at = room_at
        a_at = h_at + 4 * rows * D
        qkv_at = a_at + 4 * rows * D
        q_at = qkv_at + 4 * rows * (N + 2 * G) * H
        o_at = q_at + 4 * rows * N * H
        gu_at = o_at + 4 * rows * N * H
        g_at = gu_at + 8 * rows * F
        free_at = g_at + 4 * rows * F

        given_at = _normed(y_at, gain[BEFORE], h_at, rows, D, real[BEFORE])
        _times(block_at + 8 * QKV, given_at, qkv_at, rows, free_at)
        _rotate_into_cache(
            qkv_at, q_at, own_at, other_at, gain[OF_Q], gain[OF_K], k_at, v_at, rows, N, G, H, dim, slots, used, real[OF_Q], 0.0
        )  # fmt: skip
        _attend_cached(
            q_at, k_at, v_at, seen_at, o_at, rows, N, G, H, slots, used + 1, real[SCALE], real[SOFTCAP], 0.0
        )
        if live_at:
            live, o = truths(live_at, (rows,)), singles(o_at, (rows, N * H))
            for r in range(rows):
                if not live[r]:
                    o[r, :] = 0.0
        _times(block_at + 8 * OUT, o_at, a_at, rows, free_at)
        a_at = _normed(a_at, gain[BEHIND], h_at, rows, D, real[BEHIND])
        _added(y_at, a_at, rows * D)
        given_at = _normed(y_at, gain[FF_BEFORE], h_at, rows, D, real[FF_BEFORE])
        _times(block_at + 8 * GATE_UP, given_at, gu_at, rows, free_at)
        _gated(gu_at, g_at, rows, F, real[SLOPE], real[BEND], 0.0)
        _times(block_at + 8 * DOWN, g_at, a_at, rows, free_at)
        f_at = _normed(a_at, gain[FF_BEHIND], h_at, rows, D, real[FF_BEHIND])
        _added(y_at, f_at, rows * D)


blocks = Compiled(_blocks, (types.int64,) * 9)
