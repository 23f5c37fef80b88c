"""Rows of tokens at the codec's ends: for every way in and out, the same as a matrix with the deltas in it."""

import pytest
import torch

from onebase.modality.text.config import TextCodecConfig
from onebase.modality.text.modules import TextModule
from onebase.modality.text.rows import FewRows, TokenRows
from onebase.model.proj import AdapterRouting
from onebase.objective.cross_entropy import linear_cross_entropy, token_nll

V, D = 11, 6
IDS = torch.tensor([[3, 0, 7], [5, 3, 3], [7, 9, 5]])
H = torch.randn(3, 2, D, generator=torch.Generator().manual_seed(5))


def ends(tied: bool, softcap: float | None = 15.0) -> TextModule:
    """Ends with adapters `a` (tokens 7, 3) and `b` (tokens 5, 3) on them, all weights random."""
    made = TextModule(TextCodecConfig(vocab_size=V, context=8, tied=tied, softcap=softcap), D)
    made.deltas["a"], made.deltas["b"] = TokenRows((7, 3), D), TokenRows((5, 3), D)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return made


def merged(name: str | None, tied: bool, softcap: float | None = 15.0) -> TextModule:
    made = ends(tied, softcap)
    if name:
        made.untie()
        delta = made.deltas.pop(name)
        with torch.no_grad():
            made.stem.weight.copy_(delta.stem_added(made.stem.weight))
            made.head.weight.copy_(delta.head_added(made.head.weight))
    return made


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("softcap", [None, 15.0])
@pytest.mark.parametrize("names", [["a", "a", "a"], ["a", None, "b"], [None] * 3])
@torch.no_grad()
def test_each_row_is_as_if_its_adapter_were_merged(
    names: list[str | None], softcap: float | None, tied: bool
) -> None:
    made, routing = ends(tied, softcap), AdapterRouting.per_row(names)
    x, z = made.embed(IDS, IDS, torch.float32, routing), made.logits(H, routing)
    last = made.logits(H[:, -1], routing)  # one hidden state a row, as in decoding
    for b, name in enumerate(names):
        alone = merged(name, tied, softcap)
        torch.testing.assert_close(x[b], alone.embed(IDS[b], IDS[b], torch.float32))
        torch.testing.assert_close(z[b], alone.logits(H[b]))
        torch.testing.assert_close(last[b], z[b, -1])
    seen = []
    for rows, head in made.head_weights(routing, 3):
        for b in range(3)[rows] if isinstance(rows, slice) else rows:
            seen.append(b)
            assert torch.equal(head.weight_VD, merged(names[b], tied, softcap).head_weight_VD)
    assert sorted(seen) == [0, 1, 2]


def test_no_active_adapter_is_the_base_bitwise() -> None:
    made = ends(tied=False)
    bare = ends(tied=False)
    bare.deltas.clear()
    for routing in (None, AdapterRouting(()), AdapterRouting.all_rows("another")):
        assert torch.equal(made.embed(IDS, IDS, torch.float32, routing), bare.embed(IDS, IDS, torch.float32))
        assert torch.equal(made.logits(H, routing), bare.logits(H))
        assert made.head_weights(routing, 3)[0][1].weight_VD is made.head_weight_VD
    fresh = TokenRows((1, 2), D)
    made.deltas["fresh"] = fresh
    assert torch.equal(made.logits(H, AdapterRouting.all_rows("fresh")), bare.logits(H))


def test_gradients_reach_the_rows_and_nothing_else() -> None:
    """The loss by the head's matrix and the loss by logits teach the same; the base's matrices get no gradient."""
    made, routing, targets = ends(tied=False), AdapterRouting.all_rows("a"), torch.tensor([7, 0, 3, 3, 9, 7])
    for p in (made.stem.weight, made.head_weight_VD):
        p.requires_grad_(False)
    ((_, head),) = made.head_weights(routing, 3)
    total, _ = linear_cross_entropy(H.flatten(0, 1), head, targets, softcap=15.0)
    (got,) = torch.autograd.grad(total, made.deltas["a"].head_KD)
    loss = torch.nn.functional.cross_entropy(made.logits(H, routing).flatten(0, 1), targets, reduction="sum")
    (want,) = torch.autograd.grad(loss, made.deltas["a"].head_KD)
    torch.testing.assert_close(got, want)
    each = token_nll(H.flatten(0, 1), head, targets, softcap=15.0, chunk=4)
    (got,) = torch.autograd.grad(each.sum(), made.deltas["a"].head_KD)
    torch.testing.assert_close(got, want)
    made.embed(IDS, IDS, torch.float32, routing).sum().backward()
    grad = made.deltas["a"].stem_KD.grad
    assert grad[:, 0].tolist() == [2.0, 3.0], "7 is read twice, 3 three times"
    assert made.stem.weight.grad is None


def test_untied_ends_say_the_same() -> None:
    one, two = ends(tied=True), ends(tied=True)
    two.untie()
    assert torch.equal(one.logits(H), two.logits(H))
    assert not two.cfg.tied
    assert two.head.weight is not two.stem.weight


def test_few_rows_learn_as_the_whole_matrix_does() -> None:
    """Steps of AdamW on the rows that are read end where steps on all rows end, and the others have not moved."""
    ids_BT = torch.tensor([[3, 7, 0], [9, 3, 0]])
    wanted = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    ends = []
    for few in (False, True):
        torch.manual_seed(0)
        stem = TextModule(TextCodecConfig(vocab_size=12, context=8), 8).stem
        assert stem.weight is not None
        torch.nn.init.normal_(stem.weight)
        start = stem.weight.detach().clone()
        if few:
            stem.few = FewRows(stem.weight, [3, 7, 9])
        optim = torch.optim.AdamW(
            [stem.weight if stem.few is None else stem.few.rows_KD], lr=0.1, weight_decay=0.0
        )
        for _ in range(3):
            optim.zero_grad()
            ((stem.tokens(ids_BT) - wanted)[:, :2] ** 2).sum().backward()
            optim.step()
        if stem.few is not None:
            stem.few.put_back(stem.weight)
        moved = (stem.weight != start).any(1).nonzero().flatten().tolist()
        assert moved == [3, 7, 9]
        ends.append(stem.weight.detach())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-6, atol=1e-7)


def test_a_token_that_was_not_named_is_no_other_one() -> None:
    stem = TextModule(TextCodecConfig(vocab_size=12, context=8), 8).stem
    assert stem.weight is not None
    few = FewRows(stem.weight, [3])
    with pytest.raises(IndexError):
        few(torch.tensor([[5]]))
