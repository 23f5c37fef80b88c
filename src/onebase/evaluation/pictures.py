"""Drawn pictures beside real ones: what the nearest real picture says they are, and how far their distribution is from that of the real ones.

N pictures, F features of each: the colours of the picture made `SIDE` x `SIDE` pixels large, from 0 to 1. This space belongs to no model, so bases can be
compared in it; numbers of other feature spaces (the Inception network of FID) cannot be compared with it.
"""

import numpy as np

from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array, Score, bootstrap
from onebase.evaluation.predictions import Drawn

SIDE = 16
"""Pixels of a side in the feature space: F = 3 x 16 x 16 = 768."""
RESAMPLES = 100
"""Of the distance, each of which takes a decomposition of [N, N]."""


def nearest_labels(found_MF: Array, real_NF: Array, labels: list[str], *, itself: bool = True) -> list[str]:
    """The label of the nearest real picture of each. itself: False for the real pictures, which are then not compared with themselves."""
    gaps_MN = (
        (found_MF**2).sum(1)[:, None] - 2 * found_MF @ real_NF.T + (real_NF**2).sum(1)[None]
    )  # squared, which keeps the order
    if not itself:
        np.fill_diagonal(gaps_MN, np.inf)
    return [labels[i] for i in gaps_MN.argmin(1)]


def recognised(drawn: Drawn) -> Array:
    """1 for each drawn picture whose nearest real one has its label, float64 [N]."""
    found = nearest_labels(drawn.found_NF, drawn.real_NF, list(drawn.labels))
    return np.array([a == b for a, b in zip(found, drawn.labels, strict=True)], float)


def recognised_real(drawn: Drawn) -> Array:
    """The same for the real pictures, each among the others: what a perfect drawing would get. Only those whose label another one has."""
    labels = list(drawn.labels)
    found = nearest_labels(drawn.real_NF, drawn.real_NF, labels, itself=False)
    return np.array([a == b for a, b in zip(found, labels, strict=True) if labels.count(b) > 1], float)


def frechet(
    real_NF: Array, found_MF: Array, real_N: Array | None = None, found_M: Array | None = None
) -> float:
    """Squared Fréchet distance of two normal distributions fitted to features: |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) (1706.08500). real_N, found_M:
    how often each picture counts.

    The trace of the root is the sum of the singular values of A B^T, where C = A^T A and C' = B^T B: no covariance is formed, and there may be fewer
    pictures than features. With few pictures the distance is too large, by the same amount for systems with the same pictures."""
    parts = []
    for x_NF, times_N in ((real_NF, real_N), (found_MF, found_M)):
        w_N = np.ones(len(x_NF)) if times_N is None else times_N
        if (n := w_N.sum()) < 2:
            raise DataError("a distance of distributions needs two pictures of each", "give more rows")
        mean_F = w_N @ x_NF / n
        parts.append((mean_F, (x_NF - mean_F) * np.sqrt(w_N / (n - 1))[:, None]))
    (m_F, a_NF), (o_F, b_MF) = parts
    root = np.linalg.svd(a_NF @ b_MF.T, compute_uv=False).sum()
    return float(max(0.0, ((m_F - o_F) ** 2).sum() + (a_NF**2).sum() + (b_MF**2).sum() - 2 * root))


def frechet_score(drawn: Drawn, seed: int) -> Score | None:
    """The distance with its interval, rows (a real picture and the drawn one of its text) drawn together; None for a single row."""
    real_NF, found_NF = drawn.real_NF, drawn.found_NF
    if len(real_NF) < 2:
        return None

    def distances(times_BN: Array) -> Array:
        return np.array([frechet(real_NF, found_NF, t_N, t_N) for t_N in times_BN])

    return bootstrap("frechet_distance", distances, len(real_NF), resamples=RESAMPLES, seed=seed)
