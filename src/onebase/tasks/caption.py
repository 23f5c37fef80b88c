"""Task caption: what an image shows, as text, learnt from images and their texts.

On bases that take images into their text (LLaVA, Gemma 3), and on bases of patches.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onebase.base.folder import LoadedBase
from onebase.config import config
from onebase.data import read_rows
from onebase.data.labelled import Make, Records
from onebase.engine import media_samples
from onebase.engine.image_prompts import sees
from onebase.engine.prompter import Given
from onebase.errors import UserError
from onebase.evaluation.predictions import Written
from onebase.methods.bound import Bound
from onebase.methods.method import Learner, option
from onebase.modality.image.pixels import check_picture
from onebase.modality.media import MEDIA
from onebase.modality.text.sample import Tokens
from onebase.objective.base import Objective
from onebase.objective.flow_config import AS_READ
from onebase.objective.media_text import MediaText
from onebase.objective.mixed import Mixed
from onebase.tasks.base import ScoreRequest, Shown, Task, always
from onebase.tasks.checks import check_text
from onebase.tasks.fit import Lesson
from onebase.tasks.job import Adapting
from onebase.tasks.media_rows import (
    NO_VIRTUAL,
    answered,
    media_lesson,
    naming,
    read_patches,
    source_of,
    written,
)
from onebase.tasks.reading import Row, RowReader, each_row


@config
class CaptionOptions:
    """Options of task caption."""

    instruction: str = option("", "text between the image and the answer, such as a question")


def check_sees(base: LoadedBase) -> None:
    """Raises UserError for a base that takes no images in its text."""
    check_text(base, "use a base that takes images in its text (docs/images_and_text.md)")
    if not sees(base) and MEDIA["image"].codec not in base.model.patches:
        raise UserError(
            "this base takes no images in its text", "use one that does (docs/images_and_text.md)"
        )


def _sample(base: LoadedBase, value: Any, text: str, instruction: str, folder: Path) -> Tokens:
    source, name = source_of(value, "image", folder)
    with naming(name):
        if sees(base):
            image = media_samples.image_content(source, name, base)
            return media_samples.caption(base, image, text, instruction)
        check_picture(source, name)  # its header alone says how many patches it has
        return read_patches(base, "image", source, text, instruction)


def samples(reader: RowReader) -> Make:
    """Each row's image and text. The image is decoded once here, to check it, and again whenever it is learnt from."""
    own = reader.options.of_task
    instruction = "" if own is None else own.instruction

    def made(row: Row) -> Any:
        sample = _sample(reader.base, row["image"], str(row["text"]), instruction, reader.folder)
        return reader.too_long(len(sample)) or (sample,)

    return each_row(made)


def lesson(job: Adapting) -> Lesson:
    """Cross-entropy of the text given the image."""

    def objective(learner: Learner, length: int) -> Objective:
        if sees(job.base):
            return MediaText(learner.routing)
        return Mixed.of(job.base.model, length, AS_READ, job.options.seed, learner.routing)

    return media_lesson(job, "image", objective)


def _instruction(bound: Bound) -> str:
    """That of the adapter's training, by its record."""
    kept = None if bound.attached is None else bound.attached.record.get("config.options")
    return str(kept.get("instruction", "")) if isinstance(kept, dict) else ""


def predictions(request: ScoreRequest) -> Written:
    """The greedy text of each image beside the true one, and the likelihood of the true one."""
    base, instruction = request.base, _instruction(request.base)
    check_sees(base.loaded)
    records = Records.of(request.data)
    folder = records.folder
    make = each_row(lambda row: (_sample(base.loaded, row["image"], str(row["text"]), instruction, folder),))
    rows = read_rows(records, ("image", "text"), make=make)
    return written(request, rows.texts, [str(r["text"]).strip() for r in rows])


def answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    """The text of each image, a file or its bytes."""
    instruction = _instruction(bound)
    files = [item["image"] if isinstance(item, dict) else item for item in given]
    samples = [_sample(bound.loaded, f, "a", instruction, Path()) for f in files]
    return [Shown(text, {"text": text}) for text in answered(bound, samples, 128)]


TASK = Task(
    name="caption",
    columns=("image", "text"),
    lesson=lesson,
    options=CaptionOptions,
    methods={
        "prompt": "a saved prompt is text; ask by `instruction`, or with Base.chat",
        "head": "a head predicts labels, not text",
        "soft": NO_VIRTUAL,
        "prefix": NO_VIRTUAL,
    },
    fits=check_sees,
    writes=always,
    samples=samples,
    by_sample=True,
    predictions=predictions,
    answer=answer,
    reads=("image",),
    files=("image",),
    tuned_by=("nats_per_token",),
    signal="answers",
)
