"""Cutting documents into pieces and packing pieces into rows.

Best-fit decreasing: the longest piece first, each into the fullest row that still holds it. Nothing is
dropped and nothing is cut to fill a row, so every row and every piece begins with BOS; what stays free is
padding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def cut(lengths: Ints, limit: int) -> tuple[Ints, Ints, Ints]:
    """Pieces of documents of `lengths` tokens: (document, start, stop), int64 [P] each, in document order.

    The first piece holds up to `limit` tokens, the document's BOS among them; a later one `limit - 1`,
    because a BOS is put before it. Together they hold every token once.
    """
    assert limit >= 2
    more = np.maximum(0, -(-(lengths - limit) // (limit - 1)))
    document = np.repeat(np.arange(len(lengths), dtype=np.int64), more + 1)
    first = np.cumsum(more + 1) - (more + 1)
    nth = np.arange(len(document), dtype=np.int64) - np.repeat(first, more + 1)
    start = np.where(nth == 0, 0, limit + (nth - 1) * (limit - 1))
    stop = np.minimum(limit + nth * (limit - 1), lengths[document])
    return document, start, stop


def pack(sizes: Ints, capacity: int) -> tuple[Ints, int]:
    """Best-fit decreasing: (row of each piece int64 [P], number of rows). Every size is from 1 to `capacity`.

    The free rooms are the bits of one integer, so the fullest row that fits is its lowest bit at or above the
    size.
    """
    assert not len(sizes) or (sizes.min() >= 1 and sizes.max() <= capacity)
    row_of = np.empty(len(sizes), np.int64)
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by free room
    rooms = count = 0
    order = np.argsort(-sizes, kind="stable")
    chosen = []
    for size in sizes[order].tolist():
        fits = rooms >> size
        if fits:
            room = size + (fits & -fits).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, count
            count += 1
        chosen.append(row)
        if left := room - size:
            with_room[left].append(row)
            rooms |= 1 << left
    row_of[order] = chosen
    return row_of, count
