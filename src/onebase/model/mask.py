"""Attention masks as values: a mask is a tree of predicates over columns of facts about tokens.

A predicate depends on positions, documents and blocks, never on indices. So a mask means the same for a single row, in a batch, in
a packed row and with a cache (which stores the columns of its keys beside K). Masks compare by ==, hash, and combine by `&` and `|`;
`kernels.attention.lower` turns one into the input of a kernel, once per distinct mask and forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cols:
    """Facts about the tokens of rows, all int [B, T].

    pos: position inside the token's document, 0, 1, 2 ... ; doc: the document, -1 for padding (never visible, sees nothing);
    block: tokens of one block (>= 0) may see each other under `SameBlock`; None or -1: in no block.
    single: set if every row is known to be one document without padding at positions 0 .. T-1.
    """

    pos: Tensor
    doc: Tensor
    block: Tensor | None = None
    single: bool = False

    @staticmethod
    def simple(batch: int, length: int, device: torch.device | str = "cpu", start: int = 0) -> "Cols":
        """`batch` rows of one document each, positions start .. start + length - 1."""
        pos = torch.arange(start, start + length, device=device).expand(batch, length)
        return Cols(pos, torch.zeros_like(pos), None, single=start == 0)

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
        block = None
        if any(part.block is not None for part in parts):
            block = torch.cat([part.blocks() for part in parts], dim=1)
        return Cols(
            torch.cat([part.pos for part in parts], dim=1),
            torch.cat([part.doc for part in parts], dim=1),
            block,
        )

    def cut(self, start: int, stop: int) -> "Cols":
        """Columns start .. stop - 1 of every row."""
        block = None if self.block is None else self.block[:, start:stop]
        return Cols(
            self.pos[:, start:stop], self.doc[:, start:stop], block, single=self.single and start == 0
        )

    def rows(self, index: Tensor | slice) -> "Cols":
        """The rows selected by `index` (a slice, or int/bool [n])."""
        block = None if self.block is None else self.block[index]
        return Cols(self.pos[index], self.doc[index], block, self.single)

    def to(self, device: torch.device | str) -> "Cols":
        block = None if self.block is None else self.block.to(device)
        return Cols(self.pos.to(device), self.doc.to(device), block, self.single)

    def blocks(self) -> Tensor:
        """The block column, -1 everywhere if there is none."""
        return torch.full_like(self.pos, -1) if self.block is None else self.block

    @property
    def shape(self) -> tuple[int, int]:
        return self.pos.shape[0], self.pos.shape[1]

    def _map_dim(self, dim: int) -> "Cols":
        block = None if self.block is None else self.block.unsqueeze(dim)
        return Cols(self.pos.unsqueeze(dim), self.doc.unsqueeze(dim), block)


class Mask:
    """Base class of masks. A mask is a frozen dataclass; subclasses implement `sees`, `ahead` and `reach`."""

    def sees(self, q: Cols, k: Cols) -> Tensor:
        """Whether q sees k, elementwise over columns of any shapes that broadcast. Ignores padding."""
        raise NotImplementedError

    def ahead(self) -> bool:
        """Whether a query may see a key at a later position of its document."""
        raise NotImplementedError

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
        qc, kc = q._map_dim(2), k._map_dim(1)
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

    def ahead(self) -> bool:
        return True


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

    def ahead(self) -> bool:
        return True

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

    def ahead(self) -> bool:
        return True


@dataclass(frozen=True)
class Unblocked(Mask):
    """Keys in no block: those that all blocks of a document share."""

    def sees(self, q: Cols, k: Cols) -> Tensor:
        free = torch.ones_like(q.pos == k.pos)
        return free if k.block is None else free & (k.block < 0)

    def ahead(self) -> bool:
        return True


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
