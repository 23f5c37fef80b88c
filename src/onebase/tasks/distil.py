"""Task distil: a student learns the class probabilities of a teacher that classifies, or the token distributions of one that generates.

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
    suits_vector,
    text_tokens,
    views,
)
from onebase.errors import DataError, UserError
from onebase.methods.bound import Bound
from onebase.methods.method import SCRATCH, Learner, Signal, option
from onebase.methods.vector_head import candidates, fit_views
from onebase.modality.text.sample import Tokens
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
from onebase.tasks.reading import RowReader, long_of, no_samples, special_ids, whole_texts
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
    """Options of task distil. `pooling` applies to students that classify."""

    distil: DistilConfig = option(DistilConfig(), "the teacher and the loss")


STUDENTS: dict[Kind, Task] = {"messages": writing.CHAT, "prompt": writing.COMPLETE, "text": continued.TASK}
"""The task of a student whose teacher generates text, by the column of the rows."""
FITTED = 500
"""Texts, at most, on which a student's initial head is fitted: training continues from it."""


def lesson(job: Adapting) -> Lesson:
    """A student of the teacher that the options name. Its adapter is for the teacher's task."""
    teacher = load_teacher(job)
    taught = _writing(job, teacher) if teaches_writing(job.options) else _classes(job, teacher)

    def recorded(record: Record) -> None:
        """Add the teacher to the parents of the student's record."""
        record.add_parent("teacher", teacher.fingerprint, teacher.name)
        if teacher.attached is not None:
            name = Path(str(job.options.of_task.distil.adapter)).name
            record.add_parent("teacher's adapter", teacher.attached.fingerprint, name)
        record.add("distilled", taught.task, f"{Origin.PARENT}: what the teacher does")

    return replace(taught, recorded=recorded)


def _classes(job: Adapting, teacher: Bound) -> Lesson:
    """Train a head and the method's weights together on the teacher's probabilities; the head starts from a fit on the teacher's labels."""
    o, base, how = job.options, job.base, job.options.of_task.distil
    rows, texts = job.rows, job.rows.texts
    facts = data_facts(rows) | check_rows(job)
    labels, logp_NC = class_probabilities(teacher, [str(r["text"]) for r in rows])
    guess_N = logp_NC.argmax(-1)
    if len(set(guess_N.tolist())) < 2:
        raise DataError(
            f"the teacher gives all {len(rows)} texts the label {labels[int(guess_N[0])]!r}",
            "give texts of at least two of its labels",
        )
    targets = _targets(job, teacher, rows, labels, logp_NC)

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        learner.reads_only(texts)
        longest = max(2, *(learner.before + len(t) for t in texts))
        some = _to_fit(targets)
        read = [texts[i] for i in some]
        x_by = views(
            base,
            read,
            candidates(o.of_task.pooling, base.embedding is not None),
            learner.routing if learner.before else None,
        )
        y = torch.tensor([t.label if t.label != IGNORE else int(t.logp_C.argmax()) for t in targets])
        fitted, pooling = fit_views(
            x_by, y[some], len(labels), o.seed, o.of_task.head_bias, suits_vector(base, read)
        )
        base.model.heads[SCRATCH] = head = fitted.head.to(base.model.device)
        target_of = {t.id: s for t, s in zip(texts, targets, strict=True)}
        return Steps(
            SoftClassification(SCRATCH, target_of, how, pooling_of(base, pooling), learner.routing),
            ExampleOrder(one_by_one(texts), min(o.batch_size, len(texts)), o.seed, o.epochs),
            longest,
            params=[p for p in head.parameters() if p.requires_grad],
            fields={"head": HeadConfig(labels=labels, pooling=pooling, **reads(job))},
            after=lambda: (_agreement(job, teacher, labels, head, pooling, learner), {}),
        )

    return Lesson(facts, "labels", steps, task=classify.TASK.name)


def _agreement(
    job: Adapting, teacher: Bound, labels: Sequence[str], head: Head, pooling: Read, learner: Learner
) -> Facts:
    """Agreement of student and teacher on the test rows, if there are any."""
    if job.test is None:
        return {}
    o, base = job.options, job.base
    test = job.test
    texts = [str(r["text"]) for r in test]
    with forgetting(base):
        x = features(
            base, text_tokens(base, texts, o.max_length, learner.before, long_of(o)), pooling, learner.routing
        )
    with torch.no_grad():
        student_NC = head(x.to(base.model.device)).cpu().log_softmax(-1)
    truth = [str(r["label"]) for r in test] if all("label" in r for r in test) else None
    return score_facts(
        class_agreement(labels, class_probabilities(teacher, texts)[1], student_NC, truth, o.seed)
    )


