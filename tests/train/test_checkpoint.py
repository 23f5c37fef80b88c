"""What checkpoints of earlier versions call things."""

from pathlib import Path

import torch

from onebase.train.checkpoint import RunState, load_checkpoint, save_checkpoint


def test_virtual_tokens_that_were_called_leads_are_found(tmp_path: Path) -> None:
    names = ("leads.soft.vectors_PD", "trunks.text.leads.weight")
    model = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
    optim = {f"adamw/{names[0]}/exp_avg": torch.ones(2), f"muon/{names[1]}/momentum": torch.zeros(2)}
    path = save_checkpoint(tmp_path, RunState(identity={}), model, optim, keep=1)
    _, found, state = load_checkpoint(path)
    assert set(found) == {"virtual.soft.vectors_PD", names[1]}
    assert set(state) == {"adamw/virtual.soft.vectors_PD/exp_avg", f"muon/{names[1]}/momentum"}
    assert torch.equal(found["virtual.soft.vectors_PD"], model[names[0]])
