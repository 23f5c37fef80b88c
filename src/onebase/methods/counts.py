"""A head that reads how often each token occurs in a text, beside its pooled states. N texts, V tokens, P features, C outputs."""

from dataclasses import replace

import torch
from torch import Tensor

from onebase.base.head import Head
from onebase.methods.head import Fitted
from onebase.methods.logistic import Rows, cross_validated, foldable, held_losses, solve, stratified
from onebase.modality.text.counts import TokenCounts

STRENGTHS = (3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7)
"""L2 strengths tried by cross-validation on rows of length 1, from strong to weak."""

GRAM_TEXTS = 3000
"""Up to so many texts the regression is solved in at most N coordinates of their span, instead of V: the same optimum, much sooner."""


def with_counts(
    fitted: Fitted, counts_NV: TokenCounts, y_N: Tensor, classes: int, seed: int = 0, *, always: bool = False
) -> Fitted:
    """The mean of the outputs of two heads: the fitted one, and a logistic regression on token counts; unless `always`, only where its held-out
    loss is lower than that of the fitted one (without folds: never). seed: that of the fitted one, so both have the same folds.

    Each part has an L2 strength of its own: counts need another than states, and one strength for both had a higher loss (docs/log.md).
    """
    y = y_N.cpu()
    strength, losses_N, held_NC = STRENGTHS[len(STRENGTHS) // 2], None, None
    # Tokens that occur in no text have weight 0.
    known, ids_K = torch.unique(counts_NV.ids_K, return_inverse=True)
    counts = replace(counts_NV, ids_K=ids_K, columns=len(known))
    x_NR, dual_NR = _coordinates(counts) if len(counts) <= GRAM_TEXTS else (counts, None)
    with torch.inference_mode(False), torch.enable_grad():
        if foldable(y, classes) and fitted.held_NC is not None:
            fold_N = stratified(y.numpy(), seed)
            strength, _, alone_NC = cross_validated(x_NR, y, classes, STRENGTHS, fold_N)
            held_NC = (fitted.held_NC + alone_NC) / 2
            losses_N = held_losses(held_NC, y)
        better = (
            losses_N is not None and fitted.losses_N is not None and losses_N.mean() < fitted.losses_N.mean()
        )
        if not (always or better):
            return fitted
        w_CR, b_C = solve(x_NR, y, classes, strength)
        w_VC = w_CR.T if dual_NR is None else counts.transposed().times(dual_NR @ w_CR.T)
    states = fitted.head
    head = Head(states.weight_CP.shape[1], classes, vocabulary=counts_NV.columns)
    with torch.no_grad():
        head.weight_CP.copy_(states.weight_CP / 2)
        head.bias_C.copy_((states.bias_C.double() + b_C) / 2)
        assert head.counts_VC is not None
        head.counts_VC[known] = w_VC.float() / 2
    return replace(fitted, head=head, losses_N=losses_N, held_NC=held_NC, counts=strength)


def _coordinates(counts_NV: TokenCounts) -> tuple[Rows, Tensor]:
    """(coordinates of the texts in their span [N, R], and what takes weights on them to sums of texts [N, R])."""
    square_R, u_NR = torch.linalg.eigh(counts_NV.gram())
    kept = square_R > 1e-9 * square_R.max()
    root_R, u_NR = square_R[kept].sqrt(), u_NR[:, kept]
    return u_NR * root_R, u_NR / root_R
