"""Rows that have a file beside their text: where the file is, the sample's lesson, and the likelihood of the text."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from onebase.base.model import BaseModel
from onebase.data import Rows
from onebase.data.bad_rows import refuse_bad
from onebase.data.order import ExampleOrder, one_by_one
from onebase.engine.decoder import generate
from onebase.engine.image_prompts import sees
from onebase.engine.media_samples import Source
from onebase.engine.sampler import Sampling
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array
from onebase.evaluation.predictions import Written
from onebase.methods.bound import Bound
from onebase.methods.method import Learner
from onebase.modality.image.pixels import check_picture
from onebase.modality.text.sample import Tokens
from onebase.objective.base import Objective
from onebase.objective.flow_config import AS_READ
from onebase.objective.media_text import MediaText
from onebase.objective.mixed import Mixed
from onebase.tasks.base import ScoreRequest
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.ledgers import check_written
from onebase.tasks.reading import samples_in, special_ids

T = TypeVar("T")
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


def pictures_read(rows: Rows, paths: Sequence[Path], read: Callable[[], T]) -> T:
    """What `read` makes of the pictures of rows. Where it cannot read one, all that cannot be read are named with their rows (BadRows)."""
    try:
        return read()
    except DataError:
        bad: dict[int, tuple[str, str]] = {}
        for i, path in enumerate(paths):
            try:
                check_picture(path)
            except DataError as e:
                bad[i] = e.cause, e.remedy
        refuse_bad(bad, rows.places)
        raise


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
    return Lesson(facts, "answers", media_steps(job, tokens, objective), special=ids, trunk="")


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
def text_nats(model: BaseModel, tokens: Sequence[Tokens], objective: Objective) -> tuple[Array, Array]:
    """Negative log-likelihood of the supervised tokens of each sample in nats, and their number: float64 [N] each."""
    nats, counts = [], []
    for i, sample in enumerate(tokens):
        batch = objective.batch([[sample]], i).to(model.device)
        total, count = objective.losses(model, batch)["next_token"]
        nats.append(float(total))
        counts.append(float(count))
    return np.array(nats), np.array(counts)


def written(request: ScoreRequest, tokens: Sequence[Tokens], answers: Sequence[str]) -> Written:
    """Likelihood of the answers, and greedy ones, of samples with media; only the answer, at the end, is supervised. Raises DataError for one that is
    longer than the context."""
    base, context = request.base, request.base.config.text.context
    for i, sample in enumerate(tokens, 1):
        if len(sample) > context:
            raise DataError(
                f"row {i} has {len(sample)} tokens, the base reads {context}", "shorten or remove it"
            )
    model = base.loaded.model
    objective: Objective = (
        MediaText(base.routing)
        if sees(base.loaded)
        else Mixed.of(model, context, AS_READ, routing=base.routing)
    )
    nats_N, tokens_N = text_nats(model, tokens, objective)
    return Written(list(answers), answered(base, tokens, request.max_tokens), nats_N, tokens_N)


@torch.no_grad()
def answered(base: Bound, tokens: Sequence[Tokens], most: int) -> list[str]:
    """What the base writes after the unsupervised beginning of each sample, greedily, at most so many tokens."""
    model, context = base.loaded.model, base.config.text.context
    prompts, limits, inserts, media, connected = [], [], [], [], sees(base.loaded)
    for sample in tokens:
        end = int(np.flatnonzero(sample.loss)[0])
        prompts.append(sample.ids[:end].tolist())
        limits.append(Sampling(max_tokens=max(1, min(most, context - end))))
        if connected:
            seen = [torch.from_numpy(m.content.load()[0]) for m in sample.media]
            pixels = torch.stack(seen).to(model.device) if seen else None
            inserts.append(None if pixels is None else model.seen(pixels, base.routing))
        media.append(() if connected else sample.media)
    more: dict[str, Any] = {"inserts": inserts} if connected else {"media": media}
    return [g.text.strip() for g in generate(base.loaded, prompts, limits, base.routing, **more)]
