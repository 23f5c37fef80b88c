"""Task embed on pairs of an image and a text, for bases with one space for both (CLIP, SigLIP)."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from onebase.base.folder import LoadedBase
from onebase.data import Rows, read_rows
from onebase.data.labelled import Make, Records
from onebase.data.order import ExampleOrder, one_by_one
from onebase.engine.features import embedding_tokens
from onebase.engine.image_search import text_vectors, the_pair
from onebase.engine.media_samples import digest_of, image_pixels
from onebase.errors import DataError, UserError
from onebase.evaluation.predictions import Retrieved
from onebase.evaluation.retrieval import relevant_ranks
from onebase.methods.method import Learner
from onebase.modality.text.sample import Media, Tokens
from onebase.objective.image_text import ImageText
from onebase.tasks.base import ScoreRequest
from onebase.tasks.checks import before
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.ledgers import check_rows
from onebase.tasks.media_rows import NO_VIRTUAL, by_content, source_of
from onebase.tasks.reading import Row, RowReader, each_row, samples_in


def image_pairs(base: LoadedBase, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the rows pair images with texts, on a base with one space for both."""
    return base.model.cfg.link("pair") is not None and any("image" in r for r in rows)


def samples(reader: RowReader) -> Make:
    """Each text as the base embeds it, with its image."""

    def made(row: Row) -> tuple[Tokens, ...]:
        source, name = source_of(row["image"], "image", reader.folder)
        (text,) = embedding_tokens(reader.base, [str(row["text"])], the_pair(reader.base).cfg.pool)
        return (
            replace(
                text, source="image", media=(Media("image", 0, image_pixels(source, name, reader.base)),)
            ),
        )

    return each_row(made)


def lesson(job: Adapting) -> Lesson:
    """The contrastive loss of the base's own kind over the pairs of a step. Raises UserError for virtual tokens or a step without negatives."""
    o, tokens = job.options, samples_in(job.rows)
    if before(job.method, o):
        raise UserError(f"method {job.method}: {NO_VIRTUAL}", "use lora or full")
    if min(o.batch_size, len(tokens)) < 2 or len({t.ids.tobytes() for t in tokens}) < 2:
        raise DataError(
            "there are no negatives: they are the other pairs of a step",
            "give pairs with at least two different texts, and a batch_size of at least 2",
        )
    job.rows = by_content(job.rows, "image")
    job.test = None if job.test is None else _hashed(job.test)
    facts = data_facts(job.rows) | check_rows(job) | {"data.tokens": (sum(map(len, tokens)), "counted")}

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        plan = ExampleOrder(one_by_one(tokens), min(o.batch_size, len(tokens)), o.seed, o.epochs, least=2)
        longest = max(len(t) + t.media[0].content.shape[0] for t in tokens)
        return Steps(ImageText(learner.routing), plan, longest)

    return Lesson(facts, "vectors", steps, trunk="")


def _hashed(rows: Rows) -> Rows:
    """The rows with the hash of each image in the place of its path."""
    out = rows.some(range(len(rows)))
    for i, row in enumerate(rows):
        out[i] = {**row, "image": digest_of(source_of(row["image"], "image", rows.folder)[0])}
    return out


def predictions(request: ScoreRequest) -> Retrieved:
    """The rank of each image's own texts among all texts of the rows."""
    base, records = request.base, Records.of(request.data)
    rows = read_rows(records, ("image", "text"))
    texts = list(dict.fromkeys(str(r["text"]) for r in rows))
    if len(texts) < 2:
        raise DataError("all rows have the same text", "give at least two different ones")
    model, pair, vectors = base.loaded.model, the_pair(base.loaded), []
    for row in rows:
        content = image_pixels(*source_of(row["image"], "image", records.folder), base.loaded)
        with torch.no_grad():
            pixels = torch.from_numpy(content.load()[0])[None].to(model.device)
            pooled = model.image.pooled(model.states("image", pixels, routing=base.routing).hidden)
            vectors.append(pair.placed(pooled, "src")[0].cpu())
    cosines = torch.stack(vectors).double() @ text_vectors(base.loaded, texts, base.routing).double().T
    own = [[texts.index(str(r["text"]))] for r in rows]
    return Retrieved(relevant_ranks(cosines.numpy(), own, [[] for _ in rows]))
