"""A small real run for the tests of kills and full disks, in a process of its own that can be told where to fail."""

import contextlib
import os
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onebase.base.config import TextShape, text_base
from onebase.base.model import BaseModel
from onebase.data import RowPlan
from onebase.data.order import Row
from onebase.data.tokens import TokenSet
from onebase.errors import UserError
from onebase.modality.text.sample import Tokens
from onebase.objective.infill import Infill, InfillMarks
from onebase.objective.mixed import FlowConfig, Mixed
from onebase.train.callbacks import JsonLog, NoCallback, StepInfo
from onebase.train.config import CheckpointConfig, MuonConfig, ScheduleConfig, TrainConfig
from onebase.train.loop import Job, Result, run
from tests.objective import media_rows

STEPS = 9
VOCAB = 64


def token_set(seed: int = 0, documents: int = 60) -> TokenSet:
    """Random documents of 5 to 60 tokens, two sources."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(documents):
        ids = np.concatenate([[0], rng.integers(5, VOCAB, rng.integers(4, 60)), [1]]).astype(np.int32)
        loss = np.ones(len(ids), bool)
        loss[0] = False
        out.append(Tokens(ids, loss, str(i), "ab"[i % 2]))
    return TokenSet.from_tokens(out)


def small_job(out: Path | None, *, steps: int = STEPS, dtype: str = "bf16", **train: Any) -> Job:
    """Width 32, depth 2, Muon and AdamW, three micro-batches a step, infill (randomness in the batch)."""
    model = BaseModel(text_base(TextShape(width=32, depth=2, head_dim=16, context=32, vocab_size=VOCAB)))
    model.reset(1)
    cfg = TrainConfig(
        **{
            "steps": steps,
            "batch_size": 6,
            "sequence_length": 32,
            "micro_batch": 2,
            "muon": MuonConfig(lr=0.02),
            "schedule": ScheduleConfig(warmup=2),
            "dtype": dtype,
            "device": "cpu",
            "checkpoint": CheckpointConfig(every=2, keep=2),
        }
        | train
    )
    objective = Infill(32, InfillMarks(2, 3, 4), 0.5)
    plan = RowPlan(token_set(), 32, cfg.batch_size, 0, reserve=objective.reserve)
    callbacks = [JsonLog(out / "log.jsonl")] if out else []
    return Job(model, objective, plan, cfg, out=out, callbacks=callbacks)


class FixedRows:
    """The same rows at every step, text first: two ranks then see different modalities."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    digest, total = "fixed", None

    @property
    def batch_size(self) -> int:
        return len(self._rows)

    @property
    def steps(self) -> int:
        raise NotImplementedError("there is no end")

    def rows(self, step: int) -> list[Row]:
        return self._rows


def mixed_job(out: Path | None, **train: Any) -> Job:
    """Text in the first half of each batch; images that are read and drawn, and audio, in the second."""
    rows: list[Row] = [(media_rows.text_row(n),) for n in (5, 6, 7, 8)]
    rows += [
        (media_rows.read_row(0),),
        (media_rows.drawn_row(1),),
        (media_rows.sound_row(),),
        (media_rows.read_row(2),),
    ]
    model = media_rows.model()
    like = small_job(out, batch_size=8, sequence_length=12, **train)
    objective = Mixed.of(model, 12, FlowConfig(generate=0.5))
    return replace(like, model=model, objective=objective, rows=FixedRows(rows))


def run_job(job: Job) -> Result:
    torch.set_num_threads(1)
    return run(job)


def die_at(out: str, where: str, count: int, mixed: bool = False) -> None:
    """Run until the `count`th call of a function on the way, and be killed there by SIGKILL, as a machine dies.

    where: losses (mid-accumulation), optimizer (before the step), fsync (mid-save: files written, no manifest or no rename),
    rename (the instant before a checkpoint appears), log (after a step, before its checkpoint).
    """
    calls = 0

    def dying(inner: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(*args, **kwargs)

        return call

    from onebase.train import optim

    if where == "losses":
        objective = Mixed if mixed else Infill
        objective.losses = dying(objective.losses)  # type: ignore[method-assign]
    elif where == "optimizer":
        optim.Optimizers.step = dying(optim.Optimizers.step)  # type: ignore[method-assign]
    elif where == "fsync":
        os.fsync = dying(os.fsync)
    elif where == "rename":
        os.rename = dying(os.rename)
    elif where == "log":
        JsonLog.step = dying(JsonLog.step)  # type: ignore[method-assign]
    run_job((mixed_job if mixed else small_job)(Path(out)))


class Fills(NoCallback):
    """After a step nothing more can be written: by a limit on the size of files, or because the disk is full."""

    def __init__(self, out: Path, how: str, at: int) -> None:
        self.out, self.how, self.at = out, how, at

    def step(self, info: StepInfo) -> None:
        if info.step != self.at:
            return
        if self.how == "limit":
            size = (self.out / "log.jsonl").stat().st_size + 20  # half a line
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            return
        with (self.out / "filler").open("wb", buffering=0) as f, contextlib.suppress(OSError):
            while True:
                f.write(bytes(1 << 12))


def fill_at(out: str, how: str, step: int, said: str) -> None:
    """Run until nothing more can be written after `step`; what the run says of it goes to the file `said`."""
    job = small_job(Path(out), eval_every=1)
    # Nothing but the log is to be written at the step: no checkpoint before the warm-down.
    job = replace(job, train=replace(job.train, checkpoint=replace(job.train.checkpoint, flat=False)))
    # On a full disk a short line might still fit into the last page of the log.
    scores = {f"score/{i}": 0.0 for i in range(500 if how == "disk" else 1)}
    callbacks = [*job.callbacks, Fills(Path(out), how, step)]
    try:
        run_job(replace(job, callbacks=callbacks, evaluate=lambda _: scores))
    except UserError as e:
        Path(said).write_text(str(e))
        raise SystemExit(1) from None


def finish(out: str, mixed: bool = False) -> None:
    """Run, or go on, to the end."""
    run_job((mixed_job if mixed else small_job)(Path(out)))
