"""What tasks with a head share: a head fitted on the frozen base, and one that learns together with what the method learns."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.head import Head, HeadConfig
from onebase.codec.text.long import Long, long_texts
from onebase.codec.text.sample import Tokens
from onebase.config import config
from onebase.data.order import ExampleOrder, Row, one_by_one
from onebase.engine.features import features
from onebase.errors import ConfigError
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, bound_to
from onebase.methods.head import Chosen, pooled_as
from onebase.methods.method import SCRATCH, Learner, option
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Objective
from onebase.tasks.fit import Fields, Lesson, Steps
from onebase.tasks.job import Adapting, Facts
from onebase.tasks.ledgers import check_rows
from onebase.tasks.reading import long_of

LONG = "what is done with texts beyond the limit: refuse, head, tail or middle (what is kept), or windows"


@config
class HeadOptions:
    """Options of the tasks whose head chooses what it reads."""

    pooling: Chosen = option("auto", "which hidden states a head reads")


@config
class BiasedHeadOptions(HeadOptions):
    """Options of the tasks whose head may do without a bias."""

    head_bias: bool = option(
        True, "whether the head has a bias; decoders' classes of transformers have none", later=True
    )

    def __post_init__(self) -> None:
        if not self.head_bias and self.pooling in ("auto", "vector"):
            raise ConfigError(
                f"'head_bias' is false and 'pooling' is {self.pooling!r}", "name a pooling, such as last"
            )


@config
class TextOptions(BiasedHeadOptions):
    """Options of the tasks whose head reads whole texts, long ones too."""

    long: Long = option("windows", LONG, later=True)


def reads(job: Adapting) -> dict[str, Any]:
    """How a head reads long texts, as fields of its config: as it learnt them."""
    long = long_of(job.options)
    return {} if long == "refuse" else {"long": long, "limit": job.options.max_length}


def long_facts(job: Adapting, texts: Sequence[Tokens]) -> Facts:
    """How many texts are longer than is read at once; it is said too."""
    found = long_texts(texts)
    if not str(found):
        return {}
    job.log(str(found))
    counts = {k: v for k, v in vars(found).items() if v}
    return {"data.long": (counts, "counted before step 1")}


@dataclass(frozen=True)
class Fit:
    """A head fitted exactly, and how it goes on from there: `objective` of what is active, for the head under SCRATCH."""

    head: Head
    config: HeadConfig
    objective: Callable[[AdapterRouting | None], Objective]
    facts: Facts = field(default_factory=dict)


Fitter = Callable[[Sequence[Tokens], AdapterRouting | None], Fit]
"""Fits a head on texts as the base reads them, behind what an adapter puts before them."""


@dataclass(frozen=True)
class Prepared:
    """A task with a head, ready: what fits the head on texts, and facts of the data (the ledger is told where it is not among them). vectors: where
    the method learns vectors first, and the head is fitted on them: what they are learnt by. rows: where they are not the texts of the job's rows,
    each by itself; fields: of the adapter's config."""

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
    """The fitted head, and nothing else."""
    _, texts, facts = task.read(job)
    job.reads(lambda: texts)
    made = task.fit(texts, None)
    cfg = AdapterConfig(
        method=job.method, task=job.task, base=bound_to(job.base), head=made.config, **task.fields
    )
    return job.parts(cfg, tensors(made.head), facts | made.facts)


def tensors(head: Head) -> dict[str, Tensor]:
    """A head alone as an adapter has it."""
    return {"head.weight": head.weight_CP.detach(), "head.bias": head.bias_C.detach()}


def lesson(job: Adapting, task: Prepared) -> Lesson:
    """The head and what the method learns, together, from the fitted head on."""
    o, base = job.options, job.base
    rows, texts, facts = task.read(job)

    def steps(found: Learner, stack: ExitStack) -> Steps:
        found.reads_only(texts)
        # Not the context: it decides how many rows make a micro-batch.
        longest = max(2, *(len(row) * (found.before + max(map(len, row))) for row in rows))
        # A text alone in a step has nothing to be drawn to.
        least = 1 if task.vectors is None else 2
        alike = task.rows is not None
        plan = ExampleOrder(rows, min(o.batch_size, len(rows)), o.seed, o.epochs, least, alike)

        def fitted(routing: AdapterRouting | None) -> Fit:
            made = task.fit(texts, routing)
            base.model.heads[SCRATCH] = made.head.to(base.model.device)
            return made

        def after() -> tuple[Facts, Fields]:
            with forgetting(base):  # method full changed the weights by which texts were read
                made = fitted(found.routing)
            return made.facts, {"head": made.config}

        if task.vectors is not None:
            return Steps(task.vectors(texts, found.routing), plan, longest, after=after)
        made = fitted(found.routing if found.before else None)
        return Steps(
            made.objective(found.routing),
            plan,
            longest,
            params=[p for p in base.model.heads[SCRATCH].parameters() if p.requires_grad],
            facts=made.facts,
            fields={"head": made.config},
        )

    return Lesson(facts, "labels", steps, fields=task.fields)


@contextmanager
def forgetting(base: LoadedBase) -> Iterator[None]:
    """Inside, the base remembers no text: what it said before it learnt would be taken for what it says."""
    kept, base.memory = base.memory, None
    try:
        yield
    finally:
        base.memory = kept


def wide_features(job: Adapting, texts: Sequence[Tokens], routing: AdapterRouting | None) -> Tensor:
    """Pooled states [N, P] of which every pooling that the options allow can be had."""
    return features(job.base, texts, pooled_as(job.options.of_task.pooling), routing)
