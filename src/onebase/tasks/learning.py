"""A method while it learns: what is put on the base, the loop over it, and what is taken off again."""

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
"""Times that the state of learning is kept on the way, where the job has a folder to resume from."""


@contextmanager
def learner(job: Adapting, tokens: tuple[int, ...] = (), trunk: str = "text") -> Iterator[Learner]:
    """The method of `job` put on its base; at the end of the block the base is what it was. tokens: ids whose rows are learnt too, where
    the method leaves the base's own alone. trunk: the one that the rows go through. Whatever ends the block early, the base is what it was,
    and what says which of its weights learn too."""
    method = METHODS[job.method]
    assert method.learn is not None
    flags = [(p, p.requires_grad) for p in job.base.model.parameters()]
    try:
        with method.learn(Start(job.base, job.options.of_method, job.options.seed, tokens, trunk)) as found:
            yield found
    except BaseException:
        for p, learns in flags:
            p.requires_grad_(learns)
        raise
    finally:
        detach(job.base, SCRATCH)
        for p, _ in flags:
            p.grad = None


MICRO_TOKENS = 512
"""Tokens of a micro-batch on a CPU where the base's own weights do not learn. Activations are most of the memory there: 768 tokens of
SmolLM2 in one take 1.7 GB in all, in two 1.5, in three 1.3, but these a quarter more time."""


def train_config(
    o: AdaptOptions, rows: Order, length: int, *, default_lr: float, rows_rate: float = 1.0
) -> TrainConfig:
    """As many steps as the rows have. `rows_rate`: the rate of what is learnt at the codec's ends, as a multiple of all else's."""
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
    learnt: Sequence[torch.nn.Parameter],
    scores: Callable[[BaseModel], dict[str, float]] | None = None,
) -> Facts:
    """Run the loop on the parameters `learnt` and no others, in the number format that the base runs in; returns facts. scores: what
    listeners hear of each step beside the loss. Where the job has a folder to resume from, the state of learning is kept there."""
    base = job.base
    model: BaseModel = base.model
    kept = model.compute_dtype
    train = replace(
        train, dtype="bf16" if kept == torch.bfloat16 else "fp32", eval_every=0 if scores is None else 1
    )
    if not train.micro_batch and not METHODS[job.method].replaces and model.device.type == "cpu":
        train = replace(train, micro_batch=max(1, MICRO_TOKENS // train.sequence_length))
    if job.resume:
        train = replace(
            train, checkpoint=CheckpointConfig(every=max(1, (train.steps or 0) // KEEPS), flat=False)
        )
    for p in model.parameters():
        p.requires_grad_(False)
    for p in learnt:
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
        model.compute_dtype = kept
        for p in learnt:
            p.requires_grad_(False)
    state = result.state
    if result.stopped:
        raise Stopped(
            f"stopped after step {state.step} of {state.total}; half an adapter is not kept",
            f"run the same command again: it goes on from {job.resume}"
            if job.resume
            else "run the same command again: it begins anew (--resume DIR keeps what was learnt)",
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
        # Of a run that was at its end already there is no batch to measure.
        **({"train.final_loss": (result.losses[-1], "measured on the last batch")} if result.losses else {}),
    }


def _identity(job: Adapting) -> dict[str, str]:
    """What a checkpoint must agree with beside the loop's own: the base, the request, the rows with their labels, and the content of all
    files and folders that the request names, wherever they lie."""
    options = as_before(job.options)
    for name in job.bound:
        *path, last = name.split(".")
        kept = options
        for part in path:
            kept = kept[part]
        kept.pop(last, None)
    asked = {"task": job.task, "method": job.method, "options": options}
    base = {f"base's {k}" if k != "fingerprint" else "weights": v for k, v in job.base.hashes.items()}
    return (
        base
        | {"date": str(job.options.date)}
        | {"adapter": digest(asked), "rows": rows_hash(job.rows)}
        | job.bound
    )
