"""An encoder-decoder (it writes down what it hears): rows of text alone teach it nothing, so every task is refused; a LoRA of its own (PEFT makes
them) acts on both trunks and on what joins them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from onebase.api.base import Adapter, Base
from onebase.artifact.record import Record
from onebase.base.folder import base_tensors, load_base
from onebase.errors import ArtifactError, UserError
from onebase.methods import lora
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, adapter_tensors, bound_to, detach
from onebase.methods.lora import LoraConfig
from onebase.model.cross import Memory
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.tasks.table import METHODS, TASKS
from tests.methods.conformance.made import folder

TOLERANCE = 1e-5


def drawn(base: Base, seed: int, cfg: LoraConfig) -> Adapter:
    """An adapter at random, as one that PEFT learnt would be."""
    model = base.loaded.model
    lora.inject(model, "drawn", cfg, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in model.sites().values():
            if "drawn" in site.deltas:
                b_OR = site.deltas["drawn"].b_OR
                b_OR.copy_(torch.randn(b_OR.shape, generator=generator) * 0.3)
    found = AdapterConfig(method="lora", task="complete", base=bound_to(base.loaded), lora=cfg)
    record = Record("adapter")
    record.add_parent("base", base.fingerprint, "base")
    parts = AdapterParts(found, adapter_tensors(base.loaded, "drawn"), record)
    detach(base.loaded, "drawn")
    return Adapter(parts)


@torch.no_grad()
def said(base: Base, routing: AdapterRouting | None, rows: int = 1) -> Tensor:
    """Logits [B, T, V] of a text beside a sound."""
    model = base.loaded.model
    sound_BMF = torch.randn(1, 8, 40, generator=torch.Generator().manual_seed(3)).expand(rows, -1, -1)
    heard = model.states("audio", sound_BMF, routing=routing).hidden
    memory = Memory(heard, Cols.simple(*heard.shape[:2]))
    ids_BT = torch.tensor([base.tokenizer.encode("The quick", bos=True)] * rows)
    return model.text.logits(model.hidden(ids_BT, routing=routing, memory=memory).hidden, routing)


@pytest.mark.parametrize("task", [name for name, t in TASKS.items() if t.fits is None])
def test_every_task_is_refused_with_the_reason(task: str) -> None:
    base = Base(load_base(folder("speech")))
    for method in METHODS:
        if method in TASKS[task].makers:
            with pytest.raises(UserError, match="reads text only together with audio") as e:
                base.adapt([{"text": "a", "label": "b"}], task=task, method=method)
            assert "adapt a text base" in e.value.remedy
            with pytest.raises(UserError, match="reads text only together with audio"):
                base.plan_adapt([{"text": "a", "label": "b"}], task=task, method=method)


@pytest.mark.parametrize("dora", [False, True])
def test_a_lora_of_its_own_holds_what_adapters_hold(dora: bool, tmp_path: Path) -> None:
    """Saved and loaded, merged, taken off, refused by another base; the base is bitwise what it was."""
    base = Base(load_base(folder("speech")))
    before = {k: t.clone() for k, t in base_tensors(base.loaded.model).items()}
    plain = said(base, None)
    on = base.with_adapter(drawn(base, 1, LoraConfig(rank=2, dora=dora)))
    with_it = said(on, on.routing)
    assert (with_it - plain).abs().max() > 0.1
    path = on.attached and drawn(base, 1, LoraConfig(rank=2, dora=dora)).save(tmp_path / "a")
    again = Base(load_base(folder("speech"))).with_adapter(path)  # type: ignore[arg-type]
    assert torch.equal(said(again, again.routing), with_it)
    kinds = {k.split(".")[0] for k in Adapter.load(tmp_path / "a").parts.tensors}
    assert kinds == {"audio", "text"}
    assert any(".cross." in k for k in Adapter.load(tmp_path / "a").parts.tensors)
    torch.testing.assert_close(said(on.merged(), None), with_it, atol=TOLERANCE, rtol=TOLERANCE)
    assert torch.equal(said(base, None), plain)
    assert all(torch.equal(t, before[k]) for k, t in base_tensors(base.loaded.model).items())
    other = load_base(folder("speech"))
    with torch.no_grad():
        other.model.trunk.blocks[1].cross.k.weight[0, 0] += 1e-6
    with pytest.raises(ArtifactError, match="other weights"):
        Base(other).with_adapter(tmp_path / "a")


def test_adapters_mixed_in_a_batch_are_each_alone() -> None:
    base = Base(load_base(folder("speech")))
    names: list[str | None] = [None]
    held: list[Base] = []  # an adapter that nobody has comes off
    for seed, cfg in enumerate(
        (LoraConfig(rank=2), LoraConfig(rank=1, dora=True), LoraConfig(sites=("cross.*", "k")))
    ):
        held.append(base.with_adapter(drawn(base, seed, cfg), f"a{seed}"))
        names.append(held[-1].attached.name)  # type: ignore[union-attr]
    mixed = said(base, AdapterRouting.per_row(names), rows=len(names))
    alone = [said(base, AdapterRouting.all_rows(n) if n else None)[0] for n in names]
    torch.testing.assert_close(mixed, torch.stack(alone), atol=TOLERANCE, rtol=TOLERANCE)
    assert all(not torch.equal(x, alone[0]) for x in alone[1:])
