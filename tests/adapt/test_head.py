"""The exact head: as good as scikit-learn's logistic regression, and independent of the scale of the features."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from onebase.adapt.head import _solve, fit_head, fit_pooled


def blobs(
    n: int, features: int, classes: int, seed: int, spread: float = 1.5
) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = torch.randn(classes, features, generator=torch.Generator().manual_seed(99))
    return centres[y] + spread * torch.randn(n, features, generator=g), y


def test_solution_is_the_convex_optimum() -> None:
    x, y = blobs(60, 8, 3, 0)
    x = x.double()
    w, b = _solve(x, y, 3, 0.1)
    # Ours: mean loss + 0.5 * s / C * |w|^2; scikit-learn's: C * sum of losses + 0.5 * |w|^2.
    sk = LogisticRegression(C=1 / (60 * 0.1 / 3), tol=1e-10, max_iter=5000).fit(x.numpy(), y.numpy())
    assert np.allclose(w.numpy() - w.numpy().mean(0), sk.coef_ - sk.coef_.mean(0), atol=2e-3)
    ours, theirs = x @ w.T + b, torch.from_numpy(sk.predict_proba(x.numpy()))
    assert torch.allclose(ours.softmax(-1), theirs, atol=1e-3)


def test_more_features_than_examples() -> None:
    x, y = blobs(24, 200, 2, 1)
    fitted = fit_head(x, y, 2)
    head, strength = fitted.head, fitted.strength
    test_x, test_y = blobs(400, 200, 2, 2)
    assert strength > 0
    assert (head(test_x).argmax(-1) == test_y).float().mean() > 0.95


def test_scale_and_shift_of_features_do_not_matter() -> None:
    x, y = blobs(40, 10, 4, 3)
    scale, shift = torch.logspace(-3, 3, 10), torch.linspace(-50, 50, 10)
    one = fit_head(x, y, 4).head
    two = fit_head(x * scale + shift, y, 4).head
    assert torch.allclose(one(x).softmax(-1), two(x * scale + shift).softmax(-1), atol=1e-2)


def test_constant_feature_and_one_example_a_class() -> None:
    x = torch.tensor([[1.0, 5.0], [2.0, 5.0]])
    head = fit_head(x, torch.tensor([0, 1]), 2).head
    assert head(x).argmax(-1).tolist() == [0, 1]
    assert torch.isfinite(head.weight_CP).all()


def test_pooling_is_chosen_by_what_predicts_held_out_labels() -> None:
    """The third part of the features decides in one case and is noise in the other."""
    telling, y = blobs(60, 16, 2, 4, spread=3.0)
    noise = 3 * torch.randn(60, 16, generator=torch.Generator().manual_seed(5))
    assert fit_pooled(torch.cat((noise, noise, telling), 1), y, 2, "auto")[1] == "all"
    fitted, how = fit_pooled(torch.cat((telling, noise, 10 * noise.flip(0)), 1), y, 2, "auto")
    assert how == "both" and fitted.head.weight_CP.shape == (2, 32)
    assert fit_pooled(telling, y, 2, "mean")[1] == "mean"


def test_too_few_labels_to_choose_keep_the_smaller_pooling() -> None:
    x, y = blobs(4, 12, 2, 6)
    fitted, how = fit_pooled(x, y, 2, "auto")
    assert how == "both" and fitted.held_out is None
