"""Shared code of tasks with a head: fit a head on the frozen base, or train it together with the method's weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.head import Head, HeadConfig
from onebase.config import config
from onebase.data.order import ExampleOrder, Row, one_by_one
from onebase.engine.features import features
from onebase.errors import ConfigError
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, bound_to
from onebase.methods.head import Chosen, pooled_as
from onebase.methods.method import SCRATCH, Learner, option
from onebase.modality.text.long import Long, long_texts
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Objective
from onebase.tasks.fit import Fields, Lesson, Steps
from onebase.tasks.job import Adapting, Facts
from onebase.tasks.ledgers import check_rows
from onebase.tasks.reading import long_of

LONG = "long texts: refuse; keep the head, tail or middle; or read them in windows"


@config
class HeadOptions:
    """Options of tasks whose head chooses its pooling."""

    pooling: Chosen = option("auto", "which hidden states a head reads")


@config
class BiasedHeadOptions(HeadOptions):
    """Options of tasks whose head may have no bias."""

    head_bias: bool = option(
        True, "whether the head has a bias (classifiers of decoders in transformers have none)", later=True
    )

    def __post_init__(self) -> None:
        if not self.head_bias and self.pooling in ("auto", "vector"):
            raise ConfigError(
                f"'head_bias' is false and 'pooling' is {self.pooling!r}", "name a pooling, such as last"
            )


@config
class TextOptions(BiasedHeadOptions):
    """Options of tasks whose head reads whole texts, including long ones."""

    long: Long = option("windows", LONG, later=True)


def reads(job: Adapting) -> dict[str, Any]:
    """How a head reads long texts, as fields of its config: the same as in training."""
    long = long_of(job.options)
    return {} if long == "refuse" else {"long": long, "limit": job.options.max_length}


def long_facts(job: Adapting, texts: Sequence[Tokens]) -> Facts:
    """Count, and log, the texts that are longer than the limit of one read."""
    long = long_texts(texts)
    if not str(long):
        return {}
    job.log(str(long))
    counts = {k: v for k, v in vars(long).items() if v}
    return {"data.long": (counts, "counted before step 1")}


@dataclass(frozen=True)
class Fit:
    """An exactly fitted head, and how to train it further: `objective` builds the loss for a routing and the head named SCRATCH."""

    head: Head
    config: HeadConfig
    objective: Callable[[AdapterRouting | None], Objective]
    facts: Facts = field(default_factory=dict)


Fitter = Callable[[Sequence[Tokens], AdapterRouting | None], Fit]
"""Fits a head on texts as the base reads them, after an adapter's virtual tokens."""


@dataclass(frozen=True)
class Prepared:
    """A task with a head, ready to train: the fitter of the head, and facts of the data (the ledger runs if it is not among them).
    vectors: builds the objective that trains vectors first, where the head is fitted on them afterwards. rows: given where they are not the
    single texts of the job's rows. fields: fields of the adapter's config."""

    fit: Fitter
    facts: Facts
    vectors: Callable[[Sequence[Tokens], AdapterRouting | None], Objective] | None = None
    rows: Sequence[Row] | None = None
    fields: Fields = field(default_factory=dict)

    def read(self, job: Adapting) -> tuple[Sequence[Row], list[Tokens], Facts]:
        """The rows, their texts, and facts."""
        rows = one_by_one(job.rows.texts) if self.rows is None else self.rows
        facts = self.facts if "ledger" in self.facts else self.facts | check_rows(job)
        texts = [t for row in rows for t in row]
        return rows, texts, facts | long_facts(job, texts)


def by_head(job: Adapting, task: Prepared) -> AdapterParts:
    """An adapter of the fitted head alone."""
    _, texts, facts = task.read(job)
    job.reads(lambda: texts)
    fit = task.fit(texts, None)
    cfg = AdapterConfig(
        method=job.method, task=job.task, base=bound_to(job.base), head=fit.config, **task.fields
    )
    return job.parts(cfg, fit.head.tensors, facts | fit.facts)


def lesson(job: Adapting, task: Prepared) -> Lesson:
    """Train the head and the method's weights together, starting from the fitted head."""
    o, base = job.options, job.base
    rows, texts, facts = task.read(job)

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        learner.reads_only(texts)
        # Not the context: the size of a micro-batch depends on it.
        longest = max(2, *(len(row) * (learner.before + max(map(len, row))) for row in rows))
        # A single text in a step has no other text to be drawn to.
        least = 1 if task.vectors is None else 2
        alike = task.rows is not None
        plan = ExampleOrder(rows, min(o.batch_size, len(rows)), o.seed, o.epochs, least, alike)

        def fitted(routing: AdapterRouting | None) -> Fit:
            fit = task.fit(texts, routing)
            base.model.heads[SCRATCH] = fit.head.to(base.model.device)
            return fit

        def after() -> tuple[Facts, Fields]:
            with forgetting(base):  # method full changed the weights that read the texts
                fit = fitted(learner.routing)
            return fit.facts, {"head": fit.config}

        if task.vectors is not None:
            return Steps(task.vectors(texts, learner.routing), plan, longest, after=after)
        fit = fitted(learner.routing if learner.before else None)
        return Steps(
            fit.objective(learner.routing),
            plan,
            longest,
            params=[p for p in base.model.heads[SCRATCH].parameters() if p.requires_grad],
            facts=fit.facts,
            fields={"head": fit.config},
        )

    return Lesson(facts, "labels", steps, fields=task.fields)


@contextmanager
def forgetting(base: LoadedBase) -> Iterator[None]:
    """Switch the base's cache of texts off inside the block: features cached before training would be stale."""
    memory, base.memory = base.memory, None
    try:
        yield
    finally:
        base.memory = memory


def wide_features(job: Adapting, texts: Sequence[Tokens], routing: AdapterRouting | None) -> Tensor:
    """Pooled states [N, P] from which every pooling that the options allow can be taken."""
    return features(job.base, texts, pooled_as(job.options.of_task.pooling), routing)
