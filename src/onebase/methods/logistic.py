"""Logistic regression with an L2 penalty, exact, and cross-validation of its strength. N examples, R features, C outputs."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.draws import Draws
from onebase.modality.text.counts import TokenCounts

FOLDS = 3

Rows = Tensor | TokenCounts
"""Features [N, R] in fp64, or the token counts of texts."""


def solve(
    x_NR: Rows,
    y_N: Tensor,
    classes: int,
    strength: float,
    start: tuple[Tensor, Tensor] | None = None,
    exact: bool = True,
    bias: bool = True,
) -> tuple[Tensor, Tensor]:
    """Logistic regression with an L2 penalty on the weights, by L-BFGS in fp64 from `start`; bias=False keeps the bias at 0. Multinomial for
    class numbers y [N], one regression per label for marks y [N, C] (1 where the example has the label).

    Solved in coordinates v = w / d of similar curvature in every direction (with equally likely classes that of w_r is
    (mean x_r^2 + strength) / classes, and / 4 for a single label): a third of the steps, the same optimum.
    """
    N, many = len(y_N), y_N.ndim == 2
    square_R = x_NR.square().mean(0) if isinstance(x_NR, Tensor) else x_NR.mean_square()
    d_R = (square_R + strength).rsqrt()
    x_NR = x_NR * d_R if isinstance(x_NR, Tensor) else x_NR.scaled(d_R)
    v_CR = torch.zeros(classes, len(d_R), dtype=torch.float64) if start is None else start[0] / d_R
    b_C = torch.zeros(classes, dtype=torch.float64) if start is None else start[1].clone()
    shrink_R = strength * d_R.square() / (4 if many else classes)
    at_N = torch.arange(N)
    opt = torch.optim.LBFGS(
        [v_CR, b_C] if bias else [v_CR],
        history_size=_history(v_CR.numel()),
        max_iter=200 if exact else 100,
        tolerance_grad=1e-6 if exact else 1e-4,  # 1e-3 selects strengths that are too weak
        line_search_fn="strong_wolfe",
    )

    back = _back(x_NR)

    def closure() -> Tensor:
        z_NC = outputs(x_NR, v_CR, b_C)
        pull_CR = shrink_R * v_CR
        if many:
            loss = _marks_loss(z_NC, y_N) / N + 0.5 * (pull_CR * v_CR).sum()
            slope_NC = (z_NC.sigmoid() - y_N) / N
            v_CR.grad, b_C.grad = back(slope_NC) + pull_CR, slope_NC.sum(0)
            return loss
        logp_NC = z_NC.log_softmax(-1)
        loss = -logp_NC[at_N, y_N].mean() + 0.5 * (pull_CR * v_CR).sum()
        slope_NC = logp_NC.exp()
        slope_NC[at_N, y_N] -= 1.0
        slope_NC /= N
        v_CR.grad, b_C.grad = back(slope_NC) + pull_CR, slope_NC.sum(0)
        return loss

    opt.step(closure)  # type: ignore[no-untyped-call]
    return v_CR * d_R, b_C


def outputs(x_NR: Rows, w_CR: Tensor, b_C: Tensor) -> Tensor:
    """x W^T + b, [N, C]."""
    return (
        torch.addmm(b_C, x_NR, w_CR.T) if isinstance(x_NR, Tensor) else b_C + x_NR.times(w_CR.T.contiguous())
    )


def _back(x_NR: Rows) -> Callable[[Tensor], Tensor]:
    """The function from slopes of the outputs [N, C] to those of the weights [C, R]."""
    if isinstance(x_NR, Tensor):
        return lambda slope_NC: slope_NC.T @ x_NR
    x_RN = x_NR.transposed()
    return lambda slope_NC: x_RN.times(slope_NC).T.contiguous()


HISTORY_BYTES = 1 << 30


def _history(weights: int) -> int:
    """History size of L-BFGS: 100 pairs, or fewer where these would exceed HISTORY_BYTES."""
    return max(5, min(100, HISTORY_BYTES // (16 * max(1, weights))))


def solve_bytes(examples: int, features: int, outputs: int) -> int:
    """Estimated peak memory of `fit_head`, fp64: four copies of the features, four of the outputs of all examples, weights and L-BFGS history."""
    weights = outputs * min(examples, features)
    return 8 * (4 * examples * features + 4 * examples * outputs + (8 + 2 * _history(weights)) * weights)


def solve_flops(examples: int, features: int, outputs: int, folds: bool) -> float:
    """Estimated operations of `fit_head`: a decomposition and about 60 evaluations of loss and gradient; with folds, cross-validation adds
    240 on two thirds of the examples."""
    rank = min(examples, features)
    return 8.0 * examples * features * rank + (300 if folds else 60) * 4.0 * examples * rank * outputs


def _marks_loss(z_NC: Tensor, y_NC: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(z_NC, y_NC, reduction="sum")


def held_losses(z_NC: Tensor, y_N: Tensor) -> Tensor:
    """The loss of each example [N]."""
    if y_N.ndim == 2:
        return F.binary_cross_entropy_with_logits(z_NC, y_N, reduction="none").sum(1)
    return F.cross_entropy(z_NC, y_N, reduction="none")


def cross_validated(
    x_NR: Rows, y_N: Tensor, classes: int, strengths: Sequence[float], fold_N: np.ndarray, bias: bool = True
) -> tuple[float, Tensor, Tensor]:
    """(the strength of the lowest held-out loss, each example's held-out loss [N], its held-out outputs [N, C]). strengths: from strong to weak;
    each fit starts from the previous one."""
    fold = torch.from_numpy(fold_N)
    starts: list[tuple[Tensor, Tensor] | None] = [None] * FOLDS
    best: tuple[float, Tensor, Tensor] | None = None
    for strength in strengths:
        held_NC = torch.zeros(len(y_N), classes, dtype=torch.float64)
        for k in range(FOLDS):
            line = solve(
                x_NR[fold != k], y_N[fold != k], classes, strength, starts[k], exact=False, bias=bias
            )
            starts[k], held_NC[fold == k] = line, outputs(x_NR[fold == k], *line)
        losses_N = held_losses(held_NC, y_N)
        if best is None or losses_N.mean() < best[1].mean():
            best = strength, losses_N, held_NC
    assert best is not None
    return best


def spread(n: int, seed: int) -> np.ndarray:
    """A fold number for each of n examples, regardless of classes."""
    return Draws(seed, "folds").permutation(n) % FOLDS


def foldable(y_N: Tensor, classes: int) -> bool:
    """Are there enough examples for cross-validation? Three of each class; ten texts for multilabel, whose labels are often rare."""
    if y_N.ndim == 2:
        return len(y_N) >= 10
    return int(torch.bincount(y_N, minlength=classes).min()) >= FOLDS


def stratified(y_N: np.ndarray, seed: int) -> np.ndarray:
    """A fold number for each example, classes spread evenly."""
    draws = Draws(seed, "folds")
    fold = np.zeros(len(y_N), int)
    for c in np.unique(y_N):
        members = np.flatnonzero(y_N == c)
        index = members[draws.permutation(len(members))]
        fold[index] = np.arange(len(index)) % FOLDS
    return fold
