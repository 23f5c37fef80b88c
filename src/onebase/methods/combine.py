"""Combines several LoRA adapters of one base into one: by summing their deltas, or by TIES-merging (2306.01708).

I inputs, O outputs, R rank, N adapters, K tokens, D width.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from onebase.errors import UserError
from onebase.methods.lora_config import LoraConfig
from onebase.methods.method import Combined, How, Weighed
from onebase.model.sites import exceptions

ROWS = ("text.stem.rows", "text.head.rows")


@torch.no_grad()
def combine(
    parts: Sequence[Weighed], how: How = "linear", *, density: float = 0.2, rank: int | None = None
) -> Combined:
    """linear: sum of weight x delta, exact because ranks add up; with `rank` the nearest matrix of that rank. ties: TIES-merging as in the
    paper: of all its deltas together each adapter keeps the share `density` of largest magnitude, then `ties` merges each matrix. The result
    is not low-rank, so the nearest matrix of `rank` (default: the sum of the ranks) is stored.

    Rows of tokens are combined in the same way, exactly. Raises UserError for DoRA, whose change of a weight is not low-rank.
    """
    if any(p.cfg.replaced for p in parts):
        raise UserError(
            "an adapter that replaces a whole matrix cannot be combined",
            "merge it into the base and adapt the result",
        )
    if any(p.cfg.dora for p in parts):
        raise UserError(
            "a DoRA adapter cannot be combined: its change of a weight is not low-rank",
            "combine LoRA adapters, or merge one into the base and adapt the result",
        )
    sites = list(dict.fromkeys(k.removesuffix(".a") for p in parts for k in p.tensors if k.endswith(".a")))
    least = [smallest_kept(_changes(p), density) if how == "ties" else 0.0 for p in parts]
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    lost = whole = 0.0
    for site in sites:
        here = [p for p in parts if f"{site}.a" in p.tensors]
        floors = [x for p, x in zip(parts, least, strict=True) if f"{site}.a" in p.tensors]
        tops = [p.tensors[f"{site}.a"].float() for p in here]
        sides = [p.tensors[f"{site}.b"].float() * p.cfg.scaling_at(site) for p in here]
        top = sum(a.shape[0] for a in tops)
        if how == "linear":
            a_RI = torch.cat(tops)
            b_OR = torch.cat([p.weight * b for p, b in zip(here, sides, strict=True)], 1)
            wanted_OI = b_OR @ a_RI
        else:
            deltas = [trimmed(b @ a, x) for a, b, x in zip(tops, sides, floors, strict=True)]
            wanted_OI = ties(deltas, [p.weight for p in here])
        if how == "ties" or rank is not None:
            a_RI, b_OR = nearest(wanted_OI, rank or top)
            lost += float((b_OR @ a_RI - wanted_OI).square().sum())
            whole += float(wanted_OI.square().sum())
        tensors[f"{site}.a"], tensors[f"{site}.b"], ranks[site] = a_RI, b_OR, a_RI.shape[0]
    tokens = tuple(sorted({i for p in parts for i in p.cfg.tokens}))
    for key in ROWS if tokens else ():
        width = next(p.tensors[key].shape[1] for p in parts if key in p.tensors)
        rows = [_spread(p, key, tokens, width) for p in parts]
        weights = [p.weight for p in parts]
        tensors[key] = (
            sum((w * r for w, r in zip(weights, rows, strict=True)), torch.zeros_like(rows[0]))
            if how == "linear"
            else ties([trimmed(r, x) for r, x in zip(rows, least, strict=True)], weights)
        )
    ((common, _),) = Counter(ranks.values()).most_common(1)
    cfg = LoraConfig(
        rank=common,
        alpha=float(common),  # scaling 1 everywhere: B includes the adapters' scaling
        sites=parts[0].cfg.sites if len({p.cfg.sites for p in parts}) == 1 else tuple(sorted(sites)),
        tokens=tokens,
        ranks=exceptions(ranks, common),
        alphas=exceptions({s: float(r) for s, r in ranks.items()}, float(common)),
    )
    exact = how == "linear" and rank is None
    return Combined(cfg, tensors, None if exact else (lost / whole) ** 0.5 if whole else 0.0)


def ties(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Steps 2 and 3 of TIES (2306.01708, section 4) on trimmed deltas of one shape. Elect: per element the sign of the weighted sum.
    Disjoint mean: the weighted mean of the values with that sign. (The paper's weights are equal.)"""
    t_N = torch.stack(list(deltas))
    w_N = torch.tensor(list(weights), dtype=t_N.dtype, device=t_N.device).view(-1, *[1] * (t_N.ndim - 1))
    elected = (w_N * t_N).sum(0).sign()
    agree_N = (t_N.sign() == elected) & (t_N != 0)
    return (agree_N * w_N * t_N).sum(0) / (agree_N * w_N).sum(0).clamp(min=torch.finfo(t_N.dtype).tiny)


def trimmed(delta: Tensor, least: float) -> Tensor:
    """Step 1: set values smaller than `least` to zero."""
    return torch.where(delta.abs() >= least, delta, 0)


def smallest_kept(deltas: Callable[[], Iterable[Tensor]], density: float) -> float:
    """The magnitude reached by the share `density` of all values (at least one). `deltas` yields them again at each call: only one matrix
    is in memory at a time, because all together are as large as the base.

    Bits of non-negative floats, read as integers, keep their order: two histograms of 16 bits each find the value exactly.
    """
    left = max(1, int(density * sum(d.numel() for d in deltas())))
    found = 0
    for shift in (16, 0):
        counts = torch.zeros(1 << 16, dtype=torch.long)
        for d in deltas():
            bits = d.float().abs().flatten().view(torch.int32)
            if shift == 0:
                bits = bits[bits >> 16 == found]
            counts += torch.bincount((bits >> shift) & 0xFFFF, minlength=1 << 16).cpu()
        above = counts.flip(0).cumsum(0)  # how many are in this bin or a higher one, from the highest down
        at = int((above < left).sum())
        left -= int(above[at - 1]) if at else 0
        found = found << 16 | (0xFFFF - at)
    return float(torch.tensor(found, dtype=torch.int32).view(torch.float32))


def nearest(delta_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A [R, I] and B [O, R] whose product is the nearest matrix of that rank (Eckart and Young); R is smaller for smaller matrices."""
    u_OR, s_R, v_RI = torch.linalg.svd(delta_OI, full_matrices=False)
    rank = min(rank, len(s_R))
    root_R = s_R[:rank].sqrt()
    return root_R[:, None] * v_RI[:rank], u_OR[:, :rank] * root_R


def _changes(part: Weighed) -> Callable[[], Iterable[Tensor]]:
    """All deltas of an adapter, one matrix at a time."""

    def each() -> Iterable[Tensor]:
        for key, t in part.tensors.items():
            if key.endswith(".a"):
                site = key.removesuffix(".a")
                yield part.tensors[f"{site}.b"].float() * part.cfg.scaling_at(site) @ t.float()
            elif key in ROWS:
                yield t

    return each


def _spread(part: Weighed, key: str, tokens: Sequence[int], width: int) -> Tensor:
    """An adapter's rows [K, D] for `tokens`: zero for tokens that it does not have."""
    out = torch.zeros(len(tokens), width)
    if part.cfg.tokens:
        out[[tokens.index(i) for i in part.cfg.tokens]] = part.tensors[key].float()
    return out
