"""Lowers masks to kernel inputs, and computes attention. B batch, N query heads, G key heads, Q and K lengths, H head features.

`lower` runs once per distinct mask and forward; the layers share its result. Four kernels with the same result:
  plain    the reference: all scores at once, softmax in fp32
  sdpa     torch's scaled_dot_product_attention: inference on CPU, simple masks on GPU
  blocked  training on CPU: blocks of queries, each against only the keys in its reach
  flex     torch's flex_attention: structured masks on GPU (it has no backward on CPU)
A query that sees nothing (padding) gets zeros, never NaN.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.model.kernels.blocked import blocked_attention
from onebase.model.mask import Causal, Cols, Everything, Mask

Backend = Literal["plain", "sdpa", "blocked", "flex"]
BACKENDS: tuple[Backend, ...] = ("plain", "sdpa", "blocked", "flex")


@dataclass(frozen=True, eq=False)
class Lowered:
    """A mask prepared for a kernel.

    seen: bool [B, 1, Q, K]; None: all keys that `causal` allows. Rows that see nothing are set to all true, for finite numbers.
    live: bool [B, 1, Q, 1], false where a query sees nothing and its output is zero; None: all live.
    causal: no query sees a later key; the last query is at the last key.
    reach: no query sees a key more than this many indices away; None: no limit.
    bias: added to scores, fp32 [B or 1, N, Q, K], -inf for invisible keys; `seen` is then None. Only plain and sdpa support it.
    """

    kind: Backend
    seen: Tensor | None = None
    live: Tensor | None = None
    causal: bool = False
    reach: int | None = None
    flex: Any = None
    bias: Tensor | None = None


def lower(
    mask: Mask,
    q: Cols,
    k: Cols,
    *,
    softcap: float | None = None,
    device: torch.device | str,
    impl: str = "auto",
    bias: Tensor | None = None,
) -> Lowered:
    """Prepare `mask` between queries q [B, Q] and keys k [B, K] for the best kernel (or for the one named by `impl`).

    With a cache the queries are the last Q of the keys. bias [B or 1, N, Q, K] is added to scores.
    """
    assert impl == "auto" or impl in BACKENDS, impl
    device = torch.device(device)
    if bias is not None:
        seen = mask.dense(q, k)
        live = seen.any(-1, keepdim=True)
        plain = impl == "plain" or softcap is not None or torch.is_grad_enabled()
        bias = bias.masked_fill(~(seen | ~live), float("-inf"))
        return Lowered("plain" if plain else "sdpa", live=live, bias=bias)
    single = q.single and k.single and q.shape == k.shape
    alone = mask.alone() if single else None
    easy = alone in (Everything(), Causal())
    kind = cast(Backend, impl) if impl != "auto" else _choose(device, easy, softcap)
    if easy:
        return Lowered(
            kind, causal=alone == Causal(), flex=_flex_mask(mask, q, k, device) if kind == "flex" else None
        )
    if kind == "flex":
        return Lowered(kind, flex=_flex_mask(mask, q, k, device))
    seen = mask.dense(q, k)
    if kind == "sdpa" and device.type == "cpu" and bool(seen.all()):  # decoding: faster without a mask
        return Lowered(kind)
    live = seen.any(-1, keepdim=True)
    seen = seen | ~live
    if kind != "blocked":
        return Lowered(kind, seen, live)
    causal, reach = _bounds(mask, q, k)
    return Lowered(kind, seen, live, causal, reach)


def attend(
    q_BNQH: Tensor,
    k_BGKH: Tensor,
    v_BGKH: Tensor,
    lowered: Lowered,
    *,
    scale: float,
    softcap: float | None = None,
) -> Tensor:
    """softmax(scale * q k^T, capped to +-softcap by tanh if given, over the keys seen) v -> [B, N, Q, H].

    N is a multiple of G: heads n * N / G ... share key head n.
    """
    kind = lowered.kind
    if kind == "sdpa" and softcap is None:
        out = _sdpa(q_BNQH, k_BGKH, v_BGKH, lowered, scale)
    elif kind == "blocked":
        out = blocked_attention(
            q_BNQH, k_BGKH, v_BGKH, lowered.seen, lowered.causal, lowered.reach, scale=scale, softcap=softcap
        )
    elif kind == "flex":
        return _flex(q_BNQH, k_BGKH, v_BGKH, lowered, scale, softcap)
    else:
        out = _plain(q_BNQH, k_BGKH, v_BGKH, lowered, scale, softcap)
    return out if lowered.live is None else out.masked_fill(~lowered.live, 0.0)


def _choose(device: torch.device, easy: bool, softcap: float | None) -> Backend:
    if device.type == "cuda":
        return "sdpa" if easy and softcap is None else "flex"
    if torch.is_grad_enabled() or softcap is not None:
        return "blocked"
    return "sdpa"


def _bounds(mask: Mask, q: Cols, k: Cols) -> tuple[bool, int | None]:
    """(causal, reach) by index, if the order of the keys is that of their positions; else (False, None)."""
    Q = q.shape[1]
    reach = mask.reach()
    if (mask.ahead() and reach is None) or k.shape[1] < Q:
        return False, None
    if not (torch.equal(q.pos, k.pos[:, -Q:]) and torch.equal(q.doc, k.doc[:, -Q:])):
        return False, None
    valid = k.doc >= 0
    # Where documents are separate, their order comes first and positions may restart.
    order = k.pos.long() + (k.doc.long() * (int(k.pos.max()) + 1) if mask.apart() else 0)
    top = torch.where(valid, order, -1).cummax(dim=1).values
    if bool((valid[:, 1:] & (order[:, 1:] <= top[:, :-1])).any()):
        return False, None
    if reach is not None and bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        reach = None  # padding between keys: distances in indices exceed those in positions
    return not mask.ahead(), reach


def _triangle(Q: int, K: int, device: torch.device) -> Tensor:
    return torch.ones(Q, K, dtype=torch.bool, device=device).tril(K - Q)


def _full(lowered: Lowered, Q: int, K: int, device: torch.device) -> Tensor | None:
    """The dense mask of a lowered one, None if all keys are visible."""
    if lowered.seen is None and lowered.causal:
        return _triangle(Q, K, device)
    return lowered.seen


def _plain(
    q_BNQH: Tensor, k_BGKH: Tensor, v_BGKH: Tensor, lowered: Lowered, scale: float, softcap: float | None
) -> Tensor:
    B, N, Q, H = q_BNQH.shape
    G, K = k_BGKH.shape[1], k_BGKH.shape[2]
    exact = torch.promote_types(q_BNQH.dtype, torch.float32)
    q = q_BNQH.reshape(B, G, N // G, Q, H).to(exact) * scale
    scores = q @ k_BGKH.to(exact).unsqueeze(2).transpose(-1, -2)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if lowered.bias is not None:
        scores = scores + lowered.bias.reshape(-1, G, N // G, Q, K).to(exact)
    seen = _full(lowered, Q, K, q.device)
    if seen is not None:
        scores = scores.masked_fill(~seen if seen.dim() == 2 else ~seen.unsqueeze(2), float("-inf"))
    out = scores.softmax(-1) @ v_BGKH.to(exact).unsqueeze(2)
    return out.reshape(B, N, Q, H).to(q_BNQH.dtype)


def _sdpa(q_BNQH: Tensor, k_BGKH: Tensor, v_BGKH: Tensor, lowered: Lowered, scale: float) -> Tensor:
    Q, K = q_BNQH.shape[2], k_BGKH.shape[2]
    grouped = q_BNQH.shape[1] != k_BGKH.shape[1]
    square = lowered.causal and lowered.seen is None and Q == K
    seen = None if square else _full(lowered, Q, K, q_BNQH.device)
    if lowered.bias is not None:
        seen = lowered.bias.to(q_BNQH.dtype)
    elif grouped and Q == 1 and (seen is None or seen.dim() == 4):
        # One query per head: heads that share keys are treated as queries of one head, so keys need not be repeated.
        B, N, _, H = q_BNQH.shape
        rows_BGRH = q_BNQH.reshape(B, k_BGKH.shape[1], -1, H)
        out = F.scaled_dot_product_attention(rows_BGRH, k_BGKH, v_BGKH, attn_mask=seen, scale=scale)
        return out.reshape(B, N, 1, H)
    return F.scaled_dot_product_attention(
        q_BNQH, k_BGKH, v_BGKH, attn_mask=seen, is_causal=square, scale=scale, enable_gqa=grouped
    )


FLEX_BLOCK = 128
"""Lengths are padded to multiples of this for flex: the kernel's block size; other lengths would each be compiled separately."""
FLEX_VARIANTS = 64
"""Limit of compiled variants: masks, soft-caps, dtypes, with and without gradients, one row and several."""


