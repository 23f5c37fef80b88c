"""What tasks with a head share: a head fitted on the frozen base, and one that learns together with what the method learns."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, bound_to
from onebase.adapt.head import Head, HeadConfig, pooled_as
from onebase.base.folder import LoadedBase
from onebase.codec.text.sample import Tokens
from onebase.data.singles import SinglesPlan
from onebase.engine.features import features, row_tokens
from onebase.model.proj import Active
from onebase.objective.base import Objective
from onebase.tasks.job import Adapting, Facts
from onebase.tasks.learning import SCRATCH, learn, learner, train_config
from onebase.tasks.ledgers import check_labelled

RATES = {"lora": 1e-3, "soft": 1e-3, "prefix": 1e-3, "full": 1e-4}
"""AdamW's peak rate by method, where none is given."""


@dataclass(frozen=True)
class Fit:
    """A head fitted exactly, and how it goes on from there: `objective` of what is active, for the head under SCRATCH."""

    head: Head
    config: HeadConfig
    objective: Callable[[Active | None], Objective]
    facts: Facts = field(default_factory=dict)


Fitter = Callable[[Sequence[Tokens], Active | None], Fit]
"""Fits a head on texts as the base reads them, behind what an adapter puts before them."""


@dataclass(frozen=True)
class Prepared:
    """A task with a head, ready: its rows, what fits the head, and facts of the data. vectors: where the method learns vectors first, and
    the head is fitted on them: what they are learnt by."""

    rows: Sequence[dict[str, Any]]
    fit: Fitter
    facts: Facts
    vectors: Callable[[Sequence[Tokens], Active | None], Objective] | None = None


def makers(
    prepare: Callable[[Adapting], Prepared], methods: Sequence[str]
) -> dict[str, Callable[[Adapting], AdapterParts]]:
    """What makes the adapters of a task with a head, by method: the head alone, or together with what the others learn."""
    steps = dict.fromkeys(methods, lambda job: by_steps(job, prepare(job)))
    return {"head": lambda job: by_head(job, prepare(job)), **steps}


def by_head(job: Adapting, task: Prepared) -> AdapterParts:
    """The fitted head, and nothing else."""
    rows, fit = task.rows, task.fit
    facts = task.facts | check_labelled(job, rows)
    job.reads(texts := row_tokens(job.base, rows, job.options.max_length))
    made = fit(texts, None)
    cfg = AdapterConfig(method="head", task=job.task, base=bound_to(job.base), head=made.config)
    return job.parts(cfg, tensors(made.head), facts | made.facts)


def tensors(head: Head) -> dict[str, Tensor]:
    """A head alone as an adapter has it."""
    return {"head.weight": head.weight_CP.detach(), "head.bias": head.bias_C.detach()}


def by_steps(job: Adapting, task: Prepared) -> AdapterParts:
    """The head and what the method learns, together, from the fitted head on."""
    o, base = job.options, job.base
    rows, fit = task.rows, task.fit
    facts = task.facts | check_labelled(job, rows)
    with learner(job) as found:
        texts = row_tokens(base, rows, o.max_length, found.before)
        found.reads_only(texts)
        # Not the context: it decides how many rows make a micro-batch.
        longest = max(2, *(found.before + len(t) for t in texts))
        # A text alone in a step has nothing to be drawn to.
        plan = SinglesPlan(
            texts, min(o.rows, len(rows)), o.seed, o.epochs, least=1 if task.vectors is None else 2
        )
        train = train_config(o, plan, longest, default_lr=RATES[job.method], rows_rate=found.rate)
        if task.vectors is None:
            made = fit(texts, found.active if found.before else None)
            base.model.heads[SCRATCH] = head = made.head.to(base.model.device)
            state = learn(job, made.objective(found.active), plan, train, [*found.params, *head.parameters()])
        else:
            state = learn(job, task.vectors(texts, found.active), plan, train, found.params)
            with _forgetting(base):  # method full changed the weights by which texts were read
                made = fit(texts, found.active)
            base.model.heads[SCRATCH] = made.head.to(base.model.device)
        learnt = found.tensors()
    cfg = AdapterConfig(
        method=job.method,
        task=job.task,
        base=bound_to(base),
        head=made.config,
        **found.fields,
    )
    return job.parts(cfg, learnt, facts | made.facts | state)


@contextmanager
def _forgetting(base: LoadedBase) -> Iterator[None]:
    kept, base.memory = base.memory, None
    try:
        yield
    finally:
        base.memory = kept


def wide_features(job: Adapting, texts: Sequence[Tokens], active: Active | None) -> Tensor:
    """Pooled states [N, P] of which every pooling that the options allow can be had."""
    return features(job.base, texts, pooled_as(job.options.pooling), active)
