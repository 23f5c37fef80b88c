"""Method head: a linear head on hidden states (of a text, or of each token), fitted exactly. N examples, P features, C outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.head import Head, Pooling, Read
from onebase.base.head import HeadConfig as HeadConfig  # where plug-ins look for it
from onebase.base.masks import MaskHead
from onebase.base.model import BaseModel
from onebase.draws import Draws
from onebase.methods.method import Method, MethodPart
from onebase.objective.pooled import narrowed

STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""L2 strengths tried by cross-validation on standardised features, from strong to weak; each fit starts from the previous one."""

FOLDS = 3

Chosen = Read | Literal["auto"]
"""A pooling, or "auto": the best candidate under cross-validation among CANDIDATES and the vector of an embedding base."""

CANDIDATES: tuple[Pooling, ...] = ("both", "all")
"""A channel's maximum shows whether a word occurs at all, which helps where words decide the label; elsewhere it is noise."""


def _solve(
    x_NR: Tensor,
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
    d_R = (x_NR.square().mean(0) + strength).rsqrt()
    x_NR = x_NR * d_R
    v_CR = torch.zeros(classes, x_NR.shape[1], dtype=torch.float64) if start is None else start[0] / d_R
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

    def closure() -> Tensor:
        z_NC = torch.addmm(b_C, x_NR, v_CR.T)
        pull_CR = shrink_R * v_CR
        if many:
            loss = _marks_loss(z_NC, y_N) / N + 0.5 * (pull_CR * v_CR).sum()
            slope_NC = (z_NC.sigmoid() - y_N) / N
            v_CR.grad, b_C.grad = slope_NC.T @ x_NR + pull_CR, slope_NC.sum(0)
            return loss
        logp_NC = z_NC.log_softmax(-1)
        loss = -logp_NC[at_N, y_N].mean() + 0.5 * (pull_CR * v_CR).sum()
        slope_NC = logp_NC.exp()
        slope_NC[at_N, y_N] -= 1.0
        slope_NC /= N
        v_CR.grad, b_C.grad = slope_NC.T @ x_NR + pull_CR, slope_NC.sum(0)
        return loss

    opt.step(closure)  # type: ignore[no-untyped-call]
    return v_CR * d_R, b_C


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


def _held_losses(z_NC: Tensor, y_N: Tensor) -> Tensor:
    """The loss of each example [N]."""
    if y_N.ndim == 2:
        return F.binary_cross_entropy_with_logits(z_NC, y_N, reduction="none").sum(1)
    return F.cross_entropy(z_NC, y_N, reduction="none")


def spread(n: int, seed: int) -> np.ndarray:
    """A fold number for each of n examples, regardless of classes."""
    return Draws(seed, "folds").permutation(n) % FOLDS


def _foldable(y_N: Tensor, classes: int) -> bool:
    """Are there enough examples for cross-validation? Three of each class; ten texts for multilabel, whose labels are often rare."""
    if y_N.ndim == 2:
        return len(y_N) >= 10
    return int(torch.bincount(y_N, minlength=classes).min()) >= FOLDS


def _folds(y_N: np.ndarray, seed: int) -> np.ndarray:
    """A fold number for each example, classes spread evenly."""
    draws = Draws(seed, "folds")
    fold = np.zeros(len(y_N), int)
    for c in np.unique(y_N):
        members = np.flatnonzero(y_N == c)
        index = members[draws.permutation(len(members))]
        fold[index] = np.arange(len(index)) % FOLDS
    return fold


@dataclass(frozen=True)
class Fitted:
    """A head, the L2 strength that cross-validation chose (a middle one if a class has under 3 examples), and each example's loss in the
    fold that held it out, in nats (None without folds). `fit`: where the solver was chosen instead, its name (vector_head); `strength` is
    then that solver's fixed prior."""

    head: Head
    strength: float
    losses_N: Tensor | None
    fit: str | None = None

    @property
    def held_out(self) -> float | None:
        """The held-out loss in nats per example."""
        return None if self.losses_N is None else float(self.losses_N.mean())

    @property
    def facts(self) -> dict[str, tuple[object, str]]:
        """Facts for the record: values with their origins."""
        origin = (
            "default: too few labels to choose" if self.held_out is None else "chosen by cross-validation"
        )
        if self.fit is None:
            return {"head.l2": (self.strength, origin)}
        return {"head.fit": (self.fit, origin), "head.prior": (self.strength, "default")}


def fit_pooled(
    x_NP: Tensor, y_N: Tensor, classes: int, pooling: Chosen, seed: int = 0
) -> tuple[Fitted, Read]:
    """`fit_head` on features pooled as `pooled_as(pooling)`; "auto" chooses the pooling by held-out loss."""
    return best_pooled(lambda x: fit_head(x, y_N, classes, seed), x_NP, pooling)


def best_pooled(fit: Callable[[Tensor], Fitted], x_NP: Tensor, pooling: Chosen) -> tuple[Fitted, Read]:
    """`fit` on features pooled as `pooled_as(pooling)`; "auto" chooses the pooling with the lowest held-out loss."""
    if pooling != "auto":
        return fit(x_NP), pooling
    found = [(fit(narrowed(x_NP, how)), how) for how in CANDIDATES]
    return min(
        found, key=lambda f: 0.0 if f[0].held_out is None else f[0].held_out
    )  # without folds: the first


def pooled_as(pooling: Chosen) -> Read:
    """The pooling from which every candidate can be taken."""
    return "all" if pooling == "auto" else pooling


def fit_head(
    x_NP: Tensor,
    y_N: Tensor,
    classes: int,
    seed: int = 0,
    fold_N: np.ndarray | None = None,
    bias: bool = True,
) -> Fitted:
    """Fit a head by L2-penalised logistic regression, with the strength chosen by cross-validation. y: class numbers [N], or marks [N, C].
    fold: the fold of each example, where correlated examples must stay together.

    Without a bias features are only divided by their RMS, and the head's bias stays 0 (without a gradient). Gradients are enabled whatever
    the caller's mode is. Features are standardised for the fit; the standardisation is folded into the head, which reads raw features.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x_NP.detach().double().cpu().clone()
        y = y_N.double().cpu().clone() if y_N.ndim == 2 else y_N.cpu().clone()
        mean, std, z_NP = standardised(x) if bias else sized(x)
        # The penalised solution is in the span of the examples: solve there, in at most N dimensions instead of P.
        _, scale, basis_RP = torch.linalg.svd(z_NP, full_matrices=False)
        basis_RP = basis_RP[scale > 1e-9 * scale.max().clamp(min=1e-30)]
        z = z_NP @ basis_RP.T
        strength, losses_N = STRENGTHS[len(STRENGTHS) // 2], None
        if fold_N is None and _foldable(y, classes):
            fold_N = spread(len(y), seed) if y.ndim == 2 else _folds(y.numpy(), seed)
        if fold_N is not None:
            fold = torch.from_numpy(fold_N)
            losses_SN = torch.zeros(len(STRENGTHS), len(y), dtype=torch.float64)
            for k in range(FOLDS):
                start = None
                for i, s in enumerate(STRENGTHS):
                    start = _solve(z[fold != k], y[fold != k], classes, s, start, exact=False, bias=bias)
                    held = F.linear(z[fold == k], *start)
                    losses_SN[i, fold == k] = _held_losses(held, y[fold == k])
            best = int(losses_SN.mean(1).argmin())
            strength, losses_N = STRENGTHS[best], losses_SN[best]
        w, b = _solve(z, y, classes, strength, bias=bias)
        w = w @ basis_RP
    head = Head(x.shape[1], classes)
    with torch.no_grad():
        head.weight_CP.copy_(w / std)
        head.bias_C.copy_(b - (w / std) @ mean)
    head.bias_C.requires_grad_(bias)
    return Fitted(head, strength, losses_N)


def sized(x_NP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `standardised`, with means of 0: deviations are the RMS."""
    size_P = x_NP.square().mean(0).sqrt().clamp(min=1e-6)
    return torch.zeros_like(size_P), size_P, x_NP / size_P


def standardised(x_NP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(means [P], deviations [P] of at least 1e-6, standardised features [N, P]) of features in fp64. Computed relative to the first
    example: a constant feature gives exactly 0, however large it is."""
    off_NP = x_NP - x_NP[0]
    mid_P, std_P = off_NP.mean(0), off_NP.std(0, correction=0).clamp(min=1e-6)
    return x_NP[0] + mid_P, std_P, (off_NP - mid_P) / std_P


def owns(key: str) -> bool:
    """See `tensors`."""
    return key.startswith("head.")


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """`head.weight` [C, P], `head.bias` [C], and those of a hidden layer: `head.layer.weight` [P, P] and so on."""
    if name not in model.heads:
        return {}
    head = model.heads[name]
    assert isinstance(head, Head)
    return head.tensors


def put(model: BaseModel, name: str, cfg: HeadConfig, found: dict[str, Tensor]) -> None:
    """Attach a saved head. Raises ConfigError where its tensors do not fit the config."""
    kind = MaskHead if cfg.gives == "masks" else Head
    model.heads[name] = kind.of(cfg, found).to(model.device)


def remove(model: BaseModel, name: str) -> None:
    """Remove the head."""
    if name in model.heads:
        del model.heads[name]


METHOD = Method(
    name="head",
    config=HeadConfig,
    part=MethodPart(owns, tensors, put, remove),
    acts=False,
    merge="a head reads hidden states, and changes no weights of the base",
    peft="PEFT saves a head only together with a method that changes the base",
)
