"""The whole of fit_head, fit_ridge and fit_vector, standardisation, basis and scale included, against other implementations at the strength found."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from onebase.api.base import Base
from onebase.errors import UserError
from onebase.methods.head import Fitted, fit_head
from onebase.methods.logistic import solve_bytes, spread
from onebase.methods.ridge import fit_ridge
from onebase.methods.vector_head import fit_vector
from onebase.tasks import checks as fitting
from tests.helpers import tiny_base


def features(n: int, width: int, seed: int = 0) -> torch.Tensor:
    """Of unlike scales, far from zero, and leaning on each other."""
    g = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, width, generator=g) @ torch.randn(width, width, generator=g)
    return mixed * torch.logspace(-2, 2, width) + torch.linspace(-30, 30, width)


def standard(x: torch.Tensor) -> np.ndarray:
    x64 = x.double().numpy()
    return (x64 - x64.mean(0)) / x64.std(0)


def whole(fitted: Fitted, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return fitted.head(x).double()


@pytest.mark.parametrize(("n", "width", "classes"), [(60, 8, 3), (90, 5, 2), (24, 60, 2), (45, 100, 3)])
def test_a_fitted_head_is_scikit_learns_at_its_strength(n: int, width: int, classes: int) -> None:
    x = features(n, width)
    y = (torch.arange(n) + (x[:, 0] > x[:, 0].median())) % classes
    fitted = fit_head(x, y, classes)
    sk = LogisticRegression(C=classes / (n * fitted.strength), tol=1e-12, max_iter=20_000)
    z = standard(x)
    sk.fit(z, y.numpy())
    wanted = torch.from_numpy(np.log(sk.predict_proba(z)))
    if classes == 2:  # scikit-learn has one vector for two classes: half as much is shrunk
        sk = LogisticRegression(C=1 / (n * fitted.strength) * 4, tol=1e-12, max_iter=20_000).fit(z, y.numpy())
        wanted = torch.from_numpy(np.log(sk.predict_proba(z)))
    assert torch.allclose(whole(fitted, x).log_softmax(-1), wanted, atol=2e-3)
    # The gradient of the penalised loss is 0 there, and it is not at weights a little larger: scale and shift are right.
    assert slope(fitted, x, y, 1.0) < 1e-4 < slope(fitted, x, y, 1.02)


def slope(fitted: Fitted, x: torch.Tensor, y: torch.Tensor, factor: float) -> float:
    """The largest slope of the mean loss with its penalty, on standardised features, at the head's weights times a factor."""
    z, std = torch.from_numpy(standard(x)), x.double().std(0, correction=0)
    w = (fitted.head.weight_CP.detach().double() * std * factor).requires_grad_(True)
    many = y.ndim == 2
    shift = fitted.head.bias_C.detach().double() + fitted.head.weight_CP.detach().double() @ x.double().mean(
        0
    )
    b = shift.clone().requires_grad_(True)
    logits = z @ w.T + b
    if many:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, y.double(), reduction="sum"
        ) / len(y)
        loss = loss + fitted.strength / 4 * w.square().sum() / 2
    else:
        loss = (
            torch.nn.functional.cross_entropy(logits, y) + fitted.strength / w.shape[0] * w.square().sum() / 2
        )
    grads = torch.autograd.grad(loss, [w, b])
    return max(float(g.abs().max()) for g in grads)


def test_many_labels_are_at_the_optimum() -> None:
    x = features(60, 6)
    y = torch.stack([x[:, 0] > -30, x[:, 3] > x[:, 3].median(), torch.arange(60) % 3 == 0], 1).float()
    fitted = fit_head(x, y, 3)
    assert slope(fitted, x, y, 1.0) < 1e-4 < slope(fitted, x, y, 1.02)


@pytest.mark.parametrize(("n", "width"), [(40, 6), (20, 50)])
def test_a_ridge_is_scikit_learns_at_its_strength(n: int, width: int) -> None:
    x = features(n, width)
    y = x[:, 0].double() * 3 + torch.randn(n, generator=torch.Generator().manual_seed(5)).double() + 100
    fitted, z = fit_ridge(x, y), standard(x)
    sk = Ridge(alpha=n * fitted.strength).fit(z, y.numpy())
    assert np.allclose(whole(fitted, x)[:, 0].numpy(), sk.predict(z), rtol=1e-4, atol=1e-3)


def test_a_head_on_vectors_is_scikit_learns_times_its_warmth() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.nn.functional.normalize(torch.randn(8, 16, generator=g), dim=-1)
    y = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])  # too few for folds: logistic regression, as it is
    fitted = fit_vector(x, y, 3)
    sk = LogisticRegression(C=10.0, tol=1e-12, max_iter=20_000).fit(x.double().numpy(), y.numpy())
    wanted = torch.from_numpy(sk.predict_log_proba(x.double().numpy()))
    assert fitted.fit == "logistic" and torch.allclose(whole(fitted, x).log_softmax(-1), wanted, atol=2e-3)


def test_held_out_losses_are_of_the_fold_that_did_not_learn_them() -> None:
    x = features(30, 4)
    y = torch.arange(30) % 2
    y_N1 = y[:, None].float()
    fold = spread(30, 0)
    fitted = fit_head(x, y_N1, 1, 0, fold)
    assert fitted.losses_N is not None
    sizes = {k: float(fitted.losses_N[torch.from_numpy(fold == k)].sum()) for k in range(3)}
    # Of noise the held-out loss is above that of saying one half, and that of the fitted head on its own rows below.
    assert sum(sizes.values()) / 30 > 0.69
    own = torch.nn.functional.binary_cross_entropy_with_logits(whole(fitted, x), y_N1.double())
    assert float(own) < sum(sizes.values()) / 30


# work that the oddness of the data makes


def test_a_head_that_cannot_fit_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Base(tiny_base())
    rows = [{"text": f"w{i}", "label": f"l{i}"} for i in range(300)]
    assert base.plan_adapt(rows, task="classify", method="head").facts["head"]["bytes"] == solve_bytes(
        300, 96, 300
    )

    def never(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr("onebase.engine.features._read", never)
    monkeypatch.setattr(fitting, "available", lambda device: 1 << 20)
    for go in (base.adapt, base.plan_adapt):
        for task, data in (
            ("classify", rows),
            ("classify", [{"text": r["text"], "labels": [r["label"]]} for r in rows]),
            (
                "tag",
                [{"text": r["text"], "spans": [{"start": 0, "end": 1, "label": r["label"]}]} for r in rows],
            ),
        ):
            with pytest.raises(UserError, match=r"outputs on .* are free"):
                go(data, task=task, method="head")
    monkeypatch.setattr(fitting, "available", lambda device: 1 << 40)
    monkeypatch.setattr(fitting, "_rate", lambda: 1.0)
    with pytest.raises(UserError, match="the limit is 2 h"):
        base.adapt(rows, task="classify", method="head")


def test_fourteen_thousand_labels_are_answered_at_once() -> None:
    """Refused or begun: either way nothing quadratic in the labels stands before it."""
    import time

    base = Base(tiny_base())
    rows = [{"text": f"w{i}", "label": f"l{i}"} for i in range(14_000)]
    start = time.perf_counter()
    with pytest.raises(UserError, match="14,000 outputs"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "available", lambda device: 1 << 30)
        base.adapt(rows, task="classify", method="head")
    assert time.perf_counter() - start < 20
