"""Attention masks as values: a mask is a tree of predicates over columns of facts about tokens.

A predicate depends on positions, documents and blocks, never on indices. So a mask means the same for a single row, in a batch, in
a packed row and with a cache (which stores the columns of its keys beside K). Masks compare by ==, hash, and combine by `&` and `|`;
`kernels.attention.lower` turns one into the input of a kernel, once per distinct mask and forward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cols:
    """Facts about the tokens of rows, all [B, T]; int but for `noisy`.

    pos: position inside the token's document, 0, 1, 2 ... ; doc: the document, -1 for padding (never visible, sees nothing);
    block: tokens of one block (>= 0) may see each other under `SameBlock`; None or -1: in no block.
    kind: the feed-forward group of a token, a number of `TrunkConfig.groups`; None: all are of the first.
    noisy: bool, the token is a noised patch, which `Clean` hides; None: none is.
    single: set if every row is known to be one document without padding at positions 0 .. T-1.
    """

    pos: Tensor
    doc: Tensor
    block: Tensor | None = None
    kind: Tensor | None = None
    noisy: Tensor | None = None
    single: bool = field(default=False, kw_only=True)

    @staticmethod
    def simple(batch: int, length: int, device: torch.device | str = "cpu", start: int = 0) -> "Cols":
        """`batch` rows of one document each, positions start .. start + length - 1."""
        pos = torch.arange(start, start + length, device=device).expand(batch, length)
        return Cols(pos, torch.zeros_like(pos), single=start == 0)

    @staticmethod
    def padded(lengths: Tensor, length: int) -> "Cols":
        """Rows of one document each, padded on the right. lengths: int [B], at most `length`."""
        pos = torch.arange(length, device=lengths.device).expand(lengths.shape[0], length)
        doc = torch.where(pos < lengths[:, None], 0, -1)
        return Cols(pos, doc)

    @staticmethod
    def cat(parts: "Sequence[Cols]") -> "Cols":
        """Concatenate along T."""
        if len(parts) == 1:
            return parts[0]

        def joined(name: str, fill: int | bool) -> Tensor | None:
            found = [getattr(part, name) for part in parts]
            if all(column is None for column in found):
                return None
            dtype = torch.bool if isinstance(fill, bool) else torch.long
            full = [
                torch.full_like(part.pos, fill, dtype=dtype) if column is None else column
                for part, column in zip(parts, found, strict=True)
            ]
            return torch.cat(full, dim=1)

        more: Any = {name: joined(name, fill) for name, fill in OPTIONAL.items()}
        pos, doc = (torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("pos", "doc"))
        return Cols(pos, doc, **more)

    def each(self, change: Callable[[Tensor], Tensor], single: bool = False) -> "Cols":
        """Every column, changed alike."""
        found = {name: getattr(self, name) for name in OPTIONAL}
        more: Any = {name: None if column is None else change(column) for name, column in found.items()}
        return Cols(change(self.pos), change(self.doc), **more, single=single)

    def cut(self, start: int, stop: int) -> "Cols":
        """Columns start .. stop - 1 of every row."""
        return self.each(lambda c: c[:, start:stop], self.single and start == 0)

    def rows(self, index: Tensor | slice) -> "Cols":
        """The rows selected by `index` (a slice, or int/bool [n])."""
        return self.each(lambda c: c[index], self.single)

    def to(self, device: torch.device | str) -> "Cols":
        return self.each(lambda c: c.to(device), self.single)

    def padded_to(self, length: int) -> "Cols":
        """Padding behind every row, up to `length`."""
        more = length - self.shape[1]
        if not more:
            return self
        longer = self.each(lambda c: F.pad(c, (0, more)))
        return replace(
            longer,
            doc=F.pad(self.doc, (0, more), value=-1),
            block=None if self.block is None else F.pad(self.block, (0, more), value=-1),
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.pos.shape[0], self.pos.shape[1]


OPTIONAL: dict[str, int | bool] = {"block": -1, "kind": 0, "noisy": False}
"""Columns that may be missing, and what each of their tokens then has."""


class Mask:
    """Base class of masks. A mask is a frozen dataclass; subclasses implement `sees`, `ahead` and `reach`."""

    def sees(self, q: Cols, k: Cols) -> Tensor:
        """Whether q sees k, elementwise over columns of any shapes that broadcast. Ignores padding."""
        raise NotImplementedError

    def ahead(self) -> bool:
        """May a query ever see a key of a later position of its document? True unless a mask rules it out."""
        return True

    def reach(self) -> int | None:
        """The largest distance in positions at which a key is visible; None: no limit."""
        return None

    def apart(self) -> bool:
        """Whether it is certain that no document sees another."""
        return False

    def alone(self) -> "Mask":
        """The simplest equivalent mask for rows of one document without padding."""
        return self

    def dense(self, q: Cols, k: Cols) -> Tensor:
        """bool [B, 1, Q, K]: q [B, Q] sees k [B, K]. Padding keys are never visible and padding queries see nothing."""
        qc, kc = q.each(lambda c: c.unsqueeze(2)), k.each(lambda c: c.unsqueeze(1))
        seen = self.sees(qc, kc) & (kc.doc >= 0) & (qc.doc >= 0)
        return seen.unsqueeze(1)

    def __and__(self, other: "Mask") -> "Mask":
        return And(self, other)

    def __or__(self, other: "Mask") -> "Mask":
        return Or(self, other)


@dataclass(frozen=True)
class Everything(Mask):
    """Bidirectional: every key."""

    def sees(self, q: Cols, k: Cols) -> Tensor:
        # Always true, in the broadcast shape.
        return q.pos == q.pos + torch.zeros_like(k.pos)


@dataclass(frozen=True)
class Causal(Mask):
    """Keys of the same or an earlier position."""

    def sees(self, q: Cols, k: Cols) -> Tensor:
        return k.pos <= q.pos

    def ahead(self) -> bool:
        return False


@dataclass(frozen=True)
class Window(Mask):
    """Keys fewer than `size` positions away, on both sides; `Causal() & Window(n)` sees n tokens, itself included."""

    size: int

    def __post_init__(self) -> None:
        assert self.size >= 1

    def sees(self, q: Cols, k: Cols) -> Tensor:
        return (q.pos - k.pos).abs() < self.size

    def ahead(self) -> bool:
        return self.size > 1

    def reach(self) -> int | None:
        return self.size - 1


@dataclass(frozen=True)
class SameDocument(Mask):
    """Keys of the query's document: separates the documents of a packed row."""

    def sees(self, q: Cols, k: Cols) -> Tensor:
        return q.doc == k.doc

    def apart(self) -> bool:
        return True

    def alone(self) -> Mask:
        return Everything()


