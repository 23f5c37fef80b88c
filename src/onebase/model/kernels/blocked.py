"""Attention in blocks of queries, each against only the keys in its reach; the training path on CPU.

A custom operator with its own backward, opaque to torch.compile: torch's batched matmul and softmax kernels are as fast here as
compiled code, and there is less to compile. Scores and probabilities are in the compute dtype, the softmax sums in fp32 inside
torch's kernel. B batch, N query heads, G key heads, Q queries, K keys, H head features; Z = B * G, R = N / G query heads per key
head, r rows of a block (R times its queries), w keys in its reach.
"""

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

BLOCK = 128  # queries per block
KEEP_BYTES = (
    64 << 20
)  # probabilities of one call up to this size are saved for backward, larger ones are recomputed

Range = tuple[int, int, int, int]


def _ranges(Q: int, K: int, causal: bool, reach: int | None) -> list[Range]:
    """(first query, end, first key, end) of each block. The last query is at the last key."""
    behind = K - Q
    ranges = []
    for start in range(0, Q, BLOCK):
        stop = min(start + BLOCK, Q)
        low, high = 0, K
        if causal:
            high = behind + stop
        elif reach is not None:
            high = min(K, behind + stop + reach)
        if reach is not None:
            low = max(0, behind + start - reach)
        ranges.append((start, stop, low, high))
    return ranges


class _Call:
    """One call's arguments, with heads as [Z, R], and its blocks."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        seen: Tensor | None,
        causal: bool,
        reach: int | None,
        scale: float,
        softcap: float | None,
    ) -> None:
        B, N, Q, H = q.shape
        G, K = k.shape[1], k.shape[2]
        self.heads = (B, G, N // G)
        self.Z, self.R = B * G, N // G
        self.q, self.k_ZKH, self.v_ZKH = q, k.view(self.Z, K, H), v.view(self.Z, K, H)
        self.seen, self.causal, self.scale, self.softcap = seen, causal, scale, softcap
        self.ranges = _ranges(Q, K, causal, reach)
        self.parts = 1 if softcap is None else 2  # probabilities, and the capped scores' tanh
        sizes = (self.parts * B * N * (b - a) * (d - c) for a, b, c, d in self.ranges)
        self.offsets = list(accumulate(sizes, initial=0))

    @property
    def keeps(self) -> int:
        """Number of values that forward saves for backward: the buffers of all blocks, or none."""
        size = self.offsets[-1]
        return size if size * self.q.element_size() <= KEEP_BYTES else 0

    def room(self, i: int, kept: Tensor) -> Tensor:
        """[parts, Z, r, w]: the buffer of block `i` in the saved values, or a new one if nothing is saved."""
        start, stop, low, high = self.ranges[i]
        shape = (self.parts, self.Z, self.R * (stop - start), high - low)
        if kept.numel() == 0:
            return kept.new_empty(shape)
        return kept[self.offsets[i] : self.offsets[i + 1]].view(shape)

    def split(self, x: Tensor) -> Tensor:
        """[Z, R, Q, H] of [B, N, Q, H]."""
        return x.view(self.Z, self.R, *x.shape[2:])

    def rows(self, i: int) -> Tensor:
        """The block's queries, scaled: [Z, r, H]."""
        start, stop = self.ranges[i][:2]
        return (self.split(self.q)[:, :, start:stop] * self.scale).flatten(1, 2)

    def fill(self, i: int, rows: Tensor, room: Tensor) -> None:
        """Write the block's probabilities and, with a cap, the tanh of its scores into its buffer."""
        start, stop, low, high = self.ranges[i]
        n = stop - start
        s = torch.bmm(rows, self.k_ZKH[:, low:high].transpose(1, 2))
        if self.softcap is not None:
            room[1].copy_(s.div_(self.softcap).tanh_())
            s.mul_(self.softcap)
        s_BGRQK = s.view(*self.heads, n, high - low)
        if self.seen is not None:
            unseen = ~self.seen[:, :, None, start:stop, low:high]
            s_BGRQK.masked_fill_(unseen, float("-inf"))
        elif self.causal:  # only the last n keys have an invisible triangle
            later = torch.full((n, n), float("-inf"), dtype=s.dtype, device=s.device).triu_(1)
            s_BGRQK[..., -n:].add_(later)
        torch.softmax(s, dim=-1, out=room[0])


