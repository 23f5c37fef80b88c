"""Task tag: labelled spans of a text, by a head on the state of each token, alone or with what the method learns."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from onebase.adapt.head import FOLDS, fit_head, spread
from onebase.adapt.method import SCRATCH
from onebase.adapt.spans import Place, Span, tags_of, token_places, trimmed
from onebase.base.folder import LoadedBase
from onebase.base.head import HeadConfig
from onebase.codec.text.sample import Tokens
from onebase.codec.text.tokenizer import Tokenizer
from onebase.data import Rows, read_rows
from onebase.data.bad_rows import once, refuse_flawed
from onebase.data.labelled import Data
from onebase.engine.features import framed_texts
from onebase.errors import DataError
from onebase.evaluation.predictions import SpanSets
from onebase.model.proj import Active
from onebase.objective.base import IGNORE
from onebase.objective.tag import Tag
from onebase.tasks import by_head as heads
from onebase.tasks.answers import of_task, token_states
from onebase.tasks.answers import spans as spans_in
from onebase.tasks.base import Limits, ScoreRequest, Shown, Task
from onebase.tasks.bound import Bound
from onebase.tasks.by_head import Fit, Prepared
from onebase.tasks.checks import head_size
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.options import AdaptOptions
from onebase.tasks.prompting import Given
from onebase.tasks.rows import check_texts

MEND_TOKENS = "a token has one label at most: make one span of them, or drop one"
MEND = "mend the spans: characters from 0, end exclusive, none over another"


def span_rows(data: Data) -> tuple[list[dict[str, Any]], list[list[Span]]]:
    """Rows with text and spans, and the spans (without white space at their ends). Raises DataError with all bad rows."""
    rows = read_rows(data, ("text",), check=lambda good: refuse_flawed(good, _flaw))
    refuse_flawed(rows, _flaw)
    found = []
    for row in rows:
        cut = (trimmed(row["text"], Span(s["start"], s["end"], s["label"])) for s in row["spans"])
        found.append([s for s in cut if s is not None])
    return rows, found


def flaw(
    row: Mapping[str, Any], tokenizer: Tokenizer, known: dict[str, Sequence[Place]] | None = None
) -> tuple[str, str] | None:
    """What is wrong with the spans of a row, in characters or in tokens, and what to do. known: where the tokens of texts stand."""
    if (said := _flaw(row)) is not None:
        return said
    text = row["text"]
    spans = [Span(s["start"], s["end"], s["label"]) for s in row["spans"]]
    try:
        places = _places(tokenizer, text, {} if known is None else known)
    except DataError as e:
        return e.cause, e.remedy
    said_of_tokens = tags_of(spans, places, sorted({s.label for s in spans}), text)[1]
    return None if said_of_tokens is None else (said_of_tokens, MEND_TOKENS)


def _places(tokenizer: Tokenizer, text: str, known: dict[str, Sequence[Place]]) -> Sequence[Place]:
    if text not in known:
        known[text] = token_places(tokenizer, text)
    return known[text]


def _flaw(row: Mapping[str, Any]) -> tuple[str, str] | None:
    text, given = row["text"], row.get("spans")
    if not isinstance(given, (list, tuple)):
        said = "is missing" if given is None else f"is {type(given).__name__}"
        return f"'spans' {said}, a list is expected", 'give [{"start": 0, "end": 4, "label": "name"}], or []'
    last = 0
    for s in given:
        if (
            not isinstance(s, Mapping)
            or not all(type(s.get(k)) is int for k in ("start", "end"))
            or not isinstance(s.get("label"), str)
            or not s["label"].strip()
        ):
            return f"the span {s!r} is none", 'a span is {"start": 0, "end": 4, "label": "name"}'
    for s in sorted(given, key=lambda s: (s["start"], s["end"])):
        said = f"the span {s['start']} to {s['end']}"
        if not 0 <= s["start"] < s["end"] <= len(text):
            return f"{said} is not in the text of {len(text)} characters", MEND
        if not text[s["start"] : s["end"]].strip():
            return f"{said} is white space alone", MEND
        if s["start"] < last:
            return f"{said} lies over the one before it", MEND
        last = s["end"]
    return None


def prepare(job: Adapting) -> Prepared:
    rows, spans = span_rows(job.data)
    labels = tuple(sorted({s.label for each in spans for s in each}))
    if not labels:
        raise DataError(f"none of the {len(rows)} rows has a span", "give rows of which some have spans")
    tokenizer = job.base.codec.tokenizer
    number = {label: i for i, label in enumerate(labels)}
    tags = []
    job.head = head_size(job, sum(map(len, framed_texts(job.base, rows))), 1 + 2 * len(labels), [])
    known: dict[str, Sequence[Place]] = once(rows, ("places", tokenizer.digest), dict)
    for row, each in zip(rows, spans, strict=True):
        found, said = tags_of(each, _places(tokenizer, row["text"], known), number, row["text"])
        assert said is None, "`flaw` was asked when the rows were read"
        tags.append(found)
    before = len(tokenizer.begun([]))
    after = len(tokenizer.framed([])) - before
    framed = [(*[IGNORE] * before, *t, *[IGNORE] * after) for t in tags]

    def fit(texts: Sequence[Tokens], active: Active | None) -> Fit:
        states = token_states(job.base, texts, active)
        x_ND = torch.cat([h_TD[before : before + len(t)] for h_TD, t in zip(states, tags, strict=True)])
        y_N = torch.tensor([tag for t in tags for tag in t])
        # Tokens of one text lean on each other: they are held out together.
        folds = np.repeat(spread(len(tags), job.options.seed), [len(t) for t in tags])
        cfg = HeadConfig(labels=labels, gives="spans")
        fitted = fit_head(x_ND, y_N, cfg.outputs, job.options.seed, folds if len(tags) >= FOLDS else None)
        targets = {t.id: x for t, x in zip(texts, framed, strict=True)}
        facts: Facts = fitted.facts
        return Fit(fitted.head, cfg, lambda on: Tag(SCRATCH, targets, on), facts)

    facts = data_facts(rows, labels) | {
        "data.spans": (sum(map(len, spans)), "counted"),
        "data.tokens": (sum(map(len, tags)), "counted"),
    }
    return Prepared(rows, fit, facts)


def _check(base: LoadedBase, rows: Rows, limits: Limits, options: AdaptOptions) -> None:
    known: dict[str, Any] = once(rows, ("places", base.codec.tokenizer.digest), dict)
    check_texts(base, rows, limits, lambda row: flaw(row, base.codec.tokenizer, known))


def predictions(request: ScoreRequest) -> SpanSets:
    """The spans of each text, and the true ones."""
    rows, truth = span_rows(request.data)
    found = spans_in(of_task(request.base, "tag", "tags"), [r["text"] for r in rows])
    return SpanSets([_bounds(s) for s in truth], [_bounds(s) for s in found])


def _bounds(spans: Iterable[Span]) -> list[tuple[int, int, str]]:
    return [(s.start, s.end, s.label) for s in spans]


def _answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    out = []
    texts = [str(t) for t in given]
    for text, spans in zip(texts, spans_in(of_task(bound, "tag", "tags"), texts), strict=True):
        line = "; ".join(f"{s.start}-{s.end} {s.label}: {text[s.start : s.end]}" for s in spans) or "-"
        out.append(Shown(line, {"spans": [vars(s) for s in spans]}))
    return out


TASK = Task(
    name="tag",
    columns=("text",),
    lesson=lambda job: heads.lesson(job, prepare(job)),
    head=lambda job: heads.by_head(job, prepare(job)),
    refused={"prompt": "a prompt gives each of some answers a probability, no places in a text"},
    check=_check,
    predictions=predictions,
    answer=_answer,
    tuned_by=("span_f1",),
    signal="labels",
)
