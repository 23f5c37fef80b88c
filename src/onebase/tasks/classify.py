"""Task classify: a head fitted exactly, a head trained with the method's weights, or a head fitted on vectors trained first. Rows with
the column `labels` instead of `label` are multilabel."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from onebase.base.head import HeadConfig
from onebase.config import config
from onebase.data import Rows
from onebase.data.labelled import Make
from onebase.engine import image_features as images
from onebase.engine.answers import labels
from onebase.engine.features import pooling_of, suits_vector, vector_of, views
from onebase.engine.prompter import Given
from onebase.engine.scoring import batch_tokens
from onebase.errors import ConfigError, DataError, UserError
from onebase.methods.bound import Bound
from onebase.methods.counts import with_counts
from onebase.methods.folder import AdapterParts
from onebase.methods.head import METHOD, best_pooled, fit_head
from onebase.methods.method import SCRATCH, option
from onebase.methods.vector_head import candidates, fit_views
from onebase.modality.text.counts import token_counts
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Objective
from onebase.objective.grouped import ContrastConfig, SupervisedContrast
from onebase.objective.label import Classification, MultiLabel, marks
from onebase.tasks import by_head as heads
from onebase.tasks import by_prompt, prompts
from onebase.tasks import image_classes as pictures
from onebase.tasks.base import Look, Maker, Shown, Task
from onebase.tasks.by_head import Fit, Prepared, TextOptions, wide_features
from onebase.tasks.checks import head_size
from onebase.tasks.class_scores import is_multilabel, labels_problem, predictions
from onebase.tasks.fit import Lesson
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.reading import RowReader, no_samples, whole_texts


@config
class ClassifyOptions(TextOptions):
    """Options of task classify."""

    contrast: ContrastConfig = option(ContrastConfig(), "whether vectors are trained first")
    counts: Literal["auto", "always", "never"] = option(
        "auto", "whether a head that is trained alone also reads how often each token occurs", later=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.counts == "always" and not self.head_bias:
            raise ConfigError("'counts' is always and 'head_bias' is false", "remove one of them")


def _own(job: Adapting) -> ClassifyOptions:
    assert isinstance(job.options.of_task, ClassifyOptions)
    return job.options.of_task


def by_head(job: Adapting) -> AdapterParts:
    """Logistic regression on features of texts, or of images."""
    if not images.sees_images(job.base, job.rows):
        return heads.by_head(job, _prepared(job))
    _one_label(job.rows)
    return pictures.by_head(job)


def lesson(job: Adapting) -> Lesson:
    """Train a head and the method's weights together. The head starts from the exact fit on the frozen base (after the method's virtual
    tokens). With `contrast.first` the method trains vectors, and the head is fitted on them afterwards."""
    if images.sees_images(job.base, job.rows):
        _one_label(job.rows)
        return pictures.lesson(job)
    return heads.lesson(job, _prepared(job))


def _one_label(given: Rows) -> None:
    if is_multilabel(given):
        raise UserError(
            "images cannot have several labels", "give one label per image, in the column `label`"
        )


def _prepared(job: Adapting) -> Prepared:
    if _own(job).counts == "always" and (job.method != METHOD.name or is_multilabel(job.rows)):
        raise UserError(
            "counts=always is for method head, and rows with one label each",
            "remove counts, or give --method head and one label per text",
        )
    if not is_multilabel(job.rows):
        return prepare(job)
    if _own(job).contrast.first:
        raise UserError(
            "contrast.first draws texts of one label together, and these rows are multilabel",
            "remove contrast.first, or give one label per text",
        )
    return _prepare_multilabel(job)


def prepare(job: Adapting) -> Prepared:
    """Rows with one label each."""
    o, base, rows, labels = job.options, job.base, job.rows, job.labels()
    own = _own(job)
    number = {label: i for i, label in enumerate(labels)}
    numbers = [number[str(r["label"])] for r in rows]
    contrast = own.contrast
    if contrast.first and len(labels) == len(rows):
        raise DataError(
            "contrast.first draws texts of one label together, and no label has two texts",
            "give more rows, or remove contrast.first",
        )
    # Contrastive training shapes the vector, so the head reads the vector.
    pooling = "vector" if contrast.first and own.pooling == "auto" else own.pooling
    reads = candidates(pooling, base.embedding is not None)
    job.head = head_size(job, len(rows), len(labels), list(Counter(numbers).values()))

    def fit(texts: Sequence[Tokens], routing: AdapterRouting | None) -> Fit:
        x_by = views(base, texts, reads, routing)
        y_N, prefer = torch.tensor(numbers), suits_vector(base, texts)
        fitted, read = fit_views(x_by, y_N, len(labels), o.seed, own.head_bias, prefer)
        # Means over long texts blur words; auto leaves a named pooling as it is, because it may be meant for export.
        always, long = own.counts == "always", own.counts == "auto" and own.pooling == "auto" and not prefer
        if job.method == METHOD.name and (always or long):
            counts = token_counts(texts, base.model.cfg.text.vocab_size)
            fitted = with_counts(fitted, counts, y_N, len(labels), o.seed, always=always)
        targets = {t.id: c for t, c in zip(texts, numbers, strict=True)}
        return Fit(
            fitted.head,
            HeadConfig(labels=labels, pooling=read, counts=fitted.counts is not None, **heads.reads(job)),
            lambda on: Classification(SCRATCH, targets, pooling_of(base, read), on),
            fitted.facts,
        )

    def vectors(texts: Sequence[Tokens], routing: AdapterRouting | None) -> Objective:
        targets = {t.id: c for t, c in zip(texts, numbers, strict=True)}
        chunk = max(1, batch_tokens(base.model.device) // max(len(t) for t in texts))
        return SupervisedContrast(vector_of(base), targets, contrast.temperature, routing, chunk)

    return Prepared(fit, data_facts(rows, labels), vectors if contrast.first else None)


def _prepare_multilabel(job: Adapting) -> Prepared:
    rows = job.rows
    has = [set(r["labels"]) for r in rows]
    labels = tuple(sorted(set().union(*has)))
    for label, n in Counter(x for given in has for x in given).items():
        if n == len(rows):
            raise DataError(
                f"all {len(rows)} rows have the label {label!r}", "add rows without it, or remove it"
            )
    number = {label: i for i, label in enumerate(labels)}
    numbers = [tuple(sorted(number[x] for x in given)) for given in has]
    job.head = head_size(job, len(rows), len(labels), [len(rows)])
    y_NC = marks(numbers, len(labels))
    o, chosen = job.options, _own(job)

    def fit(texts: Sequence[Tokens], routing: AdapterRouting | None) -> Fit:
        x_NP = wide_features(job, texts, routing)
        fitted, pooling = best_pooled(
            lambda x: fit_head(x, y_NC, len(labels), o.seed, bias=chosen.head_bias), x_NP, chosen.pooling
        )
        targets = {t.id: x for t, x in zip(texts, numbers, strict=True)}
        return Fit(
            fitted.head,
            HeadConfig(labels=labels, pooling=pooling, gives="many", **heads.reads(job)),
            lambda on: MultiLabel(SCRATCH, targets, len(labels), pooling_of(job.base, pooling), on),
            fitted.facts,
        )

    return Prepared(fit, data_facts(rows, labels))


def _columns(look: Look) -> tuple[str, ...]:
    if "image" in look.base.model.cfg.codecs or images.of_patches(look.base):
        return ("image", "label") if images.sees_images(look.base, look.rows()) else ("text", "label")
    return ("text", "labels") if is_multilabel(look.rows()) else ("text", "label")


def _check(row: Mapping[str, Any]) -> tuple[str, str] | None:
    return labels_problem(row) if is_multilabel([row]) else None


def _samples(reader: RowReader) -> Make:
    return whole_texts(reader) if "text" in reader.columns else no_samples(reader)


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
    options=ClassifyOptions,
    methods={"head": Maker(by_head), "prompt": by_prompt.maker(prompts.LABELS)},
    images=True,
    check=_check,
    samples=_samples,
    compared=("text", "image"),
    predictions=predictions,
    answer=_answer,
    tuned_by=("accuracy", "micro_f1"),
    signal="labels",
)
