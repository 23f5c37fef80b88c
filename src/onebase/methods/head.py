"""Method head: a linear head on hidden states (of a text, or of each token), fitted exactly. N examples, P features, C outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from onebase.base.head import Head, Pooling, Read
from onebase.base.head import HeadConfig as HeadConfig  # where plug-ins look for it
from onebase.base.masks import MaskHead
from onebase.base.model import BaseModel
from onebase.base.pairs import PairHead
from onebase.errors import ConfigError
from onebase.methods.logistic import cross_validated, foldable, solve, spread, stratified
from onebase.methods.method import Method, MethodPart
from onebase.objective.pooled import narrowed

STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""L2 strengths tried by cross-validation on standardised features, from strong to weak; each fit starts from the previous one."""

Chosen = Read | Literal["auto"]
"""A pooling, or "auto": the best candidate under cross-validation among CANDIDATES and the vector of an embedding base."""

CANDIDATES: tuple[Pooling, ...] = ("both", "all")
"""A channel's maximum shows whether a word occurs at all, which helps where words decide the label; elsewhere it is noise."""


@dataclass(frozen=True)
class Fitted:
    """A head, the L2 strength that cross-validation chose (a middle one if a class has under 3 examples), and each example's loss in the
    fold that held it out, in nats (None without folds). `fit`: where the solver was chosen instead, its name (vector_head); `strength` is
    then that solver's fixed prior. held_NC: each example's outputs in that fold. counts: the L2 strength of the part that reads token counts,
    if the head has one."""

    head: Head
    strength: float
    losses_N: Tensor | None
    fit: str | None = None
    held_NC: Tensor | None = None
    counts: float | None = None

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
        counts = {} if self.counts is None else {"head.counts_l2": (self.counts, origin)}
        if self.fit is None:
            return {"head.l2": (self.strength, origin), **counts}
        return {"head.fit": (self.fit, origin), "head.prior": (self.strength, "default"), **counts}


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
        strength, losses_N, held_NC = STRENGTHS[len(STRENGTHS) // 2], None, None
        if fold_N is None and foldable(y, classes):
            fold_N = spread(len(y), seed) if y.ndim == 2 else stratified(y.numpy(), seed)
        if fold_N is not None:
            strength, losses_N, held_NC = cross_validated(z, y, classes, STRENGTHS, fold_N, bias)
        w, b = solve(z, y, classes, strength, bias=bias)
        w = w @ basis_RP
    head = Head(x.shape[1], classes)
    with torch.no_grad():
        head.weight_CP.copy_(w / std)
        head.bias_C.copy_(b - (w / std) @ mean)
    head.bias_C.requires_grad_(bias)
    return Fitted(head, strength, losses_N, held_NC=held_NC)


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


KINDS: dict[str, type[Head]] = {"masks": MaskHead, "contacts": PairHead}
"""Heads with more weights than a linear layer, by what they give."""


def owns(key: str) -> bool:
    """See `tensors`."""
    return key.startswith("head.")


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """`head.weight` [C, P], `head.bias` [C], `head.counts` [V, C], and those of a hidden layer: `head.layer.weight` [P, P] and so on."""
    if name not in model.heads:
        return {}
    head = model.heads[name]
    assert isinstance(head, Head)
    return head.tensors


def put(model: BaseModel, name: str, cfg: HeadConfig, found: dict[str, Tensor]) -> None:
    """Attach a saved head. Raises ConfigError where its tensors do not fit the config, or the base's vocabulary."""
    head = KINDS.get(cfg.gives, Head).of(cfg, found)
    if (
        isinstance(head, Head)
        and head.counts_VC is not None
        and len(head.counts_VC) != model.cfg.text.vocab_size
    ):
        raise ConfigError(
            f"the head counts {len(head.counts_VC)} tokens, this base has {model.cfg.text.vocab_size}",
            "use the adapter as it was saved",
        )
    model.heads[name] = head.to(model.device)


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
