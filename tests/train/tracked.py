"""A small run with both trackers, as a program: `tracked.py OUT [self|service STEP]`. With a step, a SIGKILL comes after it: to the
run itself, or to the process that Weights & Biases runs beside it."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from onebase.train.callbacks import Quiet, StepInfo
from onebase.train.loop import run
from onebase.train.track import TensorBoard, WandB
from tests.resume.workers import small_job


def children() -> list[int]:
    found = (p.read_text().split() for p in Path("/proc/self/task").glob("*/children"))
    return [int(pid) for pids in found for pid in pids]


class Kills(Quiet):
    def __init__(self, whom: str, at: int) -> None:
        self.whom, self.at = whom, at

    def step(self, info: StepInfo) -> None:
        if info.step == self.at:
            for pid in [os.getpid()] if self.whom == "self" else children():
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    job = small_job(out)
    trackers = [TensorBoard(out / "tensorboard"), WandB(out, "tracked")]
    kills = [Kills(sys.argv[2], int(sys.argv[3]))] if sys.argv[2:] else []
    run(replace(job, listeners=[*job.listeners, *trackers, *kills]))


main()
