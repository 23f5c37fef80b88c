"""Training of a method on a base: put the method on, run the loop, take the method off."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from onebase.base.config import base_flops
from onebase.base.model import BaseModel
from onebase.config_plain import digest
from onebase.data import Order
from onebase.methods.folder import detach
from onebase.methods.method import SCRATCH, Learner, Start
from onebase.methods.table import METHODS
from onebase.objective.base import Objective
from onebase.tasks.job import Adapting, Facts, rows_hash
from onebase.tasks.options import AdaptOptions, as_before
from onebase.train.config import AdamWConfig, CheckpointConfig, ScheduleConfig, TrainConfig
from onebase.train.loop import Job
from onebase.train.signals import Stopped

KEEPS = 10
"""Checkpoints written during a run, where the job has a folder to resume from."""


@contextmanager
def learner(job: Adapting, tokens: tuple[int, ...] = (), trunk: str = "text") -> Iterator[Learner]:
    """The method of `job` put on its base. However the block ends, the base is left unchanged, after an error also which weights require
    gradients. tokens: ids whose embedding rows are trained too, by methods that freeze the base's own. trunk: the trunk that reads the rows."""
    method = METHODS[job.method]
    assert method.learn is not None
    flags = [(p, p.requires_grad) for p in job.base.model.parameters()]
    try:
        with method.learn(Start(job.base, job.options.of_method, job.options.seed, tokens, trunk)) as found:
            yield found
    except BaseException:
        for p, trained in flags:
            p.requires_grad_(trained)
        raise
    finally:
        detach(job.base, SCRATCH)
        for p, _ in flags:
            p.grad = None


MICRO_TOKENS = 512
"""Tokens of a micro-batch on a CPU where the base's own weights are frozen. Activations take most of the memory there: 768 tokens of
SmolLM2 take 1.7 GB in one micro-batch, 1.5 in two, 1.3 in three, but three take a quarter more time."""


def train_config(
    o: AdaptOptions, rows: Order, length: int, *, default_lr: float, rows_rate: float = 1.0
) -> TrainConfig:
    """The training config, with as many steps as the rows give. `rows_rate`: learning rate of the codec module, as a multiple of the others."""
    lr = o.lr or default_lr
    ends = rows_rate * lr
    steps = rows.steps
    return TrainConfig(
        steps=steps,
        batch_size=rows.batch_size,
        sequence_length=length,
        micro_batch=o.micro_batch or 0,
        seed=o.seed,
        muon=None,
        adamw=AdamWConfig(matrix=lr, embed=ends, head=ends, other=lr, betas=(0.9, 0.99)),
        schedule=ScheduleConfig(warmup=min(10, steps // 4), warmdown=0.7, final=0.0),
    )


def learn(
    job: Adapting,
    objective: Objective,
    rows: Order,
    train: TrainConfig,
    params: Sequence[torch.nn.Parameter],
    scores: Callable[[BaseModel], dict[str, float]] | None = None,
) -> Facts:
    """Train `params` and no other parameters, in the compute type of the base; returns facts. scores: passed to callbacks at each step
    besides the loss. Where the job has a folder to resume from, checkpoints are written there."""
    base = job.base
    model: BaseModel = base.model
    dtype = model.compute_dtype
    train = replace(
        train, dtype="bf16" if dtype == torch.bfloat16 else "fp32", eval_every=0 if scores is None else 1
    )
    if not train.micro_batch and not METHODS[job.method].replaces and model.device.type == "cpu":
        train = replace(train, micro_batch=max(1, MICRO_TOKENS // train.sequence_length))
    if job.resume:
        train = replace(
            train, checkpoint=CheckpointConfig(every=max(1, (train.steps or 0) // KEEPS), flat=False)
        )
    for p in model.parameters():
        p.requires_grad_(False)
    for p in params:
        p.requires_grad_(True)
    try:
        result = job.run(
            Job(
                model,
                objective,
                rows,
                train,
                out=job.resume,
                callbacks=job.callbacks,
                evaluate=scores,
                identity=_identity(job) if job.resume else {},
                called=job.called,
            )
        )
    finally:
        model.compute_dtype = dtype
        for p in params:
            p.requires_grad_(False)
    state = result.state
    if result.stopped:
        raise Stopped(
            f"stopped after step {state.step} of {state.total}; a partly trained adapter is not saved",
            f"run the same command again: it resumes from {job.resume}"
            if job.resume
            else "run the same command again: it starts over (--resume DIR writes checkpoints)",
        )
    per_token = base_flops(model.cfg, train.sequence_length)
    by_source: Facts = {"tokens.by_source": (dict(state.sources), "counted by the loop")}
    return (by_source if len(state.sources) > 1 else {}) | {
        "train.steps": (state.step, "counted by the loop"),
        "train.batch_size": (state.rows, "counted by the loop"),
        "tokens.read": (state.tokens, "counted by the loop"),
        "tokens.supervised": (state.supervised, "counted by the loop"),
        "flops.formula": (
            per_token * state.tokens,
            "computed: formula of the config x tokens, full backward assumed",
        ),
        # A run that had already ended has no batch to measure.
        **({"train.final_loss": (result.losses[-1], "measured on the last batch")} if result.losses else {}),
    }


def _identity(job: Adapting) -> dict[str, str]:
    """What a checkpoint must match besides the loop's own identity: the base, the request, the rows with their labels, and the content of
    all files and folders that the request names, wherever they are."""
    options = as_before(job.options)
    for name in job.bound:
        *path, last = name.split(".")
        parent = options
        for part in path:
            parent = parent[part]
        parent.pop(last, None)
    request = {"task": job.task, "method": job.method, "options": options}
    base = {f"base's {k}" if k != "fingerprint" else "weights": v for k, v in job.base.hashes.items()}
    return (
        base
        | {"date": str(job.options.date)}
        | {"adapter": digest(request), "rows": rows_hash(job.rows)}
        | job.bound
    )
