"""The exact head: as good as scikit-learn's logistic regression, and independent of the scale of the features."""

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from onebase.methods.head import fit_head, fit_pooled
from onebase.methods.logistic import solve
from onebase.methods.vector_head import (
    SPREAD_PRIOR,
    VECTOR_C,
    WARMTHS,
    candidates,
    first_unless_better,
    fit_vector,
    fit_views,
)


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
    w, b = solve(x, y, 3, 0.1)
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
    # With 60 examples the folds decide as well: of six draws of noise one chose otherwise.
    telling, y = blobs(240, 16, 2, 4, spread=3.0)
    noise = 3 * torch.randn(240, 16, generator=torch.Generator().manual_seed(5))
    assert fit_pooled(torch.cat((noise, noise, telling), 1), y, 2, "auto")[1] == "all"
    fitted, how = fit_pooled(torch.cat((telling, noise, 10 * noise.flip(0)), 1), y, 2, "auto")
    assert how == "both" and fitted.head.weight_CP.shape == (2, 32)
    assert fit_pooled(telling, y, 2, "mean")[1] == "mean"


def test_too_few_labels_to_choose_keep_the_smaller_pooling() -> None:
    x, y = blobs(4, 12, 2, 6)
    fitted, how = fit_pooled(x, y, 2, "auto")
    assert how == "both" and fitted.held_out is None


def near(count: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of length 1, all near each other, and their classes."""
    x, y = blobs(count, 8, classes, seed)
    return torch.nn.functional.normalize(x + 3.0, dim=-1), y


def same_up_to_a_factor(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """The factor between outputs that differ by it and by what all classes share."""
    a, b = (z - z.mean(1, keepdim=True) for z in (ours.detach().double(), torch.from_numpy(theirs)))
    factor = float((a * b).sum() / b.square().sum())
    assert torch.allclose(a, factor * b, atol=2e-2)
    return factor


def test_of_few_vectors_it_is_scikit_learns_discriminant_with_a_prior() -> None:
    """A shrunk covariance, each class as likely; all outputs are one multiple of that solution's."""
    x, y = near(60, 3, 0)
    fitted = fit_vector(x, y, 3)
    assert fitted.fit == "discriminant" and fitted.facts["head.fit"] == (
        "discriminant",
        "chosen by cross-validation",
    )
    known, prior = 60 - 3, SPREAD_PRIOR * 8
    sk = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=prior / (known + prior), priors=[1 / 3] * 3)
    theirs = sk.fit(x.double().numpy(), y.numpy()).decision_function(x.double().numpy())
    assert same_up_to_a_factor(fitted.head(x), theirs) > 0
    assert fitted.held_out is not None and fitted.held_out < np.log(3)


def test_of_many_vectors_it_is_scikit_learns_regression_where_that_is_better() -> None:
    """Enough examples show that one class comes far more often than the others. The prior is that of C = 10, the outputs one multiple."""
    x, y = near(3000, 3, 0)
    kept = (y == 0) | (torch.arange(3000) < 300)
    x, y = x[kept], y[kept]
    fitted = fit_vector(x, y, 3)
    assert fitted.fit == "logistic" and fitted.strength == VECTOR_C
    sk = LogisticRegression(C=VECTOR_C, tol=1e-10, max_iter=5000).fit(x.double().numpy(), y.numpy())
    factor = same_up_to_a_factor(fitted.head(x), sk.decision_function(x.double().numpy()))
    assert min(abs(factor / w - 1) for w in WARMTHS) < 1e-2


def test_too_few_vectors_for_folds_are_fitted_as_they_are() -> None:
    x, y = near(60, 3, 0)
    one = fit_vector(x[:6], y[:6], 3)
    assert one.held_out is None and one.fit == "logistic", "two examples of a class make no folds"
    assert one.facts["head.fit"] == ("logistic", "default: too few labels to choose")


def test_vectors_that_are_all_the_same_tell_no_class() -> None:
    x = torch.nn.functional.normalize(torch.ones(12, 8), dim=-1)
    fitted = fit_vector(x, torch.arange(12) % 3, 3)
    assert fitted.head(x).softmax(-1).sub(1 / 3).abs().max() < 1e-3


def test_classes_of_copies_are_told_apart_and_stay_in_bounds() -> None:
    x = torch.eye(8)[torch.arange(12) % 3]
    fitted = fit_vector(x, torch.arange(12) % 3, 3)
    z = fitted.head(x)
    assert torch.equal(z.argmax(1), torch.arange(12) % 3) and z.abs().max() < 1e4
    assert (z.softmax(-1).max(1).values > 0.9).all()


def test_a_later_choice_must_be_better_by_more_than_noise() -> None:
    g = torch.Generator().manual_seed(0)
    first = torch.rand(100, generator=g).double()
    noise = torch.randn(100, generator=g).double()
    noise = (noise - noise.mean()) / noise.std()  # a standard error of 0.1
    assert first_unless_better([first, first - 0.19 + noise]) == 0
    assert first_unless_better([first, first - 0.21 + noise]) == 1
    assert first_unless_better([first, first - 0.5, first - 0.5]) == 1, "the later of equals is not better"
    assert first_unless_better([first, first + 0.1, first - 0.1]) == 2
    assert first_unless_better([None, None]) == 0


def test_what_a_head_reads_is_chosen_among_all_that_is_given() -> None:
    telling, y = blobs(60, 16, 2, 4, spread=3.0)
    noise = torch.nn.functional.normalize(
        torch.randn(60, 16, generator=torch.Generator().manual_seed(5)), dim=-1
    )
    assert fit_views({"vector": noise, "both": telling}, y, 2)[1] == "both"
    unit = torch.nn.functional.normalize(telling, dim=-1)
    assert fit_views({"vector": unit, "both": noise}, y, 2)[1] == "vector"
    # A little better is enough among poolings, and not enough to leave the vector.
    x = telling
    worse = x + 1.2 * torch.randn(60, 16, generator=torch.Generator().manual_seed(7))
    losses = [fit_head(z, y, 2).losses_N for z in (worse, x)]
    assert losses[0] is not None and losses[1] is not None and losses[0].mean() > losses[1].mean()
    assert first_unless_better(losses) == 0
    assert fit_views({"both": worse, "all": x}, y, 2)[1] == "all"
    near = {"vector": torch.nn.functional.normalize(worse, dim=-1), "both": x}
    lower = [fit_views({how: z}, y, 2)[0].held_out for how, z in near.items()]
    assert lower[0] is not None and lower[1] is not None and lower[1] < lower[0]
    assert fit_views(near, y, 2)[1] == "vector"
    assert fit_views(near, y, 2, prefer_vector=False)[1] == "both", "longer texts than the vector is for"
    few = torch.tensor([0, 1, 2, 3])
    assert fit_views({"vector": noise[few], "both": telling[few]}, y[few], 2)[1] == "vector", (
        "no folds: the first"
    )
    assert (
        fit_views({"vector": noise[few], "both": telling[few]}, y[few], 2, prefer_vector=False)[1] == "vector"
    )
    assert candidates("auto", True)[0] == "vector" and "vector" not in candidates("auto", False)
    assert candidates("mean", True) == ("mean",)
