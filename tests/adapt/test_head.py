"""The exact head: as good as scikit-learn's logistic regression, and independent of the scale of the features."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from onebase.adapt.head import _solve, fit_head, fit_pooled
from onebase.adapt.vector_head import VECTOR_C, WARMTHS, candidates, fit_vector, fit_views


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


def test_on_vectors_it_is_scikit_learns_solution_made_surer() -> None:
    """The prior is that of C = 10 on vectors of length 1, and all outputs are one multiple of that solution's."""
    x, y = blobs(60, 8, 3, 0)
    x = torch.nn.functional.normalize(x + 3.0, dim=-1)  # all near each other
    fitted = fit_vector(x, y, 3)
    sk = LogisticRegression(C=VECTOR_C, tol=1e-10, max_iter=5000).fit(x.double().numpy(), y.numpy())
    theirs = torch.from_numpy(sk.decision_function(x.double().numpy()))
    with torch.no_grad():
        ours = fitted.head(x).double()
    ours, theirs = (z - z.mean(1, keepdim=True) for z in (ours, theirs))
    factor = float((ours * theirs).sum() / theirs.square().sum())
    assert min(abs(factor / w - 1) for w in WARMTHS) < 1e-2 and factor > 1
    assert torch.allclose(ours, factor * theirs, atol=2e-2)
    assert fitted.held_out is not None and fitted.held_out < np.log(3)
    one = fit_vector(x[:6], y[:6], 3)
    assert one.held_out is None, "two examples of a class make no folds"


def test_what_a_head_reads_is_chosen_among_all_that_is_given() -> None:
    telling, y = blobs(60, 16, 2, 4, spread=3.0)
    noise = torch.nn.functional.normalize(
        torch.randn(60, 16, generator=torch.Generator().manual_seed(5)), dim=-1
    )
    assert fit_views({"vector": noise, "both": telling}, y, 2)[1] == "both"
    unit = torch.nn.functional.normalize(telling, dim=-1)
    assert fit_views({"vector": unit, "both": noise}, y, 2)[1] == "vector"
    few = torch.tensor([0, 1, 2, 3])
    assert fit_views({"vector": noise[few], "both": telling[few]}, y[few], 2)[1] == "vector", (
        "no folds: the first"
    )
    assert candidates("auto", True)[0] == "vector" and "vector" not in candidates("auto", False)
    assert candidates("mean", True) == ("mean",)
