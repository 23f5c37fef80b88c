"""What tasks with a head share: a head fitted on the frozen base, and one that learns together with what the method learns."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, bound_to
from onebase.adapt.head import pooled_as
from onebase.adapt.method import SCRATCH, Learner
from onebase.base.folder import LoadedBase
from onebase.base.head import Head, HeadConfig
from onebase.codec.text.sample import Tokens
from onebase.data.order import ExampleOrder, one_by_one
from onebase.engine.features import features, row_tokens
from onebase.model.proj import Active
from onebase.objective.base import Objective
from onebase.tasks.fit import Fields, Lesson, Steps
from onebase.tasks.job import Adapting, Facts
from onebase.tasks.ledgers import check_labelled


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
    the head is fitted on them: what they are learnt by. tokens: the rows as the base reads them, behind so many places of an adapter, where they are
    no texts; ledger: tells the token ledger of them."""

    rows: Sequence[dict[str, Any]]
    fit: Fitter
    facts: Facts
    vectors: Callable[[Sequence[Tokens], Active | None], Objective] | None = None
    tokens: Callable[[int], list[Tokens]] | None = None
    ledger: Callable[[], Facts] | None = None

    def read(self, job: Adapting, before: int = 0) -> list[Tokens]:
        """The rows as the base reads them."""
        made = self.tokens
        return (
            row_tokens(job.base, self.rows, job.options.max_length, before) if made is None else made(before)
        )

    def checked(self, job: Adapting) -> Facts:
        """Facts of the data, once the ledger is told."""
        return self.facts | (check_labelled(job, self.rows) if self.ledger is None else self.ledger())


def by_head(job: Adapting, task: Prepared) -> AdapterParts:
    """The fitted head, and nothing else."""
    facts = task.checked(job)
    job.reads(texts := task.read(job))
    made = task.fit(texts, None)
    cfg = AdapterConfig(method="head", task=job.task, base=bound_to(job.base), head=made.config)
    return job.parts(cfg, tensors(made.head), facts | made.facts)


def tensors(head: Head) -> dict[str, Tensor]:
    """A head alone as an adapter has it."""
    return {"head.weight": head.weight_CP.detach(), "head.bias": head.bias_C.detach()}


def lesson(job: Adapting, task: Prepared) -> Lesson:
    """The head and what the method learns, together, from the fitted head on."""
    o, base = job.options, job.base
    facts = task.checked(job)

    def steps(found: Learner, stack: ExitStack) -> Steps:
        texts = task.read(job, found.before)
        found.reads_only(texts)
        # Not the context: it decides how many rows make a micro-batch.
        longest = max(2, *(found.before + len(t) for t in texts))
        # A text alone in a step has nothing to be drawn to.
        least = 1 if task.vectors is None else 2
        plan = ExampleOrder(one_by_one(texts), min(o.rows, len(texts)), o.seed, o.epochs, least=least)

        def fitted(active: Active | None) -> Fit:
            made = task.fit(texts, active)
            base.model.heads[SCRATCH] = made.head.to(base.model.device)
            return made

        def after() -> tuple[Facts, Fields]:
            with _forgetting(base):  # method full changed the weights by which texts were read
                made = fitted(found.active)
            return made.facts, {"head": made.config}

        if task.vectors is not None:
            return Steps(task.vectors(texts, found.active), plan, longest, after=after)
        made = fitted(found.active if found.before else None)
        return Steps(
            made.objective(found.active),
            plan,
            longest,
            params=list(base.model.heads[SCRATCH].parameters()),
            facts=made.facts,
            fields={"head": made.config},
        )

    return Lesson(facts, "labels", steps)


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
