"""The loop: accumulation, bad steps, signals, budgets."""

import itertools
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.base.model import BaseModel
from onebase.errors import ConfigError, UserError
from onebase.objective.base import Batch, Losses
from onebase.objective.next_token import NextToken
from onebase.train.callbacks import Quiet, StepInfo
from onebase.train.checkpoint import list_checkpoints
from onebase.train.config import TrainConfig
from onebase.train.loop import run
from tests.resume.workers import small_job


class Hears(Quiet):
    def __init__(self) -> None:
        self.infos: list[StepInfo] = []

    def step(self, info: StepInfo) -> None:
        self.infos.append(info)


def weights(model: BaseModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("micro", [1, 3, 6])
def test_accumulation_is_one_mean_over_supervised_tokens(micro: int) -> None:
    """Micro-batches hold different numbers of targets; the loss and the step do not depend on how the batch is cut."""
    found = []
    for size in (6, micro):
        hears = Hears()
        run(replace(small_job(None, dtype="fp32", steps=6, micro=size, muon=None), listeners=[hears]))
        found.append([(i.loss, i.grad_norm) for i in hears.infos])
    for whole, parts in zip(*found, strict=True):
        assert whole == pytest.approx(parts, abs=1e-5)


def test_loss_falls() -> None:
    losses = run(small_job(None, steps=60)).losses
    assert losses[0] == pytest.approx(math.log(64), abs=0.1)
    assert sum(losses[-5:]) / 5 < losses[0] - 0.2


class Poisoned(NextToken):
    """Not a number in the loss, or in one element of one gradient, at chosen calls."""

    calls = 0
    where = "loss"
    at: tuple[int, ...] = ()

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        found = super().losses(base, batch)
        type(self).calls += 1
        if self.calls in self.at:
            total, n = found["next_token"]
            if self.where == "loss":
                return {"next_token": (total * float("nan"), n)}
            p = base.trunk.blocks[0].attn.q.weight
            poison = torch.zeros_like(p)
            poison[0, 0] = float("inf")
            return {
                "next_token": (total + (p * poison).nansum().nan_to_num() * 0 + _Poison.apply(p, poison), n)
            }
        return found


class _Poison(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: torch.Tensor, poison: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(poison)
        return p.new_zeros(())

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.saved_tensors[0], None


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_bad_step_changes_nothing_and_the_next_goes_on(where: str) -> None:
    objective = Poisoned(32)
    Poisoned.calls, Poisoned.where, Poisoned.at = 0, where, (5,)  # the second micro-batch of the second step
    kept: list[dict[str, torch.Tensor]] = []
    job = small_job(None, steps=4)

    class Keeps(Hears):
        def step(self, info: StepInfo) -> None:
            super().step(info)
            kept.append(weights(job.model))

    hears = Keeps()
    result = run(replace(job, objective=objective, listeners=[hears]))
    assert [i.skipped for i in hears.infos] == [False, True, False, False]
    assert all(torch.equal(kept[0][n], kept[1][n]) for n in kept[0])
    assert any(not torch.equal(kept[1][n], kept[2][n]) for n in kept[0])
    assert result.state.bad_steps == 1
    assert all(torch.isfinite(w).all() for w in kept[-1].values())


def test_bad_steps_in_a_row_stop_the_run() -> None:
    objective = Poisoned(32)
    Poisoned.calls, Poisoned.where, Poisoned.at = 0, "loss", tuple(range(1, 1000))
    with pytest.raises(UserError, match="3 steps in a row"):
        run(replace(small_job(None, steps=50, max_bad_steps=3), objective=objective))


def test_sigterm_saves_and_stops_and_the_run_goes_on(tmp_path: Path) -> None:
    class Kills(Quiet):
        def step(self, info: StepInfo) -> None:
            if info.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    job = small_job(tmp_path, steps=9)
    result = run(replace(job, listeners=[*job.listeners, Kills()]))
    assert result.stopped
    assert result.state.step == 5
    assert list_checkpoints(tmp_path / "checkpoints")[-1].name == "step_00000005"
    rest = run(small_job(tmp_path, steps=9))
    assert not rest.stopped
    straight = run(small_job(None, steps=9))
    assert result.losses + rest.losses == straight.losses


def test_sigterm_before_the_number_of_steps_is_known(tmp_path: Path) -> None:
    class Kills(Quiet):
        def step(self, info: StepInfo) -> None:
            if info.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    result = run(replace(small_job(tmp_path, steps=None, minutes=0.05), listeners=[Kills()]))
    assert result.stopped
    assert result.state.step == 3
    assert not run(small_job(tmp_path, steps=None, minutes=0.05)).stopped


def test_minutes_become_steps_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test's own: each look at it is a hundredth of a second later, and a step looks four times."""
    looks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(looks) * 0.01)
    hears = Hears()
    job = small_job(None, steps=None, minutes=0.03)
    result = run(replace(job, listeners=[hears]))
    assert result.state.total is not None
    assert len(result.losses) == result.state.total
    assert sum(i.factor == hears.infos[-1].factor for i in hears.infos) == 1  # the warm-down reached its end
    # Twelve steps set the pace of 0.03 s; what is left of 1.8 s at 0.01 s each is 1.68 s.
    assert result.state.total in (12 + 55, 12 + 56)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"steps": 1, "tokens": 5}, {"steps": 0}, {"steps": 3, "rows": 6, "micro": -1}, {"minutes": -1}],
)
def test_wrong_budgets(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrainConfig(**wrong)


def test_tokens_by_source_are_counted() -> None:
    job = small_job(None, steps=7)
    seen: dict[str, int] = {}
    for step in range(7):
        for row in job.rows.rows(step):
            for piece in row:
                seen[piece.source] = seen.get(piece.source, 0) + len(piece.ids)
    result = run(job)
    assert result.state.sources == seen
    assert result.state.tokens == sum(seen.values())
