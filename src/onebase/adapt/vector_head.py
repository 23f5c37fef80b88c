"""A head on the vectors that a base was made to give, and the choice among all that a head may read. N examples, D width, C classes."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.adapt.head import (
    CANDIDATES,
    FOLDS,
    Chosen,
    Fitted,
    Head,
    _foldable,
    _folds,
    _held_loss,
    _solve,
    fit_head,
)
from onebase.objective.pooled import Read

VECTOR_C = 10.0
"""How far the weights on vectors of length 1 may go, as scikit-learn's C counts it: a normal prior of this variance, whatever the number of
examples. Little shrinkage suits vectors that lie close together."""

WARMTHS = tuple(1.25**k for k in range(-4, 11))
"""Factors of all outputs that are tried on the held-out folds."""


def candidates(pooling: Chosen, vectors: bool) -> tuple[Read, ...]:
    """What is to be compared: of a base that was made to give vectors, these first."""
    if pooling != "auto":
        return (pooling,)
    return ("vector", *CANDIDATES) if vectors else CANDIDATES


def fit_views(x_by: Mapping[Read, Tensor], y_N: Tensor, classes: int, seed: int = 0) -> tuple[Fitted, Read]:
    """The head with the least held-out loss of those fitted on each of the things that one may read (the first, where there are too few
    labels for folds): `fit_vector` on vectors, `fit_head` on all else."""
    found: list[tuple[Fitted, Read]] = [
        ((fit_vector if how == "vector" else fit_head)(x, y_N, classes, seed), how) for how, x in x_by.items()
    ]
    return min(found, key=lambda f: 0.0 if f[0].held_out is None else f[0].held_out)


def fit_vector(x_ND: Tensor, y_N: Tensor, classes: int, seed: int = 0) -> Fitted:
    """The head on vectors of length 1, y: class numbers [N]. Such vectors compare by their angle, so channels are not standardised: one
    that hardly moves stays small. The prior is VECTOR_C; it says little of how sure the head should be, so all outputs are then
    multiplied by the factor with the least held-out loss (temperature scaling, Guo et al., 1706.04599; 1 without folds)."""
    with torch.inference_mode(False), torch.enable_grad():
        x, y = x_ND.detach().double().cpu().clone(), y_N.cpu().clone()
        mean = x.mean(0)
        _, scale, basis_RD = torch.linalg.svd(x - mean, full_matrices=False)
        basis_RD = basis_RD[scale > 1e-9 * scale.max().clamp(min=1e-30)]
        z = (x - mean) @ basis_RD.T
        warmth, held_out = 1.0, None
        if _foldable(y, classes):
            fold = torch.from_numpy(_folds(y.numpy(), seed))
            said_NC = torch.zeros(len(y), classes, dtype=torch.float64)
            for k in range(FOLDS):
                learnt = fold != k
                strength = classes / (VECTOR_C * int(learnt.sum()))
                w, b = _solve(z[learnt], y[learnt], classes, strength, exact=False)
                said_NC[~learnt] = F.linear(z[~learnt], w, b)
            losses = [_held_loss(said_NC * t, y) / len(y) for t in WARMTHS]
            held_out = min(losses)
            warmth = WARMTHS[losses.index(held_out)]
        strength = classes / (VECTOR_C * len(y))
        w, b = _solve(z, y, classes, strength)
        w, b = warmth * w @ basis_RD, warmth * b
    head = Head(x.shape[1], classes)
    with torch.no_grad():
        head.weight_CP.copy_(w)
        head.bias_C.copy_(b - w @ mean)
    return Fitted(head, strength, held_out)
