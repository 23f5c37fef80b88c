"""What the methods of `Base` give: an adapter in memory, and the class of a text or an image. N rows, L labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from onebase.artifact.record import Record
from onebase.methods.folder import AdapterParts, load_adapter, save_adapter
from onebase.methods.spans import Span

__all__ = ["THRESHOLD", "Adapter", "Label", "Plan", "Span", "labelled"]

THRESHOLD = 0.5
"""From this probability on a text has a label, where it may have many."""


@dataclass(frozen=True)
class Plan:
    """What something would take, before it is done: `facts` for programs, `text` for people."""

    facts: dict[str, Any]
    text: str


@dataclass(frozen=True)
class Label:
    """The class of a text or an image: `label` is the likeliest, `scores` the probability of each.

    labels: those that it has: `label` alone; with an adapter of many labels, each of which has a probability of its own, all from 0.5 on
    (perhaps none), the likeliest first.
    """

    label: str
    scores: dict[str, float]
    labels: tuple[str, ...] = ()


@dataclass
class Adapter:
    """What `Base.adapt` gives: an adapter in memory. `save` writes only the adapter, never the base."""

    parts: AdapterParts = field(repr=False)

    @property
    def method(self) -> str:
        return self.parts.config.method

    @property
    def task(self) -> str:
        return self.parts.config.task

    @property
    def fingerprint(self) -> str:
        """Content hash of the adapter's tensors and config."""
        return self.parts.fingerprint

    @property
    def record(self) -> Record:
        return self.parts.record

    @property
    def bytes(self) -> int:
        """Size of the adapter's tensors."""
        return sum(t.numel() * t.element_size() for t in self.parts.tensors.values())

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the adapter folder."""
        save_adapter(Path(path), self.parts, overwrite=overwrite)
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> "Adapter":
        """Read an adapter folder. Raises ArtifactError."""
        return Adapter(load_adapter(Path(path)))


def labelled(labels: Sequence[str], chances_NL: Tensor, *, many: bool = False) -> list[Label]:
    """A label for each row of probabilities [N, L]. many: each stands for itself, and they do not add up to 1."""
    out = []
    for row_L in chances_NL:
        scores = dict(zip(labels, row_L.tolist(), strict=True))
        likeliest = labels[int(row_L.argmax())]
        over = sorted((x for x in scores if scores[x] >= THRESHOLD), key=lambda x: -scores[x])
        out.append(Label(likeliest, scores, tuple(over) if many else (likeliest,)))
    return out
