"""Attention in blocks of queries, each against only the keys in its reach; the training path on CPU.

An operator of its own with a backward of its own, opaque to torch.compile: torch's batched matmul and softmax kernels are
as quick here as what the compiler makes of the same steps, and there is less to compile. Scores and probabilities are in the compute dtype, the sums of
the softmax in fp32 inside torch's kernel. Z = B * G key heads of the batch, R query heads share each.
"""

import torch
from torch import Tensor

BLOCK = 128  # queries a block
KEEP_BYTES = (
    64 << 20
)  # probabilities of one call up to this size are kept for backward, larger ones are made again

Range = tuple[int, int, int, int]


def _ranges(Q: int, K: int, causal: bool, reach: int | None) -> list[Range]:
    """(first query, end, first key, end) of each block. The last query stands at the last key."""
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


def _kept(q: Tensor, k: Tensor, causal: bool, reach: int | None, softcap: float | None) -> int:
    """How many numbers forward keeps for backward: the probabilities (and the capped scores' tanh), or none."""
    B, N, Q, _ = q.shape
    cells = B * N * sum((b - a) * (d - c) for a, b, c, d in _ranges(Q, k.shape[2], causal, reach))
    cells *= 1 if softcap is None else 2
    return cells if cells * q.element_size() <= KEEP_BYTES else 0


def _probabilities(
    rows: Tensor,
    k: Tensor,
    seen: Tensor | None,
    causal: bool,
    range_: Range,
    softcap: float | None,
    room: tuple[Tensor, Tensor | None],
    shape: tuple[int, int, int],
) -> None:
    """Fill `room` with the block's probabilities [Z, R * n, keys] and, with a cap, the tanh of its scores.

    rows: scaled queries [Z, R * n, H]. shape: (B, G, R).
    """
    start, stop, low, high = range_
    p, tanh = room
    s = torch.bmm(rows, k[:, low:high].transpose(1, 2))
    if softcap is not None:
        assert tanh is not None
        tanh.copy_(s.div_(softcap).tanh_())
        s.mul_(softcap)
    B, G, R = shape
    n = stop - start
    s5 = s.view(B, G, R, n, high - low)
    if seen is not None:
        s5.masked_fill_(~seen[:, :, None, start:stop, low:high], float("-inf"))
    elif causal:  # only the last n keys hold a corner that is not seen
        later = torch.full((n, n), float("-inf"), dtype=s.dtype, device=s.device).triu_(1)
        s5[..., -n:].add_(later)
    torch.softmax(s, dim=-1, out=p)


def _rows(q4: Tensor, start: int, stop: int, scale: float) -> Tensor:
    """The block's queries, scaled: [Z, R * n, H] of q [Z, R, Q, H]."""
    Z, R, _, H = q4.shape
    return (q4[:, :, start:stop] * scale).reshape(Z, R * (stop - start), H)


def _room(
    kept: Tensor, at: int, Z: int, n: int, width: int, softcap: float | None
) -> tuple[Tensor, Tensor | None, int]:
    """Where a block's probabilities and tanh lie in `kept`, or fresh room if nothing is kept; and the next offset."""
    size = Z * n * width
    if kept.numel() == 0:
        kept, at = kept.new_empty(size * (1 if softcap is None else 2)), 0
    p = kept[at : at + size].view(Z, n, width)
    if softcap is None:
        return p, None, at + size
    return p, kept[at + size : at + 2 * size].view(Z, n, width), at + 2 * size


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
    """q [B, N, Q, H], k and v [B, G, K, H], contiguous -> output like q, and what is kept for backward (flat)."""
    B, N, Q, H = q.shape
    G, K = k.shape[1], k.shape[2]
    Z, R = B * G, N // G
    kept = q.new_empty(_kept(q, k, causal, reach, softcap))
    q4, k3, v3 = q.view(Z, R, Q, H), k.view(Z, K, H), v.view(Z, K, H)
    out = torch.empty_like(q)
    out4, at = out.view(Z, R, Q, H), 0
    for range_ in _ranges(Q, K, causal, reach):
        start, stop, low, high = range_
        n = stop - start
        p, tanh, at = _room(kept, at, Z, R * n, high - low, softcap)
        rows = _rows(q4, start, stop, scale)
        _probabilities(rows, k3, seen, causal, range_, softcap, (p, tanh), (B, G, R))
        out4[:, :, start:stop] = torch.bmm(p, v3[:, low:high]).view(Z, R, n, H)
    return out, kept


@_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor | None,
    causal: bool,
    reach: int | None,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(_kept(q, k, causal, reach, softcap))


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
    """Gradients of q, k and v, each of its own shape."""
    B, N, Q, H = q.shape
    G, K = k.shape[1], k.shape[2]
    Z, R = B * G, N // G
    q4, grad4 = q.view(Z, R, Q, H), grad.contiguous().view(Z, R, Q, H)
    k3, v3 = k.view(Z, K, H), v.view(Z, K, H)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    dq4, dk3, dv3, at = dq.view(Z, R, Q, H), dk.view(Z, K, H), dv.view(Z, K, H), 0
    blocks = []
    for range_ in _ranges(Q, K, causal, reach):
        p, tanh, at = _room(kept, at, Z, R * (range_[1] - range_[0]), range_[3] - range_[2], softcap)
        blocks.append((range_, p, tanh))
    fresh = True
    for range_, p, tanh in reversed(
        blocks
    ):  # the last block mostly sees all keys: what it writes needs no zeros before
        start, stop, low, high = range_
        n = stop - start
        rows = _rows(q4, start, stop, scale)
        g = grad4[:, :, start:stop].reshape(Z, R * n, H)
        if kept.numel() == 0:
            _probabilities(rows, k3, seen, causal, range_, softcap, (p, tanh), (B, G, R))
        ds = torch.bmm(g, v3[:, low:high].transpose(1, 2))
        ds = torch._softmax_backward_data(ds, p, -1, p.dtype)
        if tanh is not None:
            ds.mul_(1 - tanh.square())
        if fresh and high - low == K:
            torch.bmm(p.transpose(1, 2), g, out=dv3)
            torch.bmm(ds.transpose(1, 2), rows, out=dk3)
        else:
            if fresh:
                dv3.zero_()
                dk3.zero_()
            dv3[:, low:high].baddbmm_(p.transpose(1, 2), g)
            dk3[:, low:high].baddbmm_(ds.transpose(1, 2), rows)
        fresh = False
        dq4[:, :, start:stop] = torch.bmm(ds, k3[:, low:high]).mul_(scale).view(Z, R, n, H)
    return dq, dk, dv


@_backward.register_fake
def _(
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
    bounds on the distance by index, the last query standing at the last key; they must hold for `seen`.
    """
    out: Tensor = _forward(
        q_BNQH.contiguous(), k_BGKH.contiguous(), v_BGKH.contiguous(), seen, causal, reach, scale, softcap
    )[0]
    return out
