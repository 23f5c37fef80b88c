"""Combining: the deltas of several adapters as one adapter's, by the formulas, as PEFT does it, and with every parent on record."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.api.base import Adapter, Base
from onebase.base.folder import load_base, save_base
from onebase.cli import _guard, app
from onebase.errors import UserError
from onebase.methods.combine import Weighed, combine, nearest, smallest_kept, ties, trimmed
from onebase.methods.config import BoundTo
from onebase.methods.lora import LoraConfig
from tests.helpers import tiny_base

CHATS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}] * 6
PAIRS = [{"prompt": "def add", "completion": "(a, b)"}, {"prompt": "The", "completion": " fox"}] * 4


def drawn(seed: int, cfg: LoraConfig, sites: dict[str, tuple[int, int]], width: int = 6) -> dict[str, Any]:
    """Tensors of an adapter, drawn at random; sites: inputs and outputs by name."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    for site, (i, o) in sites.items():
        rank = cfg.rank_at(site)
        out[f"{site}.a"], out[f"{site}.b"] = (
            torch.randn(rank, i, generator=g),
            torch.randn(o, rank, generator=g),
        )
    for end in ("stem", "head") if cfg.tokens else ():
        out[f"text.{end}.rows"] = torch.randn(len(cfg.tokens), width, generator=g)
    return out


def delta(cfg: LoraConfig, tensors: dict[str, Any], site: str) -> Any:
    return cfg.scaling_at(site) * tensors[f"{site}.b"] @ tensors[f"{site}.a"]


SITES = {"text.0.attn.q": (6, 8), "text.0.attn.v": (6, 5)}


def some() -> list[Weighed]:
    one = LoraConfig(rank=2, alpha=3.0, sites=("q", "v"), tokens=(4, 9), ranks={"v": 1})
    two = LoraConfig(rank=1, alpha=5.0, sites=("q",), tokens=(9, 2), rslora=True)
    return [
        Weighed(one, drawn(1, one, SITES), 0.75),
        Weighed(two, drawn(2, two, {"text.0.attn.q": (6, 8)}), -0.5),
    ]


def test_linear_is_the_weighted_sum_exactly() -> None:
    parts = some()
    made = combine(parts)
    assert made.error is None
    q = sum(p.weight * delta(p.cfg, dict(p.tensors), "text.0.attn.q") for p in parts)
    torch.testing.assert_close(delta(made.cfg, made.tensors, "text.0.attn.q"), q, atol=1e-5, rtol=1e-5)
    v = 0.75 * delta(parts[0].cfg, dict(parts[0].tensors), "text.0.attn.v")
    torch.testing.assert_close(delta(made.cfg, made.tensors, "text.0.attn.v"), v, atol=1e-5, rtol=1e-5)
    assert (made.cfg.rank_at("text.0.attn.q"), made.cfg.rank_at("text.0.attn.v")) == (3, 1)
    assert made.cfg.tokens == (2, 4, 9)
    one, two = (p.tensors["text.head.rows"] for p in parts)
    torch.testing.assert_close(
        made.tensors["text.head.rows"],
        torch.stack([-0.5 * two[1], 0.75 * one[0], 0.75 * one[1] - 0.5 * two[0]]),
    )


def test_a_stated_rank_is_the_nearest_and_the_error_what_it_leaves_out() -> None:
    made = combine(some(), rank=1)
    exact = combine(some())
    left = total = 0.0
    for site in SITES:
        wanted = delta(exact.cfg, exact.tensors, site)
        s = torch.linalg.svdvals(wanted)
        left, total = left + float((s[1:] ** 2).sum()), total + float((s**2).sum())
        assert torch.linalg.matrix_rank(delta(made.cfg, made.tensors, site)) == 1
    assert made.error == pytest.approx((left / total) ** 0.5, rel=1e-4)
    assert 0.05 < made.error < 1


def by_ties(deltas: list[Any], weights: list[float], density: float) -> Any:
    """All three steps, each delta being all that its adapter changes."""
    return ties([trimmed(d, smallest_kept(lambda d=d: [d], density)) for d in deltas], weights)


