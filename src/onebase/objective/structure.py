"""Contacts of residues: which pairs count, a logistic regression that predicts them, and the score of a map. L residues, N pairs, C features.

Few proteins suffice for the regression (Rao et al., 2021.01.04.425315, used 20 for ESM).
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from onebase.base.head import ContactHead
from onebase.data.structures import NEAR
from onebase.errors import DataError

APART, LONG = 6, 24
"""Residues between the two of a pair: the fewest that are learnt, and those of a long-range pair."""
PENALTY = 1e-4
"""L2 penalty on the weights of standardised features, per pair."""


def pairs(distances_LL: NDArray[np.float64], apart: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs (i, j), i < j, that are `apart` or more in the chain and whose distance is known."""
    i, j = np.triu_indices(len(distances_LL), apart)
    known = np.isfinite(distances_LL[i, j])
    return i[known], j[known]


def fit_contacts(features_NC: Tensor, near_N: Tensor) -> ContactHead:
    """The regression that predicts `near` (bool [N]) from features (float32 [N, C]), by L-BFGS. Raises DataError where all pairs are alike."""
    if near_N.all() or not near_N.any():
        raise DataError(
            "the proteins have no contacts, or nothing else", "give structures with 30 residues or more"
        )
    x_NC = features_NC.double()
    mean_C, scale_C = x_NC.mean(0), x_NC.std(0).clamp_min(1e-12)
    x_NC, y_N = (x_NC - mean_C) / scale_C, near_N.double()
    weights = torch.zeros(x_NC.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits_N = x_NC @ weights[:-1] + weights[-1]
        total = F.binary_cross_entropy_with_logits(logits_N, y_N) + PENALTY * weights[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    weight_C = weights.detach()[:-1] / scale_C
    return ContactHead(weight_C.float(), float(weights.detach()[-1] - weight_C @ mean_C))


def long_range_precision(
    map_LL: NDArray[np.float64], distances_LL: NDArray[np.float64], share: int = 5
) -> float | None:
    """The share of true contacts among the L / `share` likeliest pairs that are 24 residues or more apart; None for a chain without such pairs."""
    i, j = pairs(distances_LL, LONG)
    if not len(i):
        return None
    first = np.argsort(-map_LL[i, j], kind="stable")[: max(1, len(distances_LL) // share)]
    return float((distances_LL[i[first], j[first]] < NEAR).mean())
