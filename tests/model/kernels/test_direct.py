"""Products with matrices as they are stored: the numbers of the dense matrix, for any shape, number of rows, parts and threads."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onebase.model.kernels import compiled
from onebase.model.kernels.storage import Int4, Int8

direct = compiled.direct()
pytestmark = pytest.mark.skipif(direct is None, reason="numba is not installed")
few = settings(max_examples=40, deadline=None)


def part(
    kind: str, seed: int, outputs: int, inputs: int
) -> tuple[tuple[Tensor, Tensor | None, Tensor | None], Tensor]:
    """A matrix as it is stored, and its numbers in fp64."""
    w = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    if kind == "fp32":
        return (w, None, None), w.double()
    if kind == "8":
        int8 = Int8(inputs, outputs)
        int8.take(w)
        return (int8.codes_OI.data, int8.scale_O.data, None), int8.rows(None, torch.float32).double()
    int4 = Int4(inputs, outputs, int(kind))
    int4.take(w)
    stored = int4.codes_OJ.data, int4.scale_OG.data, int4.low_OG.data
    return stored, int4.rows(None, torch.float32).double()


@few
@given(
    st.sampled_from(["fp32", "8", "16", "32", "64"]),
    st.integers(0, 2**20),
    st.lists(st.integers(1, 70), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(0, 9),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([1, 2]),
)
def test_products_are_those_of_the_numbers(
    kind: str, seed: int, outputs: list[int], whole: int, more: int, rows: int, biased: bool, threads: int
) -> None:
    """Within what fp32 sums of so many numbers may miss, wherever rows, outputs and inputs end."""
    inputs = 64 * whole + (more if kind in ("fp32", "8") else 0)
    made = [part(kind, seed + i, o, inputs) for i, o in enumerate(outputs)]
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed))
    bias = torch.randn(sum(outputs)) if biased else None
    group = int(kind) if kind in ("16", "32", "64") else None
    product = direct.Direct([p for p, _ in made], inputs, bias, group)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = product(x)
    finally:
        torch.set_num_threads(before)
    matrix = torch.cat([d for _, d in made])
    want = x.double() @ matrix.T + (0 if bias is None else bias.double())
    size = x.double().abs() @ matrix.abs().T
    assert found.shape == want.shape and found.dtype == torch.float32
    # A sum of n numbers in fp32 misses at most n 2^-24 of the sum of their sizes; in any order of vectors far less.
    assert bool(((found.double() - want).abs() <= 16 * 2**-24 * size + 1e-6).all())


@few
@given(st.sampled_from(["fp32", "8", "64"]), st.integers(0, 2**20), st.integers(2, 7))
def test_a_row_is_the_same_beside_any_other(kind: str, seed: int, rows: int) -> None:
    """Beside a neighbour that is a million times larger, or no number at all."""
    stored, matrix = part(kind, seed, 37, 128)
    product = direct.Direct([stored], 128, None, 64 if kind == "64" else None)
    x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(seed))
    alone = product(x[:1])
    x[1:] = 1e6
    x[-1] = float("nan")
    both = product(x)
    torch.testing.assert_close(both[:1], alone, rtol=1e-5, atol=1e-5 * float(matrix.abs().sum(1).max()))
    assert bool(both[-1].isnan().all())


@pytest.mark.parametrize("kind", ["8", "16", "32", "64", "128"])
@pytest.mark.parametrize("outputs", [1, 5, 64])
def test_numbers_are_those_of_torch_to_the_bit(kind: str, outputs: int) -> None:
    """So it makes no difference to anything whether the compiled loops have come."""
    stored, _ = part(kind, 3, outputs, 256)
    found = direct.numbers(*stored, 256)
    if kind == "8":
        int8 = Int8(256, outputs)
        int8.codes_OI.data, int8.scale_O.data = stored[0], stored[1]  # type: ignore[assignment]
        assert torch.equal(found, int8.rows(None, torch.float32))
        return
    int4 = Int4(256, outputs, int(kind))
    int4.codes_OJ.data, int4.scale_OG.data, int4.low_OG.data = stored  # type: ignore[assignment]
    assert torch.equal(found, int4.rows(None, torch.float32))


def test_an_input_that_lies_apart_is_read_as_it_is() -> None:
    stored, matrix = part("fp32", 0, 24, 64)
    product = direct.Direct([stored], 64, None, None)
    x = torch.randn(6, 128)[::2, ::2]
    torch.testing.assert_close(product(x), x @ matrix.float().T, rtol=1e-5, atol=1e-4)


PLAIN = """
import torch
from onebase.model.kernels import compiled, onednn
from onebase.model.proj import Proj
from onebase.model.config import StorageConfig
torch.manual_seed(0)
proj = Proj("s", 64, 16)
torch.nn.init.normal_(proj.weight)
proj.keep_in(StorageConfig(bits=8), take=True)
proj.requires_grad_(False)
x = torch.ones(1, 64)
with torch.no_grad():
    print(compiled.direct() is None, onednn.has_onednn(), round(float(proj(x).sum()), 3))
"""


def test_plain_products_can_be_asked_for() -> None:
    """To compare with: `ONEBASE_KERNELS=plain` gives torch's own operations, and the same numbers."""
    said = [
        subprocess.run(
            [sys.executable, "-c", PLAIN],
            env=os.environ | {"ONEBASE_KERNELS": how},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for how in ("plain", "")
    ]
    assert said[0][:2] == ["True", "False"] and said[1][0] == "False"
    assert said[0][2] == said[1][2]
