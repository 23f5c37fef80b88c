"""A head on the vectors that a base was made to give, and the choice among all that a head may read. N examples, D width, C classes."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.head import Head, Read
from onebase.methods.head import (
    CANDIDATES,
    FOLDS,
    Chosen,
    Fitted,
    _foldable,
    _folds,
    _held_losses,
    _solve,
    fit_head,
)

VECTOR_C = 10.0
"""How far the weights on vectors of length 1 may go, as scikit-learn's C counts it: a normal prior of this variance, whatever the number of
examples. Little shrinkage suits vectors that lie close together."""

SPREAD_PRIOR = 4.0
"""How many examples for each channel the belief counts for that classes spread alike in all directions (docs/log.md: what was tried)."""

WARMTHS = tuple(1.25**k for k in range(-20, 11))
"""Factors of all outputs that are tried on the held-out folds."""

Line = tuple[Tensor, Tensor]
"""Weights [C, R] and biases [C] on coordinates z [N, R]."""

Fit = Callable[[Tensor, Tensor, bool], Line]
"""(z [N, R], classes [N], exactly or only well enough to compare) -> Line."""


def candidates(pooling: Chosen, vectors: bool) -> tuple[Read, ...]:
    """What is to be compared: of a base that was made to give vectors, these first."""
    if pooling != "auto":
        return (pooling,)
    return ("vector", *CANDIDATES) if vectors else CANDIDATES


def fit_views(
    x_by: Mapping[Read, Tensor], y_N: Tensor, classes: int, seed: int = 0, bias: bool = True
) -> tuple[Fitted, Read]:
    """The head on one of the things that may be read: `fit_vector` on the vector, `fit_head` on poolings of hidden states. Of poolings
    that with the least held-out loss (the first, where there are too few labels for folds), and that in the place of the vector only
    by `first_unless_better`."""
    found: list[tuple[Fitted, Read]] = [
        (
            fit_vector(x, y_N, classes, seed)
            if how == "vector"
            else fit_head(x, y_N, classes, seed, bias=bias),
            how,
        )
        for how, x in x_by.items()
    ]
    best = [f for f in found if f[1] == "vector"]
    if states := [f for f in found if f[1] != "vector"]:
        best.append(min(states, key=lambda f: 0.0 if f[0].held_out is None else f[0].held_out))
    return best[first_unless_better([f.losses_N for f, _ in best])]


def first_unless_better(losses: Sequence[Tensor | None]) -> int:
    """Which to take of what is given in the order in which it is believed in, by the held-out losses [N] of each: the first, unless the
    mean of a later one is lower by more than two standard errors of their difference over the N examples. (Of few labels the least loss
    alone chose worse than that, and so did one standard error, the rule of Breiman et al., 1984: docs/log.md.) Without folds: the first."""
    taken = 0
    for i, losses_N in enumerate(losses):
        best_N = losses[taken]
        if losses_N is None or best_N is None:
            continue
        gain_N = best_N - losses_N
        if gain_N.mean() > 2 * gain_N.std() / len(gain_N) ** 0.5:
            taken = i
    return taken


def fit_vector(x_ND: Tensor, y_N: Tensor, classes: int, seed: int = 0) -> Fitted:
    """The head on vectors of length 1, y: class numbers [N]. Such vectors compare by their angle, so channels are not standardised: one
    that hardly moves stays small.

    Two ways are fitted, and `first_unless_better` takes one: `_discriminant`, which learns more of few labels, or logistic regression,
    which learns more of many. Neither knows how sure to be, so its outputs are multiplied by the factor with the least held-out loss
    (temperature scaling, Guo et al., 1706.04599). Without folds: logistic regression, as it is.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x, y = x_ND.detach().double().cpu().clone(), y_N.cpu().clone()
        mean = x.mean(0)
        _, scale, basis_RD = torch.linalg.svd(x - mean, full_matrices=False)
        basis_RD = basis_RD[scale > 1e-9 * scale.max().clamp(min=1e-30)]
        z = (x - mean) @ basis_RD.T

        def discriminant(z_NR: Tensor, y_N: Tensor, exact: bool) -> Line:
            return _discriminant(z_NR, y_N, classes, x.shape[1])

        def logistic(z_NR: Tensor, y_N: Tensor, exact: bool) -> Line:
            return _solve(z_NR, y_N, classes, classes / (VECTOR_C * len(y_N)), exact=exact)

        ways: dict[str, tuple[Fit, float]] = {
            "discriminant": (discriminant, SPREAD_PRIOR),
            "logistic": (logistic, VECTOR_C),
        }
        losses_N, warmth, name = None, 1.0, "logistic"
        if _foldable(y, classes):
            fold = torch.from_numpy(_folds(y.numpy(), seed))
            tried = {name: _warmth(fit, z, y, fold, classes) for name, (fit, _) in ways.items()}
            name = list(ways)[first_unless_better([losses_N for losses_N, _ in tried.values()])]
            losses_N, warmth = tried[name]
        fit, prior = ways[name]
        w, b = fit(z, y, True)
        w, b = warmth * w @ basis_RD, warmth * b
    head = Head(x.shape[1], classes)
    with torch.no_grad():
        head.weight_CP.copy_(w)
        head.bias_C.copy_(b - w @ mean)
    return Fitted(head, prior, losses_N, name)


def _warmth(fit: Fit, z_NR: Tensor, y_N: Tensor, fold_N: Tensor, classes: int) -> tuple[Tensor, float]:
    """(held-out losses [N] in nats, the factor of all outputs with which their mean is the least)."""
    said_NC = torch.zeros(len(y_N), classes, dtype=torch.float64)
    for k in range(FOLDS):
        learnt = fold_N != k
        said_NC[~learnt] = F.linear(z_NR[~learnt], *fit(z_NR[learnt], y_N[learnt], False))
    losses_TN = torch.stack([_held_losses(said_NC * t, y_N) for t in WARMTHS])
    best = int(losses_TN.mean(1).argmin())
    return losses_TN[best], WARMTHS[best]


def _discriminant(z_NR: Tensor, y_N: Tensor, classes: int, width: int) -> Line:
    """Linear discriminant analysis (Fisher, 1936): each class a normal distribution around its mean, all of one covariance, each class
    as likely as the others (few labels say little of how often a class comes). Of `width` channels and few examples the covariance is
    hardly known, so it is mixed with one that is alike in all directions, which counts for SPREAD_PRIOR * width examples (the mean of
    an inverse Wishart posterior). z may be coordinates in the span of the examples: outside of it all classes are the same."""
    mean_CR = torch.stack([z_NR[y_N == c].mean(0) for c in range(classes)])
    apart_NR = z_NR - mean_CR[y_N]
    spread_RR = apart_NR.T @ apart_NR
    known, prior = len(y_N) - classes, SPREAD_PRIOR * width
    # Copies of one text spread by nothing: never less than a ten-thousandth of what all examples do.
    alike = torch.maximum(spread_RR.trace(), 1e-4 * z_NR.square().sum()) / (known * width)
    covariance_RR = (spread_RR + prior * alike * torch.eye(len(spread_RR), dtype=z_NR.dtype)) / (
        known + prior
    )
    w_CR = torch.linalg.solve(covariance_RR, mean_CR.T).T
    return w_CR, -0.5 * (w_CR * mean_CR).sum(1)
