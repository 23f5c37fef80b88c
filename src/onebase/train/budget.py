"""How many steps a run has: from its recipe, from the pace of its first steps, or more of them than it was to have."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from onebase.train.checkpoint import RunState
from onebase.train.config import TrainConfig
from onebase.train.parallel import Parallel

CALIBRATE = 12
"""Steps timed before a budget in minutes becomes a number of steps; the first third is warm-up and not counted."""


@dataclass(frozen=True)
class Extension:
    """A larger budget for a finished run, which goes on from its last checkpoint at the full learning rates: up to `total` steps, or for so
    many minutes of steps and `least` steps in all at least. number: which extension of the run it is, from 1; seconds: what the steps up to
    that checkpoint took."""

    number: int
    total: int | None = None
    minutes: float = 0.0
    least: int = 1
    seconds: float = 0.0


def set_total(cfg: TrainConfig, state: RunState, extension: Extension | None) -> None:
    """Note in `state` how many steps the run has, where that is known before they are timed, and that it is extended."""
    if extension is not None and state.extended < extension.number:
        state.extended, state.total = extension.number, extension.total
    elif not state.extended and (steps := cfg.planned_steps):
        state.total = steps


def timed_total(
    cfg: TrainConfig, state: RunState, extension: Extension | None, pace: Sequence[float], par: Parallel
) -> int:
    """How many steps fill the budget in minutes, by the pace of the first ones.

    Fixed once, however the pace changes: the learning rates depend on the number, and a resumed run must do what the undisturbed
    one would have done. It counts the time of steps, over all resumes. Scores on the way and checkpoints come on top: what they
    take is not known yet when the number must be.
    """
    budget = extension or Extension(0, minutes=cfg.minutes or 0.0)
    left = budget.minutes * 60 - (state.seconds - budget.seconds)
    total = state.step + max(1, int(left / statistics.median(pace[CALIBRATE // 3 :])))
    # Rank 0's clock decides for all: ranks that disagreed by a step would wait for each other for ever.
    return int(par.sum([float(max(total, budget.least)) if par.main else 0.0])[0])
