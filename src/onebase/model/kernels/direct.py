"""Products with matrices as they are stored, in fp32 on a CPU, without copying weights. M rows, O outputs, I inputs, g inputs per group.

The loops are in `dots` (numba, extra `fast`). With few rows, reading the weights dominates: 8 bits are a quarter of fp32, 4 bits an eighth.
"""

import threading
from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from onebase.model.kernels import dots

Part = tuple[Tensor, Tensor | None, Tensor | None]
"""A matrix as it is stored: fp32 values [O, I], or 8-bit codes and scales, or 4-bit codes with scales and minimums."""


class Direct:
    """x fp32 [M, I] to x W^T (+ b) fp32 [M, O], the parts concatenated. All parts are of one kind; group: for 4 bits, else None."""

    def __init__(
        self, parts: Sequence[Part], inputs: int, bias: Tensor | None = None, group: int | None = None
    ) -> None:
        kept = [tuple(None if t is None else t.detach() for t in part) for part in parts]
        first = kept[0][0]
        assert first is not None
        self.bits = 32 if first.dtype == torch.float32 else 4 if group else 8
        self.inputs, self.group = inputs, group or 0
        blocks, self.outputs = _blocks(kept)
        add = None if bias is None else bias.detach().contiguous()
        self.fields = np.array(
            [
                self.bits,
                blocks.ctypes.data,
                len(blocks),
                inputs,
                self.outputs,
                self.group,
                0 if add is None else add.data_ptr(),
            ],
            np.int64,
        )
        """As `dots.times` reads them."""
        assert len(self.fields) == dots.PRODUCT
        self._at = self.fields.ctypes.data
        self._held = kept, blocks, add  # keeps the addresses valid

    def __call__(self, x_MI: Tensor) -> Tensor:
        x = x_MI.contiguous()
        rows = len(x)
        out = x.new_empty(rows, self.outputs)
        free = x.new_empty(self.room(rows))
        dots.times(self._at, x.data_ptr(), out.data_ptr(), rows, free.data_ptr())
        return out

    def room(self, rows: int) -> int:
        """fp32 workspace of a product with this many rows."""
        return dots.room(self.bits, self.inputs, self.group, rows, threads())


def _blocks(parts: Sequence[Sequence[Tensor | None]]) -> tuple[np.ndarray, int]:
    """The work split into blocks: int64 [n, FIELDS] as `dots` reads it, and the number of outputs."""
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
    """A quantized matrix as fp32 [O, I]."""
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
    """Set numba's number of threads to torch's; returns it."""
    wanted = torch.get_num_threads()
    if getattr(_last, "torch", None) != wanted:
        numba.set_num_threads(min(wanted, numba.config.NUMBA_NUM_THREADS))
        _last.torch = wanted
    return min(wanted, numba.config.NUMBA_NUM_THREADS)


_last = threading.local()
"""numba's number of threads is per Python thread, and slow to query."""
