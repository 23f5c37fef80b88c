"""Packed rows: documents cut into pieces, pieces packed into rows, rows in an order that is a function of the step.

Packing is best-fit decreasing: the longest piece first, each into the fullest row that it fits into. Nothing is dropped or cut to
fill a row, so every row and every piece begins with BOS; the rest of a row is padding.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from onebase.artifact.files import canonical_json, sha256_bytes
from onebase.data.order import span, split, steps_of
from onebase.data.tokens import TokenSet
from onebase.draws import permutation
from onebase.errors import ConfigError, DataError
from onebase.modality.text import Tokens

T = TypeVar("T")
Ints = NDArray[np.int64]

# Pieces are packed one window at a time. Large enough that the last, half-filled rows of a window do not matter.
WINDOW_PIECES = 8192
WINDOW_ROWS = 512


def cut(lengths: Ints, limit: int) -> tuple[Ints, Ints, Ints]:
    """Pieces of documents of `lengths` tokens: (document, start, stop), int64 [P] each, in document order.

    The first piece has up to `limit` tokens, including the document's BOS; later ones have `limit - 1`, because a BOS is put before
    them. Together they contain every token once.
    """
    assert limit >= 2
    more = np.maximum(0, -(-(lengths - limit) // (limit - 1)))
    document = np.repeat(np.arange(len(lengths), dtype=np.int64), more + 1)
    first = np.cumsum(more + 1) - (more + 1)
    nth = np.arange(len(document), dtype=np.int64) - np.repeat(first, more + 1)
    start = np.where(nth == 0, 0, limit + (nth - 1) * (limit - 1))
    stop = np.minimum(limit + nth * (limit - 1), lengths[document])
    return document, start, stop


def cut_around(length: int, limit: int, groups: Sequence[tuple[int, int]]) -> list[int] | None:
    """Where the pieces of one document begin, as `cut` counts, when no token of a group (first, last exclusive) may be parted from the others. None
    where a group does not fit in a piece."""
    begins, at = [0], 0
    while length - at > (room := limit - (at > 0)):
        stop = at + room
        stop = min((a for a, b in groups if a < stop < b), default=stop)
        if stop <= at:
            return None
        begins.append(at := stop)
    return begins


def pack(sizes: Ints, capacity: int) -> tuple[Ints, int]:
    """Best-fit decreasing: (row of each piece int64 [P], number of rows). Every size is from 1 to `capacity`.

    Bit n of one integer is set when some row has n tokens free, so the fullest row that fits is the lowest bit at or above the size.
    """
    assert not len(sizes) or (sizes.min() >= 1 and sizes.max() <= capacity)
    row_of = np.empty(len(sizes), np.int64)
    rows_by_free: list[list[int]] = [[] for _ in range(capacity + 1)]
    free_bits = count = 0
    order = np.argsort(-sizes, kind="stable")
    chosen = []
    for size in sizes[order].tolist():
        fits = free_bits >> size
        if fits:
            free = size + (fits & -fits).bit_length() - 1
            row = rows_by_free[free].pop()
            if not rows_by_free[free]:
                free_bits ^= 1 << free
        else:
            free, row = capacity, count
            count += 1
        chosen.append(row)
        if left := free - size:
            rows_by_free[left].append(row)
            free_bits |= 1 << left
    row_of[order] = chosen
    return row_of, count


class RowPlan:
    """Rows of at most `length` tokens (padding not included), `batch_size` of them per step.

    Each epoch contains every token once, or as often as `repeat` says: its pieces are permuted and packed window by window, and the rows of a window are shuffled. A
    step may span two epochs. reserve: tokens left free per piece, for tokens that an objective adds. long: cut a document that does not
    fit into pieces (pretraining), refuse it (labelled samples), or read only its beginning (`head`). packed: false for rows of one document each.
    epochs: number of epochs (None: no end); the last step may be shorter. repeat: how often an epoch contains the documents of a source, by its name
    (once where it is not named).

    Rows are packed when needed: `rows(step)` first packs the steps before it, once, at about 0.2 s per 100,000 pieces. Raises ConfigError
    for impossible sizes, DataError for a sample that is too long when `long="refuse"`.
    """

    def __init__(
        self,
        tokenset: TokenSet,
        length: int,
        batch_size: int,
        seed: int = 0,
        *,
        reserve: int = 0,
        long: Literal["cut", "refuse", "head"] = "cut",
        packed: bool = True,
        epochs: int | None = None,
        repeat: Mapping[str, int] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}", "give at least 1")
        if reserve < 0 or length - reserve < 2:
            raise ConfigError(
                f"a row of {length} tokens with {reserve} reserved has no space for text", "raise the length"
            )
        self.tokenset, self.length, self.batch_size = tokenset, length, batch_size
        self.seed, self.reserve, self.epochs, self.packed, self.long = seed, reserve, epochs, packed, long
        lengths = tokenset.lengths
        if long == "head":
            lengths = np.minimum(lengths, length - reserve)
        if long == "refuse" and (over := np.flatnonzero(lengths > length - reserve)).size:
            _refuse(tokenset, over, length - reserve)
        self._repeat = {name: times for name, times in (repeat or {}).items() if times != 1}
        self._document, self._start, self._stop = _cut_all(tokenset, lengths, length - reserve)
        self._sizes: Ints = self._stop - self._start + (self._start > 0) + reserve
        times = _times(tokenset, self._repeat)[self._document]
        self._every: Ints = np.repeat(np.arange(len(times)), times)
        pieces = len(self._every)
        window = max(WINDOW_PIECES, int(np.ceil(WINDOW_ROWS * length / self._sizes[self._every].mean())))
        windows = max(1, pieces // window)  # evenly, so that no small window is left over
        self._bounds = [pieces * i // windows for i in range(windows + 1)]
        self._starts = [0]  # rows before window n, counted over all epochs; grows as windows are packed
        self._orders: OrderedDict[int, Ints] = OrderedDict()
        self._packed: OrderedDict[int, list[Ints]] = OrderedDict()

    @property
    def digest(self) -> str:
        """SHA-256 of everything the order depends on: equal digests give equal rows at every step."""
        parts: list[object] = [
            self.tokenset.fingerprint,
            self.length,
            self.batch_size,
            self.seed,
            self.reserve,
        ]
        parts += [] if self.packed else ["a row each"]
        parts += ["head"] if self.long == "head" else []
        parts += [self._repeat] if self._repeat else []
        return sha256_bytes(canonical_json(parts).encode())

    @property
    def pieces(self) -> int:
        """Pieces per epoch."""
        return len(self._every)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens in the rows of one epoch, including the BOS of each continuation."""
        return int(self._sizes[self._every].sum()) - self.reserve * self.pieces

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the first epoch; later epochs may differ by a few, because they are packed again."""
        return self.epoch_rows(0)

    def epoch_rows(self, epoch: int) -> int:
        """Rows of one epoch, exactly (packs up to its end)."""
        return self._epoch_start(epoch + 1) - self._epoch_start(epoch)

    @property
    def total(self) -> int | None:
        """Rows of all epochs, exactly (packs them all); None if there is no end."""
        return None if self.epochs is None else self._epoch_start(self.epochs)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return steps_of(self.total, self.batch_size)

    def waste(self, epoch: int = 0) -> float:
        """Share of an epoch's row space that is neither token nor reserve."""
        return 1 - int(self._sizes[self._every].sum()) / (self.epoch_rows(epoch) * self.length)

    def epoch(self, step: int) -> int:
        """The epoch of a step's first row."""
        return self._locate(self._first(step))[0] // (len(self._bounds) - 1)

    def rows(self, step: int, rank: int = 0, world: int = 1) -> list[list[Tokens]]:
        """The rows of a step, or one rank's share; the shares of all ranks, in order, are the whole batch."""
        self._first(step)  # refuses a step below 0
        return [self._row(i) for i in split(span(step, self.batch_size, self.total), rank, world)]

    def read(self, steps: int) -> Iterator[tuple[int, list[Ints]]]:
        """Pieces read in the first `steps` steps, window by window: the number of the window's first row, and the pieces of each of its rows."""
        rows, window = steps * self.batch_size, 0
        while (first := self._count(window)) < rows:
            yield first, self._window(window)[: rows - first]
            window += 1

    @property
    def documents(self) -> Ints:
        """The document of each piece, int64 [P], ascending."""
        return self._document

    @property
    def piece_tokens(self) -> Ints:
        """Tokens of the document in each piece, int64 [P], without the BOS that a continuation gets."""
        return self._stop - self._start

    def _first(self, step: int) -> int:
        if step < 0:
            raise ConfigError(f"step is {step}", "count steps from 0")
        return step * self.batch_size

    def _row(self, number: int) -> list[Tokens]:
        window, inside = self._locate(number)
        return [self._piece(int(p)) for p in self._window(window)[inside]]

    def _piece(self, p: int) -> Tokens:
        return self.tokenset.part(int(self._document[p]), int(self._start[p]), int(self._stop[p]))

    def _epoch_start(self, epoch: int) -> int:
        return self._count(epoch * (len(self._bounds) - 1))

    def _locate(self, number: int) -> tuple[int, int]:
        """(window, row in it) of a row counted from the start of training."""
        while self._starts[-1] <= number:
            self._count(len(self._starts))
        window = bisect.bisect_right(self._starts, number) - 1
        return window, number - self._starts[window]

    def _count(self, window: int) -> int:
        while len(self._starts) <= window:
            self._starts.append(self._starts[-1] + len(self._window(len(self._starts) - 1)))
        return self._starts[window]

    def _window(self, window: int) -> list[Ints]:
        """Rows of a window as arrays of piece numbers. Windows are counted over all epochs."""
        if (found := self._packed.get(window)) is not None:
            return found
        epoch, nth = divmod(window, len(self._bounds) - 1)
        pieces = self._order(epoch)[self._bounds[nth] : self._bounds[nth + 1]]
        row_of, count = pack(self._sizes[pieces], self.length) if self.packed else _single(len(pieces))
        by_row = np.argsort(row_of, kind="stable")
        rows = np.split(pieces[by_row], np.cumsum(np.bincount(row_of, minlength=count))[:-1])
        shuffled = [rows[i] for i in self._permutation(f"rows:{epoch}:{nth}", count)]
        return _keep(self._packed, window, shuffled)

    def _order(self, epoch: int) -> Ints:
        if (found := self._orders.get(epoch)) is not None:
            return found
        order = self._every[self._permutation(f"pieces:{epoch}", self.pieces)]
        return _keep(self._orders, epoch, order)

    def _permutation(self, what: str, count: int) -> Ints:
        return permutation(f"{self.seed}:{self.tokenset.fingerprint}", what, count)


