"""Fused linear head and cross-entropy, a chunk of tokens at a time: the logits of all tokens are never in memory together.

T tokens, V vocabulary, D width. Gradients are computed in the forward pass, while a chunk's logits are in memory, so backward only scales
them. Same idea as Liger's fused linear cross-entropy (arXiv 2410.10989).
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.modality.text.rows import HeadMatrix

IGNORE = -100
CHUNK = 512  # tokens at a time


def _exact(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums: fp32, or fp64 for fp64 inputs."""
    return torch.promote_types(dtype, torch.float32)


def _logits(
    h_cD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, softcap: float | None
) -> tuple[Tensor, Tensor | None]:
    """One chunk: logits [c, V] and, with a soft-cap, the tanh in it; in the dtype of sums.

    tanh x = 2 sigmoid(2x) - 1, to 2e-7: torch's tanh takes five times as long on a CPU, a third of the time of the product.
    """
    logits = F.linear(h_cD, weight_VD, bias_V).to(_exact(h_cD.dtype))
    if softcap is None:
        return logits, None
    tanh = logits.mul_(2 / softcap).sigmoid_().mul_(2).sub_(1)
    return tanh * softcap, tanh


def _pick(logits_cV: Tensor, targets_c: Tensor, lse_c1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """nll [c] (0 where ignored), the column of each target [c, 1] (0 where ignored), and a mask of used targets, bool [c, 1]."""
    used = (targets_c != IGNORE).unsqueeze(-1)
    index = torch.where(used, targets_c.unsqueeze(-1), 0)
    return torch.where(used, lse_c1 - logits_cV.gather(-1, index), 0.0).squeeze(-1), index, used


def _nll(
    h_cD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_c: Tensor, softcap: float | None
) -> Tensor:
    """One chunk: nll [c], without a gradient."""
    logits, _ = _logits(h_cD, weight_VD, bias_V, softcap)
    return _pick(logits, targets_c, logits.logsumexp(-1, keepdim=True))[0]


def _each(
    h_cD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_c: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """One chunk: nll [c] and its gradient by the logits before the cap [c, V], in h's dtype. It takes few passes over [c, V], most of them in
    place: they are the cost besides the product. The sum of exponentials follows from the largest probability, which is never small.
    """
    logits, tanh = _logits(h_cD, weight_VD, bias_V, softcap)
    d = torch.softmax(logits, dim=-1)
    lse = logits.amax(-1, keepdim=True) - d.amax(-1, keepdim=True).log_()
    nll, index, used = _pick(logits, targets_c, lse)
    d.scatter_add_(-1, index, torch.full_like(index, -1, dtype=d.dtype))
    if tanh is not None:
        d.addcmul_(d, tanh.square_(), value=-1)
    return nll, d.mul_(used).to(h_cD.dtype)


def _chunk(
    h_cD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_c: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """The same with the sum of nll."""
    nll, d = _each(h_cD, weight_VD, bias_V, targets_c, softcap)
    return nll.sum(), d


def _chunk_fusable(
    h_cD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_c: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """`_chunk` without scatter, which the compiler cannot fuse: two passes over the logits once compiled."""
    logits = F.linear(h_cD, weight_VD, bias_V).to(_exact(h_cD.dtype))
    capped = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    top = capped.amax(-1, keepdim=True)
    lse = top + (capped - top).exp().sum(-1, keepdim=True).log()
    used = (targets_c != IGNORE).unsqueeze(-1)
    index = torch.where(used, targets_c.unsqueeze(-1), 0)
    nll = torch.where(used, lse - capped.gather(-1, index), 0.0)
    hit = torch.arange(capped.shape[-1], device=capped.device) == index
    d = ((capped - lse).exp() - hit.to(capped.dtype)) * used
    if softcap is not None:
        d = d * (1 - (capped / softcap).square())
    return nll.sum(), d.to(h_cD.dtype)


@functools.cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_chunk_fusable, dynamic=False)


Work = Callable[[slice, Tensor, Tensor, Tensor | None, bool], tuple[Tensor, Tensor | None]]
"""From the slice of tokens, their states [c, D], matrix and bias in the states' dtype, and a flag: the loss summed over the tokens, and if the
flag is set its gradient by the logits before the cap [c, V]."""


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        work: Work,
        chunk: int,
        ids: tuple[Tensor, ...],
        *deltas: Tensor,
    ) -> Tensor:
        need_h, need_w, need_b = ctx.needs_input_grad[:3]
        grads = any(ctx.needs_input_grad)
        w = weight.to(h.dtype)
        b = None if bias is None else bias.to(h.dtype)
        exact = _exact(h.dtype)
        loss = torch.zeros((), dtype=exact, device=h.device)
        dh = torch.empty_like(h) if need_h else None
        dw = torch.zeros_like(weight, dtype=exact) if need_w else None
        db = torch.zeros_like(bias, dtype=exact) if need_b and bias is not None else None
        dr = [torch.zeros_like(x, dtype=exact) for x in deltas]  # a few rows: always computed
        for start in range(0, h.shape[0], chunk):
            here = slice(start, min(start + chunk, h.shape[0]))
            part = h[here]
            nll, d = work(here, part, w, b, grads)
            loss = loss + nll
            if d is None:
                continue
            if dh is not None:
                dh[here] = d @ w
            if dw is not None:
                dw += d.t() @ part
            if db is not None:
                db += d.sum(0, dtype=exact)
            for ids_K, each in zip(ids, dr, strict=True):
                each += d[:, ids_K].t() @ part
        ctx.save_for_backward(dh, dw, db, *dr)
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype, *(x.dtype for x in deltas))
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (g,) = upstream
        dh, dw, db, *dr = ctx.saved_tensors
        wd, bd, *rd = ctx.dtypes
        return (
            None if dh is None else dh * g.to(dh.dtype),
            None if dw is None else (dw * g).to(wd),
            None if db is None else (db * g).to(bd),
            None,
            None,
            None,
            *((x * g).to(dtype) for x, dtype in zip(dr, rd, strict=True)),
        )


def linear_loss(
    h_TD: Tensor, head: Tensor | HeadMatrix, bias_V: Tensor | None, work: Work, chunk: int = CHUNK
) -> Tensor:
    """The sum of a loss of logits, `chunk` tokens at a time: `work` computes a chunk's loss, and its gradient while its logits are in memory.
    Differentiable once in h, the head's matrix and deltas, and bias."""
    weight_VD, ids, deltas = _parts(head)
    loss: Tensor = _LinearLoss.apply(h_TD, weight_VD, bias_V, work, chunk, ids, *deltas)  # type: ignore[no-untyped-call]
    return loss


def _parts(head: Tensor | HeadMatrix) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The matrix, and the ids and values of its row deltas."""
    if isinstance(head, Tensor):
        return head, (), ()
    return head.weight_VD, tuple(r.ids_K for r in head.rows), tuple(r.head_KD for r in head.rows)


def linear_cross_entropy(
    h_TD: Tensor,
    head: Tensor | HeadMatrix,
    targets_T: Tensor,
    *,
    softcap: float | None = None,
    chunk: int = CHUNK,
    bias: Tensor | None = None,
    fast: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of softcap * tanh((h weight^T + bias) / softcap) at `targets_T`, summed over tokens.

    targets: int [T], -100 = not supervised. head: the weight [V, D]. weight and bias are cast to h's dtype for the product. Returns the sum
    in nats (fp32 scalar) and the number of supervised tokens (int64 scalar). Differentiable once in h, weight and bias. `fast` compiles the
    work per chunk (torch.compile; seconds at the first call of a shape).
    """

    def work(
        here: slice, part: Tensor, w: Tensor, b: Tensor | None, grads: bool
    ) -> tuple[Tensor, Tensor | None]:
        wanted = targets_T[here]
        if not grads:
            return _nll(part, w, b, wanted, softcap).sum(), None
        # A shorter last chunk is not worth a compilation of its own.
        run = _compiled() if fast and len(part) == chunk else _chunk
        return run(part, w, b, wanted, softcap)

    loss = linear_loss(h_TD, head, bias, work, chunk)
    return loss, (targets_T != IGNORE).sum()


@torch.no_grad()
def per_token_nll(
    h_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    softcap: float | None = None,
    chunk: int = CHUNK,
    bias: Tensor | None = None,
) -> Tensor:
    """-log p(target) of each token in nats, fp32 [T]; 0 where the target is -100. No gradient."""
    w = weight_VD.to(h_TD.dtype)
    b = None if bias is None else bias.to(h_TD.dtype)
    parts = [
        _nll(h_TD[s : s + chunk], w, b, targets_T[s : s + chunk], softcap)
        for s in range(0, h_TD.shape[0], chunk)
    ]
    return torch.cat(parts) if parts else h_TD.new_zeros(0, dtype=_exact(h_TD.dtype))


class _TokenNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        chunk: int,
        ids: tuple[Tensor, ...],
        *deltas: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(targets, h, weight, bias, *deltas)
        ctx.settings = softcap, chunk, ids
        return per_token_nll(h, weight, targets, softcap, chunk, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (g_T,) = upstream
        targets, *given = ctx.saved_tensors
        softcap, chunk, ids = ctx.settings

        def work(
            here: slice, part: Tensor, w: Tensor, b: Tensor | None, grads: bool
        ) -> tuple[Tensor, Tensor | None]:
            nll, d = _each(part, w, b, targets[here], softcap)
            return nll.sum(), d.mul_(g_T[here, None].to(d.dtype))

        first, rest = ctx.needs_input_grad[:3], ctx.needs_input_grad[7:]
        needs = (*first, *rest)
        with torch.enable_grad():
            given = [
                None if x is None else x.detach().requires_grad_(n) for x, n in zip(given, needs, strict=True)
            ]
            h, weight, bias, *deltas = given
            again: Tensor = _LinearLoss.apply(h, weight, bias, work, chunk, ids, *deltas)  # type: ignore[no-untyped-call]
            computed = iter(torch.autograd.grad(again, [x for x, n in zip(given, needs, strict=True) if n]))
        grads = [next(computed) if n else None for n in needs]
        return (*grads[:3], None, None, None, None, *grads[3:])


def token_nll(
    h_TD: Tensor,
    head: Tensor | HeadMatrix,
    targets_T: Tensor,
    *,
    softcap: float | None = None,
    chunk: int = CHUNK,
    bias: Tensor | None = None,
) -> Tensor:
    """The terms of `linear_cross_entropy` per token: nats, fp32 [T], 0 where the target is -100. For losses that are not a sum over tokens: a
    token's weight is only known in backward, where each chunk's logits are computed again. Differentiable once in h, the head's matrix and
    deltas, and bias."""
    weight_VD, ids, deltas = _parts(head)
    nll_T: Tensor = _TokenNll.apply(h_TD, weight_VD, bias, targets_T, softcap, chunk, ids, *deltas)  # type: ignore[no-untyped-call]
    return nll_T
