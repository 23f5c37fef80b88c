"""What of a recipe may change while a run is under way, and what may not."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from examples.pretrain_tiny import write_corpus
from onebase.base.config import TextShape
from onebase.data import SourceConfig
from onebase.errors import ArtifactError
from onebase.pretraining.recipe import DataConfig, Recipe
from onebase.pretraining.run import run_recipe
from onebase.train.callbacks import NoCallback, StepInfo, read_log
from onebase.train.checkpoint import list_checkpoints
from onebase.train.config import CheckpointConfig, TrainConfig


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
        name="changed",
        data=DataConfig(sources=(SourceConfig(name="made up", kind="jsonl", path=str(corpus)),), holdout=0.1),
        model=TextShape(width=32, depth=1, head_dim=16, context=64, vocab_size=300),
        train=TrainConfig(
            steps=9,
            batch_size=4,
            sequence_length=64,
            device="cpu",
            checkpoint=CheckpointConfig(every=2, keep=1),
        ),
    )


@pytest.fixture
def stopped(recipe: Recipe, tmp_path: Path) -> Path:
    """The folder of a run that stopped after step 2 of 9."""
    out = tmp_path / "run"
    assert run_recipe(recipe, out, callbacks=[Stops(2)]).base is None
    return out


def test_how_often_to_save_and_score_may_change(recipe: Recipe, stopped: Path, tmp_path: Path) -> None:
    changed = replace(
        recipe, train=replace(recipe.train, checkpoint=CheckpointConfig(every=3, keep=3), eval_every=4)
    )
    finished = run_recipe(changed, stopped)
    straight = run_recipe(recipe, tmp_path / "straight")
    assert finished.base is not None
    assert straight.base is not None
    assert finished.base.fingerprint == straight.base.fingerprint
    names = [p.name for p in list_checkpoints(stopped / "checkpoints")]
    assert names == ["step_00000005", "step_00000006", "step_00000009"]  # 5: the last before the warm-down
    lines = read_log(stopped / "log.jsonl")
    assert [i["step"] for i in lines] == list(range(9))
    assert [i["step"] for i in lines if "heldout_bits_per_byte/made up" in i] == [3, 7, 8]


def test_what_decides_the_weights_may_not(recipe: Recipe, stopped: Path) -> None:
    before = {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file()}
    with pytest.raises(ArtifactError) as e:
        run_recipe(recipe, stopped, train__muon__lr=0.03, train__clip=None)
    assert str(e.value) == (
        f"{stopped} contains a run of another recipe: 'train.clip' is null, there 1.0, 'train.muon.lr' is 0.03, there 0.02\n"
        "  give another --out, or the same recipe"
    )
    with pytest.raises(ArtifactError, match=r"'train.muon' is null, there \{.*\}\n"):
        run_recipe(recipe, stopped, train__muon=None)
    many = {f"train__adamw__{k}": 1e-4 for k in ("matrix", "embed", "head", "other")}
    with pytest.raises(ArtifactError, match=r"'train.adamw.matrix' is 0.0001, there 0.003, and 1 more\n"):
        run_recipe(recipe, stopped, **many)
    assert {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file()} == before
