"""Rows that have a file beside their text: where the file is, the sample's lesson, and the likelihood of the text."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onebase.base.model import BaseModel
from onebase.data import Rows
from onebase.data.order import ExampleOrder, one_by_one
from onebase.engine.media_samples import Source
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array
from onebase.methods.method import Learner
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Objective
from onebase.objective.media_text import MediaText
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.ledgers import check_written
from onebase.tasks.reading import samples_in
from onebase.tasks.writing import special_ids

NO_VIRTUAL = "virtual tokens stand before a text, and here media do"


def source_of(value: Any, column: str, folder: Path) -> tuple[Source, str]:
    """The file of a row and its name for messages: a path (relative ones start at `folder`), bytes, or both as HF datasets writes them
    ({"bytes", "path"}). Raises DataError for another value."""
    if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:
        if isinstance(raw := value.get("bytes"), bytes):
            return raw, str(value.get("path") or f"the {column}")
        value = value.get("path")
    if isinstance(value, bytes):
        return value, f"the {column}"
    if isinstance(value, (str, Path)):
        path = folder / value
        if not path.is_file():
            raise DataError(f"'{column}': there is no file {path}", "check the path")
        return path, str(path)
    raise DataError(f"'{column}' is {type(value).__name__}, a path is expected", "fix the row")


def by_content(rows: Rows, column: str) -> Rows:
    """The rows with the hash of each file in the place of its path: a record says what was learnt, wherever it was."""
    out = rows.some(range(len(rows)))
    for i, (row, (sample,)) in enumerate(zip(rows, rows.samples, strict=True)):
        out[i] = {**row, column: sample.media[0].content.digest}
    return out


def media_lesson(
    job: Adapting,
    column: str,
    objective: Callable[[Learner, int], Objective] = lambda learner, length: MediaText(learner.routing),
    special: bool = True,
) -> Lesson:
    """Next-token prediction on the supervised tokens, given the row's media. special: rows of special tokens may be trained."""
    tokens = samples_in(job.rows)
    test = None if job.test is None else samples_in(job.test)
    job.rows = by_content(job.rows, column)
    job.test = None if job.test is None else by_content(job.test, column)
    facts = data_facts(job.rows) | check_written(job, tokens, test, chats=False)
    facts["data.tokens"] = (sum(map(len, tokens)), "counted")
    ids = special_ids(tokens, job.base.codec.tokenizer) if special else ()
    return Lesson(facts, "answers", media_steps(job, tokens, objective), special=ids)


def media_steps(
    job: Adapting,
    tokens: Sequence[Tokens],
    objective: Callable[[Learner, int], Objective] = lambda learner, length: MediaText(learner.routing),
) -> Callable[[Learner, ExitStack], Steps]:
    """Each sample is a row. Its length counts what the trunks of its media read, too."""
    o = job.options

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        per_step = max(1, min(o.batch_size, len(tokens) // 4))
        plan = ExampleOrder(one_by_one(tokens), per_step, o.seed, o.epochs)
        longest = max(len(t) for t in tokens)
        inside = max(sum(m.content.shape[0] for m in t.media if not len(m.content.shape) > 1) for t in tokens)
        return Steps(objective(learner, longest), plan, longest + inside)

    return steps


@torch.no_grad()
def text_nats(
    model: BaseModel, tokens: Sequence[Tokens], objective: Objective, routing: AdapterRouting | None
) -> tuple[Array, Array]:
    """Negative log-likelihood of the supervised tokens of each sample in nats, and their number: float64 [N] each."""
    nats, counts = [], []
    for i, sample in enumerate(tokens):
        batch = objective.batch([[sample]], i).to(model.device)
        total, count = objective.losses(model, batch)["next_token"]
        nats.append(float(total))
        counts.append(float(count))
    return np.array(nats), np.array(counts)
