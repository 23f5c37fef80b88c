"""A finished run goes on with a larger budget: it becomes, bit by bit, the run that had it from the start, killed on the way or not."""

import itertools
import json
import math
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from examples.pretrain_tiny import write_corpus
from onebase.artifact.files import verify
from onebase.artifact.record import Record
from onebase.artifact.tensors import load_tensors
from onebase.base.config import TextShape
from onebase.data import SourceConfig
from onebase.errors import ConfigError, UserError
from onebase.pretraining import extending
from onebase.pretraining import run as pretraining
from onebase.pretraining.recipe import DataConfig, Recipe
from onebase.pretraining.run import run_recipe
from onebase.train.budget import Extension
from onebase.train.callbacks import NoCallback, StepInfo, read_log
from onebase.train.checkpoint import checkpoint_facts, drop_after, list_checkpoints
from onebase.train.config import CheckpointConfig, ScheduleConfig, TrainConfig
from onebase.train.optim import factor, flat_steps
from onebase.train.signals import Stopped
from tests.resume.workers import run_job, small_job


class Stops(NoCallback):
    """Ask the run to stop after a step, as a scheduler does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, info: StepInfo) -> None:
        if info.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    corpus = write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", documents=100)
    return Recipe(
        name="grows",
        data=DataConfig(sources=(SourceConfig(name="made up", kind="jsonl", path=str(corpus)),), holdout=0.1),
        model=TextShape(width=32, depth=1, head_dim=16, context=64, vocab_size=300),
        train=TrainConfig(steps=9, batch_size=4, sequence_length=64, device="cpu"),
    )


@pytest.fixture(scope="module")
def ended(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 9 steps, of which 5 are at the full rate."""
    out = tmp_path_factory.mktemp("ended") / "run"
    run_recipe(recipe, out)
    return out


