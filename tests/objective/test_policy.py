"""The policy's loss against sums written out by hand; ratios, advantages, and what a batch is cut into."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onebase.base.head import Head
from onebase.errors import ConfigError
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch
from onebase.objective.policy import (
    Policy,
    ReinforceConfig,
    Rollout,
    generalised_advantages,
    group_advantages,
    k3,
    normalised,
    token_logps,
)
from onebase.objective.pooled import text_batch
from tests.helpers import add_lora, tiny_base

LENGTHS = [(3, 2), (2, 5), (4, 1), (1, 3), (2, 2), (3, 4), (1, 1), (2, 3)]
"""Tokens of prompt and completion."""


def rollouts(expected: bool = False) -> tuple[list[Tokens], dict[str, Rollout]]:
    rng, g = np.random.default_rng(0), torch.Generator().manual_seed(0)
    texts, known = [], {}
    for i, (p, n) in enumerate(LENGTHS):
        ids = rng.integers(10, 200, p + n).astype(np.int32)
        texts.append(Tokens(ids, np.arange(p + n) >= p, str(i), "r"))
        old = -5 + torch.randn(n, generator=g)
        known[str(i)] = Rollout(
            old,
            old + 0.3 * torch.randn(n, generator=g),
            torch.randn(n, generator=g),
            torch.randn(n, generator=g) if expected else None,
        )
    return texts, known


def by_hand(
    base: Any, texts: list[Tokens], known: dict[str, Rollout], cfg: ReinforceConfig, head: Head | None = None
) -> Tensor:
    """The mean loss, each completion alone, each token alone, from all logits."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for t in texts:
        ids = torch.tensor([t.ids.tolist()])
        h_TD = base.model.hidden(ids).hidden[0]
        logp_TV = base.model.text.logits(h_TD).double().log_softmax(-1)
        r, n, first = known[t.id], int(t.loss.sum()), int(t.loss.argmax())
        one = torch.zeros((), dtype=torch.float64)
        for k in range(n):
            logp = logp_TV[first + k - 1, ids[0, first + k]]
            ratio = (logp - r.old[k]).exp()
            a = float(r.advantage[k])
            worth = min((ratio * a, ratio.clamp(1 - cfg.clip, 1 + cfg.clip) * a), key=lambda x: x.item())
            assert r.reference is not None
            d = r.reference[k] - logp
            one = one - worth + cfg.kl * (d.exp() - d - 1)
            if head is not None:
                assert r.expected is not None
                one = (
                    one
                    + cfg.value * 0.5 * (head(h_TD[first + k - 1].detach()[None])[0, 0] - r.expected[k]) ** 2
                )
        tokens += n
        total = total + {"token": one, "sequence": one / n, "constant": one / cfg.max_tokens}[cfg.length]
    return total / (tokens if cfg.length == "token" else len(texts))


@pytest.mark.parametrize("length", ["token", "sequence", "constant"])
@pytest.mark.parametrize("how", ["grpo", "ppo"])
def test_the_loss_and_its_gradient_are_those_written_out(how: Any, length: Any) -> None:
    base = tiny_base()
    cfg = ReinforceConfig(how=how, length=length, kl=0.1, max_tokens=7, value=0.7)
    texts, known = rollouts(expected=how == "ppo")
    head = None
    if how == "ppo":
        head = Head(32, 1)
        torch.nn.init.normal_(head.weight_CP, std=0.3)
        base.model.heads["v"] = head
    policy = Policy(cfg, known, value_head="v" if head else None)
    total, count = policy.losses(base.model, policy.batch([[t] for t in texts], 0))["policy"]
    grads = torch.autograd.grad(total / count, list(base.model.parameters()), allow_unused=True)
    plain = by_hand(base, texts, known, cfg, head)
    wanted = torch.autograd.grad(plain, list(base.model.parameters()), allow_unused=True)
    assert float((total / count).detach()) == pytest.approx(float(plain.detach()), abs=1e-5)
    for a, b in zip(grads, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b.float(), atol=1e-5, rtol=1e-4)
    assert (
        policy.moved.tokens == sum(n for _, n in LENGTHS) and 0 < policy.moved.clipped < policy.moved.tokens
    )


