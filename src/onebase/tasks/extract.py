"""Task extract: the part of a text that answers a question, by a head that says of each token whether the answer begins or ends there.

Rows are SQuAD's (Rajpurkar et al., 1606.05250): question, context, and answers with their texts and where each begins.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from onebase.adapt.head import FOLDS, fit_head, spread
from onebase.adapt.method import SCRATCH
from onebase.base.head import HeadConfig
from onebase.codec.text.sample import Tokens
from onebase.data import read_rows
from onebase.data.bad_rows import Samples
from onebase.data.labelled import Make
from onebase.data.row_files import Flaw
from onebase.evaluation.predictions import Passages
from onebase.model.proj import Active
from onebase.objective.extract import Extract
from onebase.tasks import by_head as heads
from onebase.tasks.answers import of_task, token_states
from onebase.tasks.base import ScoreRequest, Shown, Task
from onebase.tasks.bound import Bound
from onebase.tasks.by_head import Fit, Prepared
from onebase.tasks.checks import head_size
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.passages import Window, extracted, windows
from onebase.tasks.reading import Reader, Row, each_row

COLUMNS = ("question", "context", "answers")
FORM = 'for example {"text": ["Ada"], "answer_start": [0]}'


def flaw(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a row, and what to do."""
    for column in ("question", "context"):
        if not isinstance(row[column], str):
            return f"{column!r} is {row[column]!r:.60}, a text is expected", "mend the row"
    given = row["answers"]
    texts, starts = (given.get(k) if isinstance(given, Mapping) else None for k in ("text", "answer_start"))
    if not (
        isinstance(texts, (list, tuple)) and isinstance(starts, (list, tuple)) and len(texts) == len(starts)
    ):
        return f"'answers' is {given!r:.60}", FORM
    if not texts:
        return (
            "the question has no answer",
            "leave such rows out: the likeliest part of the text is always given",
        )
    for text, start in zip(texts, starts, strict=True):
        found = isinstance(text, str) and type(start) is int and start >= 0 and text.strip()
        if not found or row["context"][start : start + len(text)] != text:
            return f"the answer {text!r:.60} does not stand at character {start!r} of the context", FORM
    return None


def pairs(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Question and context of each row."""
    return [(r["question"], r["context"]) for r in rows]


def _samples(reader: Reader) -> Make:
    """Of each row the first window that has the whole of its first answer."""

    def made(row: Row) -> Samples | Flaw:
        start = row["answers"]["answer_start"][0]
        end = start + len(row["answers"]["text"][0])
        limit = reader.options.max_length
        for window in windows(reader.base, pairs([row]), limit, reader.taken):
            if (found := window.answered(start, end)) is not None:
                return (found,)
        return Flaw("no window of the text has the whole answer", "shorten the answer, or raise max_length")

    return each_row(made)


def prepare(job: Adapting) -> Prepared:
    rows, o = job.rows, job.options
    job.head = head_size(job, sum(map(len, rows.texts)), 2, [])

    def fit(texts: Sequence[Tokens], active: Active | None) -> Fit:
        read = [t for t in texts if isinstance(t, Window) and t.answer is not None]
        assert len(read) == len(rows)
        answers = {t.id: t.answer for t in read if t.answer is not None}
        whole = {t.id: (t.first, t.first + len(t.places)) for t in read}
        marks, parts = [], []
        for t, h_TD in zip(read, token_states(job.base, read, active), strict=True):
            (first, stop), (start, end) = whole[t.id], answers[t.id]
            y_n2 = torch.zeros(stop - first, 2)
            y_n2[start - first, 0] = y_n2[end - first, 1] = 1.0
            marks.append(y_n2)
            parts.append(h_TD[first:stop])
        # Tokens of one text lean on each other: they are held out together.
        folds = np.repeat(spread(len(read), o.seed), [len(y) for y in marks])
        made = fit_head(torch.cat(parts), torch.cat(marks), 2, o.seed, folds if len(read) >= FOLDS else None)
        cfg = HeadConfig(gives="answer", limit=o.max_length)
        return Fit(made.head, cfg, lambda on: Extract(SCRATCH, answers, whole, on), made.facts)

    return Prepared(fit, data_facts(rows))


def predictions(request: ScoreRequest) -> Passages:
    """The likeliest answer of each row, beside the right ones."""
    rows = read_rows(request.data, COLUMNS, check=flaw)
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
    head=lambda job: heads.by_head(job, prepare(job)),
    refused={"prompt": "a prompt gives each of some answers a probability, no places in a text"},
    check=flaw,
    samples=_samples,
    compared=("question", "context"),
    predictions=predictions,
    answer=_answer,
    reads=("question", "context"),
    tuned_by=("answer_f1",),
    signal="labels",
)
