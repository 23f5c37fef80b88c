"""The class of a text or an image. N rows, L labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

THRESHOLD = 0.5
"""From this probability on a text has a label, where it may have many."""


@dataclass(frozen=True)
class Label:
    """The class of a text or an image: `label` is the likeliest, `scores` the probability of each.

    labels: those that it has: `label` alone; with an adapter of many labels, each of which has a probability of its own, all from 0.5 on
    (perhaps none), the likeliest first.
    """

    label: str
    scores: dict[str, float]
    labels: tuple[str, ...] = ()


def labelled(labels: Sequence[str], p_NL: Tensor, *, many: bool = False) -> list[Label]:
    """A label for each row of probabilities [N, L]. many: each stands for itself, and they do not add up to 1."""
    out = []
    for row_L in p_NL:
        scores = dict(zip(labels, row_L.tolist(), strict=True))
        likeliest = labels[int(row_L.argmax())]
        over = sorted((x for x in scores if scores[x] >= THRESHOLD), key=lambda x: -scores[x])
        out.append(Label(likeliest, scores, tuple(over) if many else (likeliest,)))
    return out
