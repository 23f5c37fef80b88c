"""Attention in blocks of queries, each against only the keys in its reach; the training path on CPU.

Written as one autograd function: the probabilities of each block are kept in the compute dtype, the rest is recomputed.
Scores and probabilities are in the compute dtype; the sums of the softmax are in fp32 inside torch's kernels.
"""

from typing import Any

import torch
from torch import Tensor

BLOCK = 128  # queries a block; measured best of 64, 128, 256 at 512 tokens


def _ranges(Q: int, K: int, causal: bool, reach: int | None, size: int) -> list[tuple[int, int, int, int]]:
    """(first query, end, first key, end) of each block. The last query stands at the last key."""
    behind = K - Q
    ranges = []
    for start in range(0, Q, size):
        stop = min(start + size, Q)
        low, high = 0, K
        if causal:
            high = behind + stop
        elif reach is not None:
            high = min(K, behind + stop + reach)
        if reach is not None:
            low = max(0, behind + start - reach)
        ranges.append((start, stop, low, high))
    return ranges


def _hidden(
    seen: Tensor | None, causal: bool, range_: tuple[int, int, int, int], behind: int, like: Tensor
) -> Tensor | None:
    """bool, true where a block must not look, broadcasting over scores [B, G, R, q, k]; None: it sees all of its range."""
    start, stop, low, high = range_
    if seen is not None:
        return ~seen[:, :, None, start:stop, low:high]
    if not causal:
        return None
    i = torch.arange(start + behind, stop + behind, device=like.device)
    return torch.arange(low, high, device=like.device) > i[:, None]


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        seen: Tensor | None,
        causal: bool,
        reach: int | None,
        scale: float,
        softcap: float | None,
        size: int,
    ) -> Tensor:
        B, N, Q, H = q.shape
        G, K = k.shape[1], k.shape[2]
        R = N // G
        q = (q * scale).view(B, G, R, Q, H)
        k, v = k.contiguous().view(B * G, K, H), v.contiguous().view(B * G, K, H)
        kept: list[Tensor] = []
        outs: list[Tensor] = []
        for range_ in _ranges(Q, K, causal, reach, size):
            start, stop, low, high = range_
            n = stop - start
            rows = q[:, :, :, start:stop].reshape(B * G, R * n, H)
            s = torch.bmm(rows, k[:, low:high].transpose(1, 2)).view(B, G, R, n, high - low)
            if softcap is not None:
                t = torch.tanh(s / softcap)
                kept.append(t)
                s = t * softcap
            hidden = _hidden(seen, causal, range_, K - Q, s)
            if hidden is not None:
                s = s.masked_fill(hidden, float("-inf"))
            p = torch.softmax(s, dim=-1).view(B * G, R * n, high - low)
            kept.append(p)
            outs.append(torch.bmm(p, v[:, low:high]).view(B, G, R, n, H))
        ctx.save_for_backward(q, k, v, *kept)
        ctx.how = (causal, reach, scale, softcap, size)
        return torch.cat(outs, dim=3).view(B, N, Q, H)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, *kept = ctx.saved_tensors
        causal, reach, scale, softcap, size = ctx.how
        B, G, R, Q, H = q.shape
        K = k.shape[1]
        g = grads[0].reshape(B, G, R, Q, H)
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
        dqs = []
        step = 1 if softcap is None else 2
        for i, (start, stop, low, high) in enumerate(_ranges(Q, K, causal, reach, size)):
            n = stop - start
            rows = q[:, :, :, start:stop].reshape(B * G, R * n, H)
            grad = g[:, :, :, start:stop].reshape(B * G, R * n, H)
            p = kept[i * step + step - 1]
            dv[:, low:high] += torch.bmm(p.transpose(1, 2), grad)
            dp = torch.bmm(grad, v[:, low:high].transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            if softcap is not None:
                t = kept[i * step].view_as(ds)
                ds = ds * (1 - t * t)
            dqs.append((torch.bmm(ds, k[:, low:high]) * scale).view(B, G, R, n, H))
            dk[:, low:high] += torch.bmm(ds.transpose(1, 2), rows)
        dq = torch.cat(dqs, dim=3).view(B, G * R, Q, H)
        return dq, dk.view(B, G, K, H), dv.view(B, G, K, H), None, None, None, None, None, None


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
    size: int = BLOCK,
) -> Tensor:
    """softmax(scale * q k^T) v -> [B, N, Q, H], without scores outside the reach.

    seen: bool [B, 1, Q, K], at least one true in every row; None: all that `causal` allows. causal, reach: bounds on the
    distance by index, the last query standing at the last key; they must hold for `seen`.
    """
    out: Tensor = _Blocked.apply(q_BNQH, k_BGKH, v_BGKH, seen, causal, reach, scale, softcap, size)  # type: ignore[no-untyped-call]
    return out
