"""Task extract: the span of a text that answers a question, by a head that scores each token as start and as end of the answer.

Rows are SQuAD's (Rajpurkar et al., 1606.05250): question, context, and answers with their texts and where each begins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onebase.base.head import HeadConfig
from onebase.data import read_rows
from onebase.data.bad_rows import Samples
from onebase.data.labelled import Make
from onebase.data.lines import Problem
from onebase.engine.answers import of_task, token_states
from onebase.engine.passages import PassageWindow, extracted, windows
from onebase.evaluation.predictions import Passages
from onebase.methods.bound import Bound
from onebase.methods.head import fit_head
from onebase.methods.logistic import FOLDS, spread
from onebase.methods.method import SCRATCH
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.extract import Extract
from onebase.tasks import by_head as heads
from onebase.tasks.base import Maker, ScoreRequest, Shown, Task
from onebase.tasks.by_head import Fit, Prepared
from onebase.tasks.checks import head_size
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.reading import Row, RowReader, each_row

COLUMNS = ("question", "context", "answers")
FORM = 'for example {"text": ["Ada"], "answer_start": [0]}'


def problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a row, and what to do."""
    for column in ("question", "context"):
        if not isinstance(row[column], str):
            return f"{column!r} is {row[column]!r:.60}, expected text", "correct the row"
    given = row["answers"]
    texts, starts = (given.get(k) if isinstance(given, Mapping) else None for k in ("text", "answer_start"))
    if not (
        isinstance(texts, (list, tuple)) and isinstance(starts, (list, tuple)) and len(texts) == len(starts)
    ):
        return f"'answers' is {given!r:.60}", FORM
    if not texts:
        return ("the question has no answer", "remove such rows: the model always returns its likeliest span")
    for text, start in zip(texts, starts, strict=True):
        valid = isinstance(text, str) and type(start) is int and start >= 0 and text.strip()
        if not valid or row["context"][start : start + len(text)] != text:
            return f"the answer {text!r:.60} is not at character {start!r} of the context", FORM
    return None


def pairs(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Question and context of each row."""
    return [(r["question"], r["context"]) for r in rows]


@dataclass(frozen=True)
class AnswerWindow(Tokens):
    """A question and a window of its context that contains the whole answer. text: the positions of the context's tokens, end exclusive;
    answer: those of the first and the last token of the answer."""

    text: tuple[int, int] = (0, 0)
    answer: tuple[int, int] = (0, 0)


def _answered(window: PassageWindow, row: Mapping[str, Any]) -> AnswerWindow | None:
    """The window with the row's first answer; None if it does not contain all of it."""
    start = row["answers"]["answer_start"][0]
    end = start + len(row["answers"]["text"][0])
    at = [i for i, (a, b) in enumerate(window.places) if a < end and b > start]
    if not at or window.places[at[0]][0] > start or window.places[at[-1]][1] < end:
        return None
    first = window.first
    text, answer = (first, first + len(window.places)), (first + at[0], first + at[-1])
    return AnswerWindow(**vars(window.tokens), text=text, answer=answer)


def _samples(reader: RowReader) -> Make:
    """For each row the first window that contains the whole answer."""

    def one(row: Row) -> Samples | Problem:
        read = windows(reader.base, pairs([row]), reader.options.max_length, reader.taken)
        first = next((a for w in read if (a := _answered(w, row)) is not None), None)
        return (
            Problem("no window contains the whole answer", "shorten the answer")
            if first is None
            else (first,)
        )

    return each_row(one)


def prepare(job: Adapting) -> Prepared:
    o, read = job.options, job.rows.texts
    job.head = head_size(job, sum(map(len, read)), 2, [])

    def fit(texts: Sequence[Tokens], routing: AdapterRouting | None) -> Fit:
        known = [t for t in texts if isinstance(t, AnswerWindow)]
        assert len(known) == len(texts), "texts are the samples of the rows"
        marks, parts = [], []
        for t, h_TD in zip(known, token_states(job.base, known, routing), strict=True):
            (first, stop), (start, end) = t.text, t.answer
            y_n2 = torch.zeros(stop - first, 2)
            y_n2[start - first, 0] = y_n2[end - first, 1] = 1.0
            marks.append(y_n2)
            parts.append(h_TD[first:stop])
        folds = np.repeat(spread(len(known), o.seed), [len(y) for y in marks])
        fitted = fit_head(
            torch.cat(parts), torch.cat(marks), 2, o.seed, folds if len(known) >= FOLDS else None
        )
        cfg = HeadConfig(gives="answer", limit=o.max_length)
        answer, text = {t.id: t.answer for t in known}, {t.id: t.text for t in known}
        return Fit(fitted.head, cfg, lambda on: Extract(SCRATCH, answer, text, on), fitted.facts)

    return Prepared(fit, data_facts(job.rows))


def predictions(request: ScoreRequest) -> Passages:
    """The likeliest answer of each row, and the true ones."""
    rows = read_rows(request.data, COLUMNS, check=problem)
    found = extracted(of_task(request.base, "extract", "finds answers in texts"), pairs(rows))
    return Passages([r["answers"]["text"] for r in rows], [f[0].text if f else "" for f in found])


def _answer(bound: Bound, given: Sequence[Any]) -> list[Shown]:
    on = of_task(bound, "extract", "finds answers in texts")
    out = []
    for found in extracted(on, pairs(given), top=3):
        best = found[0] if found else None
        line = "-" if best is None else f"{best.text} ({best.score:.3f}, {best.start}-{best.end})"
        out.append(Shown(line, {"answers": [vars(f) for f in found]}))
    return out


TASK = Task(
    name="extract",
    columns=COLUMNS,
    lesson=lambda job: heads.lesson(job, prepare(job)),
    methods={
        "head": Maker(lambda job: heads.by_head(job, prepare(job))),
        "prompt": "a prompt gives probabilities of answers, not positions in a text",
    },
    check=problem,
    samples=_samples,
    compared=("question", "context"),
    predictions=predictions,
    answer=_answer,
    reads=("question", "context"),
    tuned_by=("answer_f1",),
    signal="labels",
)
