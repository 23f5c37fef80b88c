"""Task classify: by a head fitted exactly, by a head and what the method learns, together, or by vectors that the method learns first. Rows
with `labels` in the place of `label` are for `many`."""

from collections import Counter
from collections.abc import Sequence

import torch

from onebase.adapt.folder import AdapterParts
from onebase.adapt.head import HeadConfig
from onebase.adapt.vector_head import candidates, fit_views
from onebase.codec.text.sample import Tokens
from onebase.data import Rows, read_rows
from onebase.engine import image_features as images
from onebase.engine.features import how_read, vector_of, views
from onebase.engine.scoring import batch_tokens
from onebase.errors import DataError, UserError
from onebase.model.proj import Active
from onebase.objective.base import Objective
from onebase.objective.grouped import Grouped
from onebase.objective.label import Label
from onebase.tasks import by_head as heads
from onebase.tasks import image_classes as pictures
from onebase.tasks import multilabel as many
from onebase.tasks.by_head import Fit, Prepared
from onebase.tasks.checks import head_size
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.learning import SCRATCH


def by_head(job: Adapting) -> AdapterParts:
    """Logistic regression on what a head reads of texts, or of images."""
    given = read_rows(job.data, ())
    if not images.sees_images(job.base, given):
        return heads.by_head(job, _prepared(job, given))
    _one_label(given)
    return pictures.by_head(job)


def by_steps(job: Adapting) -> AdapterParts:
    """A head and what the method learns, together; the head starts from the exact fit on the frozen base (behind what the method puts
    before the text). With `contrast.first` the method learns vectors, and the head is fitted on them afterwards."""
    given = read_rows(job.data, ())
    if images.sees_images(job.base, given):
        _one_label(given)
        return pictures.by_steps(job)
    return heads.by_steps(job, _prepared(job, given))


def _one_label(given: Rows) -> None:
    if many.has_many(given):
        raise UserError("images with many labels each", "give one label an image: the column `label`")


def _prepared(job: Adapting, given: Rows) -> Prepared:
    if not many.has_many(given):
        return prepare(job)
    if job.options.contrast.first:
        raise UserError(
            "contrast draws texts of one label together, and these rows have many labels each",
            "leave contrast.first out, or give one label a text",
        )
    return many.prepare(job)


def prepare(job: Adapting) -> Prepared:
    """Rows with one label each."""
    rows, labels = job.labelled()
    o, base = job.options, job.base
    number = {label: i for i, label in enumerate(labels)}
    numbers = [number[str(r["label"])] for r in rows]
    contrast = o.contrast
    if contrast.first and len(labels) == len(rows):
        raise DataError(
            "no label has two texts, and contrast draws texts of one label together",
            "give more rows, or leave contrast.first out",
        )
    # What was learnt for the vector is read of the vector.
    pooling = "vector" if contrast.first and o.pooling == "auto" else o.pooling
    reads = candidates(pooling, base.embedding is not None)
    job.head = head_size(job, len(rows), len(labels), list(Counter(numbers).values()))

    def fit(texts: Sequence[Tokens], active: Active | None) -> Fit:
        x_by = views(base, texts, reads, active)
        fitted, read = fit_views(x_by, torch.tensor(numbers), len(labels), o.seed)
        targets = {t.id: c for t, c in zip(texts, numbers, strict=True)}
        return Fit(
            fitted.head,
            HeadConfig(labels=labels, pooling=read),
            lambda on: Label(SCRATCH, targets, how_read(base, read), on),
            fitted.facts,
        )

    def vectors(texts: Sequence[Tokens], active: Active | None) -> Objective:
        targets = {t.id: c for t, c in zip(texts, numbers, strict=True)}
        chunk = max(1, batch_tokens(base.model.device) // max(len(t) for t in texts))
        return Grouped(vector_of(base), targets, contrast.temperature, active, chunk)

    return Prepared(rows, fit, data_facts(rows, labels), vectors if contrast.first else None)
