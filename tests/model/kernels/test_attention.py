"""Lowerings agree with the reference, forward and gradient, on any mask; nothing is ever NaN."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onebase.model.kernels import attention as attend_module
from onebase.model.kernels import blocked
from onebase.model.kernels.attention import BACKENDS, Lowered, attend, lower
from onebase.model.mask import Causal, Cols, Everything, Mask, SameBlock, SameDocument, Window

MASKS: tuple[Mask, ...] = (
    Causal(),
    Everything(),
    Causal() & SameDocument(),
    Everything() & SameDocument(),
    Causal() & SameDocument() & Window(3),
    Window(3) & SameDocument(),
    Causal() & Window(5),
    (Causal() | SameBlock()) & SameDocument(),
    Causal() | (SameBlock() & SameDocument()),
)
CPU_KINDS = tuple(kind for kind in BACKENDS if kind != "plain")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "BLOCK", 4)


def numbers(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def run(
    kind: str, mask: Mask, q_cols: Cols, k_cols: Cols, heads: tuple[int, int], softcap: float | None
) -> tuple[Tensor, ...]:
    """Output and the gradients of q, k, v; flex has no backward on CPU."""
    (B, Q), K, (N, G) = q_cols.shape, k_cols.shape[1], heads
    q, k, v = numbers((B, N, Q, 8), 1), numbers((B, G, K, 8), 2), numbers((B, G, K, 8), 3)
    for t in (q, k, v):
        t.requires_grad_(kind != "flex")
    lowered = lower(mask, q_cols, k_cols, softcap=softcap, device="cpu", impl=kind)
    assert lowered.kind == kind
    out = attend(q, k, v, lowered, scale=0.4, softcap=softcap)
    if kind == "flex":
        return (out,)
    return (out.detach(), *torch.autograd.grad((out * numbers(out.shape, 4)).sum(), (q, k, v)))


def agree(mask: Mask, q: Cols, k: Cols, heads: tuple[int, int], softcap: float | None, kinds: Any) -> None:
    want = run("plain", mask, q, k, heads, softcap)
    assert all(t.isfinite().all() for t in want)
    for kind in kinds:
        for got, ref in zip(run(kind, mask, q, k, heads, softcap), want):
            torch.testing.assert_close(
                got, ref, atol=1e-5, rtol=1e-5, msg=lambda m, kind=kind: f"{kind}: {m}"
            )


@st.composite
def packed(draw: Any) -> Cols:
    """Rows of documents one behind the other, then padding; blocks anywhere. Every row may be padding alone."""
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 14))
    pos, doc, block = [], [], []
    for _ in range(batch):
        sizes = draw(st.lists(st.integers(1, 7), max_size=4))
        p = [i for n in sizes for i in range(n)][:length]
        d = [i for i, n in enumerate(sizes) for _ in range(n)][:length]
        pos.append(p + [0] * (length - len(p)))
        doc.append(d + [-1] * (length - len(d)))
        block.append(draw(st.lists(st.integers(-1, 1), min_size=length, max_size=length)))
    return Cols(torch.tensor(pos), torch.tensor(doc), torch.tensor(block))


@settings(max_examples=60)
@given(
    cols=packed(),
    mask=st.sampled_from(MASKS),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]),
    softcap=st.sampled_from([None, 2.0]),
)
def test_lowerings_agree_on_packs(
    cols: Cols, mask: Mask, heads: tuple[int, int], softcap: float | None
) -> None:
    agree(mask, cols, cols, heads, softcap, ("sdpa", "blocked"))


@settings(max_examples=30)
@given(
    data=st.data(),
    batch=st.integers(1, 2),
    length=st.integers(1, 14),
    mask=st.sampled_from(MASKS),
    softcap=st.sampled_from([None, 2.0]),
)
def test_lowerings_agree_behind_a_cache(
    data: Any, batch: int, length: int, mask: Mask, softcap: float | None
) -> None:
    new = data.draw(st.integers(1, length))
    prompt = data.draw(st.lists(st.integers(0, length - new), min_size=batch, max_size=batch))
    # Shorter prompts leave padding between the old keys and the new ones; the positions go on without a gap.
    old = Cols.padded(torch.tensor(prompt), length - new)
    pos = torch.tensor(prompt)[:, None] + torch.arange(new)
    q = Cols(pos, torch.zeros_like(pos))
    agree(mask, q, Cols.cat((old, q)), (2, 1), softcap, ("sdpa", "blocked"))


@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_rows_known_to_be_simple_give_the_same_as_found_ones(mask: Mask) -> None:
    known = Cols.simple(2, 11)
    found = Cols(known.pos, known.doc)
    for kind in ("plain", "sdpa", "blocked"):
        for a, b in zip(
            run(kind, mask, known, known, (2, 1), None), run(kind, mask, found, found, (2, 1), None)
        ):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_flex_agrees_forward(softcap: float | None) -> None:
    pos = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 0]])
    cols = Cols(
        pos, torch.tensor([[0, 0, 0, 0, 1, 1, 1, -1, -1]]), torch.tensor([[0, 0, -1, -1, 1, 1, 1, 1, 1]])
    )
    for mask in MASKS:
        want = run("plain", mask, cols, cols, (4, 2), softcap)[0]
        torch.testing.assert_close(
            run("flex", mask, cols, cols, (4, 2), softcap)[0], want, atol=1e-5, rtol=1e-5
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=25)
@given(cols=packed(), mask=st.sampled_from(MASKS), softcap=st.sampled_from([None, 2.0]), data=st.data())
def test_flex_agrees_on_packs_and_behind_a_cache(
    cols: Cols, mask: Mask, softcap: float | None, data: st.DataObject
) -> None:
    """Whatever it is padded to."""
    last = data.draw(st.integers(1, cols.shape[1]))
    agree(mask, cols.cut(cols.shape[1] - last, cols.shape[1]), cols, (4, 2), softcap, ("flex",))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compiled", ["attention", "mask"])
def test_flex_is_not_compiled_anew_for_each_shape(monkeypatch: pytest.MonkeyPatch, compiled: str) -> None:
    """Batches of all sizes, one row and many, short and over several blocks, and decoding one by one behind a cache."""
    from torch._dynamo.testing import CompileCounter
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch._dynamo.reset()
    counter = CompileCounter()
    kernels = {
        "attention": (attend_module.compiled_flex(flex_attention, counter), create_block_mask),
        "mask": (flex_attention, attend_module.compiled_flex(create_block_mask, counter)),
    }[compiled]
    monkeypatch.setattr(attend_module, "_flex_kernels", lambda _: kernels)
    seen, mask = [], Causal() & SameDocument()
    for i in range(14):
        batch, length = 1 + i % 5, 3 + (i * 61) % 300
        cols = Cols.padded(torch.arange(1, batch + 1) * length // batch, length)
        agree(mask, cols, cols, (4, 2), None, ("flex",))
        seen.append(counter.frame_count)
    assert seen[-1] == seen[6] <= 4, seen
    for length in range(125, 133):
        cols = Cols.simple(2, length)
        agree(mask, cols.cut(length - 1, length), cols, (4, 2), None, ("flex",))
    assert counter.frame_count <= seen[-1] + 4, counter.frame_count


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_query_that_sees_nothing_gives_zeros(kind: str) -> None:
    cols = Cols(torch.arange(5)[None].repeat(2, 1), torch.tensor([[-1] * 5, [0, 0, -1, -1, -1]]))
    out, *grads = run(kind, Causal(), cols, cols, (2, 2), None)
    assert (out[0] == 0).all()
    assert (out[1, :, 2:] == 0).all()
    assert (out[1, :, :2] != 0).all()
    assert all(g.isfinite().all() for g in grads)


def test_blocks_see_only_what_they_can() -> None:
    ranges = blocked._ranges(10, 13, causal=True, reach=2)
    assert ranges == [(0, 4, 1, 7), (4, 8, 5, 11), (8, 10, 9, 13)]
    assert blocked._ranges(4, 4, causal=False, reach=None) == [(0, 4, 0, 4)]


def bounds(mask: Mask, q: Cols, k: Cols) -> tuple[bool, int | None]:
    lowered = lower(mask, q, k, device="cpu", impl="blocked")
    return lowered.causal, lowered.reach


def test_bounds_are_used_only_where_they_hold() -> None:
    pack = Cols(torch.tensor([[0, 1, 2, 0, 1]]), torch.tensor([[0, 0, 0, 1, 1]]))
    assert bounds(Causal() & SameDocument() & Window(2), pack, pack) == (True, 1)
    assert bounds(Causal(), pack, pack) == (False, None)  # a later document's positions start again
    swapped = Cols(torch.tensor([[1, 0, 2]]), torch.tensor([[0, 0, 0]]))
    assert bounds(Causal(), swapped, swapped) == (False, None)
    gap = Cols(torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, -1, 0, 0]]))
    assert bounds(Causal() & Window(2), gap, gap) == (True, None)
    assert bounds(Causal(), gap, Cols.simple(1, 4)) == (False, None)  # queries that are not the last keys
    assert bounds(Everything(), pack, pack) == (False, None)


def test_the_kernel_is_chosen_by_use() -> None:
    simple = Cols.simple(1, 6)
    assert lower(Causal(), simple, simple, device="cpu").kind == "blocked"
    assert lower(Causal(), simple, simple, device="cuda").kind == "sdpa"
    with torch.no_grad():
        assert lower(Causal(), simple, simple, device="cpu").kind == "sdpa"
        assert lower(Causal(), simple, simple, softcap=3.0, device="cpu").kind == "blocked"
        last = lower(Causal(), simple.cut(5, 6), simple, device="cpu")
        assert last.kind == "sdpa"
        assert last.seen is None


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_probabilities_not_kept_are_made_again(
    monkeypatch: pytest.MonkeyPatch, softcap: float | None
) -> None:
    cols = Cols.simple(2, 11)
    kept = run("blocked", Causal(), cols, cols, (4, 2), softcap)
    monkeypatch.setattr(blocked, "KEEP_BYTES", 0)
    for a, b in zip(run("blocked", Causal(), cols, cols, (4, 2), softcap), kept):
        assert torch.equal(a, b)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradients_in_double_precision(softcap: float | None) -> None:
    cols = Cols(torch.tensor([[0, 1, 2, 3, 0, 1, 0]]), torch.tensor([[0, 0, 0, 0, 1, 1, -1]]))
    lowered = lower(Causal() & SameDocument(), cols, cols, device="cpu", impl="blocked")
    inputs = [numbers((1, n, 7, 4), i, torch.float64).requires_grad_() for i, n in enumerate((4, 2, 2))]

    def f(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, lowered, scale=0.5, softcap=softcap)

    assert torch.autograd.gradcheck(f, inputs)


def test_bf16_is_near_and_repeats_bitwise() -> None:
    cols = Cols.simple(2, 40)
    q, k, v = (numbers((2, 4, 40, 16), i) for i in range(3))
    low = lower(Causal(), cols, cols, device="cpu", impl="blocked")
    want = attend(q, k, v, Lowered("plain", causal=True), scale=0.25)
    got = [attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), low, scale=0.25) for _ in range(2)]
    assert got[0].dtype == torch.bfloat16
    assert torch.equal(got[0], got[1])
    assert float((got[0].float() - want).norm() / want.norm()) < 0.01


def test_the_operator_is_sound() -> None:
    """Schema, shapes without data and autograd registration agree: what torch.compile builds on."""
    q, k, v = (numbers((1, n, 6, 4), n).requires_grad_() for n in (2, 1, 1))
    torch.library.opcheck(blocked._forward, (q, k, v, None, True, None, 0.5, None))
