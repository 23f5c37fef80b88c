"""The demo's budget: tokens by the chip and never by a clock; the time said before is arithmetic on a measured pace."""

import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onebase.base.config import base_flops, text_base
from onebase.demo import budget
from onebase.demo.budget import STEPS, Pace, Work, default_steps, measure_pace, spoken, work
from onebase.demo.opened import PACKAGES
from onebase.demo.run import demo_recipe


@pytest.mark.parametrize(("native", "steps"), [(True, STEPS["bf16"]), (False, STEPS["fp32"])])
def test_the_chip_decides_the_steps_and_a_busy_machine_does_not(
    native: bool, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "has_bf16", lambda _: native)
    recipe = demo_recipe(None, tmp_path, False)
    slow = itertools.count()
    monkeypatch.setattr(
        time, "perf_counter", lambda: float(next(slow))
    )  # every look at the clock a second later
    busy = demo_recipe(None, tmp_path, False)
    assert default_steps(torch.device("cpu")) == recipe.train.steps == steps
    assert busy == recipe
    assert recipe.train.minutes is recipe.train.tokens is None


def test_minutes_are_still_a_budget_of_time(tmp_path: Path) -> None:
    recipe = demo_recipe(2.0, tmp_path, False)
    assert (recipe.train.steps, recipe.train.minutes) == (None, 2.0)
    assert demo_recipe(None, tmp_path, True).train.steps == 20


def test_seconds_are_the_sum_of_the_parts() -> None:
    pace = Pace(seconds=0.001, flops=1e7)  # 1e10 FLOPs a second
    assert Work(0, 400_000, 0, 0, 0).seconds(pace) == pytest.approx(400)
    assert Work(0, 0, 100_000, 0, 0).seconds(pace) == pytest.approx(100)
    assert Work(0, 0, 0, 5e11, 0).seconds(pace) == pytest.approx(50)
    assert Work(0, 0, 0, 0, 7).seconds(pace) == 7
    assert Work(2, 400_000, 100_000, 5e11, 7).seconds(pace) == pytest.approx(120 + 400 + 100 + 50 + 7)


def test_what_is_done_is_not_counted_again(tmp_path: Path) -> None:
    recipe = demo_recipe(None, tmp_path, False)
    steps = recipe.train.steps or 0
    assert work(recipe, tmp_path, quick=False).tokens == steps * 4096
    made = tmp_path / "checkpoints" / "step_00000100"
    made.mkdir(parents=True)
    (made / "manifest.json").write_text("{}")
    assert work(recipe, tmp_path, quick=False).tokens == (steps - 100) * 4096
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "manifest.json").write_text("{}")
    left = work(demo_recipe(2.0, tmp_path, False), tmp_path, quick=False)
    assert left.tokens == left.minutes == 0
    assert left.after > 0


def test_open_bases_that_are_not_installed_take_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "PACKAGES", tuple(replace(p, module="no_such_module") for p in PACKAGES))
    assert work(demo_recipe(None, tmp_path, False), tmp_path, quick=False).opened == 0


def test_the_pace_is_of_the_recipe_and_leaves_chance_as_it_was(tmp_path: Path) -> None:
    recipe = demo_recipe(None, tmp_path, True)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    pace = measure_pace(recipe)
    assert torch.equal(torch.get_rng_state(), before)
    assert pace.flops == base_flops(text_base(recipe.model), recipe.train.sequence_length)
    assert 0 < pace.seconds < 1


def test_times_are_spoken() -> None:
    assert [spoken(s) for s in (40.2, 89, 95, 700)] == ["40 seconds", "89 seconds", "2 minutes", "12 minutes"]
