"""Task embed: vectors for retrieval and similarity, trained contrastively on pairs of texts that belong together."""

from collections.abc import Container, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from onebase.base.folder import LoadedBase
from onebase.config import config
from onebase.data.bad_rows import Samples
from onebase.data.labelled import Make, Records
from onebase.data.lines import Problem
from onebase.data.order import ExampleOrder
from onebase.engine.answers import vectors
from onebase.engine.features import embedding_tokens
from onebase.engine.scoring import batch_tokens
from onebase.errors import ConfigError, DataError, UserError
from onebase.evaluation.predictions import Alike, Retrieved
from onebase.methods.method import Learner, option
from onebase.modality.text.long import Long
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.modality.text.sample import Tokens
from onebase.objective.contrastive import Contrastive
from onebase.tasks import image_text
from onebase.tasks.base import ScoreRequest, Task
from onebase.tasks.by_head import LONG, long_facts
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.ledgers import check_rows
from onebase.tasks.options import AdaptOptions
from onebase.tasks.pairs import compared, pair_columns
from onebase.tasks.reading import Row, RowReader, long_of, together


@config
class EmbedOptions:
    """Options of task embed."""

    temperature: float = option(0.05, "divisor of the cosines")
    symmetric: bool = option(False, "also train positives to find their anchors")

    long: Long = option("head", LONG, later=True)

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"'temperature' is {self.temperature}", "give a number above 0")


def lesson(job: Adapting) -> Lesson:
    """InfoNCE over the pairs of a step. The vector of a text is that of `Base.embed`, normalised."""
    o, own, base = job.options, job.options.of_task, job.base
    if image_text.image_pairs(base, job.rows):
        return image_text.lesson(job)
    if base.model.cfg.link("pair") is not None:
        raise UserError(
            "this base has one vector space for texts and images, and training on texts alone would break it",
            "give rows of `image` and `text`, or adapt a text base",
        )
    rows = job.rows
    if any("score" in r for r in rows):
        raise DataError(
            "pairs with a score are for evaluation: a low score marks texts that do not belong together",
            "keep the pairs that belong together, without the column 'score'",
        )
    facts = data_facts(rows) | check_rows(job) | long_facts(job, rows.texts)
    sides = _sides(rows[0])
    groups = rows.named([""] * len(sides), 0)
    embedding = _embedding(base, o)

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        learner.reads_only([t for group in groups for t in group])
        per_step = min(o.batch_size, len(groups))
        _check_negatives(groups, per_step)
        longest = learner.before + max(2, *(len(t.ids) for g in groups for t in g))
        # A single pair in a step has no negatives except its own.
        plan = ExampleOrder(groups, per_step, o.seed, epochs=o.epochs, least=2 if len(sides) == 2 else 1)
        chunk = max(1, batch_tokens(base.model.device) // longest)
        return Steps(
            Contrastive(embedding, own.temperature, own.symmetric, learner.routing, chunk=chunk),
            plan,
            longest,
        )

    return Lesson(facts, "vectors", steps, fields={"embedding": embedding})


def _embedding(base: LoadedBase, options: AdaptOptions) -> EmbeddingConfig:
    """How the adapter computes the vector of a text."""
    own = base.embedding or EmbeddingConfig()
    long = long_of(options)
    return replace(own, normalise=True, limit=_shorter(own.limit, options.max_length), long=long)


def _sides(columns: Container[str]) -> tuple[str, ...]:
    return ("anchor", "positive", *(("negative",) if "negative" in columns else ()))


def _samples(reader: RowReader) -> Make:
    """The texts of a row, each as tokens for its vector: long ones are cut."""
    if "image" in reader.columns:
        return image_text.samples(reader)
    base, sides, cfg = reader.base, _sides(reader.columns), _embedding(reader.base, reader.options)

    def make(rows: Sequence[Row]) -> list[Samples | Problem]:
        read = iter(embedding_tokens(base, [r[side] for r in rows for side in sides], cfg, reader.taken))
        return [tuple(next(read) for _ in sides) for _ in rows]

    return together(make)


def _shorter(a: int | None, b: int | None) -> int | None:
    return min((n for n in (a, b) if n is not None), default=None)


def _check_negatives(groups: Sequence[Sequence[Tokens]], per_step: int) -> None:
    """Refuse pairs without negatives: with them alone, equal vectors for all texts would be best. Raises DataError, UserError."""
    if len(groups[0]) > 2:
        return
    if len({g[1].ids.tobytes() for g in groups}) < 2:
        raise DataError(
            "all pairs have the same positive, so there are no negatives: they are the positives of other pairs",
            "give pairs with at least two different positives, or a 'negative' in each row",
        )
    if per_step < 2:
        raise UserError(
            "with one pair per step there are no negatives: they are the positives of the step's other pairs",
            "set batch_size to at least 2 (more is better), or give a 'negative' in each row",
        )


def predictions(request: ScoreRequest) -> Retrieved | Alike:
    """The ranks of each anchor's positives; for pairs with a score, their cosines."""
    records = Records.of(request.data)
    if image_text.image_pairs(request.base.loaded, records.sound):
        return image_text.predictions(replace(request, data=records))
    return compared(partial(vectors, request.base), records)


TASK = Task(
    name="embed",
    columns=lambda look: (
        ("image", "text") if image_text.image_pairs(look.base, look.rows()) else pair_columns(look.rows())
    ),
    lesson=lesson,
    samples=_samples,
    compared=("anchor", "positive", "image", "text"),
    options=EmbedOptions,
    methods={
        "prompt": "a prompt gives probabilities of answers, not vectors",
        "head": "a head predicts labels, not vectors",
    },
    predictions=predictions,
    tuned_by=("ndcg@10",),
    signal="vectors",
)
