"""Task continue: continued pretraining on the texts of a domain, with replay of general text against forgetting.

Documents are read as in pretraining: the loss covers the whole document, long ones are cut into pieces, pieces are packed into rows.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onebase.artifact.odd_files import FORMATS
from onebase.base.folder import LoadedBase
from onebase.config import config
from onebase.data import Document, RowPlan, Rows, SourceConfig, TokenSet, cut, read_rows, read_source
from onebase.data.labelled import Data, Make
from onebase.data.mixed import MixedOrder, ReplayConfig
from onebase.data.order import ExampleOrder, Order, one_by_one
from onebase.errors import DataError, UserError
from onebase.evaluation.likelihood import (
    DOMAIN,
    GENERAL,
    DocumentIds,
    DocumentNats,
    changes,
    document_ids,
    document_nats,
    nats_of,
    reference,
)
from onebase.evaluation.predictions import Documents
from onebase.methods.method import Learner, option
from onebase.modality.text.sample import Tokens, document_sample
from onebase.model.proj import AdapterRouting
from onebase.objective.next_token import NextToken
from onebase.opening.names import resolved
from onebase.tasks.base import ScoreRequest, Task, always
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, Facts, data_facts, rows_hash, score_facts
from onebase.tasks.ledgers import check_samples
from onebase.tasks.reading import RowReader, one_sample, samples_in

REFERENCE_TOKENS = 6_000
"""Tokens of the Python language reference that serve as general text by default."""


def opened(data: Data) -> Data:
    """A text file, or a folder of them, as rows of `text`, one per document; other data unchanged. Raises DataError for what is not text."""
    if not isinstance(data, (str, Path)):
        return data
    path = Path(data)
    if path.suffix.lower() in FORMATS and not path.is_dir():
        return data
    if not path.exists():
        raise DataError(f"{path} does not exist", "give a text file, a folder of them, or rows of `text`")
    found = list(read_source(SourceConfig(name="text", kind="text", path=str(path))))
    return Rows([{"text": d.text} for d in found], [d.id for d in found], path.parent)


def text_rows(data: Data) -> Rows:
    """Rows of `text`, from a file of rows or of text. Raises DataError."""
    return read_rows(opened(resolved(data)), ("text",))


def _general(given: str | Sequence[dict[str, Any]], option: str) -> Rows:
    """The rows of an option; errors in rows given in Python name the option."""
    if not isinstance(given, str):
        given = Rows(given, [f"{option} row {i}" for i in range(1, len(given) + 1)])
    return text_rows(given)


def document_tokens(base: LoadedBase, rows: Sequence[Mapping[str, Any]], source: str) -> list[Tokens]:
    """Each text as pretraining reads it, with its begin and end tokens; ids are numbers from 1."""
    return [_document(base, r, source, str(i)) for i, r in enumerate(rows, 1)]


def _document(base: LoadedBase, row: Mapping[str, Any], source: str = DOMAIN, name: str = "") -> Tokens:
    return base.codec.tokens(document_sample(str(row["text"]), id=name, source=source))


def documents(reader: RowReader) -> Make:
    """`document_tokens` of rows as they are read, of any length: long documents are cut into pieces."""
    return one_sample(replace(reader, tokens=sys.maxsize), _document)


@config
class ContinueOptions:
    """Options of task continue."""

    replay: ReplayConfig = option(ReplayConfig(), "general text mixed into training")


def lesson(job: Adapting) -> Lesson:
    """Next-token prediction on all tokens of the documents, mixed with rows of replay."""
    base, own = job.base, job.options.of_task
    tokens, test = samples_in(job.rows), None if job.test is None else samples_in(job.test)
    facts = data_facts(job.rows) | check_samples(job, tokens, test)
    facts["data.tokens"] = (sum(len(t.ids) for t in tokens), "counted")
    replay: list[Tokens] = []
    if own.replay.data is not None:
        general = _general(own.replay.data, "replay.data")
        replay = document_tokens(base, general, GENERAL)
        facts |= {f"replay.{k}": v for k, v in data_facts(general).items()}
        job.bind("replay.data", own.replay.data, facts["replay.data.fingerprint"][0])
        facts["replay.data.tokens"] = (sum(len(t.ids) for t in replay), "counted")
    scores = _Scores(job)

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        length = row_length(job, learner.before)
        plan = document_plan(job, tokens, length, replay, single=learner.before > 0)
        before = scores.measured(None)
        return Steps(
            NextToken(length, learner.routing),
            plan,
            learner.before + length,
            after=lambda: (scores.facts(before, learner.routing), {}),
        )

    return Lesson(facts, "documents", steps)


def row_length(job: Adapting, before: int) -> int:
    """Tokens of a row: the context less an adapter's virtual tokens, or a shorter `max_length`."""
    context = job.base.model.cfg.text.context - before
    given = job.options.max_length
    if given is not None and given > context:
        more = f" after the adapter's {before} virtual tokens" if before else ""
        raise UserError(f"'max_length' is {given}, the context is {context}{more}", f"give at most {context}")
    return given or context


