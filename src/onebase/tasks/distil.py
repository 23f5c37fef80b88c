"""Task distil: a student learns from a teacher, what it says of texts (a teacher that classifies) or of tokens (one that writes).

N texts, C classes, D width.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.artifact.record import Origin, Record
from onebase.base.head import Head, HeadConfig, Read
from onebase.codec.text.sample import Tokens
from onebase.config import config
from onebase.data import Order
from onebase.data.labelled import Make
from onebase.data.order import ExampleOrder, one_by_one
from onebase.engine.answers import vectors
from onebase.engine.features import (
    chat_rows,
    completion_rows,
    features,
    pooling_of,
    text_tokens,
    views,
)
from onebase.errors import DataError, UserError
from onebase.methods.bound import Bound
from onebase.methods.method import SCRATCH, Learner, Signal, option
from onebase.methods.vector_head import candidates, fit_views
from onebase.objective.base import IGNORE
from onebase.objective.distil import (
    DistilConfig,
    SoftClassification,
    TeacherOutput,
    TeacherTarget,
    TokenDistil,
)
from onebase.objective.next_token import NextToken
from onebase.tasks import classify, continued, writing
from onebase.tasks.base import Task
from onebase.tasks.by_head import TextOptions, forgetting, reads
from onebase.tasks.checks import check_reads, check_writes
from onebase.tasks.fit import Fields, Lesson, Steps
from onebase.tasks.job import Adapting, Facts, data_facts, score_facts
from onebase.tasks.ledgers import check_rows, check_samples
from onebase.tasks.reading import RowReader, long_of, no_samples, whole_texts
from onebase.tasks.teachers import (
    Kind,
    class_agreement,
    class_probabilities,
    kind_of,
    load_teacher,
    teaches_writing,
    token_agreement,
    with_answers,
)


@config
class DistilOptions(TextOptions):
    """Options of task distil. pooling is that of a student that classifies."""

    distil: DistilConfig = option(DistilConfig(), "the teacher and how it is learnt from")


STUDENTS: dict[Kind, Task] = {"messages": writing.CHAT, "prompt": writing.COMPLETE, "text": continued.TASK}
"""What a student of a teacher that writes then does, by the column that the rows have."""
FITTED = 500
"""Texts that the head a student starts with is fitted on, at most: it learns on from there."""


def lesson(job: Adapting) -> Lesson:
    """A student of the teacher that the options name. Its adapter is for what the teacher does."""
    teacher = load_teacher(job)
    made = _writing(job, teacher) if teaches_writing(job.options) else _classes(job, teacher)

    def recorded(record: Record) -> None:
        """The teacher among the parents of the student's record."""
        record.add_parent("teacher", teacher.fingerprint, teacher.name)
        if teacher.attached is not None:
            name = Path(str(job.options.of_task.distil.adapter)).name
            record.add_parent("teacher's adapter", teacher.attached.fingerprint, name)
        record.add("distilled", made.task, f"{Origin.PARENT}: what the teacher does")

    return replace(made, recorded=recorded)


def _classes(job: Adapting, teacher: Bound) -> Lesson:
    """A head and what the method learns, together, towards the teacher's probabilities; the head starts from a fit on its labels."""
    o, base, how = job.options, job.base, job.options.of_task.distil
    rows, texts = job.rows, job.rows.texts
    facts = data_facts(rows) | check_rows(job)
    said = [str(r["text"]) for r in rows]
    labels, logp_NC = class_probabilities(teacher, said)
    guess_N = logp_NC.argmax(-1)
    if len(set(guess_N.tolist())) < 2:
        raise DataError(
            f"the teacher gives all {len(rows)} texts the label {labels[int(guess_N[0])]!r}",
            "give texts of at least two of its labels",
        )
    taught = _taught(job, teacher, rows, labels, logp_NC)

    def steps(found: Learner, stack: ExitStack) -> Steps:
        found.reads_only(texts)
        longest = max(2, *(found.before + len(t) for t in texts))
        some = _started(taught)
        x_by = views(
            base,
            [texts[i] for i in some],
            candidates(o.of_task.pooling, base.embedding is not None),
            found.routing if found.before else None,
        )
        y = torch.tensor([t.label if t.label != IGNORE else int(t.logp_C.argmax()) for t in taught])
        fitted, pooling = fit_views(x_by, y[some], len(labels), o.seed, o.of_task.head_bias)
        base.model.heads[SCRATCH] = head = fitted.head.to(base.model.device)
        said_of = {t.id: s for t, s in zip(texts, taught, strict=True)}
        return Steps(
            SoftClassification(SCRATCH, said_of, how, pooling_of(base, pooling), found.routing),
            ExampleOrder(one_by_one(texts), min(o.batch_size, len(texts)), o.seed, o.epochs),
            longest,
            params=[p for p in head.parameters() if p.requires_grad],
            fields={"head": HeadConfig(labels=labels, pooling=pooling, **reads(job))},
            after=lambda: (_agreed(job, teacher, labels, head, pooling, found), {}),
        )

    return Lesson(facts, "labels", steps, task=classify.TASK.name)


