"""Defines an objective: it turns rows of tokens into a batch, and a batch into named losses. B rows, T time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.base.patches import Patches
from onebase.data.order import Row as Row
from onebase.model.mask import Cols, Mask

Losses = dict[str, tuple[Tensor, int]]

IGNORE = -100
"""Target of a position that is not supervised."""


@dataclass(frozen=True)
class TrunkInput:
    """The input of one trunk: ids [B, T], their columns, a mask (None: the trunk's own), and token types [B, T] (None: all of the first).
    text: the number of each row's text, [B], where several rows are windows of one (None: each row is a text). media: patches by codec, at the
    places that they name."""

    ids_BT: Tensor
    cols: Cols
    mask: Mask | None = None
    types_BT: Tensor | None = None
    text_B: Tensor | None = None
    media: Mapping[str, Patches] = field(default_factory=dict)

    def to(self, device: torch.device) -> "TrunkInput":
        types_BT = None if self.types_BT is None else self.types_BT.to(device, non_blocking=True)
        return TrunkInput(
            self.ids_BT.to(device, non_blocking=True),
            self.cols.to(device),
            self.mask,
            types_BT,
            None if self.text_B is None else self.text_B.to(device, non_blocking=True),
            {name: found.to(device) for name, found in self.media.items()},
        )


@dataclass(frozen=True)
class Batch:
    """Inputs by trunk, targets and supervised counts by loss name, and tokens by source."""

    inputs: dict[str, TrunkInput]
    targets: dict[str, Tensor]
    counts: dict[str, int]
    ids: tuple[str, ...] = ()
    sources: dict[str, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens read, without padding."""
        return sum(self.sources.values())

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        inputs = {k: v.to(device) for k, v in self.inputs.items()}
        targets = {k: v.to(device, non_blocking=True) for k, v in self.targets.items()}
        return Batch(inputs, targets, self.counts, self.ids, self.sources)


class Objective(Protocol):
    """A training objective. Losses are (sum, count): the loop divides by the count of the global batch."""

    @property
    def reserve(self) -> int:
        """Tokens that `batch` may add to a piece; packing reserves space for them."""
        ...

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        """Build a batch of packed rows; `first` is the global number of the first row, the only source of randomness."""
        ...

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        """Sum and count of each loss. The sum carries the gradient."""
        ...


def takes_whole_step(objective: Objective) -> bool:
    """Whether the loss is not a sum over rows, so that all rows of a step must be one batch. An objective declares this by an attribute
    `whole_step`, and saves memory itself (`objective.contrastive`)."""
    return bool(getattr(objective, "whole_step", False))


def gathers_rows(objective: Objective) -> bool:
    """Whether an objective that takes whole steps compares the rows of all processes by itself: its attribute `gathers`."""
    return bool(getattr(objective, "gathers", False))


def count_sources(rows: Sequence[Row]) -> dict[str, int]:
    """Tokens by source name."""
    tokens: dict[str, int] = {}
    for row in rows:
        for piece in row:
            tokens[piece.source] = tokens.get(piece.source, 0) + len(piece.ids)
    return tokens
