"""The class of a text or an image. N rows, L labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

THRESHOLD = 0.5
"""Probability from which on a text has a label (multilabel)."""


@dataclass(frozen=True)
class Label:
    """The class of a text or an image. label: the most likely. scores: probability of each label.

    labels: the predicted labels: only `label`; with a multilabel adapter, whose probabilities are independent, all from 0.5 on (possibly none),
    the most likely first.
    """

    label: str
    scores: dict[str, float]
    labels: tuple[str, ...] = ()


def labelled(labels: Sequence[str], p_NL: Tensor, *, multilabel: bool = False) -> list[Label]:
    """A label for each row of probabilities [N, L]. multilabel: they are independent, and do not add up to 1."""
    out = []
    for row_L in p_NL:
        scores = dict(zip(labels, row_L.tolist(), strict=True))
        likeliest = labels[int(row_L.argmax())]
        over = sorted((x for x in scores if scores[x] >= THRESHOLD), key=lambda x: -scores[x])
        out.append(Label(likeliest, scores, tuple(over) if multilabel else (likeliest,)))
    return out
