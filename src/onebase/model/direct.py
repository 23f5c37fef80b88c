"""Products with matrices as they are stored, in fp32 on a CPU: no copy of a weight is made. M rows, O outputs, I inputs, g inputs a group.

The loops are in `dots` (numba, extra `fast`). For a row or a few the weights are what is read: 8 bits are a quarter of fp32, 4 bits an eighth.
"""

import threading
from collections.abc import Callable, Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from onebase.model import dots

Product = Callable[[Tensor], Tensor]
Part = tuple[Tensor, Tensor | None, Tensor | None]
"""A matrix as it is stored: its numbers fp32 [O, I], or codes of 8 bits and scales, or codes of 4 bits with scales and lowest values."""


def product(parts: Sequence[Part], inputs: int, bias: Tensor | None, group: int | None) -> Product:
    """x fp32 [M, I] to x W^T (+ b) fp32 [M, O], the parts side by side. All parts are of one kind; group: of 4 bits, else None."""
    kept = [tuple(None if t is None else t.detach() for t in part) for part in parts]
    first = kept[0][0]
    assert first is not None
    whole, few = first.dtype == torch.float32, group or 0
    blocks, outputs = _blocks(kept)
    at, n = blocks.ctypes.data, len(blocks)
    held = (kept, blocks)  # addresses hold as long as these do

    def run(x_MI: Tensor, held: object = held) -> Tensor:
        x = x_MI.contiguous()
        rows = len(x)
        out = x.new_empty(rows, outputs)
        given = at, n, x.data_ptr(), out.data_ptr(), rows, inputs, outputs
        here = threads()
        if whole:
            dots.numbers(*given)
            return out if bias is None else out.add_(bias)
        room = x.new_empty(here * 4 * inputs) if rows > 1 else x
        if not few:
            dots.eight(*given, room.data_ptr())
        else:
            parted = x.new_empty(rows * inputs + inputs // few)
            dots.nibbles(*given, room.data_ptr(), parted.data_ptr(), few)
        return out if bias is None else out.add_(bias)

    return run


def _blocks(parts: Sequence[Sequence[Tensor | None]]) -> tuple[np.ndarray, int]:
    """The work cut up: int64 [n, FIELDS] as `dots` reads it, and how many outputs there are."""
    rows, column = [], 0
    for part in parts:
        count = len(part[0]) if part[0] is not None else 0
        assert all(t is None or t.is_contiguous() for t in part)
        for start in range(0, count, dots.BLOCK):
            places = [0 if t is None else t.data_ptr() + start * t.stride(0) * t.element_size() for t in part]
            rows.append([*places, column + start, min(dots.BLOCK, count - start)])
        column += count
    return np.array(rows, np.int64), column


def numbers(codes: Tensor, scales: Tensor, lows: Tensor | None, inputs: int) -> Tensor:
    """A matrix of few bits as fp32 [O, I]."""
    out = torch.empty(len(codes), inputs)
    kept = [t.contiguous() for t in (codes, scales)]
    at = [t.data_ptr() for t in kept]
    here = threads()
    if lows is None:
        dots.wide8(*at, out.data_ptr(), len(codes), inputs)
        return out
    least = lows.contiguous()
    room = torch.empty(here, inputs)
    group = inputs // scales.shape[1]
    dots.wide4(*at, least.data_ptr(), out.data_ptr(), len(codes), inputs, group, room.data_ptr())
    return out


def threads() -> int:
    """As many threads for our loops as torch has for its own; how many."""
    wanted = torch.get_num_threads()
    if getattr(_asked, "torch", None) != wanted:
        numba.set_num_threads(min(wanted, numba.config.NUMBA_NUM_THREADS))
        _asked.torch = wanted
    return min(wanted, numba.config.NUMBA_NUM_THREADS)


_asked = threading.local()
"""numba's number of threads is that of each thread of Python, and slow to ask for."""