def _to_fit(targets: Sequence[TeacherTarget]) -> list[int]:
    """Numbers of the texts on which the head is fitted: those with labels of their own first, then others, evenly spread."""
    own = [i for i, t in enumerate(targets) if t.label != IGNORE][:FITTED]
    rest = [i for i, t in enumerate(targets) if t.label == IGNORE]
    budget = FITTED - len(own)
    return own + (rest[:: -(-len(rest) // budget)] if budget and rest else [])


def _targets(
    job: Adapting, teacher: Bound, rows: Sequence[dict[str, Any]], labels: Sequence[str], logp_NC: Tensor
) -> list[TeacherTarget]:
    """The teacher's output for each row, with the row's own label where `hard` is set."""
    how = job.options.of_task.distil
    means: Sequence[Tensor | None] = [None] * len(rows)
    if how.hidden:
        widths = [b.model.cfg.trunks["text"].width for b in (job.base, teacher.loaded)]
        if widths[0] != widths[1]:
            raise UserError(
                f"hidden states of the student have width {widths[0]}, of the teacher {widths[1]}: they cannot be compared",
                "leave distil.hidden at 0, or build the student from the teacher (onebase student)",
            )
        means = list(vectors(teacher, [str(r["text"]) for r in rows], "mean"))
    own = [IGNORE] * len(rows)
    if how.hard:
        unknown = sorted({str(r["label"]) for r in rows if "label" in r} - set(labels))
        if unknown or all("label" not in r for r in rows):
            raise DataError(
                f"the rows have the label {unknown[0]!r}, which the teacher does not have"
                if unknown
                else "distil.hard needs rows with labels, and they have none",
                f"the teacher's labels: {', '.join(labels)}; or leave distil.hard at 0",
            )
        number = {label: i for i, label in enumerate(labels)}
        own = [number[str(r["label"])] if "label" in r else IGNORE for r in rows]
    return [TeacherTarget(z_C, m, c) for z_C, m, c in zip(logp_NC, means, own, strict=True)]


def _writing(job: Adapting, teacher: Bound) -> Lesson:
    """Train on the teacher's next-token distributions, or on the text that it generates."""
    o, base, how = job.options, job.base, job.options.of_task.distil
    check_reads(teacher.loaded, images=False, remedy="a teacher must read text")
    check_writes(
        teacher.loaded,
        "distil",
        job.method,
        "use a teacher that generates text, or one with an adapter that classifies",
    )
    alike = teacher.tokenizer.digest == base.codec.tokenizer.digest
    if how.level == "token" and not alike:
        raise UserError(
            "teacher and student have different tokenizers, so their token distributions cannot be compared",
            "train on the teacher's generated text: distil.level=sequence, with rows of prompt or messages",
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
    special = () if kind == "text" else special_ids(tokens, base.codec.tokenizer)
    signal: Signal = "documents" if kind == "text" else "answers"

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        ahead = teacher.loaded.model.virtual_counts(teacher.routing, 1)[0]
        limit = teacher.loaded.model.cfg.text.context - ahead
        if kind == "text":
            length = min(continued.row_length(job, learner.before), limit)
            data: Order = continued.document_plan(job, tokens, length, single=learner.before + ahead > 0)
        else:
            _check_lengths(tokens, limit)
            data, length = writing.sample_plan(job, tokens, max(learner.before, ahead))
        output = TeacherOutput(teacher.loaded.model, teacher.routing)
        objective = (
            TokenDistil(length, output, how, learner.routing)
            if how.level == "token"
            else NextToken(length, learner.routing)
        )

        def after() -> tuple[Facts, Fields]:
            longest = min(limit, base.model.cfg.text.context - learner.before)
            readable = [t for t in test_tokens or () if len(t) <= longest] if alike else []
            if not readable:
                return {}, {}
            student = TeacherOutput(base.model, learner.routing)
            return score_facts(token_agreement(student, output, readable, o.seed)), {}

        return Steps(objective, data, learner.before + length, after=after)

    return Lesson(facts, signal, steps, special=special, task=STUDENTS[kind].name)


def _tokens(job: Adapting, rows: Sequence[dict[str, Any]], kind: Kind) -> list[Tokens]:
    if kind == "text":
        return continued.document_tokens(job.base, rows, "text")
    return completion_rows(job.base, rows) if kind == "prompt" else chat_rows(job.base, rows)


def _check_lengths(tokens: Sequence[Tokens], limit: int) -> None:
    """Raise DataError for a sample longer than the teacher's context."""
    over = [t for t in tokens if len(t) > limit]
    if over:
        raise DataError(
            f"sample {over[0].id} has {len(over[0])} tokens, the teacher reads {limit}; {len(over)} of {len(tokens)} are too long",
            "shorten or remove them, or use a teacher with a longer context",
        )


def _samples(reader: RowReader) -> Make:
    """Texts that a teacher classifies. Rows for a teacher that generates have no samples until it has answered them."""
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
        "prompt": "a prompt is not trained",
        "head": "a head alone is fitted on labels: label the texts with the teacher (onebase apply), and use task classify",
    },
    writes=teaches_writing,
    opened=continued.opened,
)
