"""A method while it learns: what is put on the base, the loop over it, and what is taken off again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from onebase.adapt import lora
from onebase.adapt.folder import adapter_tensors, detach
from onebase.adapt.lora import LoraConfig
from onebase.api.adapting.job import Adapting, Facts
from onebase.api.options import AdaptOptions
from onebase.base.config import base_flops
from onebase.base.folder import base_tensors
from onebase.base.model import BaseModel
from onebase.errors import UserError
from onebase.model.proj import Active
from onebase.objective.base import Objective
from onebase.train.config import AdamWConfig, ScheduleConfig, TrainConfig
from onebase.train.loop import Job, Rows, run
from onebase.train.signals import Stopped

SCRATCH = "__adapting"
"""The name under which an adapter is on its base while it learns."""
ROWS_RATE = 3.0
"""Rate of the rows of tokens as a multiple of LoRA's: about the head's rate in pretraining, for they start as untaught. At LoRA's own
rate a base of width 64 needs 120 steps to learn to end an answer, at this one 60; widths 384 and 768 learn it in 18."""


@dataclass(frozen=True)
class Learner:
    """What a method has put on the base under SCRATCH.

    params: what learns. active: how it acts in a forward. fields: the fields of AdapterConfig that say what it is. tensors: those of the
    adapter as they are now, a head's among them where there is one.
    """

    params: list[nn.Parameter]
    active: Active | None
    fields: dict[str, Any]
    tensors: Callable[[], dict[str, Tensor]]


@contextmanager
def learner(job: Adapting, tokens: tuple[int, ...] = ()) -> Iterator[Learner]:
    """The method of `job` put on its base; at the end of the block the base is what it was. tokens: ids whose rows are learnt too, where
    the method leaves the base's own alone."""
    try:
        with LEARNERS[job.method](job, tokens) as found:
            yield found
    finally:
        detach(job.base, SCRATCH)


@contextmanager
def _lora(job: Adapting, tokens: tuple[int, ...]) -> Iterator[Learner]:
    o = job.options
    cfg = LoraConfig(rank=o.rank, alpha=o.alpha, sites=o.sites, tokens=tokens)
    params = lora.inject(job.base.model, SCRATCH, cfg, o.seed)
    yield Learner(params, Active.all_rows(SCRATCH), {"lora": cfg}, lambda: adapter_tensors(job.base, SCRATCH))


@contextmanager
def _full(job: Adapting, tokens: tuple[int, ...]) -> Iterator[Learner]:
    model = job.base.model
    if model.cfg.storage is not None:
        raise UserError(
            f"the base is kept in {model.cfg.storage.bits} bits, which do not learn",
            "use method lora on it, or full on the base that it was made of",
        )
    own = base_tensors(model)  # views of the parameters: what is learnt shows in them
    before = {k: t.clone() for k, t in own.items()}

    def tensors() -> dict[str, Tensor]:
        changed = {k: t.cpu().clone() for k, t in own.items() if not torch.equal(t, before[k])}
        return changed | adapter_tensors(job.base, SCRATCH)

    try:
        yield Learner(list(model.parameters()), None, {}, tensors)
    finally:
        with torch.no_grad():
            for k, t in own.items():
                t.copy_(before[k])


LEARNERS: dict[str, Callable[[Adapting, tuple[int, ...]], AbstractContextManager[Learner]]] = {
    "lora": _lora,
    "full": _full,
}
"""By method: what learns by steps."""


def train_config(
    o: AdaptOptions, steps: int, rows: int, length: int, *, default_lr: float, rows_rate: float = 1.0
) -> TrainConfig:
    """`rows_rate`: the rate of what is learnt at the codec's ends, as a multiple of all else's."""
    lr = o.lr or default_lr
    ends = rows_rate * lr
    return TrainConfig(
        steps=steps,
        rows=rows,
        length=length,
        seed=o.seed,
        muon=None,
        adamw=AdamWConfig(matrix=lr, embed=ends, head=ends, other=lr, betas=(0.9, 0.99)),
        schedule=ScheduleConfig(warmup=min(10, steps // 4), warmdown=0.7, final=0.0),
    )


def learn(
    job: Adapting, objective: Objective, rows: Rows, train: TrainConfig, learnt: Sequence[torch.nn.Parameter]
) -> Facts:
    """Run the loop on the parameters `learnt` and no others, in the number format that the base runs in; returns facts."""
    base = job.base
    model: BaseModel = base.model
    kept = model.compute_dtype
    train = replace(train, dtype="bf16" if kept == torch.bfloat16 else "fp32")
    for p in model.parameters():
        p.requires_grad_(False)
    for p in learnt:
        p.requires_grad_(True)
    try:
        result = run(Job(model, objective, rows, train, listeners=job.listeners))
    finally:
        model.compute_dtype = kept
        for p in learnt:
            p.requires_grad_(False)
    state = result.state
    if result.stopped:
        raise Stopped(
            f"stopped after step {state.step} of {state.total}; half an adapter is not kept",
            "run the same command again: it begins anew",
        )
    per_token = base_flops(model.cfg, train.length)
    return {
        "train.steps": (state.step, "counted by the loop"),
        "tokens.read": (state.tokens, "counted by the loop"),
        "tokens.supervised": (state.supervised, "counted by the loop"),
        "flops.formula": (per_token * state.tokens, "formula of the config x tokens, full backward assumed"),
        "train.final_loss": (result.losses[-1], "measured on the last batch"),
    }
