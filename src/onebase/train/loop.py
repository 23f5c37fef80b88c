"""The training loop: for every objective, one or several processes, with exact resume."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from onebase.base.model import BaseModel
from onebase.config_plain import digest, to_hash
from onebase.data.order import Order, split
from onebase.errors import UserError
from onebase.model.device import compute_dtype, keep_freed_memory
from onebase.objective.base import Batch, Objective, count_sources, gathers_rows, takes_whole_step
from onebase.train.budget import CALIBRATE, Extension, set_total, timed_total
from onebase.train.callbacks import Callback, StepInfo
from onebase.train.checkpoint import (
    RunState,
    check_identity,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from onebase.train.config import FREE, TrainConfig
from onebase.train.formats import formats, go_on
from onebase.train.optim import Optimizers, factor, flat_steps
from onebase.train.parallel import Parallel, compile_blocks, load_whole_state, owning, whole, whole_state
from onebase.train.signals import StopSignals

MICRO_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 32768}
"""Default tokens of a micro-batch: on CPUs larger ones need more memory and are no faster."""

Made = tuple[list[Batch], dict[str, int], int]
"""This rank's micro-batches; tokens by source and number of rows of the global batch."""


@dataclass(frozen=True)
class Job:
    """A training run: model, objective, rows, config and callbacks.

    out: folder for checkpoints (None: no checkpoints). evaluate: scores during training. identity: further hashes that a checkpoint must match.
    called: names of some of them in messages. log: receives lines for the user about resuming. extension: a larger budget than the recipe's."""

    model: BaseModel
    objective: Objective
    rows: Order
    train: TrainConfig
    out: Path | None = None
    callbacks: Sequence[Callback] = ()
    evaluate: Callable[[BaseModel], dict[str, float]] | None = None
    parallel: Parallel | None = None
    identity: dict[str, str] = field(default_factory=dict)
    log: Callable[[str], None] | None = None
    called: Mapping[str, str] = field(default_factory=dict)
    extension: Extension | None = None


@dataclass(frozen=True)
class Result:
    """How a run ended. stopped: by a signal; the same command resumes from the last checkpoint."""

    state: RunState
    losses: list[float]
    stopped: bool


