"""Learning from a teacher: divergences against brute force, gradients whatever the split, nothing to learn from oneself."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.head import Head
from onebase.engine.features import text_tokens
from onebase.errors import ConfigError
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.base import IGNORE, Losses
from onebase.objective.distil import (
    DistilConfig,
    SoftClassification,
    TeacherOutput,
    TeacherTarget,
    TokenDistil,
    kl,
    kl_slope,
    token_kl,
)
from tests.helpers import add_lora, tiny_base

LENGTH = 24


def samples(n: int = 8, seed: int = 0) -> list[Tokens]:
    """Samples of 8 to 12 tokens, the last half of each supervised."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        ids = rng.integers(10, 200, int(rng.integers(8, 13))).astype(np.int32)
        out.append(Tokens(ids, np.arange(len(ids)) >= len(ids) // 2, str(i), "x"))
    return out


def rows(n: int = 8) -> list[list[Tokens]]:
    """Two samples a row."""
    found = samples(n)
    return [found[i : i + 2] for i in range(0, n, 2)]


def grads(base: LoadedBase) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in base.model.named_parameters() if p.grad is not None}


def by_hand(
    student: TeacherOutput, teacher: TeacherOutput, how: DistilConfig, packed: list[list[Tokens]]
) -> Tensor:
    """Every sample alone, all logits, torch's own KL: the sum over supervised tokens."""
    total = torch.zeros((), dtype=torch.float64)
    for sample in (s for row in packed for s in row):
        ids = torch.from_numpy(sample.ids.astype(np.int64))[None]
        used = torch.from_numpy(sample.loss[1:])
        z, t = (
            x.model.text.logits(x.model.hidden(ids, routing=x.routing).hidden, x.routing)[0, :-1][
                used
            ].double()
            for x in (student, teacher)
        )
        lz, lt = ((x / how.temperature).log_softmax(-1) for x in (z, t.detach()))
        pair = (lz, lt) if how.direction == "forward" else (lt, lz)
        total = total + F.kl_div(*pair, reduction="sum", log_target=True) * how.temperature**2 * (
            1 - how.hard
        )
        total = total + how.hard * F.cross_entropy(z, ids[0, 1:][used], reduction="sum")
    return total


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(("temperature", "hard"), [(1.0, 0.0), (2.0, 0.3), (0.5, 1.0)])
@pytest.mark.parametrize("shape", [{}, {"portable": True, "tied": True}])
def test_loss_and_gradient_are_those_of_all_logits_at_once(
    direction: Any, temperature: float, hard: float, shape: dict[str, Any]
) -> None:
    """Values to 1e-5 and gradients to 1e-4 of their size, in fp32; with the soft-cap and without, the matrix tied and not."""
    student, teacher = tiny_base(1, **shape), tiny_base(2, width=48)
    how = DistilConfig(direction=direction, temperature=temperature, hard=hard)
    before = {n: p.clone() for n, p in teacher.model.named_parameters()}
    objective = TokenDistil(LENGTH, TeacherOutput(teacher.model), how)
    student.model.requires_grad_(True)
    batch = objective.batch(rows(), 0)
    assert batch.counts["distil"] == sum(int(s.loss[1:].sum()) for s in samples())
    found = objective.losses(student.model, batch)["distil"][0]
    found.backward()
    got = grads(student)
    student.model.zero_grad()
    wanted = by_hand(TeacherOutput(student.model), TeacherOutput(teacher.model), how, rows())
    wanted.backward()
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    for name, g in grads(student).items():
        assert float((got[name] - g).norm()) <= 1e-4 * float(g.norm()) + 1e-6, name
    assert all(p.grad is None for p in teacher.model.parameters()), "the teacher got a gradient"
    assert all(torch.equal(p, before[n]) for n, p in teacher.model.named_parameters())


def test_a_chunk_at_a_time_is_the_same() -> None:
    """Chunks of 3 tokens and of all: 1e-6."""
    student, teacher = tiny_base(1), tiny_base(2)
    how = DistilConfig(temperature=1.5)
    batch = TokenDistil(LENGTH, TeacherOutput(teacher.model), how).batch(rows(), 0)
    read, used = batch.inputs["text"], batch.targets["distil"] != IGNORE
    said = TeacherOutput(student.model)
    h = said.states(read)[used].detach()
    found = []
    for chunk in (3, 512):
        leaf = h.clone().requires_grad_(True)
        total = token_kl(leaf, said, TeacherOutput(teacher.model), read, used, how, chunk)
        total.backward()
        found.append((float(total), leaf.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [1, 2])
def test_the_gradient_does_not_depend_on_the_split(size: int) -> None:
    """4 rows at once, and in micro-batches, in fp64: 1e-6 of the gradient's size."""
    student, teacher = tiny_base(1), tiny_base(2)
    for base in (student, teacher):
        base.model.double().compute_dtype = torch.float64
    student.model.requires_grad_(True)
    objective = TokenDistil(LENGTH, TeacherOutput(teacher.model), DistilConfig(hard=0.2))
    found = []
    for step in (4, size):
        student.model.zero_grad()
        parts: list[Losses] = [
            objective.losses(student.model, objective.batch(rows()[i : i + step], i))
            for i in range(0, 4, step)
        ]
        count = sum(p["distil"][1] for p in parts)
        sum(p["distil"][0] / count for p in parts).backward()  # type: ignore[union-attr]
        found.append(torch.cat([g.flatten() for g in grads(student).values()]))
    assert float((found[0] - found[1]).norm()) <= 1e-6 * float(found[0].norm())


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_from_itself_there_is_nothing_to_learn(direction: Any) -> None:
    """The same weights: KL 0 and no gradient, to rounding (1e-5 of what another teacher would give)."""
    student, other = tiny_base(1), tiny_base(2)
    twin = copy.deepcopy(student.model)
    student.model.requires_grad_(True)
    found = {}
    for name, teacher in (("twin", twin), ("other", other.model)):
        student.model.zero_grad()
        objective = TokenDistil(LENGTH, TeacherOutput(teacher), DistilConfig(direction=direction))
        total = objective.losses(student.model, objective.batch(rows(), 0))["distil"][0]
        total.backward()
        found[name] = float(total), float(torch.cat([g.flatten() for g in grads(student).values()]).norm())
    assert abs(found["twin"][0]) <= 1e-5 * found["other"][0]
    assert found["twin"][1] <= 1e-5 * found["other"][1]
    z = torch.randn(5, 7).log_softmax(-1)
    assert not kl(z, z, direction).any() and not kl_slope(z, z, direction).any()


def test_adapters_of_both_sides_speak() -> None:
    """An adapter with rows of tokens on the student, another on the teacher; a padded vocabulary is read without its padding."""
    student, teacher = tiny_base(1), tiny_base(1)
    add_lora(student, "s", 3)
    add_lora(teacher, "t", 4)
    how = DistilConfig()
    one, two = (
        TeacherOutput(student.model, AdapterRouting.all_rows("s")),
        TeacherOutput(teacher.model, AdapterRouting.all_rows("t")),
    )
    objective = TokenDistil(LENGTH, two, how, one.routing)
    found = float(objective.losses(student.model, objective.batch(rows(), 0))["distil"][0])
    assert found == pytest.approx(float(by_hand(one, two, how, rows())), rel=1e-5)
    padded = tiny_base(2, vocab_size=teacher.model.cfg.text.vocab_size + 64)
    objective = TokenDistil(LENGTH, TeacherOutput(padded.model), how)
    total = objective.losses(student.model, objective.batch(rows(), 0))["distil"][0]
    assert torch.isfinite(total) and float(total) > 0


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_soft_labels(direction: Any) -> None:
    """KL to the classes at a temperature, the row's own label by `hard` where it has one, and the cosine of the means, each by hand."""
    base = tiny_base(1)
    base.model.heads["h"] = head = Head(32, 3)
    torch.nn.init.normal_(head.weight_CP, generator=torch.Generator().manual_seed(0))
    texts = text_tokens(base, ["one text", "another one", "a third"])
    logp = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    means = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    own = [2, IGNORE, 0]
    how = DistilConfig(temperature=2.0, hard=0.4, hidden=0.7, direction=direction)
    taught = {t.id: TeacherTarget(logp[i], means[i], own[i]) for i, t in enumerate(texts)}
    objective = SoftClassification("h", taught, how, "mean")
    batch = objective.batch([[t] for t in texts], 0)
    total, count = objective.losses(base.model, batch)["distil"]
    wanted = 0.0
    for i, t in enumerate(texts):
        mean = base.model.hidden(torch.from_numpy(t.ids.astype(np.int64))[None]).hidden[0].mean(0)
        z = head(mean)
        p, q = (logp[i] / 2).softmax(-1), (z / 2).softmax(-1)
        p, q = (p, q) if direction == "forward" else (q, p)
        nats = float((p * (p / q).log()).sum()) * 4
        if own[i] != IGNORE:
            nats = 0.6 * nats - 0.4 * float(z.log_softmax(-1)[own[i]])
        wanted += nats + 0.7 * (1 - float(F.cosine_similarity(mean, means[i], dim=0)))
    assert count == 3
    assert float(total) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"hard": 1.5},
        {"hard": -0.1},
        {"hidden": -1.0},
        {"sample": float("nan")},
        {"max_tokens": 0},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"distil.{next(iter(wrong))}"):
        DistilConfig(**wrong)