def _agreed(
    job: Adapting, teacher: Bound, labels: Sequence[str], head: Head, pooling: Read, found: Learner
) -> Facts:
    """How near the student comes on the test rows, where there are any."""
    if job.test is None:
        return {}
    o, base = job.options, job.base
    test = job.test
    shown = [str(r["text"]) for r in test]
    with forgetting(base):
        x = features(
            base, text_tokens(base, shown, o.max_length, found.before, long_of(o)), pooling, found.routing
        )
    with torch.no_grad():
        student_NC = head(x.to(base.model.device)).cpu().log_softmax(-1)
    truth = [str(r["label"]) for r in test] if all("label" in r for r in test) else None
    return score_facts(
        class_agreement(labels, class_probabilities(teacher, shown)[1], student_NC, truth, o.seed)
    )


def _started(taught: Sequence[TeacherTarget]) -> list[int]:
    """Which texts the head is fitted on: those with labels of their own first, then others, spread over all."""
    own = [i for i, t in enumerate(taught) if t.label != IGNORE][:FITTED]
    rest = [i for i, t in enumerate(taught) if t.label == IGNORE]
    room = FITTED - len(own)
    return own + (rest[:: -(-len(rest) // room)] if room and rest else [])


def _taught(
    job: Adapting, teacher: Bound, rows: Sequence[dict[str, Any]], labels: Sequence[str], logp_NC: Tensor
) -> list[TeacherTarget]:
    """What the teacher says of each row, and the row's own label where that is asked for."""
    how = job.options.of_task.distil
    means: Sequence[Tensor | None] = [None] * len(rows)
    if how.hidden:
        widths = [b.model.cfg.trunks["text"].width for b in (job.base, teacher.loaded)]
        if widths[0] != widths[1]:
            raise UserError(
                f"the student's states are {widths[0]} wide, the teacher's {widths[1]}: they cannot be compared",
                "leave distil.hidden at 0, or make the student of the teacher (onebase student)",
            )
        means = list(vectors(teacher, [str(r["text"]) for r in rows], "mean"))
    own = [IGNORE] * len(rows)
    if how.hard:
        unknown = sorted({str(r["label"]) for r in rows if "label" in r} - set(labels))
        if unknown or all("label" not in r for r in rows):
            raise DataError(
                f"the rows have the label {unknown[0]!r}, which the teacher does not"
                if unknown
                else "distil.hard learns from the rows' own labels, and they have none",
                f"the teacher's labels: {', '.join(labels)}; or leave distil.hard at 0",
            )
        number = {label: i for i, label in enumerate(labels)}
        own = [number[str(r["label"])] if "label" in r else IGNORE for r in rows]
    return [TeacherTarget(z_C, m, c) for z_C, m, c in zip(logp_NC, means, own, strict=True)]


def _writing(job: Adapting, teacher: Bound) -> Lesson:
    """The distribution over the next token of the teacher, or what it writes."""
    o, base, how = job.options, job.base, job.options.of_task.distil
    check_reads(teacher.loaded, images=False, remedy="a teacher must read text")
    check_writes(
        teacher.loaded,
        "distil",
        job.method,
        "use a teacher that writes, or one with an adapter that classifies",
    )
    alike = teacher.tokenizer.digest == base.codec.tokenizer.digest
    if how.level == "token" and not alike:
        raise UserError(
            "teacher and student have different tokenizers: their distributions are over different tokens",
            "learn from what the teacher writes: distil.level=sequence, with rows of prompt or messages",
        )
    rows = list(job.rows)
    kind = kind_of(rows)
    answered, dropped = with_answers(job, teacher, rows, kind, anew=how.level == "sequence")
    tokens = _tokens(job, answered, kind)
    test_tokens: list[Tokens] | None = None
    if job.test is not None:
        test_tokens = _tokens(job, with_answers(job, teacher, job.test, kind, anew=False)[0], kind)
    facts = data_facts(rows) | check_samples(job, tokens, test_tokens)
    facts["data.tokens"] = (sum(len(t.ids) for t in tokens), "counted")
    if answered != rows or dropped:
        facts["distil.written"] = (
            data_facts(answered)["data.fingerprint"][0],
            "hashed: what the teacher wrote",
        )
        facts["distil.written_rows"] = (len(answered), "counted")
        facts["distil.unfinished"] = (dropped, "counted: answers that did not end are not learnt")
    special = () if kind == "text" else writing.special_ids(tokens, base.codec.tokenizer)
    signal: Signal = "documents" if kind == "text" else "answers"

    def steps(found: Learner, stack: ExitStack) -> Steps:
        ahead = teacher.loaded.model.virtual_counts(teacher.routing, 1)[0]
        limit = teacher.loaded.model.cfg.text.context - ahead
        if kind == "text":
            length = min(continued.row_length(job, found.before), limit)
            data: Order = continued.document_plan(job, tokens, length, single=found.before + ahead > 0)
        else:
            _check_room(tokens, limit)
            data, length = writing.sample_plan(job, tokens, max(found.before, ahead))
        knows = TeacherOutput(teacher.loaded.model, teacher.routing)
        objective = (
            TokenDistil(length, knows, how, found.routing)
            if how.level == "token"
            else NextToken(length, found.routing)
        )

        def after() -> tuple[Facts, Fields]:
            longest = min(limit, base.model.cfg.text.context - found.before)
            held = [t for t in test_tokens or () if len(t) <= longest] if alike else []
            if not held:
                return {}, {}
            student = TeacherOutput(base.model, found.routing)
            return score_facts(token_agreement(student, knows, held, o.seed)), {}

        return Steps(objective, data, found.before + length, after=after)

    return Lesson(facts, signal, steps, special=special, task=STUDENTS[kind].name)


def _tokens(job: Adapting, rows: Sequence[dict[str, Any]], kind: Kind) -> list[Tokens]:
    if kind == "text":
        return continued.document_tokens(job.base, rows, "text")
    return completion_rows(job.base, rows) if kind == "prompt" else chat_rows(job.base, rows)


def _check_room(tokens: Sequence[Tokens], limit: int) -> None:
    """Raise DataError for a sample that the teacher cannot read."""
    over = [t for t in tokens if len(t) > limit]
    if over:
        raise DataError(
            f"sample {over[0].id} has {len(over[0])} tokens, the teacher reads {limit}; {len(over)} of {len(tokens)} are too long",
            "shorten or drop them, or give a teacher that reads more",
        )


def _samples(reader: RowReader) -> Make:
    """Texts that a teacher classifies. Of those that one writes there is nothing to learn before it has written."""
    if reader.options.of_task.distil.teacher is None or teaches_writing(reader.options):
        return no_samples(reader)
    return whole_texts(reader)


TASK = Task(
    name="distil",
    columns=lambda look: (kind_of(look.rows()),),
    check=writing.text_problem,
    samples=_samples,
    compared=("text",),
    lesson=lesson,
    options=DistilOptions,
    methods={
        "prompt": "a prompt learns nothing from a teacher",
        "head": "a head alone is fitted on labels: let the teacher give them (onebase apply), and learn task classify",
    },
    writes=teaches_writing,
    opened=continued.opened,
)