def test_ties_by_hand() -> None:
    one = torch.tensor([[4.0, -3.0, 2.0, 0.1]])
    two = torch.tensor([[1.0, 5.0, 0.2, -3.0]])
    # Half stays: [4, -3, 0, 0] and [0, 5, 0, -3]; signs +, +, none, -; means of those that agree.
    assert by_ties([one, two], [1, 1], 0.5).tolist() == [[4.0, 5.0, 0.0, -3.0]]
    # All stay and agree in part: (3 x 4 + 1) / 4, -3 alone for 3 x -3 + 5 < 0, (3 x 2 + 0.2) / 4, -3 alone.
    torch.testing.assert_close(by_ties([one, two], [3, 1], 1.0), torch.tensor([[3.25, -3.0, 1.55, -3.0]]))


def test_ties_is_that_of_peft() -> None:
    theirs = pytest.importorskip("peft.utils.merge_utils")
    g = torch.Generator().manual_seed(4)
    deltas = [torch.randn(30, 20, generator=g) for _ in range(3)]
    for density in (0.2, 0.55):
        wanted = theirs.ties(deltas, torch.ones(3), density)
        torch.testing.assert_close(by_ties(deltas, [0.7] * 3, density), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 0.99, 1.0])
def test_the_smallest_that_is_kept(density: float) -> None:
    """Over all matrices together, as sorting them says; numbers of one size and zeros among them."""
    g = torch.Generator().manual_seed(3)
    all_ = [
        torch.randn(7, 5, generator=g) * 1e-3,
        torch.randn(40, generator=g),
        torch.tensor([2.0, -2.0, 0.0]),
    ]
    flat = torch.cat([d.abs().flatten() for d in all_]).sort(descending=True).values
    wanted = flat[max(1, int(density * len(flat))) - 1]
    assert smallest_kept(lambda: all_, density) == float(wanted)


def test_ties_trims_all_that_an_adapter_changes_together() -> None:
    """As in the paper, where a task's vector is all its parameters: a site whose delta is small keeps nothing."""
    cfg = LoraConfig(rank=2, sites=("q", "v"))
    tensors = drawn(1, cfg, SITES)
    tensors["text.0.attn.v.b"] *= 1e-3
    parts = [Weighed(cfg, tensors, 1.0), Weighed(cfg, drawn(2, cfg, SITES), 1.0)]
    made = combine(parts, "ties", density=0.3, rank=8)
    alone = [delta(cfg, dict(p.tensors), "text.0.attn.v") for p in parts]
    found = delta(made.cfg, made.tensors, "text.0.attn.v")
    kept = trimmed(
        alone[1], smallest_kept(lambda: [delta(cfg, dict(parts[1].tensors), s) for s in SITES], 0.3)
    )
    torch.testing.assert_close(found, kept, atol=1e-5, rtol=1e-5)
    assert (kept != 0).any()


