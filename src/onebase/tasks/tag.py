"""Task tag: labelled spans of a text, by a head on the state of each token, alone or trained with the method's weights."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from onebase.base.head import HeadConfig
from onebase.config import config
from onebase.data import read_rows
from onebase.data.bad_rows import Samples
from onebase.data.labelled import Make
from onebase.data.lines import Problem
from onebase.engine.answers import of_task, spans_in, token_states, unframed
from onebase.engine.answers import spans as spans_of
from onebase.engine.prompter import Given
from onebase.errors import DataError
from onebase.evaluation.predictions import SpanSets
from onebase.methods.bound import Bound
from onebase.methods.head import fit_head
from onebase.methods.logistic import FOLDS, spread
from onebase.methods.method import SCRATCH, option
from onebase.methods.spans import Placed, Span, placed, tags_of, trimmed
from onebase.modality.text.long import Long
from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer
from onebase.model.proj import AdapterRouting
from onebase.objective.base import IGNORE
from onebase.objective.tag import Tagging
from onebase.tasks import by_head as heads
from onebase.tasks.base import Maker, ScoreRequest, Shown, Task
from onebase.tasks.by_head import Fit, Prepared
from onebase.tasks.checks import head_size
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.reading import RowReader, each_row
from onebase.tasks.rows import reader_on

TOKEN_REMEDY = "a token has one label at most: merge the spans, or remove one"
REMEDY = "correct the spans: characters from 0, end exclusive, without overlap"


@config
class TagOptions:
    """Options of task tag."""

    long: Long = option("windows", heads.LONG, later=True)


def spans_said(row: Mapping[str, Any]) -> list[Span]:
    """The spans of a row, trimmed of white space."""
    cut = (trimmed(row["text"], Span(s["start"], s["end"], s["label"])) for s in row["spans"])
    return [s for s in cut if s is not None]


def placed_texts(reader: RowReader, whole: bool = True) -> Make:
    """The texts of rows with the positions of their tokens. whole: check that each token is in one span at most."""

    def one(row: Mapping[str, Any]) -> Samples | Problem:
        read = placed(reader.base.codec.tokenizer, row["text"], "", reader.tokens, reader.long)
        if (refused := reader.refused((read,))) is not None:
            return refused
        given = [Span(s["start"], s["end"], s["label"]) for s in row["spans"]] if whole else []
        spans = _within(given, read)
        problem = tags_of(spans, read.places, sorted({s.label for s in spans}), row["text"])[1]
        return (read,) if problem is None else Problem(problem, TOKEN_REMEDY)

    return each_row(one)


def problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the spans of a row, in characters, and what to do."""
    text, given = row["text"], row.get("spans")
    if not isinstance(given, (list, tuple)):
        what = "is missing" if given is None else f"is {type(given).__name__}"
        return f"'spans' {what}, expected a list", 'give [{"start": 0, "end": 4, "label": "name"}], or []'
    last = 0
    for s in given:
        if (
            not isinstance(s, Mapping)
            or not all(type(s.get(k)) is int for k in ("start", "end"))
            or not isinstance(s.get("label"), str)
            or not s["label"].strip()
        ):
            return f"{s!r} is not a span", 'a span is {"start": 0, "end": 4, "label": "name"}'
    for s in sorted(given, key=lambda s: (s["start"], s["end"])):
        span = f"the span {s['start']} to {s['end']}"
        if not 0 <= s["start"] < s["end"] <= len(text):
            return f"{span} is not in the text of {len(text)} characters", REMEDY
        if not text[s["start"] : s["end"]].strip():
            return f"{span} is only white space", REMEDY
        if s["start"] < last:
            return f"{span} overlaps the one before it", REMEDY
        last = s["end"]
    return None