def document_plan(
    job: Adapting,
    tokens: Sequence[Tokens],
    length: int,
    replay: Sequence[Tokens] = (),
    *,
    single: bool = False,
) -> MixedOrder:
    """Rows of documents for the requested epochs. single: each piece is a row of its own, as virtual tokens need.

    replay: documents whose rows are mixed in so that they give `replay.share` of the tokens; they have epochs of their own.
    """
    o = job.options
    plan, rows, size = _numbered(job, tokens, length, single, o.epochs)
    other, share = plan, 0.0
    if replay:
        # The order mixes rows, and rows of the two sources may differ in tokens.
        other, _, other_size = _numbered(job, replay, length, single)
        wanted = o.of_task.replay.share / other_size
        share = wanted / (wanted + (1 - o.of_task.replay.share) / size)
    rows /= 1 - share
    return MixedOrder(plan, other, share, max(1, min(o.batch_size, round(rows) // 4)))


def _numbered(
    job: Adapting, tokens: Sequence[Tokens], length: int, single: bool, epochs: int | None = None
) -> tuple[Order, float, float]:
    """The numbered rows of documents, rows per epoch, and mean tokens per row. epochs: where the order ends (None: never)."""
    seed = job.options.seed
    tokenset = TokenSet.from_tokens(tokens, alike=job.base.codec.tokenizer.roles.chat_framed)
    if not single:
        packed = RowPlan(tokenset, length, 1, seed, epochs=epochs)
        return packed, packed.rows_per_epoch, packed.tokens_per_epoch / packed.rows_per_epoch
    where = zip(*cut(tokenset.lengths, length), strict=True)
    pieces = [tokenset.part(int(d), int(a), int(b)) for d, a, b in where]
    return (
        ExampleOrder(one_by_one(pieces), 1, seed, epochs),
        len(pieces),
        float(np.mean([len(p) for p in pieces])),
    )


class _Scores:
    """Bits per byte of the test rows and of general text, before and after training; empty without test rows."""

    def __init__(self, job: Adapting) -> None:
        self.job, self.base, self.seed = job, job.base, job.options.seed
        self.docs: list[DocumentIds] = []
        given = job.options.of_task.replay.test
        self.general = (
            f"{REFERENCE_TOKENS} tokens of the Python language reference"
            if given is None
            else "given by the user"
        )
        if (test := job.test) is None:
            return
        for row, (sample,) in zip(test, test.samples, strict=True):
            self.docs.append(DocumentIds(DOMAIN, sample.ids, len(str(row["text"]).encode())))
        if given is None:
            general = (Document(d.text, GENERAL) for d in reference())
            self.docs += document_ids(self.base, general, REFERENCE_TOKENS)
        else:
            rows = _general(given, "replay.test")
            job.bind("replay.test", given, rows_hash(rows))
            self.docs += document_ids(self.base, (Document(str(r["text"]), GENERAL) for r in rows))

    def measured(self, routing: AdapterRouting | None) -> list[DocumentNats]:
        """The documents under the base as it is now."""
        return nats_of(self.base, self.docs, routing=routing)

    def facts(self, before: Sequence[DocumentNats], routing: AdapterRouting | None) -> Facts:
        """The change of the scores by training, as facts for the record."""
        if not self.docs:
            return {}
        scores = changes(before, self.measured(routing), seed=self.seed)
        return score_facts(scores) | {"scores.general_text": (self.general, self.job.origin("replay.test"))}


def predictions(request: ScoreRequest) -> Documents:
    """Likelihood of the texts of the domain, and of those whose `source` is general. With an adapter also under the base alone."""
    base = request.base
    rows = read_rows(opened(request.data), ("text",), check=source_problem)
    read = document_ids(base.loaded, (Document(r["text"], r.get("source") or DOMAIN) for r in rows))
    after = nats_of(base.loaded, read, routing=base.routing)
    before = base.attached is not None and not base.own
    return Documents(after, nats_of(base.plain.loaded, read) if before else None)


def source_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the source of a row, and what to do."""
    if (source := row.get("source") or DOMAIN) in (DOMAIN, GENERAL):
        return None
    return f"has the source {source!r}", f"accepted: {DOMAIN}, {GENERAL}; empty means {DOMAIN}"


def likely_texts(request: ScoreRequest) -> Documents:
    """Likelihood of each text; it needs no adapter of this task."""
    base, rows = request.base, text_rows(request.data)
    read = (Document(r["text"], "text") for r in rows)
    return Documents(document_nats(base.loaded, read, routing=base.routing))


TASK = Task(
    name="continue",
    columns=("text",),
    lesson=lesson,
    options=ContinueOptions,
    methods={"prompt": "a prompt is not trained", "head": "a head predicts labels, not text"},
    writes=always,
    opened=opened,
    samples=documents,
    by_sample=True,
    predictions=predictions,
    tuned_by=("domain_bits_per_byte",),
    signal="documents",
)
