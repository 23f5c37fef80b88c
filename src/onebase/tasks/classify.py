"""Task classify: by a head fitted exactly, by a head and what the method learns, together, or by vectors that the method learns first. Rows
with `labels` in the place of `label` are for `many`."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from onebase.adapt.folder import AdapterParts
from onebase.adapt.method import SCRATCH
from onebase.adapt.vector_head import candidates, fit_views
from onebase.base.folder import LoadedBase
from onebase.base.head import HeadConfig
from onebase.codec.text.sample import Tokens
from onebase.data import Rows, read_rows
from onebase.engine import image_features as images
from onebase.engine.features import how_read, vector_of, views
from onebase.engine.scoring import batch_tokens
from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import Array
from onebase.evaluation.predictions import Labels, LabelSets
from onebase.model.proj import Active
from onebase.objective.base import Objective
from onebase.objective.grouped import Grouped
from onebase.objective.label import Label
from onebase.tasks import by_head as heads
from onebase.tasks import by_prompt
from onebase.tasks import image_classes as pictures
from onebase.tasks import multilabel as many
from onebase.tasks.answers import labels
from onebase.tasks.base import Limits, Look, ScoreRequest, Shown, Task
from onebase.tasks.bound import Bound
from onebase.tasks.by_head import Fit, Prepared
from onebase.tasks.checks import head_size
from onebase.tasks.fit import Lesson
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.multilabel import many_rows
from onebase.tasks.options import AdaptOptions
from onebase.tasks.prompting import Given, columns, inputs
from onebase.tasks.results import Label as Said
from onebase.tasks.results import labelled
from onebase.tasks.rows import check_texts


def by_head(job: Adapting) -> AdapterParts:
    """Logistic regression on what a head reads of texts, or of images."""
    given = read_rows(job.data, ())
    if not images.sees_images(job.base, given):
        return heads.by_head(job, _prepared(job, given))
    _one_label(given)
    return pictures.by_head(job)


def lesson(job: Adapting) -> Lesson:
    """A head and what the method learns, together; the head starts from the exact fit on the frozen base (behind what the method puts
    before the text). With `contrast.first` the method learns vectors, and the head is fitted on them afterwards."""
    given = read_rows(job.data, ())
    if images.sees_images(job.base, given):
        _one_label(given)
        return pictures.lesson(job)
    return heads.lesson(job, _prepared(job, given))


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


def _columns(look: Look) -> tuple[str, ...]:
    if "image" in look.base.model.cfg.codecs:
        return ("image", "label") if images.sees_images(look.base, look.rows()) else ("text", "label")
    return ("text", "labels") if many.has_many(look.rows()) else ("text", "label")


def _check(base: LoadedBase, rows: Rows, limits: Limits, options: AdaptOptions) -> None:
    if base.words is not None and not images.sees_images(base, rows):
        check_texts(base, rows, limits, lambda row: many.flaw(row) if many.has_many([row]) else None)


def predictions(request: ScoreRequest) -> Labels | LabelSets:
    """The labels of each row, the true ones and those found, with their probabilities."""
    base, data = request.base, request.data
    attached = base.attached
    head = attached.config.head if attached else None
    if head is not None and head.gives == "many":
        return _many(request)
    if images.classifies_images(base.loaded, attached.config if attached else None):
        rows = read_rows(data, ("image", "label"))
        names, logp_NL = images.scores(
            base.loaded,
            attached.config if attached else None,
            attached.name if attached else "",
            images.image_paths(rows, data),
            base.active,
        )
        found = labelled(names, logp_NL.exp())
    else:
        if many.has_many(given := read_rows(data, ())):
            raise UserError(
                "the rows have many labels each, the adapter gives one", "give the column `label`"
            )
        rows = read_rows(given, (*columns(attached), "label"))
        found = labels(base, inputs(attached, rows))
    truth, guess = [str(r["label"]) for r in rows], [f.label for f in found]
    return Labels(truth, guess, *_tables([[x] for x in truth], found))


def _many(request: ScoreRequest) -> LabelSets:
    rows, truth = many_rows(request.data)
    found = labels(request.base, [r["text"] for r in rows])
    y_NL, p_NL = _tables(truth, found)
    names = list(found[0].scores)
    return LabelSets(y_NL, np.array([[float(x in f.labels) for x in names] for f in found]), p_NL)


def _tables(truth: Sequence[Iterable[str]], found: Sequence[Said]) -> tuple[Array, Array]:
    """Which labels each row has, 1/0, and the probability of each, both [N, L]. Raises DataError for a label unknown to the adapter."""
    at = {label: i for i, label in enumerate(found[0].scores)}
    y_NL = np.zeros((len(found), len(at)))
    for n, own in enumerate(truth):
        for label in own:
            if label not in at:
                raise DataError(
                    f"row {n + 1} has the label {label!r}, which the adapter never saw",
                    f"its labels: {', '.join(sorted(at))}",
                )
            y_NL[n, at[label]] = 1.0
    return y_NL, np.array([list(f.scores.values()) for f in found])


def _answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    on = bound.attached
    several = on is not None and on.config.head is not None and on.config.head.gives == "many"
    out = []
    for f in labels(bound, given):
        line = "; ".join(f"{x} ({f.scores[x]:.3f})" for x in f.labels) or "-"
        said = {"labels": f.labels} if several else {"label": f.label}
        out.append(Shown(line, {**said, "scores": f.scores}))
    return out


TASK = Task(
    name="classify",
    columns=_columns,
    lesson=lesson,
    head=by_head,
    prompt=by_prompt.by_prompt,
    images=True,
    check=_check,
    predictions=predictions,
    answer=_answer,
    tuned_by=("accuracy", "micro_f1"),
    signal="labels",
)
