"""The contrastive loss: the formula, what is no negative, and a gradient that does not depend on chunks."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from onebase.base.folder import LoadedBase
from onebase.errors import ConfigError, UserError
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.modality.text.sample import Tokens
from onebase.objective.contrastive import Contrastive, chunk_vectors, info_nce, related
from onebase.train.config import ScheduleConfig, TrainConfig
from onebase.train.loop import Job, run
from onebase.train.parallel import Parallel
from tests.helpers import tiny_base

WORDS = (
    "fox",
    "dog",
    "a question",
    "the lazy answer",
    "add",
    "return a",
    "Yes, it is",
    "No",
    "brown",
    "quick jump",
)
MEAN = EmbeddingConfig()


def tokens(base: LoadedBase, text: str) -> Tokens:
    ids = np.asarray(base.codec.tokenizer.encode(text), np.int32)
    return Tokens(ids, np.zeros(len(ids), np.bool_), text, "pairs")


def rows(base: LoadedBase, n: int = 8, negatives: bool = True) -> list[list[Tokens]]:
    """Pairs, every second one with a negative."""
    out = [[tokens(base, WORDS[i]), tokens(base, f"{WORDS[i]} {i * 'and '}so")] for i in range(n)]
    for i in range(0, n if negatives else 0, 2):
        out[i].append(tokens(base, f"never {WORDS[i]}"))
    return out


def gradients(base: LoadedBase, batch: Any, objective: Contrastive) -> tuple[float, dict[str, torch.Tensor]]:
    base.model.requires_grad_(True)
    base.model.zero_grad()
    nats, n = objective.losses(base.model, batch)["contrastive"]
    (nats / n).backward()
    found = {k: p.grad.clone() for k, p in base.model.named_parameters() if p.grad is not None}
    return float(nats.detach()), found


def direct(v: torch.Tensor, anchors: list[int], candidates: list[int], temperature: float) -> float:
    """The loss as the paper writes it, without a mask: one anchor after the other."""
    total = 0.0
    for i, a in enumerate(anchors):
        e = [
            math.exp(float(torch.dot(v[a], v[c]) / (v[a].norm() * v[c].norm())) / temperature)
            for c in candidates
        ]
        total -= math.log(e[i] / sum(e))
    return total


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_loss_is_the_formula(temperature: float) -> None:
    v = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    anchors, candidates = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5, 6])
    forth = direct(v, [0, 1, 2], [3, 4, 5, 6], temperature)
    back = direct(v, [3, 4, 5], [0, 1, 2], temperature)
    assert float(info_nce(v, anchors, candidates, temperature)) == pytest.approx(forth, abs=1e-9)
    both = float(info_nce(v, anchors, candidates, temperature, symmetric=True))
    assert both == pytest.approx((forth + back) / 2, abs=1e-9)


def test_what_belongs_to_an_anchor_is_no_negative() -> None:
    """Texts 0 1 0 2 5 with positives 3 3 4 0 5, and a negative that is text 3."""
    found = related(torch.tensor([0, 1, 0, 2, 5]), torch.tensor([3, 3, 4, 0, 5, 3]))
    assert found.int().tolist() == [
        [0, 1, 1, 1, 0, 1],  # the same positive; the positive of the same anchor; the anchor's own text
        [1, 0, 0, 0, 0, 1],
        [1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],  # an anchor that is its own positive keeps it
    ]


@torch.no_grad()
def test_equal_texts_change_nothing() -> None:
    """A pair given twice counts twice and is not pushed away from itself."""
    base = tiny_base()
    objective = Contrastive(MEAN, 0.1)
    once = rows(base, 3, negatives=False)
    one = float(objective.losses(base.model, objective.batch(once, 0))["contrastive"][0])
    twice = float(objective.losses(base.model, objective.batch(once + once, 0))["contrastive"][0])
    # Each other pair now stands in the sum twice, the own one once.
    v = torch.stack(
        [chunk_vectors(base.model, [objective.batch([r], 0).inputs["chunk 0"]], MEAN, None) for r in once]
    )
    assert v.shape == (3, 2, 32)
    u = torch.nn.functional.normalize(v, dim=-1)
    order = [0 if len(r[0].ids) <= len(r[1].ids) else 1 for r in once]
    assert order == [0, 0, 0]
    e = (u[:, 0] @ u[:, 1].T / 0.1).exp()
    wanted = -2 * sum(float((e[i, i] / (2 * e[i].sum() - e[i, i])).log()) for i in range(3))
    assert twice == pytest.approx(wanted, abs=1e-4)
    assert one == pytest.approx(-float((e.diag() / e.sum(1)).log().sum()), abs=1e-4)
    alone = objective.losses(base.model, objective.batch([once[0], once[0]], 0))["contrastive"][0]
    assert float(alone) == 0.0, "the only other pair is the same"


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_gradient_does_not_depend_on_chunks(pooling: Any, symmetric: bool) -> None:
    """20 texts of 8 rows at once, and 10, 5 and 1 at a time: the same within 1e-6, in fp64."""
    base = tiny_base()
    base.model.double()
    base.model.compute_dtype = torch.float64
    given = rows(base)
    whole = Contrastive(EmbeddingConfig(pooling=pooling), 0.1, symmetric, chunk=99)
    loss, wanted = gradients(base, whole.batch(given, 0), whole)
    assert len(whole.batch(given, 0).inputs) == 1
    assert max(float(g.abs().max()) for g in wanted.values()) > 0.1
    for chunk, n in ((10, 2), (5, 4), (1, 20)):
        parts = Contrastive(EmbeddingConfig(pooling=pooling), 0.1, symmetric, chunk=chunk)
        batch = parts.batch(given, 0)
        assert len(batch.inputs) == n
        again, found = gradients(base, batch, parts)
        assert again == pytest.approx(loss, abs=1e-6)
        assert found.keys() == wanted.keys()
        for k, g in wanted.items():
            torch.testing.assert_close(found[k], g, atol=1e-6, rtol=0)


class _Same:
    """The same rows every step."""

    digest = "same"

    def __init__(self, given: list[list[Tokens]]) -> None:
        self.given = given

    def rows(self, step: int) -> list[list[Tokens]]:
        return self.given


@pytest.mark.parametrize("micro", [8, 4, 1])
def test_the_loop_gives_the_whole_step(micro: int) -> None:
    """However few rows are a micro-batch, all 8 are each other's negatives: the loss of step 1 is that of the formula."""
    base = tiny_base()
    given, objective = rows(base), Contrastive(MEAN, 0.1, chunk=2 * micro)
    with torch.no_grad():
        wanted = float(objective.losses(base.model, objective.batch(given, 0))["contrastive"][0]) / 8
    train = TrainConfig(
        steps=1,
        batch_size=8,
        sequence_length=64,
        micro_batch=micro,
        muon=None,
        schedule=ScheduleConfig(warmup=0, warmdown=0),
        dtype="fp32",
    )
    base.model.requires_grad_(True)
    assert run(Job(base.model, objective, _Same(given), train)).losses[0] == pytest.approx(wanted, rel=1e-5)


def test_many_processes_are_refused() -> None:
    base = tiny_base()
    job = Job(
        base.model,
        Contrastive(MEAN),
        _Same(rows(base)),
        TrainConfig(steps=1, batch_size=8),
        parallel=Parallel(0, 2, base.model.device),
    )
    with pytest.raises(UserError, match="split over 2 processes"):
        run(job)


def test_what_cannot_be_is_refused() -> None:
    for wrong in ({"temperature": 0.0}, {"temperature": math.nan}, {"chunk": 0}):
        with pytest.raises(ConfigError):
            Contrastive(MEAN, **wrong)