def test_ties_of_adapters_at_full_rank_is_exact() -> None:
    parts = [Weighed(p.cfg, p.tensors, 1.0) for p in some()]
    made = combine(parts, "ties", density=0.5, rank=8)
    kept = []
    for p in parts:
        whole = [delta(p.cfg, dict(p.tensors), s) for s in SITES if f"{s}.a" in p.tensors]
        rows = [t for k, t in p.tensors.items() if k.endswith("rows")]
        sizes = torch.cat([t.abs().flatten() for t in (*whole, *rows)])
        kept.append(trimmed(whole[0], float(sizes.sort(descending=True).values[len(sizes) // 2 - 1])))
    q = ties(kept, [1, 1])
    torch.testing.assert_close(delta(made.cfg, made.tensors, "text.0.attn.q"), q, atol=1e-5, rtol=1e-5)
    assert made.error is not None and made.error < 1e-5
    low = combine(parts, "ties", density=0.5)
    assert low.error is not None and low.error > 0.01, "the sum of ranks holds less than TIES makes"
    assert nearest(q, 3)[0].shape == (3, 6)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("combine")
    save_base(path / "base", tiny_base())
    base = Base(load_base(path / "base"))
    base.adapt(CHATS, task="chat", method="lora", rank=2, epochs=5).save(path / "chat")
    base.adapt(PAIRS, task="complete", method="lora", rank=3, sites=["q", "up"], epochs=5).save(
        path / "pairs"
    )
    base.adapt(CHATS, task="chat", method="lora", rank=2, dora=True).save(path / "dora")
    base.adapt(
        [{"text": "a b", "label": "x"}, {"text": "c d", "label": "y"}] * 6, task="classify", method="lora"
    ).save(path / "labels")
    other = Base(tiny_base(seed=5))
    other.adapt(CHATS, task="chat", method="lora", rank=2).save(path / "other")
    return path


def test_combined_answers_as_the_sum_in_the_weights(made: Path) -> None:
    base = Base(load_base(made / "base"))
    both = onebase.combine([made / "chat", Adapter.load(made / "pairs")], [0.5, 2.0])
    ids = base.loaded.codec.chat_ids(CHATS[0]["messages"])
    said = base.with_adapter(both).logits(ids)
    summed = Base(load_base(made / "base"))
    with torch.no_grad():
        for name, weight in (("chat", 0.5), ("pairs", 2.0)):
            parts = Adapter.load(made / name).parts
            assert parts.config.lora is not None
            for site, proj in summed.loaded.model.sites().items():
                if f"{site}.a" in parts.tensors:
                    proj.weight += weight * delta(parts.config.lora, parts.tensors, site)  # type: ignore[operator]
    rows = {k: t for k, t in both.parts.tensors.items() if k.endswith("rows")}
    alone = Adapter.load(made / "chat").parts
    alone.tensors = {k: torch.zeros_like(t) for k, t in both.parts.tensors.items()} | rows
    hashes = summed.loaded.hashes | {"fingerprint": summed.loaded.reread()}
    alone.config = replace(both.parts.config, base=BoundTo(**hashes))
    torch.testing.assert_close(summed.with_adapter(Adapter(alone)).logits(ids), said, atol=1e-5, rtol=1e-5)
    assert not torch.equal(said, base.logits(ids))


def test_the_command_writes_an_adapter_with_its_parents(made: Path, capsys: Any, tmp_path: Path) -> None:
    line = ["combine", str(made / "chat"), str(made / "pairs"), "--weights", "0.5,0.25", "--how", "ties"]
    app([*line, "--rank", "4", "--out", str(tmp_path / "both")], standalone_mode=False)
    assert "% of the deltas left out" in capsys.readouterr().out
    both = Adapter.load(tmp_path / "both")
    parents = [p for p in both.record.parents if p["kind"] == "adapter"]
    assert [(p["name"], p["weight"]) for p in parents] == [("chat", 0.5), ("pairs", 0.25)]
    assert parents[0]["fingerprint"] == Adapter.load(made / "chat").fingerprint
    assert next(p for p in both.record.parents if p["kind"] == "base")["fingerprint"].startswith("ob1-")
    assert (both.record.get("combined.how"), both.record.get("combined.rank"), both.task) == (
        "ties",
        4,
        "chat",
    )
    assert 0 < both.record.get("combined.error") < 1
    Base(load_base(made / "base")).with_adapter(tmp_path / "both").chat(
        CHATS[0]["messages"][:1], max_tokens=3
    )


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (["chat"], {}, "at least two"),
        (["chat", "other"], {}, "different bases"),
        (["chat", "labels"], {}, "part of kind head"),
        (["chat", "dora"], {}, "DoRA"),
        (["chat", "pairs"], {"weights": [1.0]}, "1 weights for 2"),
        (["chat", "pairs"], {"weights": [1.0, 0.0]}, "a weight is 0"),
        (["chat", "pairs"], {"weights": [1.0, float("nan")]}, "a weight is nan"),
        (["chat", "pairs"], {"weights": [1.0, -1.0], "how": "ties"}, "a weight is -1"),
        (["chat", "pairs"], {"how": "slerp"}, "linear, ties"),
        (["chat", "pairs"], {"density": 0.0}, "density"),
        (["chat", "pairs"], {"rank": 0}, "rank is 0"),
    ],
)
def test_what_does_not_go_together_is_refused(names: list[str], more: Any, said: str, made: Path) -> None:
    with pytest.raises(UserError, match=said):
        onebase.combine([made / n for n in names], **more)


def test_weights_that_are_no_numbers_are_refused(made: Path, tmp_path: Path, capsys: Any) -> None:
    line = [
        "combine",
        str(made / "chat"),
        str(made / "pairs"),
        "--weights",
        "a,b",
        "--out",
        str(tmp_path / "x"),
    ]
    with pytest.raises(SystemExit):
        _guard(lambda: app(line, standalone_mode=False))
    assert "numbers separated by commas" in capsys.readouterr().err
