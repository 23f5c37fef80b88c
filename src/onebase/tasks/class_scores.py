"""Predictions of task classify on test rows, with one label each or several."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onebase.base.head import HeadConfig
from onebase.data import Rows, read_rows
from onebase.data.bad_rows import Samples
from onebase.data.labelled import Make, Records
from onebase.data.lines import Problem
from onebase.engine import image_features as images
from onebase.engine.answers import classes_of, labels
from onebase.engine.features import pair_tokens
from onebase.engine.labels import Label, labelled
from onebase.engine.media_prompts import media_column
from onebase.engine.prompting import columns, inputs
from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import Array
from onebase.evaluation.predictions import Labels, LabelSets
from onebase.methods.bound import Bound
from onebase.modality.text.ledger import same_but_for_case
from onebase.tasks.base import ScoreRequest
from onebase.tasks.media_rows import files_alone, pictures_read
from onebase.tasks.reading import Row, RowReader, together, whole_texts
from onebase.tasks.rows import reader_on


def is_multilabel(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Do the rows have a column `labels`, and no `label`?"""
    return any("labels" in r for r in rows) and not any("label" in r for r in rows)


def labels_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the labels of a row, and what to do."""
    given = row["labels"]
    if isinstance(given, (list, tuple)) and all(isinstance(x, str) and x.strip() for x in given):
        return None
    return f"'labels' is {given!r}, expected a list of texts", 'for example ["red", "round"]'


def predictions(request: ScoreRequest) -> Labels | LabelSets:
    """The true and the predicted labels of each row, with their probabilities."""
    base, data = request.base, request.data
    attached = base.attached
    head = attached.config.head if attached else None
    if head is not None and head.gives == "many":
        return _multilabel_predictions(request)
    if head is not None and (kind := media_column(base.loaded, (head.reads,))) is not None:
        records = Records.of(data)
        reader = replace(reader_on(base), folder=records.folder)
        rows = read_rows(records, (kind, "label"), make=files_alone(reader, kind))
        found = _read(base, rows)
    elif images.classifies_images(base.loaded, attached.config if attached else None):
        rows = read_rows(data, ("image", "label"))
        paths = images.image_paths(rows, rows)
        cfg, name = (attached.config, attached.name) if attached else (None, "")
        names, logp_NL = pictures_read(
            rows, paths, lambda: images.scores(base.loaded, cfg, name, paths, base.routing)
        )
        found = labelled(names, logp_NL.exp())
    else:
        records = Records.of(data)
        if is_multilabel(records.sound):
            raise UserError("the rows are multilabel, the adapter gives one label", "give the column `label`")
        wanted = (*columns(attached), "label")
        if head is None:
            rows = read_rows(records, wanted)
            found = labels(base, inputs(attached, rows))
        else:
            rows = read_rows(records, wanted, make=_asked(reader_on(base), head))
            found = _read(base, rows)
    truth, guess = [str(r["label"]) for r in rows], [f.label for f in found]
    return Labels(truth, guess, *_tables([[x] for x in truth], found))


def _asked(reader: RowReader, head: HeadConfig) -> Make:
    """Each text as the base reads whole texts; with its `text_pair` where a row has one and the head reads pairs."""
    alone = whole_texts(reader)

    def made(rows: Sequence[Row]) -> Sequence[Samples | Problem]:
        if not head.pairs or not any("text_pair" in r for r in rows):
            return alone(list(map(dict, rows)))
        both = [(r["text"], str(r.get("text_pair"))) for r in rows]
        cut = head.long != "refuse"
        read = pair_tokens(reader.base, both, reader.tokens, reader.taken, cut=cut, typed=head.typed)
        return [(t,) for t in read]

    return together(made)


def _multilabel_predictions(request: ScoreRequest) -> LabelSets:
    on = request.base.attached
    assert on is not None and on.config.head is not None
    records, column = Records.of(request.data), on.config.head.reads
    reader = replace(reader_on(request.base), folder=records.folder)
    make = _asked(reader, on.config.head) if column == "text" else files_alone(reader, column)
    rows = read_rows(records, (column, "labels"), check=labels_problem, make=make)
    truth = [set(r["labels"]) for r in rows]
    found = _read(request.base, rows)
    y_NL, p_NL = _tables(truth, found)
    names = list(found[0].scores)
    return LabelSets(y_NL, np.array([[float(x in f.labels) for x in names] for f in found]), p_NL)


def _read(base: Bound, rows: Rows) -> list[Label]:
    """The classes of texts that are already tokenised."""
    on = base.attached
    assert on is not None and on.config.head is not None
    names, logp_NL = classes_of(on, rows.texts)
    return labelled(names, logp_NL.exp(), multilabel=on.config.head.gives == "many")


def _tables(truth: Sequence[Iterable[str]], found: Sequence[Label]) -> tuple[Array, Array]:
    """The labels of each row as 1/0, and the probability of each, both [N, L]. Raises DataError for a label that the adapter does not have."""
    at = {label: i for i, label in enumerate(found[0].scores)}
    y_NL = np.zeros((len(found), len(at)))
    for n, own in enumerate(truth):
        for label in own:
            if label not in at:
                near = [x for x in at if same_but_for_case((x, label))]
                raise DataError(
                    f"row {n + 1} has the label {label!r}, which the adapter does not have",
                    f"{f'write it as in training: {near[0]!r}; ' if near else ''}its labels: {', '.join(sorted(at))}",
                )
            y_NL[n, at[label]] = 1.0
    return y_NL, np.array([list(f.scores.values()) for f in found])
