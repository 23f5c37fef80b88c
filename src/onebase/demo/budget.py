"""The demo's budget, and an estimate of its time before it starts.

The budget is a number of tokens that depends on the features of the chip, not on its momentary speed: a busy machine changes the time, not
the result. The time is estimated from a few training steps of the same shape on random tokens, measured here. Nothing depends on it.
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
from onebase.data.order import ExampleOrder, one_by_one
from onebase.demo.opened import PACKAGES
from onebase.modality.text.sample import Tokens
from onebase.model.device import has_bf16, pick_device
from onebase.objective.next_token import NextToken
from onebase.pretraining.recipe import Recipe
from onebase.train.callbacks import NoCallback, StepInfo
from onebase.train.checkpoint import list_checkpoints
from onebase.train.config import CheckpointConfig
from onebase.train.loop import Job, run
from onebase.train.signals import Stopped

STEPS = {"bf16": 480, "fp32": 440}
"""Steps of 4,096 tokens if no minutes are given, by the chip's number format. With both the base beats its 5-gram on every text (docs/log.md)."""

FIXED = 95.0  # seconds that do not depend on matrix products: corpus, tokenizer, n-grams, TF-IDF, heads, the report
BASE_TOKENS = 900_000  # cost of the tasks on our base after pretraining, as tokens of training it
OPENED_FLOPS = 9.5e12  # cost of the tasks on the open bases, as FLOPs of training
QUICK = 0.08  # share of BASE_TOKENS and OPENED_FLOPS in a quick demo
PROBED = 3  # steps


def default_steps(device: torch.device) -> int:
    """Steps of 4,096 tokens. A function of the chip alone."""
    return STEPS["bf16" if has_bf16(device) else "fp32"]


@dataclass(frozen=True)
class Pace:
    """The speed of training: seconds a token, and FLOPs (by the formula of the config) a token."""

    seconds: float
    flops: float


@dataclass(frozen=True)
class Work:
    """The remaining work of a demo. minutes or tokens: of pretraining; after: tokens of the tasks on our base; opened: FLOPs of the tasks on
    open bases; fixed: seconds of the rest."""

    minutes: float
    tokens: float
    after: float
    opened: float
    fixed: float

    def seconds(self, pace: Pace) -> float:
        """The total time."""
        trained = self.minutes * 60 + (self.tokens + self.after) * pace.seconds
        return trained + self.opened * pace.seconds / pace.flops + self.fixed


def work(recipe: Recipe, run_dir: Path, *, quick: bool) -> Work:
    """The remaining work in a folder: a finished base is not trained again, a stopped one resumes."""
    train = recipe.train
    done = list_checkpoints(run_dir / "checkpoints")
    steps = int(done[-1].name.rsplit("_", 1)[-1]) if done else 0
    left = 0 if (run_dir / "base" / MANIFEST).is_file() else max(0, (train.steps or 0) - steps)
    minutes = 0.0 if (run_dir / "base" / MANIFEST).is_file() else train.minutes or 0.0
    share = QUICK if quick else 1.0
    installed = sum(importlib.util.find_spec(p.module) is not None for p in PACKAGES) / len(PACKAGES)
    return Work(
        minutes,
        left * train.batch_size * train.sequence_length,
        BASE_TOKENS * share,
        OPENED_FLOPS * share * installed,
        FIXED * (0.5 if quick else 1.0),
    )


def measure_pace(recipe: Recipe) -> Pace:
    """The fastest of a few steps of the recipe's shape on random tokens. The global random state does not change."""
    cfg, length = text_base(recipe.model), recipe.train.sequence_length
    train = replace(
        recipe.train, steps=PROBED, tokens=None, minutes=None, batch_size=16, checkpoint=CheckpointConfig()
    )
    device = pick_device(train.device)
    marks: list[float] = []

    class Clock(NoCallback):
        def start(self, step: int, total: int | None) -> None:
            marks.append(time.perf_counter())

        def step(self, info: StepInfo) -> None:
            marks.append(time.perf_counter())

    with torch.random.fork_rng(devices=[]):
        model = BaseModel(cfg)
        model.reset(0)
        rows = _random(recipe.model.vocab_size, train.batch_size, length)
        result = run(Job(model.to(device), NextToken(length), rows, train, callbacks=[Clock()]))
    if result.stopped:
        raise Stopped("the demo was stopped before it began", "run the same command again")
    best = min(b - a for a, b in itertools.pairwise(marks))
    return Pace(best / (train.batch_size * length), base_flops(cfg, length))


def _random(vocab: int, rows: int, length: int) -> ExampleOrder:
    """Rows of random tokens, the same in every step."""
    ids = np.random.default_rng(0).integers(0, vocab, (rows, length)).astype(np.int32)
    loss = np.ones(length, np.bool_)
    return ExampleOrder(one_by_one(Tokens(row, loss, str(i), "random") for i, row in enumerate(ids)), rows)


def spoken(seconds: float) -> str:
    """ "40 seconds", "6 minutes"."""
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