def _single(pieces: int) -> tuple[Ints, int]:
    """As `pack`, with a row for each piece."""
    return np.arange(pieces, dtype=np.int64), pieces


def _keep(cache: OrderedDict[int, T], key: int, value: T) -> T:
    cache[key] = value
    while len(cache) > 2:  # a step usually spans at most two windows or epochs
        cache.popitem(last=False)
    return value


def _cut_all(tokenset: TokenSet, lengths: Ints, limit: int) -> tuple[Ints, Ints, Ints]:
    """`cut`, and around the media of those documents that have some."""
    document, start, stop = cut(lengths, limit)
    table = tokenset.media
    long = [] if table is None else [int(d) for d in table.documents if lengths[d] > limit]
    if table is None or not long:
        return document, start, stop
    first = np.searchsorted(document, [long, [d + 1 for d in long]])
    parts: list[tuple[Ints, Ints, Ints]] = []
    done = 0
    for d, a, b in zip(long, *first, strict=True):
        if (begins := cut_around(int(lengths[d]), limit, table.groups(d))) is None:
            named, largest = max(
                ((n, m) for n in long for m in table.of(n)), key=lambda each: len(each[1]) + each[1].opening
            )
            raise DataError(
                f"document {tokenset.name(named)} has an {largest.content.shown} of {len(largest):,} patches, a row has {limit:,} tokens",
                f"raise train.sequence_length to {len(largest) + largest.opening + 3:,} or more, or lower `limit` of the modality",
            )
        parts.append((document[done:a], start[done:a], stop[done:a]))
        of = np.asarray(begins, np.int64)
        parts.append((np.full(len(of), d, np.int64), of, np.append(of[1:], lengths[d])))
        done = b
    parts.append((document[done:], start[done:], stop[done:]))
    document, start, stop = (np.concatenate(each) for each in zip(*parts, strict=True))
    return document, start, stop


def _times(tokenset: TokenSet, repeat: Mapping[str, int]) -> Ints:
    """How often an epoch contains each document. Raises ConfigError for a source that is not there."""
    if unknown := sorted(repeat.keys() - set(tokenset.sources)):
        raise ConfigError(
            f"data.repeat names the source {unknown[0]!r}, which the data do not have",
            f"sources: {', '.join(tokenset.sources)}",
        )
    times = np.array([repeat.get(name, 1) for name in tokenset.sources], np.int64)
    return times[tokenset.source_numbers]


def _refuse(tokenset: TokenSet, over: NDArray[np.intp], limit: int) -> None:
    i = int(over[0])
    name = tokenset.name(i) or f"number {i + 1}"
    raise DataError(
        f"sample {name} has {tokenset.lengths[i]} tokens, the limit of a row is {limit}; "
        f"{over.size} of {len(tokenset)} samples are too long",
        "raise the context length, or shorten or drop these samples",
    )