@functools.cache
def _flex_kernels(device_type: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if device_type == "cuda":
        return compiled_flex(flex_attention), compiled_flex(create_block_mask)
    return flex_attention, create_block_mask


def compiled_flex(function: Callable[..., Any], backend: Any = "inductor") -> Callable[..., Any]:
    """Compile with dynamic sizes from the second shape on (dynamic=None): one kernel for all batches, not one per shape.

    Beyond its limit of variants (8) torch would run uncompiled, and flex would then materialise all scores: the limit is raised.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, FLEX_VARIANTS)
    return torch.compile(function, backend=backend)


def flex_length(length: int) -> int:
    """The padded length for flex: one query (decoding) has its own kernel, other lengths are padded to whole blocks."""
    return length if length == 1 else -(-length // FLEX_BLOCK) * FLEX_BLOCK


def _flex_mask(mask: Mask, q: Cols, k: Cols, device: torch.device) -> Any:
    q, k = q.padded_to(flex_length(q.shape[1])), k.padded_to(flex_length(k.shape[1]))

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        qc, kc = q.each(lambda c: c[b, i]), k.each(lambda c: c[b, j])
        return mask.sees(qc, kc) & (kc.doc >= 0) & (qc.doc >= 0)

    (B, Q), K = q.shape, k.shape[1]
    return _flex_kernels(device.type)[1](seen, B, None, Q, K, device=str(device))


def _flex(
    q_BNQH: Tensor, k_BGKH: Tensor, v_BGKH: Tensor, lowered: Lowered, scale: float, softcap: float | None
) -> Tensor:
    def cap(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        assert softcap is not None
        return softcap * torch.tanh(score / softcap)

    grouped = q_BNQH.shape[1] != k_BGKH.shape[1]
    Q = q_BNQH.shape[2]
    out: Tensor = _flex_kernels(q_BNQH.device.type)[0](
        *(F.pad(x, (0, 0, 0, flex_length(x.shape[2]) - x.shape[2])) for x in (q_BNQH, k_BGKH, v_BGKH)),
        score_mod=None if softcap is None else cap,
        block_mask=lowered.flex,
        scale=scale,
        enable_gqa=grouped,
    )
    return out[:, :, :Q]
