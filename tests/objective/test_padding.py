"""Texts that share rows give the states and the gradient that they give alone."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onebase.base.folder import LoadedBase
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.padding import shared_rows, states
from onebase.objective.pooled import text_batch
from tests.helpers import tiny_base
from tests.methods.conformance.kinds import encoder

EQUAL = 2e-5  # of states near 1, in fp32


def texts(lengths: list[int]) -> list[Tokens]:
    drawn = np.random.default_rng(0)
    return [
        Tokens(drawn.integers(5, 60, n).astype(np.int32), np.zeros(n, np.bool_), str(i), "s")
        for i, n in enumerate(lengths)
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_every_text_has_one_place_and_no_row_overflows(lengths: list[int]) -> None:
    room = max(lengths)
    rows = shared_rows(lengths, room)
    assert sorted(b for row in rows for b in row) == list(range(len(lengths)))
    assert all(sum(lengths[b] for b in row) <= room for row in rows)
    # No two rows would fit into one: so at least half of all room is used.
    assert len(rows) == 1 or sum(lengths) * 2 > len(rows) * room


def read_both(base: LoadedBase, lengths: list[int]) -> None:
    base.model.double()  # in fp32 gradients that nearly cancel differ by their rounding
    base.model.compute_dtype = torch.float64
    read = text_batch(texts(lengths))
    there_BT = read.cols.doc >= 0
    params = [p.requires_grad_(True) for p in base.model.parameters()]

    def gradient(h_BTD: torch.Tensor) -> list[torch.Tensor | None]:
        wanted = torch.randn(h_BTD.shape, generator=torch.Generator().manual_seed(1))
        return list(torch.autograd.grad((h_BTD * wanted)[there_BT].sum(), params, allow_unused=True))

    plain = base.model.hidden(read.ids_BT, read.cols).hidden
    found = states(base.model, read, None)
    torch.testing.assert_close(found[there_BT], plain[there_BT], rtol=EQUAL, atol=EQUAL)
    for mine, theirs in zip(gradient(found), gradient(plain), strict=True):
        if theirs is None:
            assert mine is None
            continue
        assert mine is not None
        # Some are zero but for rounding: a key's bias moves all scores of a query alike.
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)  # layer norms compute in fp32


@settings(max_examples=15)
@example([11, 17, 9, 3, 7, 17])  # differed by 1.7e-4 in fp32
@given(st.lists(st.integers(1, 20), min_size=2, max_size=12))
def test_states_and_gradient_are_those_of_each_text_alone(lengths: list[int]) -> None:
    read_both(tiny_base(), lengths)


def test_and_so_they_are_where_tokens_see_what_follows(tmp_path: Path) -> None:
    read_both(encoder(tmp_path), [20, 3, 4, 5, 6, 1, 9])


def rows_read(base: LoadedBase, lengths: list[int], routing: AdapterRouting | None = None) -> int:
    """Rows that the trunk was given."""
    seen: list[int] = []
    handle = base.model.trunk.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    try:
        states(base.model, text_batch(texts(lengths)), routing)
    finally:
        handle.remove()
    return seen[0]


def test_rows_are_shared_only_where_that_saves_something() -> None:
    base = tiny_base()
    assert rows_read(base, [20, 10, 10, 5, 5, 5, 5]) == 3
    assert rows_read(base, [20, 19, 18, 17]) == 4


def test_an_adapter_of_one_row_keeps_rows_apart() -> None:
    base = tiny_base()
    assert rows_read(base, [20, 2, 2, 2], AdapterRouting.per_row([None, "x", None, None])) == 4
