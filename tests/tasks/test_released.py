"""What is put on a base comes off it: after an error at once, else when nobody has it any more; and nothing is hashed twice for it."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase.base.folder as folder
from onebase.api.base import Adapter, Base
from onebase.base.folder import LoadedBase, load_base, save_base
from onebase.engine.decoder import stream
from onebase.engine.sampler import Sampling
from onebase.errors import ArtifactError, ConfigError, UserError
from onebase.methods.folder import AdapterParts, attach
from onebase.methods.table import PARTS
from onebase.serve.adapters import attach_all
from tests.helpers import taken, tiny_base

ROWS = [{"text": f"{w} {i}", "label": w} for i in range(4) for w in ("red", "blue")]
SAYS = [{"prompt": f"{w} is", "completion": f" {w}."} for w in ("fox", "dog", "cat", "sun")]
SHOTS = {"answers": {"red": " a", "blue": " b"}, "prompt": "{text}:", "shots": {"n": 2, "select": "similar"}}
MAKES: dict[str, dict[str, Any]] = {
    "head": {"data": ROWS, "task": "classify", "method": "head"},
    "lora": {"data": ROWS, "task": "classify", "method": "lora", "epochs": 1},
    "rows": {"data": SAYS, "task": "complete", "method": "lora", "epochs": 1},
    "soft": {"data": ROWS, "task": "classify", "method": "soft", "epochs": 1, "virtual": 3},
    "prefix": {"data": SAYS, "task": "complete", "method": "prefix", "epochs": 1, "virtual": 3},
    "full": {"data": ROWS, "task": "classify", "method": "full", "epochs": 1},
    "prompt": {"data": ROWS, "task": "classify", "method": "prompt", **SHOTS},
}


def made(base: Base, kind: str) -> Adapter:
    asked = dict(MAKES[kind])
    return base.adapt(asked.pop("data"), **asked)


def state(loaded: LoadedBase) -> dict[str, Any]:
    """All that a base holds: parameters by name with their bits, what learns, gradients, and the mode."""
    model = loaded.model
    return {
        **{k: (p.detach().clone(), p.requires_grad, p.grad is None) for k, p in model.named_parameters()},
        "": (torch.zeros(0), model.training, model.compute_dtype, loaded.memory is None),
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k][0], b[k][0]) and a[k][1:] == b[k][1:] for k in a)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    save_base(tmp_path / "base", tiny_base())
    found = Base(load_base(tmp_path / "base"))
    before = state(found.loaded)
    yield found
    gc.collect()
    assert same(before, state(found.loaded)), "something is left on the base"


@pytest.mark.parametrize("kind", MAKES)
def test_what_nobody_has_any_more_is_off_the_base(kind: str, base: Base) -> None:
    adapter, before = made(base, kind), state(base.loaded)
    for i in range(5):
        base.with_adapter(adapter, name=f"n{i}").classify(["red"]) if kind not in ("rows", "prefix") else (
            base.with_adapter(adapter, name=f"n{i}").generate("fox", max_tokens=2)
        )
        assert same(before, state(base.loaded))
    held = [base.with_adapter(adapter, name=f"n{i}") for i in range(3)]
    del held
    assert same(before, state(base.loaded))


def test_it_stays_while_someone_has_it(base: Base) -> None:
    adapter = made(base, "rows")
    one, two = base.with_adapter(adapter), base.with_adapter(adapter)
    said = one.generate("fox is", max_tokens=6)
    del one  # they share what is on the base
    assert two.generate("fox is", max_tokens=6) == said
    active = two.active
    del two  # who decodes may have `active` alone
    asked = [base.tokenizer.encode("fox is", bos=True)]
    running = stream(base.loaded, asked, [Sampling(max_tokens=6)], active)
    del active
    gc.collect()
    assert "".join(p.text for pieces in running for p in pieces) == said


def test_a_stream_outlives_the_view_that_began_it(base: Base) -> None:
    adapter = made(base, "rows")
    whole = base.with_adapter(adapter).generate("fox is", max_tokens=6)
    assert "".join(base.with_adapter(adapter).stream("fox is", max_tokens=6)) == whole


def test_a_stack_comes_off_as_one_and_a_copy_has_its_own_alone(base: Base) -> None:
    lora, head, full = (made(base, k) for k in ("rows", "head", "full"))
    other = base.with_adapter(lora, name="other")
    on = base.with_adapter([lora, full], name="stack")
    assert not any(".deltas.stack" in k for k, _ in base.loaded.model.named_parameters()), "the copy has it"
    assert not any(".deltas.other" in k for k, _ in on.loaded.model.named_parameters()), "it is not asked for"
    assert any(".deltas.stack" in k for k, _ in on.loaded.model.named_parameters())
    both = base.with_adapter([lora, head])
    said = both.classify(["red"])
    del other
    assert both.classify(["red"]) == said


def bad(adapter: Adapter, change: Callable[[dict[str, torch.Tensor]], None]) -> Adapter:
    tensors = {k: t.clone() for k, t in adapter.parts.tensors.items()}
    change(tensors)
    return Adapter(AdapterParts(adapter.parts.config, tensors, adapter.record))


def cut(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key] = tensors[key][:-1].clone()

    return change


@pytest.mark.parametrize("kind", ["lora", "soft"])
def test_a_bad_head_leaves_nothing(kind: str, base: Base) -> None:
    before, broken = state(base.loaded), None
    broken = bad(made(base, kind), cut("head.weight"))
    with pytest.raises(ConfigError, match="head"):
        base.with_adapter(broken)
    assert same(before, state(base.loaded))
    with pytest.raises(ConfigError, match="head"):
        attach(base.loaded, broken.parts, "a")
    assert same(before, state(base.loaded))


def test_an_error_leaves_what_was_there_under_that_name(base: Base) -> None:
    good = made(base, "lora")
    on = base.with_adapter(good, name="a")
    assert on.attached is not None
    said, there = on.classify(["red"]), state(base.loaded)
    with pytest.raises(ConfigError):
        attach(base.loaded, bad(good, cut("head.bias")).parts, on.attached.name)
    assert same(there, state(base.loaded)) and on.classify(["red"]) == said


def test_an_error_late_in_a_stack_leaves_nothing(base: Base, tmp_path: Path) -> None:
    good, broken = made(base, "rows"), bad(made(base, "lora"), cut("head.weight"))
    before = state(base.loaded)
    with pytest.raises(ConfigError) as e:  # its traceback is alive while the state is looked at
        base.with_adapter([good, broken])
    assert same(before, state(base.loaded)), e
    paths = {}
    for name, adapter in (("a", good), ("b", broken)):
        paths[name] = adapter.save(tmp_path / name)
    with pytest.raises(ConfigError) as e:
        attach_all(base, paths)
    del e
    gc.collect()
    assert same(before, state(base.loaded))


def test_an_interrupt_while_it_is_put_on_leaves_nothing(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, before = made(base, "lora"), state(base.loaded)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(PARTS, "head", replace(PARTS["head"], put=stop))
    with pytest.raises(KeyboardInterrupt):
        base.with_adapter(adapter)
    assert same(before, state(base.loaded))


@pytest.mark.parametrize("method", ["lora", "soft", "prefix", "full"])
@pytest.mark.parametrize("error", [UserError("no", "no"), KeyboardInterrupt()])
def test_a_run_that_breaks_leaves_the_base_as_it_was(method: str, error: BaseException, base: Base) -> None:
    class Breaks:
        def start(self, step: int, total: int | None) -> None: ...

        def step(self, info: Any) -> None:
            raise error

        def close(self) -> None: ...

    base.loaded.model.requires_grad_(True)  # someone else learns with it
    before = state(base.loaded)
    with pytest.raises(type(error)):
        base.adapt(ROWS, task="classify", method=method, listeners=[Breaks()], **taken(method, virtual=3))
    assert same(before, state(base.loaded))
    with pytest.raises(type(error)):
        base.adapt(SAYS, task="complete", method=method, listeners=[Breaks()], **taken(method, virtual=3))
    assert same(before, state(base.loaded))
    base.plan_adapt(ROWS, task="classify", method=method, **taken(method, virtual=3))
    assert same(before, state(base.loaded))
    base.loaded.model.requires_grad_(False)


@pytest.mark.parametrize("how", ["grpo", "ppo"])
def test_a_reward_that_breaks_leaves_the_base_as_it_was(how: str, base: Base, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "seen = []\ndef judge(p, c, r):\n    seen.append(c)\n    return 1 / (9 - len(seen))\n"
    )
    before = state(base.loaded)
    asked = {"how": how, "reward": f"{tmp_path / 'judge.py'}:judge", "group": 2, "max_tokens": 2}
    with pytest.raises(UserError, match="ZeroDivisionError"):
        base.adapt([{"prompt": "say"}] * 8, task="reinforce", method="full", rows=2, reinforce=asked)
    assert same(before, state(base.loaded))


# what is hashed


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    taken: list[int] = []
    real = folder.base_fingerprint
    monkeypatch.setattr(folder, "base_fingerprint", lambda model: taken.append(1) or real(model))
    return taken


def test_weights_are_hashed_once_for_all_adapters(base: Base, hashes: list[int]) -> None:
    adapters = [made(base, k) for k in ("head", "lora", "prompt")]
    for adapter in adapters * 2:
        base.with_adapter(adapter)
    base.with_adapter([adapters[1], adapters[0]])
    assert len(hashes) == 1


CHANGES: dict[str, Callable[[LoadedBase], None]] = {
    "in place": lambda b: b.model.text.stem.weight.mul_(1.01),  # type: ignore[union-attr]
    "by .data": lambda b: b.model.text.stem.weight.data.__setitem__((3, 1), 7.0),  # type: ignore[union-attr]
    "by numpy": lambda b: b.model.text.stem.weight.detach().numpy().__setitem__((3, 1), 7.0),  # type: ignore[union-attr]
    "another tensor": lambda b: setattr(
        b.model.text.stem,
        "weight",
        torch.nn.Parameter(b.model.text.stem.weight + 1),  # type: ignore[operator]
    ),
    "loaded anew": lambda b: b.model.load_state_dict(tiny_base(5).model.state_dict()) and None,
}


@pytest.mark.parametrize("how", CHANGES)
def test_weights_that_were_changed_in_memory_are_refused(how: str) -> None:
    base = Base(tiny_base())
    adapter = made(base, "head")
    base.with_adapter(adapter)
    with torch.no_grad():
        CHANGES[how](base.loaded)
    with pytest.raises(ArtifactError, match="other weights"):
        base.with_adapter(adapter)