@pytest.mark.parametrize("length", ["token", "sequence", "constant"])
def test_micro_batches_add_up_to_the_same_gradient(length: Any) -> None:
    """1 x 8, 2 x 4, 4 x 2 and 8 x 1 rows: within 1e-6 of the lengths of the rows' own gradients, which partly cancel."""
    base = tiny_base()
    texts, known = rollouts()
    policy = Policy(ReinforceConfig(length=length, kl=0.1, max_tokens=6), known)

    def gradient(batch: Batch, whole: int) -> torch.Tensor:
        base.model.zero_grad()
        total, _ = policy.losses(base.model, batch)["policy"]
        (total / whole).backward()
        return torch.cat([p.grad.flatten() for p in base.model.parameters() if p.grad is not None])

    found = []
    for size in (8, 4, 2, 1):
        batches = [policy.batch([[t] for t in texts[i : i + size]], i) for i in range(0, 8, size)]
        whole = sum(b.counts["policy"] for b in batches)
        found.append([gradient(b, whole) for b in batches])
    rows = sum(float(g.norm()) for g in found[-1])
    for each in found[1:]:
        assert float((sum(each) - found[0][0]).norm()) <= 1e-6 * rows


def test_log_probabilities_are_those_of_all_logits_with_an_adapter_too() -> None:
    base = tiny_base()
    add_lora(base, "a")
    texts, _ = rollouts()
    read = text_batch(texts)
    learnt_BT = torch.zeros_like(read.ids_BT, dtype=torch.bool)
    for b, t in enumerate(texts):
        learnt_BT[b, : len(t) - 1] = torch.from_numpy(t.loss[1:])
    for routing in (None, AdapterRouting.all_rows("a")):
        h_BTD = base.model.hidden(read.ids_BT, read.cols, routing=routing).hidden
        found_N = token_logps(base.model, h_BTD, read.ids_BT, learnt_BT, routing)
        logp_BTV = base.model.text.logits(h_BTD, routing).log_softmax(-1)
        wanted = [
            float(logp_BTV[b, k - 1, int(t.ids[k])])
            for b, t in enumerate(texts)
            for k in range(len(t))
            if t.loss[k]
        ]
        torch.testing.assert_close(found_N, torch.tensor(wanted), atol=1e-5, rtol=1e-5)


def test_advantages_of_groups() -> None:
    """GRPO divides by the deviation, Dr. GRPO does not; a group of equal rewards says nothing."""
    rewards = torch.tensor([[1.0, 0.0, 0.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
    plain = group_advantages(rewards, "mean")
    assert plain[0].tolist() == [0.0, -1.0, -1.0, 2.0] and not plain[1].any()
    scaled = group_advantages(rewards, "std")
    assert scaled[0].tolist() == pytest.approx([x / (math.sqrt(2) + 1e-4) for x in (0, -1, -1, 2)])
    assert not scaled[1].any()


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.8, 0.0)])
def test_generalised_advantages_are_the_sum_of_the_paper(gamma: float, lam: float) -> None:
    value_n, reward = torch.tensor([0.3, -0.2, 0.9, 0.1]), 2.0
    found_n, expected_n = generalised_advantages(reward, value_n, gamma, lam)
    v = [*value_n.tolist(), 0.0]
    surprise = [(reward if t == 3 else 0.0) + gamma * v[t + 1] - v[t] for t in range(4)]
    wanted = [sum((gamma * lam) ** (u - t) * surprise[u] for u in range(t, 4)) for t in range(4)]
    assert found_n.tolist() == pytest.approx(wanted, abs=1e-6)
    assert expected_n.tolist() == pytest.approx([a + b for a, b in zip(wanted, v[:4], strict=True)], abs=1e-6)
    if (gamma, lam) == (1.0, 1.0):
        assert expected_n.tolist() == pytest.approx([reward] * 4, abs=1e-6)


def test_advantages_of_all_tokens_have_mean_0_and_deviation_1() -> None:
    given = [torch.tensor([1.0, 5.0]), torch.tensor([-2.0])]
    found = torch.cat(normalised(given, "std"))
    assert float(found.mean()) == pytest.approx(0, abs=1e-6)
    assert float(found.std(correction=0)) == pytest.approx(1, abs=1e-3)
    assert torch.cat(normalised(given, "mean")).tolist() == pytest.approx([-1 / 3, 11 / 3, -10 / 3])


def test_k3_is_the_divergence_on_average_and_never_below_0() -> None:
    g = torch.Generator().manual_seed(0)
    p, q = torch.randn(6, generator=g).log_softmax(-1), torch.randn(6, generator=g).log_softmax(-1)
    each = k3(p, q)
    assert (each >= 0).all()
    assert float((p.exp() * each).sum()) == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"group": 1},
        {"max_tokens": 0},
        {"clip": 0.0},
        {"kl": -0.1},
        {"kl": math.nan},
        {"gamma": 1.5},
        {"lam": -0.1},
        {"parts": 0},
        {"value": math.inf},
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"reinforce.{next(iter(options))}"):
        ReinforceConfig(**options)
    ReinforceConfig(how="ppo", group=1)