@dataclass(frozen=True)
class SameBlock(Mask):
    """Keys of the query's block (an image, a prefix), earlier or later. Tokens in no block see nothing."""

    def sees(self, q: Cols, k: Cols) -> Tensor:
        if q.block is None or k.block is None:
            return torch.zeros_like(q.pos == k.pos)
        return (q.block >= 0) & (q.block == k.block)


@dataclass(frozen=True)
class Unblocked(Mask):
    """Keys in no block: those that all blocks of a document share."""

    def sees(self, q: Cols, k: Cols) -> Tensor:
        free = torch.ones_like(q.pos == k.pos)
        return free if k.block is None else free & (k.block < 0)


@dataclass(frozen=True)
class Clean(Mask):
    """Keys that are not noised."""

    def sees(self, q: Cols, k: Cols) -> Tensor:
        every = torch.ones_like(q.pos == k.pos)
        return every if k.noisy is None else every & ~k.noisy


@dataclass(frozen=True)
class And(Mask):
    """Keys visible under both masks."""

    left: Mask
    right: Mask

    def sees(self, q: Cols, k: Cols) -> Tensor:
        return self.left.sees(q, k) & self.right.sees(q, k)

    def ahead(self) -> bool:
        return self.left.ahead() and self.right.ahead()

    def reach(self) -> int | None:
        ends = [end for end in (self.left.reach(), self.right.reach()) if end is not None]
        return min(ends) if ends else None

    def apart(self) -> bool:
        return self.left.apart() or self.right.apart()

    def alone(self) -> Mask:
        left, right = self.left.alone(), self.right.alone()
        if left == Everything() or left == right:
            return right
        return left if right == Everything() else And(left, right)


@dataclass(frozen=True)
class Or(Mask):
    """Keys visible under either mask."""

    left: Mask
    right: Mask

    def sees(self, q: Cols, k: Cols) -> Tensor:
        return self.left.sees(q, k) | self.right.sees(q, k)

    def ahead(self) -> bool:
        return self.left.ahead() or self.right.ahead()

    def reach(self) -> int | None:
        left, right = self.left.reach(), self.right.reach()
        return None if left is None or right is None else max(left, right)

    def apart(self) -> bool:
        return self.left.apart() and self.right.apart()

    def alone(self) -> Mask:
        left, right = self.left.alone(), self.right.alone()
        if Everything() in (left, right):
            return Everything()
        return left if left == right else Or(left, right)


def prefix() -> Mask:
    """Causal, and bidirectional within a block (the prefix)."""
    return Causal() | SameBlock()


def branches() -> Mask:
    """Causal within a document with a shared beginning and several continuations: each block sees the keys in no block, and its own."""
    return Causal() & SameDocument() & (Unblocked() | SameBlock())


def mixed() -> Mask:
    """Text causal, each block of media whole in itself, and a noised block seen by itself alone (BAGEL, 2505.14683)."""
    return SameDocument() & (Causal() | SameBlock()) & (Clean() | SameBlock())
