"""Fits a head with one output on pooled hidden states by ridge regression, exactly. N texts, P features, R directions of the texts."""

import torch
from torch import Tensor

from onebase.base.head import Head
from onebase.methods.head import Fitted, sized, standardised
from onebase.methods.logistic import FOLDS, spread

STRENGTHS = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""L2 strengths tried by cross-validation, on standardised features: mean squared error + strength * |w|^2."""


def fit_ridge(x_NP: Tensor, y_N: Tensor, seed: int = 0, bias: bool = True) -> Fitted:
    """Fit a head by ridge regression in closed form (Hoerl and Kennard, 1970), with the strength chosen by cross-validation (a middle one with
    under 6 texts). Features are standardised for the fit; the standardisation is folded into the head.

    bias: without one, features are only divided by their RMS, and the head's bias stays 0 (without a gradient).
    y: standardised values, fp64 [N]. The losses of the result are squared errors of held-out folds.
    """
    x, y = x_NP.detach().double().cpu(), y_N.detach().double().cpu()
    mean_P, std_P, z = standardised(x) if bias else sized(x)
    strength, losses_N = STRENGTHS[len(STRENGTHS) // 2], None
    if len(y) >= 2 * FOLDS:
        fold = torch.from_numpy(spread(len(y), seed))
        lost_SN = torch.zeros(len(STRENGTHS), len(y), dtype=torch.float64)
        for k in range(FOLDS):
            w_SP, b_S = _solve(z[fold != k], y[fold != k], STRENGTHS, bias)
            off_SN = w_SP @ z[fold == k].T + b_S[:, None] - y[fold == k]
            lost_SN[:, fold == k] = off_SN.square()
        best = int(lost_SN.mean(1).argmin())
        strength, losses_N = STRENGTHS[best], lost_SN[best]
    w_SP, b_S = _solve(z, y, (strength,), bias)
    head = Head(x.shape[1], 1)
    with torch.no_grad():
        head.weight_CP.copy_(w_SP / std_P)
        head.bias_C.copy_(b_S - (w_SP / std_P) @ mean_P)
    head.bias_C.requires_grad_(bias)
    return Fitted(head, strength, losses_N)


def _solve(
    z_NP: Tensor, y_N: Tensor, strengths: tuple[float, ...], bias: bool = True
) -> tuple[Tensor, Tensor]:
    """Weights [S, P] and biases [S] for S strengths, from one singular value decomposition."""
    mid_P, mid = (z_NP.mean(0), y_N.mean()) if bias else (torch.zeros_like(z_NP[0]), torch.zeros_like(y_N[0]))
    u_NR, s_R, v_RP = torch.linalg.svd(z_NP - mid_P, full_matrices=False)
    along_R = u_NR.T @ (y_N - mid)
    pull_S1 = len(y_N) * torch.tensor(strengths, dtype=z_NP.dtype)[:, None]
    w_SP = (s_R * along_R / (s_R.square() + pull_S1)) @ v_RP
    return w_SP, mid - w_SP @ mid_P
