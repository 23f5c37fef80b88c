"""A linear head on pooled hidden states, fitted exactly. N texts, P features, C classes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.config import config
from onebase.objective.label import Pooling

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""L2 strengths tried by cross-validation, on standardised features."""


@config
class HeadConfig:
    """`labels` in the order of the head's outputs."""

    labels: tuple[str, ...]
    pooling: Pooling = "both"


class Head(nn.Module):
    """z = x W^T + b in fp32."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight_CP = nn.Parameter(torch.zeros(classes, features))
        self.bias_C = nn.Parameter(torch.zeros(classes))

    def forward(self, x_BP: Tensor) -> Tensor:
        return F.linear(x_BP.float(), self.weight_CP, self.bias_C)


def _solve(x_NP: Tensor, y_N: Tensor, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with an L2 penalty on the weights, to convergence by L-BFGS in fp64."""
    w = torch.zeros(classes, x_NP.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.LBFGS([w, b], max_iter=100, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        opt.zero_grad()
        loss = F.cross_entropy(F.linear(x_NP, w, b), y_N) + 0.5 * strength * w.square().sum() / classes
        loss.backward()
        return loss

    opt.step(closure)
    return w.detach(), b.detach()


def _folds(y_N: np.ndarray, seed: int) -> np.ndarray:
    """A fold number for each example, classes spread evenly."""
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(y_N), int)
    for c in np.unique(y_N):
        index = rng.permutation(np.flatnonzero(y_N == c))
        fold[index] = np.arange(len(index)) % 5
    return fold


def fit_head(x_NP: Tensor, y_N: Tensor, classes: int, seed: int = 0) -> tuple[Head, float]:
    """The fitted head and the L2 strength that cross-validation chose (the middle one with under 5 labels in a class).

    Runs with gradients on whatever the caller's mode is. Features are standardised for the fit; the standardisation is folded
    into the head, so it reads raw features.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x_NP.detach().double().cpu().clone()
        y = y_N.cpu().clone()
        mean, std = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
        x = (x - mean) / std
        strength = STRENGTHS[len(STRENGTHS) // 2]
        if int(torch.bincount(y, minlength=classes).min()) >= 5:
            fold = torch.from_numpy(_folds(y.numpy(), seed))
            scores = []
            for s in STRENGTHS:
                loss = 0.0
                for k in range(5):
                    w, b = _solve(x[fold != k], y[fold != k], classes, s)
                    loss += float(
                        F.cross_entropy(F.linear(x[fold == k], w, b), y[fold == k], reduction="sum")
                    )
                scores.append(loss)
            strength = STRENGTHS[int(np.argmin(scores))]
        w, b = _solve(x, y, classes, strength)
    head = Head(x.shape[1], classes)
    with torch.no_grad():
        head.weight_CP.copy_(w / std)
        head.bias_C.copy_(b - (w / std) @ mean)
    return head, strength
