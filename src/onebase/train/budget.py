"""The number of steps of a run: from its recipe, from the speed of its first steps, or from an extension."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from onebase.train.checkpoint import RunState
from onebase.train.config import TrainConfig
from onebase.train.parallel import Parallel

CALIBRATE = 12
"""Steps that are timed before a budget in minutes becomes a number of steps; the first third is warm-up and not counted."""


@dataclass(frozen=True)
class Extension:
    """A larger budget for a finished run, which resumes from its last checkpoint at full learning rates.

    number: of the extension, from 1. total: steps in all, or None for a budget in minutes. minutes: of further steps. least: steps in all at least.
    seconds: time of the steps up to that checkpoint."""

    number: int
    total: int | None = None
    minutes: float = 0.0
    least: int = 1
    seconds: float = 0.0


def set_total(cfg: TrainConfig, state: RunState, extension: Extension | None) -> None:
    """Set the number of steps in `state`, if it is known before steps are timed, and the number of the extension."""
    if extension is not None and state.extended < extension.number:
        state.extended, state.total = extension.number, extension.total
    elif not state.extended and (steps := cfg.planned_steps):
        state.total = steps


def timed_total(
    cfg: TrainConfig, state: RunState, extension: Extension | None, pace: Sequence[float], par: Parallel
) -> int:
    """Number of steps that fill a budget in minutes, from the speed of the first steps.

    It is fixed once, even if the speed changes: the learning rates depend on it, and a resumed run must do the same steps as an uninterrupted one.
    The budget counts the time of steps, over all resumes. Evaluation during training and checkpoints are extra: their time is not yet known.
    """
    budget = extension or Extension(0, minutes=cfg.minutes or 0.0)
    left = budget.minutes * 60 - (state.seconds - budget.seconds)
    total = state.step + max(1, int(left / statistics.median(pace[CALIBRATE // 3 :])))
    # Rank 0's clock decides for all ranks: if they disagreed by a step, they would deadlock.
    return int(par.sum([float(max(total, budget.least)) if par.main else 0.0])[0])