def micro_batch_size(cfg: TrainConfig, par: Parallel, whole: bool = False) -> int:
    """Rows of a micro-batch on each rank: from the recipe, or about MICRO_TOKENS tokens (whole: all rows of the rank, for an objective that takes
    whole steps).

    Raises UserError when the rows cannot be split evenly: a rank with fewer micro-batches would hang the others.
    """
    if cfg.batch_size % par.world:
        raise UserError(
            f"a batch of {cfg.batch_size} rows cannot be split evenly over {par.world} processes",
            f"set train.batch_size to a multiple of {par.world}",
        )
    return min(
        cfg.batch_size // par.world,
        cfg.micro_batch
        or (cfg.batch_size if whole else max(1, MICRO_TOKENS[par.device.type] // cfg.sequence_length)),
    )


def run(job: Job) -> Result:
    """Train `job.model` in place. Resumes from the newest checkpoint in `job.out`, if there is one. Raises ArtifactError if another process is
    writing checkpoints there."""
    par = job.parallel or Parallel(0, 1, job.model.device)
    with owning(job.out / "checkpoints" if job.out else None, par):
        return _run(job, par)


def _run(job: Job, par: Parallel) -> Result:
    cfg = job.train
    micro_batch_size(cfg, par)  # refuses an uneven batch size before any work
    if par.world > 1 and takes_whole_step(job.objective) and not gathers_rows(job.objective):
        raise UserError(
            f"this objective compares all rows of a step, which are split over {par.world} processes",
            "run it in one process",
        )
    identity = job.identity | {
        "data": job.rows.digest,
        "recipe": _recipe_digest(cfg),
        "base": digest(job.model.cfg),
    }
    job.model.compute_dtype = compute_dtype(cfg.dtype, par.device)
    if par.device.type == "cpu":
        keep_freed_memory()
    if cfg.compile:
        compile_blocks(job.model)
    par.shard(job.model)
    optim = Optimizers(job.model, cfg.muon, cfg.adamw, cfg.ema)
    state = _resume(job, optim, identity)
    message = go_on(state.formats, formats(job.model, optim), state.step)
    if message and job.log and par.main:
        job.log(message)
    set_total(cfg, state, job.extension)
    losses: list[float] = []
    callbacks = [x for x in job.callbacks if par.main]
    pace: list[float] = []
    stop = False
    with ExitStack() as stack:
        for x in callbacks:
            x.start(state.step, state.total)
            stack.callback(x.close)
        signals, ahead = stack.enter_context(StopSignals()), stack.enter_context(_Ahead(job, par))
        while not stop and (state.total is None or state.step < state.total):
            began = time.perf_counter()
            info = _step(job, par, optim, state, ahead)
            pace.append(time.perf_counter() - began)
            if timed := state.total is None and len(pace) >= CALIBRATE:
                state.total = timed_total(cfg, state, job.extension, pace, par)
            losses.append(info.loss)
            if (
                job.evaluate
                and cfg.eval_every
                and (state.step % cfg.eval_every == 0 or state.step == state.total)
            ):
                scores = job.model(job.evaluate)
                par.reshard(job.model)
                info = StepInfo(**{**vars(info), "scores": scores})
            info = StepInfo(**{**vars(info), "total": state.total})
            for x in callbacks:
                x.step(info)
            if state.bad_in_a_row >= cfg.max_bad_steps:
                raise UserError(
                    f"{state.bad_in_a_row} steps in a row had a loss or gradient that is not a number",
                    "lower the learning rates (train.muon.lr, train.adamw.*) or train in fp32 (train.dtype=fp32)",
                )
            stop = par.any(signals.received)
            due = cfg.checkpoint.every and state.step % cfg.checkpoint.every == 0
            if cfg.checkpoint.flat and _is_flat_end(cfg, state, timed):
                state.flat, due = state.step, True
            if job.out and (stop or due or state.step == state.total):
                _save(job, par, optim, state)
    stopped = stop and (state.total is None or state.step < state.total)
    if not stopped:
        optim.use_average()
    return Result(state, losses, stopped)


def _step(job: Job, par: Parallel, optim: Optimizers, state: RunState, ahead: "_Ahead") -> StepInfo:
    """One optimizer step over the global batch. If the loss or gradient is not finite, no weight changes on any rank."""
    cfg, began = job.train, time.perf_counter()
    batches, sources, rows = ahead.get(state.step, state.total)
    counts = dict.fromkeys(batches[0].counts, 0)
    for b in batches:
        for k, n in b.counts.items():
            counts[k] += n
    names = list(counts)
    totals = dict(zip(names, par.sum([counts[k] for k in names]), strict=True))
    shares = torch.zeros(len(names), dtype=torch.float64, device=job.model.device)
    for i, batch in enumerate(batches):
        batch = batch.to(job.model.device)
        par.sync_gradients(job.model, i == len(batches) - 1)
        parts = job.model(lambda m, b=batch: job.objective.losses(m, b))
        # Every loss is a sum; dividing by the global count turns the sum over micro-batches and ranks into one mean.
        # Sharded training averages gradients over ranks, hence the factor.
        means = [parts[k][0] / max(1.0, totals[k]) for k in names]
        (sum(means) * par.world).backward()
        shares += torch.stack([m.detach() for m in means])
    by_name = dict(zip(names, par.sum(shares.tolist()), strict=True))
    total_loss = sum(by_name.values())
    params = [p for p in optim.parameters() if p.grad is not None]
    norm_t = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    norm = float(whole(norm_t))
    good = math.isfinite(total_loss) and math.isfinite(norm)
    rate = factor(cfg.schedule, state.step, state.total or 10**9)
    if good:
        if cfg.clip is not None and norm > cfg.clip:
            torch.nn.utils.clip_grads_with_norm_(
                params, cfg.clip, torch.tensor(norm, device=job.model.device)
            )
        optim.set_factor(rate)
        optim.step()
    optim.zero_grad()
    seconds = time.perf_counter() - began
    tokens = sum(sources.values())
    state.step += 1
    state.seconds += seconds
    state.bad_steps += not good
    state.bad_in_a_row = 0 if good else state.bad_in_a_row + 1
    if good:
        state.tokens += tokens
        state.supervised += int(sum(totals.values()))
        state.rows += rows
        for k, n in sources.items():
            state.sources[k] = state.sources.get(k, 0) + n
    return StepInfo(
        step=state.step - 1,
        total=state.total,
        loss=total_loss,
        losses=by_name if len(by_name) > 1 else {},
        grad_norm=norm,
        factor=rate,
        tokens=state.tokens,
        tokens_per_second=tokens / seconds,
        seconds=state.seconds,
        skipped=not good,
    )


class _Ahead:
    """Prefetches the next step's batches in a thread, if they depend only on the step: the results are the same."""

    def __init__(self, job: Job, par: Parallel) -> None:
        self.job, self.par = job, par
        self.ahead = bool(getattr(job.rows, "ahead", True))
        self.pool = ThreadPoolExecutor(1)
        self.next: tuple[int, Future[Made]] | None = None

    def _make(self, step: int) -> Made:
        cfg = self.job.train
        rows = self.job.rows.rows(step)
        mine = split(rows, self.par.rank, self.par.world)
        first = step * cfg.batch_size + len(rows) * self.par.rank // self.par.world
        size = len(mine) if takes_whole_step(self.job.objective) else micro_batch_size(cfg, self.par)
        batches = [self.job.objective.batch(mine[i : i + size], first + i) for i in range(0, len(mine), size)]
        return batches, count_sources(rows), len(rows)

    def get(self, step: int, total: int | None) -> Made:
        """The batches of a step; starts to build those of the next one, if there is one."""
        if not self.ahead:
            return self._make(step)
        ready = self.next[1] if self.next and self.next[0] == step else self.pool.submit(self._make, step)
        batches = ready.result()
        last = total is not None and step + 1 >= total
        self.next = None if last else (step + 1, self.pool.submit(self._make, step + 1))
        return batches

    def __enter__(self) -> "_Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


def _is_flat_end(cfg: TrainConfig, state: RunState, timed: bool) -> bool:
    """Whether the learning rates fall from the next step on. A timed run had full rates until its total was set."""
    if state.total is None:
        return False
    last = flat_steps(cfg.schedule, state.total)
    return state.step == last or (timed and state.step > last)


def _recipe_digest(cfg: TrainConfig) -> str:
    """Hash of the config values that affect the weights."""
    return digest({k: v for k, v in to_hash(cfg).items() if k not in FREE})


def _resume(job: Job, optim: Optimizers, identity: dict[str, str]) -> RunState:
    found = list_checkpoints(job.out / "checkpoints") if job.out else []
    if not found:
        return RunState(identity=identity)
    state, model, optimizer = load_checkpoint(found[-1])
    check_identity(found[-1], state.identity, identity, job.called)
    load_whole_state(job.model, model, trainable=True)
    optim.load_state_tensors(optimizer)
    return state


def _save(job: Job, par: Parallel, optim: Optimizers, state: RunState) -> None:
    model, optimizer = whole_state(job.model, trainable=True), optim.state_tensors()
    if par.main and job.out:
        save_checkpoint(job.out / "checkpoints", state, model, optimizer, job.train.checkpoint.keep)
    par.barrier()