def prepare(job: Adapting) -> Prepared:
    rows, spans = job.rows, [spans_said(r) for r in job.rows]
    labels = tuple(sorted({s.label for each in spans for s in each}))
    if not labels:
        raise DataError(f"none of the {len(rows)} rows has a span", "give rows of which some have spans")
    tokenizer = job.base.codec.tokenizer
    number = {label: i for i, label in enumerate(labels)}
    job.head = head_size(job, sum(map(len, rows.texts)), 1 + 2 * len(labels), [])
    tags = []
    for row, each, (text,) in zip(rows, spans, rows.samples, strict=True):
        assert isinstance(text, Placed)
        of_text, problem = tags_of(_within(each, text), text.places, number, row["text"])
        assert problem is None, "it was checked when the rows were read"
        tags.append(of_text)
    framed = [_framed(t, text, tokenizer) for t, (text,) in zip(tags, rows.samples, strict=True)]

    def fit(texts: Sequence[Tokens], routing: AdapterRouting | None) -> Fit:
        states = token_states(job.base, texts, routing)
        x_ND = torch.cat([unframed(h_TD, t, tokenizer) for h_TD, t in zip(states, texts, strict=True)])
        y_N = torch.tensor([tag for t in tags for tag in t])
        # Tokens of one text are correlated: they are held out together.
        folds = np.repeat(spread(len(tags), job.options.seed), [len(t) for t in tags])
        cfg = HeadConfig(labels=labels, gives="spans", **heads.reads(job))
        fitted = fit_head(x_ND, y_N, cfg.outputs, job.options.seed, folds if len(tags) >= FOLDS else None)
        targets = {t.id: x for t, x in zip(texts, framed, strict=True)}
        facts: Facts = fitted.facts
        return Fit(fitted.head, cfg, lambda on: Tagging(SCRATCH, targets, on), facts)

    facts = data_facts(rows, labels) | {
        "data.spans": (sum(map(len, spans)), "counted"),
        "data.tokens": (sum(map(len, tags)), "counted"),
    }
    return Prepared(fit, facts)


def _within(spans: Sequence[Span], text: Placed) -> Sequence[Span]:
    """The spans in the part of a text that is read: all of them, unless the text is cut."""
    if not text.left_out:
        return spans
    return [s for s in spans if any(a < s.end and s.start < b for a, b in text.places)]


def _framed(tags: Sequence[int], text: Tokens, tokenizer: Tokenizer) -> tuple[int, ...]:
    """A tag for each token of a text, including begin and end tokens of the text or of its windows."""
    before, around = len(tokenizer.begun([])), len(tokenizer.framed([]))
    out: list[int] = []
    left = list(tags)
    for size in text.windows or (len(text),):
        own, left = left[: size - around], left[size - around :]
        out += [IGNORE] * before + own + [IGNORE] * (around - before)
    return tuple(out)


def predictions(request: ScoreRequest) -> SpanSets:
    """The spans of each text, and the true ones."""
    make = placed_texts(reader_on(request.base), whole=False)
    rows = read_rows(request.data, ("text",), check=problem, make=make)
    read = [t for each in rows.samples for t in each if isinstance(t, Placed)]
    found = spans_in(of_task(request.base, "tag", "tags"), [r["text"] for r in rows], read)
    return SpanSets([_bounds(spans_said(r)) for r in rows], [_bounds(s) for s in found])


def _bounds(spans: Iterable[Span]) -> list[tuple[int, int, str]]:
    return [(s.start, s.end, s.label) for s in spans]


def _answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    out = []
    texts = [str(t) for t in given]
    for text, spans in zip(texts, spans_of(of_task(bound, "tag", "tags"), texts), strict=True):
        line = "; ".join(f"{s.start}-{s.end} {s.label}: {text[s.start : s.end]}" for s in spans) or "-"
        out.append(Shown(line, {"spans": [vars(s) for s in spans]}))
    return out


TASK = Task(
    name="tag",
    columns=("text",),
    lesson=lambda job: heads.lesson(job, prepare(job)),
    options=TagOptions,
    methods={
        "head": Maker(lambda job: heads.by_head(job, prepare(job))),
        "prompt": "a prompt gives probabilities of answers, not positions in a text",
    },
    check=problem,
    samples=placed_texts,
    compared=("text",),
    predictions=predictions,
    answer=_answer,
    tuned_by=("span_f1",),
    signal="labels",
)
