"""The loss of reward models: Bradley and Terry's formula, and a sum over pairs."""

import pytest
import torch

from onebase.base.head import Head
from onebase.objective.reward import PairwiseReward
from tests.helpers import tiny_base
from tests.objective.test_preference import gradients, rows


@pytest.mark.parametrize("pooling", ["last", "both"])
def test_loss_and_gradient_are_the_formula_however_a_step_is_cut(pooling: str) -> None:
    base = tiny_base()
    given = rows(base)
    head = Head(32 * (2 if pooling == "both" else 1), 1)
    torch.nn.init.normal_(head.weight_CP, 0, 0.3, torch.Generator().manual_seed(0))
    base.model.heads["r"] = head
    base.model.requires_grad_(True)
    want = torch.zeros(())
    for row in given:
        r = []
        for t in row:
            h_TD = base.model.hidden(torch.tensor(t.ids.astype("int64"))[None]).hidden[0]
            x = h_TD[-1] if pooling == "last" else torch.cat((h_TD[-1], h_TD.mean(0)))
            r.append(x @ head.weight_CP[0] + head.bias_C[0])
        want = want - torch.log(1 / (1 + torch.exp(r[1] - r[0])))
    objective = PairwiseReward("r", pooling)  # type: ignore[arg-type]
    wanted = gradients(base, want / 8)
    for n in (8, 4, 1):
        parts = [
            objective.losses(base.model, objective.batch(given[i : i + n], i))["reward"]
            for i in range(0, 8, n)
        ]
        assert sum(c for _, c in parts) == 8
        total = torch.stack([s for s, _ in parts]).sum()
        torch.testing.assert_close(total, want, atol=1e-5, rtol=1e-5)
        found = gradients(base, total / 8)
        largest = max(float(g.abs().max()) for g in wanted.values())
        for k, g in wanted.items():
            torch.testing.assert_close(found[k], g, atol=1e-5 * largest, rtol=0)
