"""A teacher: another base, perhaps with an adapter, that says what a student shall say. What it says of texts, and how near a student comes.

N texts or samples, T time, V vocabulary, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from onebase.codec.text.sample import Tokens
from onebase.config_plain import digest
from onebase.engine.answers import labels as labels_of
from onebase.engine.decoder import generate
from onebase.engine.sampler import Sampling
from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import Score, mean_score, paired_difference, ratio_score
from onebase.formats.recognise import is_peft
from onebase.methods.bound import Bound
from onebase.methods.folder import load_config
from onebase.model.mask import Cols
from onebase.objective.base import TrunkInput
from onebase.objective.distil import TeacherOutput, kl
from onebase.opening.find import find_artifact
from onebase.opening.names import open_base, read_adapter
from onebase.tasks.job import Adapting
from onebase.tasks.options import AdaptOptions

Kind = Literal["messages", "prompt", "text"]
WRITTEN = 16
"""Prompts that a teacher answers at a time."""


def kind_of(rows: Sequence[Mapping[str, Any]]) -> Kind:
    """The column that rows for a student are read from."""
    first = rows[0] if rows else {}
    kinds: tuple[Kind, ...] = ("messages", "prompt")
    return next((k for k in kinds if k in first), "text")


def load_teacher(job: Adapting) -> Bound:
    """The teacher that the options name, with its adapter, on the student's device and in its number format. Raises UserError."""
    how, model = job.options.of_task.distil, job.base.model
    assert how.teacher is not None  # `teaches_writing` has refused it
    teacher = Bound(open_base(how.teacher, device=str(model.device)))
    teacher.loaded.model.compute_dtype = model.compute_dtype
    job.bind("distil.teacher", how.teacher, digest(teacher.loaded.hashes))
    if how.adapter is not None:
        teacher = teacher.with_parts([read_adapter(teacher.loaded, find_artifact(how.adapter))])
        assert teacher.attached is not None
        job.bind("distil.adapter", how.adapter, teacher.attached.fingerprint)
    return teacher


def teaches_writing(options: AdaptOptions) -> bool:
    """Does the teacher that the options name write (or else classify texts)? Its adapter's config says it, so that nothing else need be
    read first. Raises UserError where none is named, and for one that does neither."""
    how = options.of_task.distil
    if how.teacher is None:
        raise UserError(
            "no teacher to learn from",
            "name a base: -o distil.teacher=REF (in Python distil={'teacher': ...}), perhaps with distil.adapter",
        )
    if how.adapter is None or is_peft(path := find_artifact(how.adapter)):
        return True
    on = load_config(path)
    head = on.head
    if head is None and on.embedding is None:
        return on.prompt is None or not on.prompt.answers
    if head is None or head.gives not in ("one", "many"):
        raise UserError(
            f"the teacher's adapter is for {on.task}: students learn to classify or to write",
            "give a teacher that classifies texts, or writes",
        )
    if head.gives != "one" or head.reads != "text":
        what = "classifies images" if head.reads != "text" else "gives a text many labels"
        raise UserError(f"the teacher {what}", "give one that gives a text one of its labels")
    return False


