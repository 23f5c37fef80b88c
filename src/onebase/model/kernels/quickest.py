"""Measures at first use (`machine`) up to how many rows our own loops are fastest on this machine. M rows, O outputs, I inputs."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.machine import choose
from onebase.model.kernels.compiled import direct

ROWS = (4, 16, 64, 256)
SHAPE = (1024, 768)
STORAGES = ("fp32", "8 bits", "4 bits")
STORED, DENSE = "as stored", "made dense"


@functools.cache
def most_rows(kind: str) -> int:
    """For matrices of `fp32`, `8 bits` or `4 bits`: the largest number of rows for which a product with the stored matrix is faster than
    dequantizing and a dense product; 0 if it is slower even for one row."""
    module = direct()
    if module is None:
        return 0
    part, group = _example(kind)
    product = module.Direct([part], SHAPE[1], None, group)

    def dense() -> Tensor:
        return part[0] if kind == "fp32" else module.numbers(*part, SHAPE[1])

    most = 0
    for rows in (1, *ROWS):
        x = torch.ones(rows, SHAPE[1])
        ways = {STORED: lambda x=x: product(x), DENSE: lambda x=x: F.linear(x, dense())}
        if choose(f"{rows} rows times a matrix of {kind}", ways).chosen != STORED:
            break
        most = rows
    return most


def _example(kind: str) -> tuple[tuple[Tensor, Tensor | None, Tensor | None], int | None]:
    outputs, inputs = SHAPE
    if kind == "fp32":
        return (torch.ones(SHAPE), None, None), None
    if kind == "8 bits":
        return (torch.ones(SHAPE, dtype=torch.int8), torch.ones(outputs), None), None
    codes = torch.ones(outputs, inputs // 2, dtype=torch.uint8)
    scales = torch.ones(outputs, inputs // 64, dtype=torch.float16)
    return (codes, scales, scales), 64
