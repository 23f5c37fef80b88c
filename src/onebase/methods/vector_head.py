"""Fits heads on the vectors of embedding bases, and chooses between them and poolings. N examples, D width, C classes."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.head import Head, Read
from onebase.methods.head import CANDIDATES, Chosen, Fitted, fit_head
from onebase.methods.logistic import FOLDS, foldable, held_losses, solve, stratified

VECTOR_C = 10.0
"""Inverse regularisation strength on vectors of length 1, as scikit-learn's C: a normal prior of this variance, whatever the number of
examples. Weak shrinkage suits vectors that are close together."""

SPREAD_PRIOR = 4.0
"""Weight of the isotropic prior covariance, in examples per channel (docs/log.md: what was tried)."""

WARMTHS = tuple(1.25**k for k in range(-20, 11))
"""Factors of all outputs (inverse temperatures) that are tried on the held-out folds."""

Line = tuple[Tensor, Tensor]
"""Weights [C, R] and biases [C] on coordinates z [N, R]."""

Fit = Callable[[Tensor, Tensor, bool], Line]
"""(z [N, R], classes [N], exactly or only precisely enough to compare) -> Line."""


def candidates(pooling: Chosen, vectors: bool) -> tuple[Read, ...]:
    """The features to compare; for an embedding base its vectors come first."""
    if pooling != "auto":
        return (pooling,)
    return ("vector", *CANDIDATES) if vectors else CANDIDATES


def fit_views(
    x_by: Mapping[Read, Tensor],
    y_N: Tensor,
    classes: int,
    seed: int = 0,
    bias: bool = True,
    prefer_vector: bool = True,
) -> tuple[Fitted, Read]:
    """Fit a head on the best of several features: `fit_vector` on the vector, `fit_head` on poolings of hidden states. The best pooling has the
    lowest held-out loss (with too few labels for folds: the first). It replaces the vector by `first_unless_better`; without `prefer_vector`
    by its loss alone."""
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
    losses = [f.losses_N for f, _ in best]
    if prefer_vector or any(x is None for x in losses):
        return best[first_unless_better(losses)]
    return min(best, key=lambda f: f[0].held_out or 0.0)


def first_unless_better(losses: Sequence[Tensor | None]) -> int:
    """The index of the best candidate by held-out losses [N], in order of prior preference: the first, unless a later one's mean is lower by
    more than two standard errors of their difference over the N examples. (With few labels the lowest loss chose worse, and so did one
    standard error, the rule of Breiman et al., 1984: docs/log.md.) Without folds: the first."""
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
    """Fit a head on vectors of length 1; y: class numbers [N]. Such vectors are compared by angle, so channels are not standardised: a nearly
    constant channel stays small.

    Two solvers are fitted, and `first_unless_better` chooses: `_discriminant`, better with few labels, or logistic regression, better with
    many. Neither is calibrated, so its outputs are multiplied by the factor with the lowest held-out loss (temperature scaling, Guo et al.,
    1706.04599). Without folds: logistic regression without a factor.
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
            return solve(z_NR, y_N, classes, classes / (VECTOR_C * len(y_N)), exact=exact)

        ways: dict[str, tuple[Fit, float]] = {
            "discriminant": (discriminant, SPREAD_PRIOR),
            "logistic": (logistic, VECTOR_C),
        }
        losses_N, held_NC, warmth, name = None, None, 1.0, "logistic"
        if foldable(y, classes):
            fold = torch.from_numpy(stratified(y.numpy(), seed))
            tried = {name: _warmth(fit, z, y, fold, classes) for name, (fit, _) in ways.items()}
            name = list(ways)[first_unless_better([losses_N for losses_N, *_ in tried.values()])]
            losses_N, held_NC, warmth = tried[name]
        fit, prior = ways[name]
        w, b = fit(z, y, True)
        w, b = warmth * w @ basis_RD, warmth * b
    head = Head(x.shape[1], classes)
    with torch.no_grad():
        head.weight_CP.copy_(w)
        head.bias_C.copy_(b - w @ mean)
    return Fitted(head, prior, losses_N, name, held_NC)


def _warmth(
    fit: Fit, z_NR: Tensor, y_N: Tensor, fold_N: Tensor, classes: int
) -> tuple[Tensor, Tensor, float]:
    """(held-out losses [N] in nats, held-out outputs [N, C], the factor of all outputs that minimises the losses' mean)."""
    said_NC = torch.zeros(len(y_N), classes, dtype=torch.float64)
    for k in range(FOLDS):
        learnt = fold_N != k
        said_NC[~learnt] = F.linear(z_NR[~learnt], *fit(z_NR[learnt], y_N[learnt], False))
    losses_TN = torch.stack([held_losses(said_NC * t, y_N) for t in WARMTHS])
    best = int(losses_TN.mean(1).argmin())
    return losses_TN[best], said_NC * WARMTHS[best], WARMTHS[best]


def _discriminant(z_NR: Tensor, y_N: Tensor, classes: int, width: int) -> Line:
    """Linear discriminant analysis (Fisher, 1936): classes are normal distributions of one covariance around their means, and equally likely
    (few labels show little of class frequencies). Few examples of `width` channels hardly determine the covariance, so it is mixed with an
    isotropic one that counts for SPREAD_PRIOR * width examples (the mean of an inverse Wishart posterior). z may be coordinates in the span
    of the examples: outside of it all classes are the same."""
    mean_CR = torch.stack([z_NR[y_N == c].mean(0) for c in range(classes)])
    apart_NR = z_NR - mean_CR[y_N]
    spread_RR = apart_NR.T @ apart_NR
    known, prior = len(y_N) - classes, SPREAD_PRIOR * width
    # Copies of one text have no spread: use at least a ten-thousandth of that of all examples.
    alike = torch.maximum(spread_RR.trace(), 1e-4 * z_NR.square().sum()) / (known * width)
    covariance_RR = (spread_RR + prior * alike * torch.eye(len(spread_RR), dtype=z_NR.dtype)) / (
        known + prior
    )
    w_CR = torch.linalg.solve(covariance_RR, mean_CR.T).T
    return w_CR, -0.5 * (w_CR * mean_CR).sum(1)
