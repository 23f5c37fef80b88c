"""Every method on every kind of base: only the adapter learns and is saved, the base stays as it is, another base is refused."""

from pathlib import Path

import pytest
import torch

from onebase.api.base import Adapter, Base
from onebase.base.folder import base_tensors, load_base
from onebase.errors import ArtifactError, UserError
from onebase.methods.folder import detach
from onebase.methods.table import PARTS
from onebase.model.proj import AdapterRouting
from onebase.train.signals import Stopped
from tests.methods.conformance.cases import CASES, STOPPED
from tests.methods.conformance.made import Stops, adapted, answer, folder, made, states

TOLERANCE = 1e-5
BY_STEPS = [c for c in CASES if CASES[c]["method"] not in ("head", "prompt")]
MERGED = [c for c in CASES if CASES[c]["method"] in ("lora", "full")]


@pytest.mark.parametrize("case", CASES)
def test_the_base_is_bitwise_what_it_was(case: str) -> None:
    """After learning, with the adapter on it, and without it again."""
    m = made(case)
    plain = states(Base(load_base(folder(m.kind))), None)
    name = m.on.attached.name  # type: ignore[union-attr]
    model = m.base.loaded.model
    for _ in ("attached", "detached"):
        now = base_tensors(model)
        assert now.keys() == m.before.keys() and all(torch.equal(now[k], t) for k, t in m.before.items())
        assert torch.equal(states(m.base, None), plain)
        assert m.base.loaded.reread() == m.base.fingerprint
        twin = Base(load_base(folder(m.kind))).with_adapter(m.adapter)
        detach(twin.loaded, twin.attached.name)  # type: ignore[union-attr]
        left = [n for n, _ in twin.loaded.model.named_parameters()]
        model = twin.loaded.model if m.method != "full" else model
        assert not any(".deltas." in n or n.startswith(("heads.", "virtual.")) for n in left), name


@pytest.mark.parametrize("case", CASES)
def test_only_the_adapter_is_saved_and_it_answers_the_same(case: str, tmp_path: Path) -> None:
    m = made(case)
    path = m.adapter.save(tmp_path / "adapter")
    files = {p.name for p in path.iterdir()}
    assert files == {"adapter.json", "adapter.safetensors", "manifest.json", "record.json"}
    again = Base(load_base(folder(m.kind))).with_adapter(path)
    assert answer(again) == answer(m.on)
    assert Adapter.load(path).fingerprint == m.adapter.fingerprint
    cfg, tensors = m.adapter.parts.config, m.adapter.parts.tensors
    parts = [part for kind, part in PARTS.items() if getattr(cfg, kind) is not None]
    rest = {k for k in tensors if not any(p.owns(k) for p in parts)}
    assert rest <= (m.before.keys() if m.method == "full" else set())
    assert all(any(p.owns(k) for k in tensors) for p in parts if m.method != "prompt")
    assert m.adapter.record.parents[0]["fingerprint"] == m.base.fingerprint
    if m.method != "full":
        assert m.adapter.bytes < sum(t.numel() * 4 for t in m.before.values()) / 2


@pytest.mark.parametrize("case", BY_STEPS)
def test_gradients_go_where_they_are_due(case: str) -> None:
    """To the adapter and its head alone, and all of it gets one; full: to weights of the base and the head."""
    m = made(case)
    own = {n for n in m.learnt if ".deltas." in n or n.startswith(("virtual.", "heads."))}
    assert m.learnt and m.moved
    if m.method == "full":
        # Of a matrix of tokens that is read alone, the rows of those that are in the data learn in its place.
        whole, moved = (
            {n.replace(".few.rows_KD", ".weight") for n in names} for names in (m.learnt - own, m.moved)
        )
        assert whole == m.before.keys()
        assert m.adapter.parts.tensors.keys() & m.before.keys() <= moved
    else:
        assert m.learnt == own
        # A token that only ends answers is never read, so its row at the stem may have none; a bias does not tell answers apart.
        none = (".stem_KD", ".bias_C") if m.options["task"] == "reward" else (".stem_KD",)
        absent = {
            n for n in m.learnt if ".group_ff.series." in n
        }  # of the plug-in's modality, and these are texts
        assert not absent & m.moved and bool(absent) == (m.kind == "series" and m.method == "lora")
        due = {n for n in m.learnt - absent if not n.endswith(none)}
        assert due <= m.moved, f"without a gradient: {sorted(due - m.moved)}"


@pytest.mark.parametrize("case", CASES)
def test_another_base_is_refused(case: str) -> None:
    """One weight that is not the same, in memory alone, and the adapter does not fit."""
    m = made(case)
    other = load_base(folder(m.kind))
    with torch.no_grad():
        next(t for k, t in base_tensors(other.model).items() if k.endswith("1.ff.up.weight"))[0, 0] += 1e-6
    with pytest.raises(ArtifactError, match="other weights"):
        Base(other).with_adapter(m.adapter)


@pytest.mark.parametrize("case", MERGED)
def test_merged_is_unmerged(case: str) -> None:
    m = made(case)
    plain, on = (states(b, b.routing, sees=m.sees) for b in (m.base, m.on))
    assert (on - plain).abs().max() > 10 * TOLERANCE
    merged = m.on.merged()
    torch.testing.assert_close(states(merged, None, sees=m.sees), on, atol=TOLERANCE, rtol=TOLERANCE)
    assert torch.equal(states(m.base, None, sees=m.sees), plain), "merging changed the base"
    assert merged.fingerprint != m.base.fingerprint
    assert {p["kind"] for p in merged.record.parents} == {"base", "adapter"}
    assert not merged.loaded.model.heads and not any(p.deltas for p in merged.loaded.model.sites().values())


@pytest.mark.parametrize("case", [c for c in CASES if c not in MERGED])
def test_what_changes_no_weights_is_not_merged(case: str) -> None:
    with pytest.raises(UserError, match="virtual tokens are not weights|no adapter has weights"):
        made(case).on.merged()


@pytest.mark.parametrize("case", STOPPED)
def test_stopped_and_gone_on_is_bitwise_the_same(case: str, tmp_path: Path) -> None:
    m = made(case)
    base = Base(load_base(folder(m.kind)))
    with pytest.raises(Stopped, match="it resumes from"):
        adapted(base, m.options, resume=tmp_path, callbacks=[Stops()])
    assert adapted(base, m.options, resume=tmp_path).fingerprint == m.adapter.fingerprint
    assert m.adapter.parts.tensors, "nothing was learnt"


@pytest.mark.parametrize("kind", ["decoder", "encoder", "sees", "series"])
def test_adapters_mixed_in_a_batch_are_each_alone(kind: str) -> None:
    base = Base(load_base(folder(kind)))
    names: list[str | None] = [None]
    held = []  # an adapter that nobody has comes off
    for case in CASES:
        if case.startswith(f"{kind} ") and CASES[case]["method"] in ("lora", "soft", "prefix"):
            on = base.with_adapter(made(case).adapter, case.replace(" ", "-"))
            held.append(on)
            names.append(on.attached.name)  # type: ignore[union-attr]
    assert len(names) > 2
    mixed = states(base, AdapterRouting.per_row(names), rows=len(names))
    alone = [states(base, AdapterRouting.all_rows(n) if n else None)[0] for n in names]
    torch.testing.assert_close(mixed, torch.stack(alone), atol=TOLERANCE, rtol=TOLERANCE)
    for i, one in enumerate(alone[1:], 1):
        assert not torch.equal(one, alone[0]), names[i]