def class_probabilities(teacher: Bound, texts: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """(labels, log-probabilities [N, C]) of the teacher."""
    found = labels_of(teacher, texts)
    labels = tuple(found[0].scores)
    p_NC = torch.tensor([[f.scores[x] for x in labels] for f in found])
    return labels, p_NC.clamp(min=1e-30).log()


def with_answers(
    job: Adapting, teacher: Bound, rows: Sequence[dict[str, Any]], kind: Kind, *, anew: bool
) -> tuple[list[dict[str, Any]], int]:
    """Rows whose answers the teacher has written, all of them (`anew`) or those that are missing, and how many were left out because they
    did not end within `max_tokens`: learning them would teach to stop anywhere. Raises UserError for texts, which ask nothing."""
    how, codec = job.options.of_task.distil, teacher.loaded.codec
    if kind == "text":
        if anew:
            raise UserError(
                "the rows are texts: there is nothing for the teacher to answer",
                "give rows of prompt or messages, or learn its distributions (distil.level=token)",
            )
        return list(rows), 0
    asked = [i for i, r in enumerate(rows) if anew or not _answered(r, kind)]
    prompts = [
        codec.tokenizer.encode(str(rows[i]["prompt"]), bos=True)
        if kind == "prompt"
        else codec.chat_ids(_question(rows[i]["messages"]))
        for i in asked
    ]
    out: dict[int, dict[str, Any]] = {i: dict(r) for i, r in enumerate(rows)}
    for start in range(0, len(asked), WRITTEN):
        part = slice(start, start + WRITTEN)
        sampling = [
            Sampling(max_tokens=how.max_tokens, temperature=how.sample, seed=job.options.seed + i)
            for i in asked[part]
        ]
        wrote = generate(teacher.loaded, prompts[part], sampling, teacher.routing)
        for i, said in zip(asked[part], wrote, strict=True):
            if said.finish != "stop":
                del out[i]
            elif kind == "prompt":
                out[i]["completion"] = said.text
            else:
                answer = {"role": "assistant", "content": said.text}
                out[i]["messages"] = [*_question(rows[i]["messages"]), answer]
    if not out:
        raise DataError(
            f"none of the teacher's {len(rows)} answers ends within {how.max_tokens} tokens",
            "raise distil.max_tokens, or give a teacher that learnt to end its answers",
        )
    return [out[i] for i in sorted(out)], len(rows) - len(out)


def _answered(row: Mapping[str, Any], kind: Kind) -> bool:
    if kind == "prompt":
        return bool(row.get("completion"))
    return bool(row["messages"][-1].get("role") == "assistant")


def _question(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A conversation up to its last answer."""
    return list(messages[:-1] if messages[-1].get("role") == "assistant" else messages)


def class_agreement(
    labels: Sequence[str], teacher_NC: Tensor, student_NC: Tensor, truth: Sequence[str] | None, seed: int
) -> dict[str, Score]:
    """How near a student comes on held-out texts, of log-probabilities: `agreement` (the same label) and `kl` (nats a text); with the true
    labels `teacher_accuracy`, `student_accuracy` and what was lost, paired."""
    guesses = [z_NC.argmax(-1).tolist() for z_NC in (teacher_NC, student_NC)]
    same = [float(a == b) for a, b in zip(*guesses, strict=True)]
    out = [
        mean_score("agreement", same, seed=seed),
        mean_score("kl", kl(teacher_NC, student_NC, "forward").tolist(), seed=seed),
    ]
    if truth is not None:
        right = [[float(labels[g] == t) for g, t in zip(each, truth, strict=True)] for each in guesses]
        out += [
            mean_score(f"{n}_accuracy", r, seed=seed)
            for n, r in zip(("teacher", "student"), right, strict=True)
        ]
        out.append(paired_difference(right[1], right[0], name="student_minus_teacher", seed=seed))
    return {s.name: s for s in out}


@torch.no_grad()
def token_agreement(
    student: TeacherOutput, teacher: TeacherOutput, samples: Sequence[Tokens], seed: int
) -> dict[str, Score]:
    """The same on held-out samples, over their supervised tokens: `agreement` (the same likeliest token), `kl` (nats a token), and
    `teacher_nats_per_token`, `student_nats_per_token` of the tokens themselves."""
    rows = np.zeros((len(samples), 5))
    vocab = min(s.model.cfg.text.vocab_size for s in (student, teacher))
    for i, sample in enumerate(samples):
        ids_T = torch.from_numpy(sample.ids.astype(np.int64))
        used = torch.from_numpy(sample.loss[1:])
        device = student.model.device
        read = TrunkInput(ids_T[None].to(device), Cols.simple(1, len(ids_T), device))
        s_TV, t_TV = (
            x.model.text.logits(x.model.hidden(read.ids_BT, read.cols, routing=x.routing).hidden, x.routing)[
                0, :-1
            ]
            .cpu()[used][:, :vocab]
            .log_softmax(-1)
            for x in (student, teacher)
        )
        nll = [-z.gather(-1, ids_T[1:][used][:, None]).sum() for z in (t_TV, s_TV)]
        same = (s_TV.argmax(-1) == t_TV.argmax(-1)).sum()
        rows[i] = [float(x) for x in (used.sum(), same, kl(t_TV, s_TV, "forward").sum(), *nll)]
    names = ("agreement", "kl", "teacher_nats_per_token", "student_nats_per_token")
    return {n: ratio_score(n, rows[:, k], rows[:, 0], seed=seed) for k, n in enumerate(names, 1)}
