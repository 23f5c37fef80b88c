"""Steps of two training loops, timed alike: the Hugging Face Trainer's and ours. Used by train_throughput.py, multimodal/masked.py
and multimodal/contrastive.py.

A step is timed from its begin to the next one: data, forward, backward, clipping, optimizer, log. Wall time.
"""

import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from common import chip_dtype

RATE = 3e-4
Timed = tuple[list[float], list[float], int]
"""Seconds of each step, losses, and parameters."""


def trainer_steps(
    model: Any, data: list[dict[str, Any]], steps: int, rows: int, *, bf16: bool, compiled: bool, **more: Any
) -> Timed:
    """The Trainer's. more: its further arguments."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    marks: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(sys.stderr):
        options = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=rows,
            max_steps=steps + 1,
            bf16=bf16,
            torch_compile=compiled,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            learning_rate=RATE,
            disable_tqdm=True,
        )
        Trainer(model=model, args=options, train_dataset=data, callbacks=[Clock()], **more).train()
    return [b - a for a, b in itertools.pairwise(marks)], losses, sum(p.numel() for p in model.parameters())


def our_steps(
    base: Any, objective: Callable[[Any], Any], ids: Any, steps: int, rows: int, *, muon: bool, compiled: bool
) -> Timed:
    """Ours, of a base by its config. ids: int [(steps + 1) * rows, length], or as many rows of tokens. objective: from the numpy module, of rows of
    that length."""
    import numpy as np

    from onebase.modality.text import Tokens

    if not isinstance(ids, list):
        learnt = np.ones(ids.shape[1], np.bool_)
        ids = [Tokens(row, learnt, str(i), "bench") for i, row in enumerate(ids.astype(np.int32))]
    length = len(ids[0])

    class Rows:
        digest = "bench"

        def rows(self, step: int) -> list[list[Tokens]]:
            at = step % (steps + 1) * rows
            return [[row] for row in ids[at : at + rows]]

    return timed_run(base, objective(np), Rows(), steps, rows, length, muon=muon, compiled=compiled)


def timed_run(
    base: Any, objective: Any, order: Any, steps: int, rows: int, length: int, *, muon: bool, compiled: bool
) -> Timed:
    """Ours, of a base by its config, with an objective on the rows of an order."""
    from onebase.base.model import BaseModel
    from onebase.train.callbacks import NoCallback, StepInfo
    from onebase.train.config import AdamWConfig, MuonConfig, TrainConfig
    from onebase.train.loop import Job, run

    marks: list[float] = []

    class Clock(NoCallback):
        def start(self, step: int, total: int | None) -> None:
            marks.append(time.perf_counter())

        def step(self, info: StepInfo) -> None:
            marks.append(time.perf_counter())

    model = BaseModel(base)
    model.reset(0)
    train = TrainConfig(
        steps=steps,
        batch_size=rows,
        sequence_length=length,
        muon=MuonConfig() if muon else None,
        adamw=AdamWConfig(matrix=RATE, embed=RATE, head=RATE, other=RATE),
        dtype=chip_dtype(),  # type: ignore[arg-type]
        device="cpu",
        compile=compiled,
    )
    result = run(Job(model, objective, order, train, callbacks=(Clock(),)))
    return (
        [b - a for a, b in itertools.pairwise(marks)],
        result.losses,
        sum(p.numel() for p in model.parameters()),
    )
