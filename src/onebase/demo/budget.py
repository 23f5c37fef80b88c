"""The demo's budget, and the time that it will take, said before it starts.

The budget is a number of tokens, by what the chip has and not by how quick it was for a moment: a busy machine changes the time, not what is
learnt. The time is an estimate from a few training steps of the same shape on random tokens, measured here. It decides nothing.
"""

import importlib.util
import itertools
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from onebase.artifact.files import MANIFEST
from onebase.base.config import base_flops, text_base
from onebase.base.model import BaseModel
from onebase.codec.text.sample import Tokens
from onebase.data.order import ExampleOrder, one_by_one
from onebase.demo.opened import PACKAGES
from onebase.model.device import has_bf16, pick_device
from onebase.objective.next_token import NextToken
from onebase.pretraining.recipe import Recipe
from onebase.train.callbacks import Quiet, StepInfo
from onebase.train.checkpoint import list_checkpoints
from onebase.train.config import CheckpointConfig
from onebase.train.loop import Job, run
from onebase.train.signals import Stopped

STEPS = {"bf16": 480, "fp32": 440}
"""Steps of 4,096 tokens where no minutes are given, by the chip's own format. With both the base beats its 5-gram on every text (docs/log.md)."""

FIXED = 95.0  # seconds that follow no large product: corpus, tokenizer, n-grams, TF-IDF, heads, the report
BASE_TOKENS = 900_000  # what is done with our base after pretraining, as tokens of training it
OPENED_FLOPS = 9.5e12  # what reading the tasks with open bases takes, as FLOPs of training
QUICK = 0.08  # of BASE_TOKENS and OPENED_FLOPS, in a quick demo
PROBED = 3  # steps


def default_steps(device: torch.device) -> int:
    """Of 4,096 tokens. A function of the chip alone."""
    return STEPS["bf16" if has_bf16(device) else "fp32"]


@dataclass(frozen=True)
class Pace:
    """Of training: seconds a token, and FLOPs (by the formula of the config) a token."""

    seconds: float
    flops: float


@dataclass(frozen=True)
class Work:
    """What a demo has before it: seconds of pretraining that are given, else tokens; tokens and FLOPs of what comes after; seconds of the rest."""

    minutes: float
    tokens: float
    after: float
    opened: float
    fixed: float

    def seconds(self, pace: Pace) -> float:
        """Of all of it."""
        trained = self.minutes * 60 + (self.tokens + self.after) * pace.seconds
        return trained + self.opened * pace.seconds / pace.flops + self.fixed


def work(recipe: Recipe, run_dir: Path, *, quick: bool) -> Work:
    """What is left to do in a folder: a base that is finished is not trained again, one that was stopped goes on."""
    train = recipe.train
    done = list_checkpoints(run_dir / "checkpoints")
    steps = int(done[-1].name.rsplit("_", 1)[-1]) if done else 0
    left = 0 if (run_dir / "base" / MANIFEST).is_file() else max(0, (train.steps or 0) - steps)
    minutes = 0.0 if (run_dir / "base" / MANIFEST).is_file() else train.minutes or 0.0
    share = QUICK if quick else 1.0
    found = sum(importlib.util.find_spec(p.module) is not None for p in PACKAGES) / len(PACKAGES)
    return Work(
        minutes,
        left * train.rows * train.length,
        BASE_TOKENS * share,
        OPENED_FLOPS * share * found,
        FIXED * (0.5 if quick else 1.0),
    )


def measure_pace(recipe: Recipe) -> Pace:
    """The quickest of a few steps of the recipe's shape on random tokens. What is random elsewhere is left as it was."""
    cfg, length = text_base(recipe.model), recipe.train.length
    train = replace(
        recipe.train, steps=PROBED, tokens=None, minutes=None, rows=16, checkpoint=CheckpointConfig()
    )
    device = pick_device(train.device)
    marks: list[float] = []

    class Clock(Quiet):
        def start(self, step: int, total: int | None) -> None:
            marks.append(time.perf_counter())

        def step(self, info: StepInfo) -> None:
            marks.append(time.perf_counter())

    with torch.random.fork_rng(devices=[]):
        model = BaseModel(cfg)
        model.reset(0)
        rows = _random(recipe.model.vocab_size, train.rows, length)
        result = run(Job(model.to(device), NextToken(length), rows, train, listeners=[Clock()]))
    if result.stopped:
        raise Stopped("the demo was stopped before it began", "run the same command again")
    best = min(b - a for a, b in itertools.pairwise(marks))
    return Pace(best / (train.rows * length), base_flops(cfg, length))


def _random(vocab: int, rows: int, length: int) -> ExampleOrder:
    """Rows of random tokens, the same in every step."""
    ids = np.random.default_rng(0).integers(0, vocab, (rows, length)).astype(np.int32)
    learnt = np.ones(length, np.bool_)
    return ExampleOrder(one_by_one(Tokens(row, learnt, str(i), "random") for i, row in enumerate(ids)), rows)


def spoken(seconds: float) -> str:
    """ "40 seconds", "6 minutes"."""
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
