"""One gradient however a step is cut: sums of losses over the supervised tokens of the whole batch, in 1, 3, 4 and 8 micro-batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onebase.api.base import Base
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.data.order import ExampleOrder, one_by_one
from onebase.modality.text.sample import Tokens
from onebase.objective.base import Batch, Losses, Objective, Row
from onebase.objective.infill import Infill, InfillMarks
from onebase.tasks import job as adapting
from onebase.train.config import TrainConfig
from onebase.train.loop import Job, Result, run
from onebase.train.optim import Optimizers
from tests.helpers import tiny_base

TOLERANCE = 1e-6
CANCELS = {"reward": 3.0}
"""Times the tolerance: a pair's gradient is the difference of two that are nearly equal, so the same rounding is a larger part of it (1.2e-6 on a Xeon
held to AVX2, below 1e-6 on an EPYC)."""
"""Largest difference of a number of the gradient, as a share of the largest number in it (fp32)."""
ROWS = 8
CUTS = (8, 2, 1, 3)
"""Rows of a micro-batch: 1 x 8, 4 x 2, 8 x 1, and 3 + 3 + 2."""

WORDS = ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
TEXTS = [" ".join(WORDS[i % 9 :][: 1 + i % 5]) + " so" for i in range(4 * ROWS)]
WRITTEN = [{"prompt": t[:6], "completion": "x" * (1 + 5 * (i % 7 == 0) * 4)} for i, t in enumerate(TEXTS)]
"""Completions of 1 and of 21 letters: a mean of the means of micro-batches is another gradient."""
# Equal texts of other classes and values: a head fitted exactly must leave a gradient, or there is only rounding to compare.
TAGGED = [{"text": t, "spans": [{"start": 0, "end": 2, "label": "ab"[i % 2]}]} for i, t in enumerate(TEXTS)]

CASES: dict[str, dict[str, Any]] = {
    "next token, packed": {"task": "complete", "method": "lora", "data": WRITTEN * 8, "max_length": 32},
    "next token, one a row": {"task": "complete", "method": "soft", "data": WRITTEN, "virtual": 3},
    "next token, all weights": {"task": "complete", "method": "full", "data": WRITTEN * 8, "max_length": 32},
    "label": {
        "task": "classify",
        "method": "lora",
        "data": [{"text": TEXTS[i % 7], "label": "ab"[i % 2]} for i in range(len(TEXTS))],
    },
    "labels": {
        "task": "classify",
        "method": "prefix",
        "virtual": 3,
        "data": [
            {"text": TEXTS[i % 7], "labels": [["a"], ["b", "c"], ["b"]][i % 3]} for i in range(len(TEXTS))
        ],
    },
    "value": {
        "task": "regress",
        "method": "full",
        "data": [{"text": TEXTS[i % 7], "value": i % 5} for i in range(len(TEXTS))],
    },
    "tag": {"task": "tag", "method": "lora", "data": TAGGED},
    "preference": {
        "task": "prefer",
        "method": "lora",
        "data": [
            {"prompt": r["prompt"], "chosen": r["completion"], "rejected": " no" * (1 + i % 4)}
            for i, r in enumerate(WRITTEN)
        ],
    },
    "reward": {
        "task": "reward",
        "method": "full",
        "data": [
            {"prompt": r["prompt"], "chosen": "ab"[i % 2], "rejected": "ba"[i % 2]}
            for i, r in enumerate(WRITTEN)
        ],
    },
    "contrastive": {
        "task": "embed",
        "method": "lora",
        "data": [{"anchor": t, "positive": f"{t} {i}"} for i, t in enumerate(TEXTS)],
    },
}


@dataclass(frozen=True)
class MeanOfMeans:
    """An objective as it would be if each micro-batch were divided by its own count: what must not be."""

    inner: Objective
    parts: int
    totals: dict[str, int]
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        return self.inner.batch(rows, first)

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        found = self.inner.losses(base, batch)
        return {k: (s / max(1, n) * self.totals[k] / self.parts, n) for k, (s, n) in found.items()}


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The gradient of the first step of the run that comes, by parameter, as the optimizer is given it."""
    found: dict[str, Tensor] = {}
    step = Optimizers.step

    def spy(self: Optimizers) -> None:
        if not found:
            found.update(
                {str(i): p.grad.clone() for i, p in enumerate(self.parameters()) if p.grad is not None}
            )
        step(self)

    monkeypatch.setattr(Optimizers, "step", spy)
    return found


def gradient(first: dict[str, Tensor], make: Callable[[], object]) -> Tensor:
    first.clear()
    make()
    return torch.cat([g.flatten() for g in first.values()])


def differs(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape and bool(a.any())
    return float((a - b).norm() / a.norm())


def one_step(loop: Job) -> Job:
    """The first step alone, and without the clipping that would hide a wrong scale."""
    return replace(loop, train=replace(loop.train, steps=1, clip=None))


@pytest.mark.parametrize("case", CASES)
def test_one_gradient_however_a_step_is_cut(
    case: str, first: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dict(CASES[case])
    data, base = options.pop("data"), Base(tiny_base())
    seen: list[Job] = []

    def cut(loop: Job) -> Result:
        seen.append(loop)
        return run(one_step(loop))

    monkeypatch.setattr(adapting, "run", cut)

    def learn(micro: int) -> Tensor:
        return gradient(
            first, lambda: base.adapt(data, batch_size=ROWS, micro_batch=micro, epochs=1, seed=1, **options)
        )

    whole, *parts = (learn(micro) for micro in CUTS)
    assert [x.train.micro_batch for x in seen] == list(CUTS)
    assert all(x.train.batch_size == ROWS for x in seen)
    assert max(differs(whole, x) for x in parts) < CANCELS.get(case, 1.0) * TOLERANCE


def test_a_mean_of_means_would_be_seen(first: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(CASES["next token, one a row"])
    data, base = options.pop("data"), Base(tiny_base())

    def wrong(loop: Job) -> Result:
        rows = loop.rows.rows(0)
        totals = loop.objective.batch(rows, 0).counts
        parts = ROWS // loop.train.micro_batch
        return run(one_step(replace(loop, objective=MeanOfMeans(loop.objective, parts, totals))))

    monkeypatch.setattr(adapting, "run", wrong)
    whole, *parts = (
        gradient(first, lambda m=micro: base.adapt(data, batch_size=ROWS, micro_batch=m, epochs=1, **options))
        for micro in CUTS
    )
    assert min(differs(whole, x) for x in parts) > 100 * TOLERANCE


def test_filling_in_is_one_gradient_too(first: dict[str, Tensor]) -> None:
    """Whose batches are drawn: by the global number of a row, not by where a micro-batch begins."""
    found = []
    for micro in CUTS:
        loaded: LoadedBase = tiny_base()
        texts = [
            Tokens(np.arange(2, 8 + 3 * i, dtype=np.int32), np.arange(6 + 3 * i) % 5 < 1 + i % 4, str(i), "a")
            for i in range(ROWS)
        ]
        train = TrainConfig(
            steps=1,
            batch_size=ROWS,
            sequence_length=40,
            micro_batch=micro,
            muon=None,
            clip=None,
            dtype="fp32",
        )
        objective = Infill(40, InfillMarks(9, 10, 11), 0.5)
        job = Job(loaded.model, objective, ExampleOrder(one_by_one(texts), ROWS), train)
        found.append(gradient(first, lambda job=job: run(job)))
    whole, *parts = found
    assert max(differs(whole, x) for x in parts) < TOLERANCE
