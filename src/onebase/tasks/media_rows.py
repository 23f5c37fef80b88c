"""Rows that have a file beside their text: where the file is, the sample's lesson, and the likelihood of the text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.data import Rows
from onebase.data.bad_rows import refuse_bad
from onebase.data.labelled import Make
from onebase.data.order import ExampleOrder, one_by_one
from onebase.engine.decoder import generate
from onebase.engine.image_prompts import sees
from onebase.engine.media_prompts import file_tokens, media_codec
from onebase.engine.media_samples import Source, digest_of
from onebase.engine.sampler import Sampling
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array
from onebase.evaluation.predictions import Written
from onebase.methods.bound import Bound
from onebase.methods.method import Learner
from onebase.modality.image.pixels import check_picture
from onebase.modality.text.sample import Sample, Segment, Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Objective
from onebase.objective.flow_config import AS_READ
from onebase.objective.media_text import MediaText
from onebase.objective.mixed import Mixed, flow_losses
from onebase.tasks.base import ScoreRequest
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.ledgers import check_written
from onebase.tasks.reading import Row, RowReader, each_row, samples_in, special_ids

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


def files_alone(reader: RowReader, column: str) -> Make:
    """Each row's file as a base of patches reads it, without a loss. It is opened once here, to check it, and again whenever it is read."""

    def made(row: Row) -> Any:
        source, name = source_of(row[column], column, reader.folder)
        with naming(name):
            if column == "image":
                check_picture(source, name)  # its header alone says how many patches it has
            sample = file_tokens(reader.base, column, source)
        return reader.too_long(len(sample)) or (sample,)

    return each_row(made)


@contextmanager
def naming(file: str) -> Iterator[None]:
    """A DataError inside the block names the file."""
    try:
        yield
    except DataError as e:
        raise DataError(e.cause if file in e.cause else f"{file}: {e.cause}", e.remedy) from None


def read_patches(base: LoadedBase, kind: str, source: Source, text: str, instruction: str = "") -> Tokens:
    """A file as patches and then its supervised text, for a base of patches. instruction: a text between the two."""
    spans = [Segment(kind, source), Segment("text", instruction)][: 2 if instruction else 1]
    answer = (Segment("text", text, loss=True), Segment("end", None, loss=True))
    return media_codec(base, kind).tokens(Sample((*spans, *answer), source=kind))


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
    for i, (row, samples) in enumerate(zip(rows, rows.samples or [()] * len(rows), strict=True)):
        if samples:
            digest = samples[0].media[0].content.digest
        else:  # test rows of tasks that compare columns are not tokenised
            digest = digest_of(source_of(row[column], column, rows.folder)[0])
        out[i] = {**row, column: digest}
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
        apart = job.base.model.cfg.trunks  # media of a trunk of their own; patches stand among the tokens
        inside = max(sum(m.content.shape[0] for m in t.media if m.kind in apart) for t in tokens)
        return Steps(objective(learner, longest), plan, longest + inside)

    return steps


@torch.no_grad()
def text_nats(model: BaseModel, tokens: Sequence[Tokens], objective: Objective) -> tuple[Array, Array]:
    """Negative log-likelihood of the supervised tokens of each sample in nats, and their number: float64 [N] each."""
    nats, counts = [], []
    for i, sample in enumerate(tokens):
        # A row of its own length: what a longer one adds is padding.
        one = replace(objective, length=len(sample)) if isinstance(objective, Mixed) else objective
        batch = one.batch([[sample]], i).to(model.device)
        total, count = one.losses(model, batch)["next_token"]
        nats.append(float(total))
        counts.append(float(count))
    return np.array(nats), np.array(counts)


TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the flow, at which its loss is measured: 0 is noise, 1 is clean."""
BATCH = 16
"""Samples that are read at once."""


@torch.no_grad()
def flow_losses_of(
    model: BaseModel,
    tokens: Sequence[Tokens],
    codec: str,
    time: float,
    routing: AdapterRouting | None = None,
) -> Array:
    """Mean loss of predicting the clean patches of each sample's generated media at one time of the flow, float64 [N]. The noise of a sample
    depends on its number alone."""
    values = list[float]()
    for first in range(0, len(tokens), BATCH):
        part = tokens[first : first + BATCH]
        length = max(map(len, part))
        objective = replace(Mixed.of(model, length, AS_READ, routing=routing), time=time)
        batch = objective.batch([[t] for t in part], first).to(model.device)
        read = batch.inputs["text"]
        h_BTD = model.hidden(read.ids_BT, read.cols, read.mask, media=read.media, routing=routing).hidden
        goal = [batch.targets[f"flow.{codec}.{k}"] for k in ("clean", "t", "place")]
        loss_N = flow_losses(model.patches[codec], h_BTD, *goal)
        owner_N = goal[2] // length
        values += [float(loss_N[owner_N == b].mean()) for b in range(len(part))]
    return np.array(values)


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
