"""Adapters stacked on one base: deltas add up in any order, the last one says what the stack is for, the base stays what it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import onebase
from onebase.api.base import Adapter, Base
from onebase.artifact.record import Record
from onebase.assess.gating import against_classical
from onebase.base.folder import LoadedBase, save_base
from onebase.cli import app
from onebase.errors import ArtifactError, UserError
from onebase.methods import lora
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, bound_to, detach, save_adapter
from onebase.methods.lora import LoraConfig
from onebase.methods.prefix import PrefixConfig
from onebase.methods.soft import SoftConfig
from onebase.opening.find import named_adapters
from onebase.serve.adapters import attach_all
from tests.helpers import tiny_base

TOLERANCE = 1e-5
"""Between logits of sums in another order, fp32; logits here are of size 1 to 10."""
IDS = [1, 20, 30, 40, 4, 101, 50]
LABELLED = [
    {"text": t, "label": k}
    for t, k in [("Is it so", "ask"), ("It is so", "tell"), ("What is it", "ask"), ("Go on", "tell")] * 2
]


def drawn(base: LoadedBase, seed: int, std: float = 0.1, task: Any = "complete", **more: Any) -> Adapter:
    """A LoRA of random deltas, with rows of tokens."""
    cfg = LoraConfig(rank=2, tokens=(4, 40, 100 + seed), **more)
    lora.inject(base.model, "drawn", cfg, seed)
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for key, t in lora.tensors(base.model, "drawn").items():
        if key.endswith(".magnitude"):
            found[key] = t * (1 + std * torch.rand(t.shape, generator=generator))
        else:
            found[key] = torch.randn(t.shape, generator=generator) * std
    lora.remove(base.model, "drawn")
    config = AdapterConfig(method="lora", task=task, base=bound_to(base), lora=cfg)
    return Adapter(AdapterParts(config, found, Record("adapter")))


@pytest.fixture
def base() -> Base:
    return Base(tiny_base())


def test_deltas_add_up_where_they_are_added(base: Base) -> None:
    """At one projection, by hand: what the base says and both deltas of it."""
    a, b = (drawn(base.loaded, seed) for seed in (1, 2))
    on = base.with_adapter([a, b])
    proj = on.loaded.model.sites()["text.0.attn.q"]
    x_TI = torch.randn(5, proj.d_in)
    wanted = proj(x_TI)
    for adapter in (a, b):
        low, high = (adapter.parts.tensors[f"text.0.attn.q.{k}"] for k in "ab")
        wanted = wanted + (16.0 / 2) * (x_TI @ low.T @ high.T)
    torch.testing.assert_close(proj(x_TI, on.routing), wanted, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("dora", [False, True])
def test_the_order_makes_no_difference_and_merging_is_the_same(base: Base, dora: bool) -> None:
    a, b = drawn(base.loaded, 1), drawn(base.loaded, 2, dora=dora)
    both = base.with_adapter([a, b])
    said = both.logits(IDS)
    for alone in (a, b):
        assert not torch.allclose(said, base.with_adapter(alone).logits(IDS), atol=1e-2)
    torch.testing.assert_close(
        base.with_adapter([b, a]).logits(IDS), said, atol=TOLERANCE * 10, rtol=TOLERANCE
    )
    for order in ([a, b], [b, a]):
        one = base.with_adapter(order).merged()
        torch.testing.assert_close(one.logits(IDS), said, atol=TOLERANCE * 10, rtol=TOLERANCE)
        parents = [p["fingerprint"] for p in one.record.parents if p["kind"] == "adapter"]
        assert parents == [x.fingerprint for x in order]


def test_an_adapter_of_zeros_changes_no_bit(base: Base) -> None:
    a, nothing = drawn(base.loaded, 1), drawn(base.loaded, 2, std=0.0)
    alone = base.with_adapter(a).logits(IDS)
    assert torch.equal(base.with_adapter([a, nothing]).logits(IDS), alone)
    assert torch.equal(base.with_adapter([nothing, a]).logits(IDS), alone)


def test_the_base_stays_what_it_was(base: Base) -> None:
    before, weights = base.logits(IDS), base.loaded.reread()
    on = base.with_adapter([drawn(base.loaded, 1), drawn(base.loaded, 2)])
    on.logits(IDS)
    assert torch.equal(base.logits(IDS), before) and base.loaded.reread() == weights
    assert on.attached is not None
    for each in on.attached.stack:
        detach(base.loaded, each.name)
    assert torch.equal(base.logits(IDS), before)
    assert not any(p.deltas for p in base.loaded.model.sites().values())


def test_generation_and_scores_are_of_the_stack(base: Base) -> None:
    on = base.with_adapter([drawn(base.loaded, 1), drawn(base.loaded, 2)])
    merged = on.merged()
    assert on.generate("The quick", max_tokens=8) == merged.generate("The quick", max_tokens=8)
    rows = [{"prompt": "The", "completion": " dog"}]
    for name, score in onebase.evaluate(on, rows).items():
        there = onebase.evaluate(merged, rows, task="complete")[name].value
        assert score.value == pytest.approx(there, abs=1e-4)


def test_a_head_reads_the_states_that_the_others_made(base: Base) -> None:
    """Learnt on the plain base, over a LoRA it sees other states: those of the merged base."""
    head = base.adapt(LABELLED, task="classify", method="head", pooling="mean")
    low = drawn(base.loaded, 1)
    on, merged = base.with_adapter([low, head]), base.with_adapter(low).merged()
    weight, bias = (head.parts.tensors[f"head.{k}"] for k in ("weight", "bias"))
    texts = ["Is it", "Go on and on"]
    wanted = (merged.embed(texts, pooling="mean") @ weight.T + bias).softmax(-1)
    found = torch.tensor([list(x.scores.values()) for x in on.classify(texts)])
    torch.testing.assert_close(found, wanted, atol=TOLERANCE * 10, rtol=TOLERANCE)
    plain = base.with_adapter(head).classify(texts)
    assert any(abs(a.scores["ask"] - float(b[0])) > 1e-4 for a, b in zip(plain, found, strict=True))
    with pytest.raises(UserError, match="no adapter that classifies"):  # the last one says the task
        base.with_adapter([head, low]).classify(texts)
    with pytest.raises(UserError, match="needs one adapter, 2 are stacked"):
        against_classical(on, LABELLED, LABELLED)


def test_a_saved_prompt_over_a_lora(base: Base) -> None:
    low = drawn(base.loaded, 1)
    saved = base.adapt([], task="complete", method="prompt", prompt="Say {text}:")
    wanted = base.with_adapter(low).generate("Say it:", max_tokens=6)
    assert base.with_adapter([low, saved]).generate("it", max_tokens=6) == wanted
    merged = base.with_adapter(low).merged()
    for answers in ({"ask": "?", "tell": "."}, {"ask": " dog?", "tell": " so."}):
        sorts, again = (
            b.adapt([], task="classify", method="prompt", answers=answers, compare={"mean": True})
            for b in (base, merged)
        )
        found = base.with_adapter([low, sorts]).classify(["Is it"])[0].scores
        assert found == pytest.approx(merged.with_adapter(again).classify(["Is it"])[0].scores, abs=1e-4)
        plain = base.with_adapter(sorts).classify(["Is it"])[0].scores
        assert found != pytest.approx(plain, abs=1e-3)


def led(base: LoadedBase, method: Any, seed: int = 0) -> Adapter:
    generator, P = torch.Generator().manual_seed(seed), 2
    cfg: dict[str, Any] = {"soft": SoftConfig(virtual=P)} if method == "soft" else {}
    if method == "prefix":
        cfg = {"prefix": PrefixConfig(virtual=P)}
    rows = [{"prompt": "The", "completion": " dog"}] * 4
    made = Base(base).adapt(rows, task="complete", method=method, virtual=P, epochs=1, seed=seed)
    found = {k: torch.randn(t.shape, generator=generator) * 0.2 for k, t in made.parts.tensors.items()}
    config = AdapterConfig(method=method, task="complete", base=bound_to(base), **cfg)
    return Adapter(AdapterParts(config, found, Record("adapter")))


def test_a_prefix_and_a_soft_prompt_both_stand_first_and_deltas_act_on_them(base: Base) -> None:
    prefix, soft, low = led(base.loaded, "prefix"), led(base.loaded, "soft"), drawn(base.loaded, 1)
    on = base.with_adapter([soft, low, prefix])
    assert on.loaded.model.virtual_counts(on.routing, 1) == [4]
    said = on.logits(IDS)
    torch.testing.assert_close(
        base.with_adapter([prefix, soft, low]).logits(IDS), said, atol=TOLERANCE * 10, rtol=TOLERANCE
    )
    assert not torch.allclose(said, base.with_adapter([soft, low]).logits(IDS), atol=1e-3)
    with pytest.raises(UserError, match="virtual tokens are not weights"):
        on.merged()


def test_replaced_weights_under_a_delta(base: Base) -> None:
    rows = [{"prompt": "The", "completion": " dog"}] * 8
    full = base.adapt(rows, task="complete", method="full", epochs=2, lr=1e-2)
    low = drawn(base.loaded, 1)
    merged = base.with_adapter(full).merged()
    twin = drawn(merged.loaded, 1)
    wanted = merged.with_adapter(twin).logits(IDS)
    for order in ([full, low], [low, full]):
        on = base.with_adapter(order)
        torch.testing.assert_close(on.logits(IDS), wanted, atol=TOLERANCE * 10, rtol=TOLERANCE)
        torch.testing.assert_close(on.merged().logits(IDS), wanted, atol=TOLERANCE * 10, rtol=TOLERANCE)


def test_what_does_not_stack_is_refused(base: Base) -> None:
    low = drawn(base.loaded, 1)
    saved = base.adapt([], task="complete", method="prompt", prompt="{text}:")
    rows = [{"prompt": "The", "completion": " dog"}] * 8
    fulls = [
        base.adapt(rows, task="complete", method="full", epochs=1, seed=s, lr=1e-2 * (s + 1)) for s in (0, 1)
    ]
    for stack, said in (
        ([], "no adapter was given"),
        ([low, low], "twice"),
        ([led(base.loaded, "soft"), led(base.loaded, "soft", 1)], "method soft cannot both"),
        ([led(base.loaded, "prefix"), led(base.loaded, "prefix", 1)], "method prefix cannot both"),
        (fulls, "method full cannot both"),
        ([saved, low], "not the last"),
    ):
        with pytest.raises(UserError, match=said):
            base.with_adapter(stack)
    with pytest.raises(ArtifactError, match="other weights"):
        base.with_adapter([low, drawn(tiny_base(1), 2)])
    near = base.adapt(rows, task="complete", method="prompt", shots={"n": 1})
    with pytest.raises(UserError, match="replaced weights"):
        base.with_adapter([fulls[0], near])


def test_the_commands(base: Base, tmp_path: Path) -> None:
    save_base(tmp_path / "base", base.loaded)
    low = [drawn(base.loaded, 1), drawn(base.loaded, 2)]
    for name, each in zip(("a", "b"), low, strict=True):
        save_adapter(tmp_path / name, each.parts)
    words = ["generate", str(tmp_path / "base"), "The", "--max-tokens", "6"]
    for name in ("a", "b"):
        words += ["--adapter", str(tmp_path / name)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.output == base.with_adapter(low).generate("The", max_tokens=6) + "\n"
    named = named_adapters([f"both={tmp_path / 'a'}+{tmp_path / 'b'}", f"one={tmp_path / 'a'}"])
    on = attach_all(base, named)
    assert [len(on[n].stack) for n in ("both", "one")] == [2, 1]
    ids = torch.tensor([IDS])
    torch.testing.assert_close(
        base.loaded.model.logits(ids, on["both"].routing)[0],
        base.with_adapter(low).logits(IDS),
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )


def test_an_adapter_may_go_while_modules_are_walked() -> None:
    """Garbage collection ends a lease whenever it likes, also between two modules of someone's loop."""
    base = Base(tiny_base())
    on = base.with_adapter(drawn(base.loaded, 0))
    walk = base.loaded.model.named_parameters()
    seen = []
    for name, _ in walk:
        seen.append(name)
        if ".deltas." in name:
            break
    del on
    seen += [n for n, _ in walk]
    left = [n for n, _ in base.loaded.model.named_parameters()]
    assert [n for n in seen if ".deltas." not in n] == left, "the walk goes on, and the adapter is off"