@torch.library.custom_op("onebase::blocked_attention", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor | None,
    causal: bool,
    reach: int | None,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """q [B, N, Q, H], k and v [B, G, K, H], contiguous -> output like q, and the saved values for backward (flat)."""
    call = _Call(q, k, v, seen, causal, reach, scale, softcap)
    kept, out = q.new_empty(call.keeps), torch.empty_like(q)
    out_ZRQH = call.split(out)
    for i, (start, stop, low, high) in enumerate(call.ranges):
        room = call.room(i, kept)
        call.fill(i, call.rows(i), room)
        block = torch.bmm(room[0], call.v_ZKH[:, low:high])
        out_ZRQH[:, :, start:stop] = block.view(call.Z, call.R, stop - start, -1)
    return out, kept


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *how: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(_Call(q, k, v, *how).keeps)


@torch.library.custom_op("onebase::blocked_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: Tensor,
    seen: Tensor | None,
    causal: bool,
    reach: int | None,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, each in its own shape."""
    call = _Call(q, k, v, seen, causal, reach, scale, softcap)
    grad_ZRQH = call.split(grad.contiguous())
    # The last block goes first: it usually sees all keys, so its result can be written without initialising to zero.
    last = len(call.ranges) - 1
    whole = call.ranges[last][2:] == (0, k.shape[2])
    dq, dk, dv = torch.empty_like(q), *(torch.empty_like(t) if whole else torch.zeros_like(t) for t in (k, v))
    dq_ZRQH, dk_ZKH, dv_ZKH = call.split(dq), dk.view_as(call.k_ZKH), dv.view_as(call.v_ZKH)
    for i in range(last, -1, -1):
        start, stop, low, high = call.ranges[i]
        rows, room = call.rows(i), call.room(i, kept)
        if kept.numel() == 0:
            call.fill(i, rows, room)
        p, g = room[0], grad_ZRQH[:, :, start:stop].flatten(1, 2)
        ds = torch.bmm(g, call.v_ZKH[:, low:high].transpose(1, 2))
        ds = torch._softmax_backward_data(ds, p, -1, p.dtype)
        if softcap is not None:
            ds.mul_(1 - room[1].square())
        add = 0 if whole and i == last else 1
        dv_ZKH[:, low:high].baddbmm_(p.transpose(1, 2), g, beta=add)
        dk_ZKH[:, low:high].baddbmm_(ds.transpose(1, 2), rows, beta=add)
        dq_block = torch.bmm(ds, call.k_ZKH[:, low:high]).mul_(scale)
        dq_ZRQH[:, :, start:stop] = dq_block.view(call.Z, call.R, stop - start, -1)
    return dq, dk, dv


@_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, seen, *how = inputs
    ctx.save_for_backward(q, k, v, output[1], seen)
    ctx.how = how


def _grads(ctx, grad, _):  # type: ignore[no-untyped-def]
    q, k, v, kept, seen = ctx.saved_tensors
    return (*_backward(grad, q, k, v, kept, seen, *ctx.how), None, None, None, None, None)


_forward.register_autograd(_grads, setup_context=_save)


def blocked_attention(
    q_BNQH: Tensor,
    k_BGKH: Tensor,
    v_BGKH: Tensor,
    seen: Tensor | None,
    causal: bool,
    reach: int | None,
    *,
    scale: float,
    softcap: float | None = None,
) -> Tensor:
    """softmax(scale * q k^T) v -> [B, N, Q, H], without scores outside the reach.

    seen: bool [B, 1, Q, K], at least one true in every row; None: all that `causal` allows (and no reach). causal, reach:
    bounds on the distance by index, with the last query at the last key; they must be valid for `seen`.
    """
    out: Tensor = _forward(
        q_BNQH.contiguous(), k_BGKH.contiguous(), v_BGKH.contiguous(), seen, causal, reach, scale, softcap
    )[0]
    return out