@pytest.fixture(scope="module")
def straight(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 15 steps from the start."""
    out = tmp_path_factory.mktemp("straight") / "run"
    run_recipe(recipe, out, train__steps=15)
    return out


@pytest.fixture
def run(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "run"))


def names(run: Path) -> list[str]:
    return [p.name for p in list_checkpoints(run / "checkpoints")]


def same(one: Path, other: Path) -> None:
    """Weights, optimizer and log of two finished runs."""
    a, b = (list_checkpoints(p / "checkpoints")[-1] for p in (one, other))
    for name in ("model-00001.safetensors", "optim-00001.safetensors"):
        found, wanted = load_tensors(a / name), load_tensors(b / name)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[k], wanted[k]) for k in found), name
    logs = [[(i["step"], i["loss"], i["factor"]) for i in read_log(p / "log.jsonl")] for p in (one, other)]
    assert logs[0] == logs[1]
    assert Record.load(one / "base").hashes == Record.load(other / "base").hashes


@pytest.mark.parametrize("warmdown", [0.0, 0.3, 0.5, 0.6, 1.0])
@pytest.mark.parametrize("final", [0.0, 0.05, 1.0])
def test_flat_steps_are_those_whose_rate_no_total_changes(warmdown: float, final: float) -> None:
    cfg = ScheduleConfig(warmup=3, warmdown=warmdown, final=final)
    for total in range(1, 40):
        flat = flat_steps(cfg, total)
        assert all(factor(cfg, i, total) == factor(cfg, i, 10**9) for i in range(flat))
        assert flat == total or factor(cfg, flat, total) < factor(cfg, flat, 10**9)


def test_a_finished_run_keeps_the_last_checkpoint_before_its_warm_down(
    recipe: Recipe, tmp_path: Path
) -> None:
    often = CheckpointConfig(every=1, keep=1)
    run_recipe(replace(recipe, train=replace(recipe.train, checkpoint=often)), tmp_path / "often")
    assert names(tmp_path / "often") == ["step_00000005", "step_00000009"]
    never = CheckpointConfig(flat=False)
    run_recipe(replace(recipe, train=replace(recipe.train, checkpoint=never)), tmp_path / "never")
    assert names(tmp_path / "never") == ["step_00000009"]


def test_an_extended_run_is_the_longer_run(recipe: Recipe, run: Path, straight: Path) -> None:
    said: list[str] = []
    before = Record.load(run / "base")
    base = onebase.pretrain(recipe, out=run, extend={"steps": 6}, log=said.append)
    same(run, straight)
    assert "extended from step 5 of 9, the last before the warm-down: to step 15, " in "\n".join(said)
    assert names(run) == names(straight)
    # The base of before is beside it, whole; the record of the new one has the scores of both.
    kept = run / "base-step_00000009"
    verify(kept)
    assert Record.load(kept).to_dict() == before.to_dict()
    score = "scores.heldout_bits_per_byte.made up"
    both = [e.value for e in base.record.events if e.field == score]
    assert both[0] == before.get(score)
    assert both[1] == Record.load(straight / "base").get(score) != both[0]
    assert base.record.get("train.steps") == 15
    assert base.record.get("train.extended") == {
        "number": 1,
        "by": {"steps": 6},
        "from_step": 5,
        "to_step": 15,
        "before": {"steps": 9, "fingerprint": before.hashes["fingerprint"], "kept": kept.name},
    }


def test_an_extension_that_was_stopped_goes_on_bitwise(recipe: Recipe, run: Path, straight: Path) -> None:
    """Stopped before the step at which the first warm-down ended, and after it."""
    for at in (6, 11):
        with pytest.raises(Stopped):
            onebase.pretrain(recipe, out=run, extend={"steps": 6}, callbacks=[Stops(at)])
        said: list[str] = []
        assert (
            run_recipe(recipe, run, log=said.append).base is not None
        )  # that of before, as long as it is the last
        assert said == [f"{run / 'base'} is already finished; resume its extension with --extend steps=6"]
        with pytest.raises(UserError, match="has an unfinished extension by steps=6"):
            run_recipe(recipe, run, extend={"steps": 7})
    run_recipe(recipe, run, extend={"steps": 6})
    same(run, straight)


class Dies(BaseException):
    """As a process does."""


@pytest.mark.parametrize("where", ["drop_after", "keep_before", "save_base"])
def test_a_death_on_the_way_loses_nothing(
    recipe: Recipe, run: Path, straight: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Before the old warm-down is dropped; with the old base kept and not replaced; before that."""
    module = extending if where == "drop_after" else pretraining
    inner = getattr(module, where)

    def dying(*args: Any, **kwargs: Any) -> None:
        if where == "keep_before":
            inner(*args, **kwargs)
        raise Dies

    with monkeypatch.context() as m:
        m.setattr(module, where, dying)
        with pytest.raises(Dies):
            run_recipe(recipe, run, extend={"steps": 6})
    assert Record.load(run / "base").get("train.steps") == 9
    run_recipe(recipe, run, extend={"steps": 6})
    same(run, straight)
    verify(run / "base-step_00000009")


def test_twice(recipe: Recipe, run: Path, straight: Path) -> None:
    run_recipe(recipe, run, extend={"steps": 2}, overwrite=True)
    assert not list(run.glob("base-*"))
    base = run_recipe(recipe, run, extend={"tokens": 4 * 4 * 64}).base
    same(run, straight)
    assert base is not None
    assert [e.value["number"] for e in base.record.events if e.field == "train.extended"] == [1, 2]


def test_epochs_and_too_few_minutes(recipe: Recipe, run: Path) -> None:
    first = run_recipe(recipe, run, extend={"epochs": 0.5}).base
    assert first is not None
    per_epoch = first.record.get("train.steps") * 4 / first.record.get("train.epochs")
    assert 100 < per_epoch < 300  # some 90 documents, of 100 tokens each, in rows of 64
    assert first.record.get("train.steps") == 9 + math.ceil(round(per_epoch) / 2 / 4)
    with pytest.raises(UserError, match=r"1e-05 minutes are too few to get past the \d+ steps of the run"):
        run_recipe(recipe, run, extend={"minutes": 1e-5})


@pytest.mark.parametrize(("least", "totals"), [(10, (36, 37)), (50, (50,))])
def test_minutes_are_those_from_now_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, totals: tuple[int, ...]
) -> None:
    """By a clock of the test's own: each look at it is a hundredth of a second later, and a step looks four times."""
    looks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(looks) * 0.01)
    small = {"steps": 9, "checkpoint": CheckpointConfig()}
    run_job(small_job(tmp_path, **small))
    drop_after(tmp_path / "checkpoints", 5, 1)
    more = Extension(
        1,
        minutes=0.012,
        least=least,
        seconds=checkpoint_facts(*list_checkpoints(tmp_path / "checkpoints"))["seconds"],
    )
    state = run_job(replace(small_job(tmp_path, **small), extension=more)).state
    # From step 5 on 12 steps set the pace of 0.03 s; what is left of 0.72 s at 0.01 s each is 0.6 s.
    assert state.total in totals
    assert (state.step, state.extended, state.flat) == (
        state.total,
        1,
        max(17, flat_steps(ScheduleConfig(), state.total or 0)),
    )


@pytest.mark.parametrize(
    ("extend", "said"),
    [
        ({}, "a run is extended by nothing"),
        ({"steps": 5, "minutes": 1}, "a run is extended by steps=5 and minutes=1"),
        ({"steps": 0}, "a run is extended by steps=0"),
        ({"minutes": float("nan")}, "a run is extended by minutes=nan"),
        ({"hours": 1}, "hours"),
        ({"steps": "many"}, "steps"),
    ],
)
def test_wrong_amounts(recipe: Recipe, run: Path, extend: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_recipe(recipe, run, extend=extend)


def test_what_cannot_be_extended(recipe: Recipe, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no finished run to extend\n  finish it first"):
        run_recipe(recipe, tmp_path / "none", extend={"steps": 5})
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="overwrite is given without extend"):
        run_recipe(recipe, run, overwrite=True)
    with pytest.raises(UserError, match="contains a run of another recipe"):
        run_recipe(recipe, run, extend={"steps": 5}, train__steps=20)
    shutil.rmtree(run / "checkpoints" / "step_00000005")
    with pytest.raises(UserError, match=r"no checkpoint from before the warm-down \(of step 5 or earlier\)"):
        run_recipe(recipe, run, extend={"steps": 5})
    assert not (run / "extensions.json").exists()


def test_a_changed_file_of_extensions_is_named(recipe: Recipe, run: Path) -> None:
    (run / "extensions.json").write_text(json.dumps({"schema": 1, "extensions": [{"by": 3}]}))
    with pytest.raises(
        UserError, match=r"extensions\.json does not have the content that onebase writes there"
    ):
        run_recipe(recipe, run, extend={"steps": 5})
