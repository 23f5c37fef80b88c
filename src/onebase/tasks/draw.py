"""Task draw: pictures of texts, learnt by flow matching from pictures and their texts; a style from some 20 of them, by LoRA. N pictures, F features.

On bases of patches, which write the size of a picture and then make its patches (docs/native.md).
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onebase.base.folder import LoadedBase
from onebase.config import config
from onebase.data import read_rows
from onebase.data.labelled import Make, Records
from onebase.engine.drawing import Drawing
from onebase.engine.media_answers import draw, opened
from onebase.engine.media_making import Made, made
from onebase.engine.media_prompts import media_codec
from onebase.engine.prompter import Given
from onebase.errors import ConfigError, DataError
from onebase.evaluation.bootstrap import Array
from onebase.evaluation.pictures import SIDE
from onebase.evaluation.predictions import Drawn
from onebase.methods.bound import Bound
from onebase.methods.method import Learner, option
from onebase.modality.media import MEDIA
from onebase.modality.text.sample import Sample, Segment, Tokens
from onebase.objective.flow_config import FlowConfig
from onebase.objective.mixed import Mixed
from onebase.tasks.base import ScoreRequest, Shown, Task, always
from onebase.tasks.checks import check_text
from onebase.tasks.fit import Lesson
from onebase.tasks.job import Adapting
from onebase.tasks.media_rows import TIMES, flow_losses_of, media_lesson, naming, source_of
from onebase.tasks.reading import Row, RowReader, each_row

if TYPE_CHECKING:
    from PIL.Image import Image

AT_ONCE = 16
"""Pictures that are drawn together when a task is scored."""


@config
class DrawOptions:
    """Options of task draw."""

    drop: float = option(
        0.1, "share of the pictures that are learnt without their text, so that guidance works"
    )
    guidance: float = option(
        2.0, "how strictly the text is followed by pictures that are scored or asked for"
    )
    solver_steps: int = option(25, "steps of the flow from noise to such a picture")

    def __post_init__(self) -> None:
        if not 0 <= self.drop <= 1:
            raise ConfigError(f"'drop' is {self.drop}", "give a share from 0 to 1")
        if self.solver_steps < 1 or not 0 <= self.guidance < float("inf"):
            raise ConfigError(
                f"'guidance' is {self.guidance} and 'solver_steps' {self.solver_steps}",
                "give at least 0, and at least 1",
            )


def check_draws(base: LoadedBase) -> None:
    """Raises UserError for a base that makes no pictures."""
    check_text(base, "use a base that draws (docs/native.md)")
    media_codec(base, "image")


def _sample(base: LoadedBase, row: Row, folder: Path) -> Tokens:
    """The text, then the picture to be made. Raises DataError naming its file."""
    source, name = source_of(row["image"], "image", folder)
    picture = Segment("image", source, loss=True)
    spans = (Segment("text", str(row["text"])), picture, Segment("end", None, loss=True))
    with naming(name):
        return media_codec(base, "image").tokens(Sample(spans, source="image"))


def samples(reader: RowReader) -> Make:
    """Each row's text and picture. Its patches are made when it is learnt from."""

    def found(row: Row) -> Any:
        sample = _sample(reader.base, row, reader.folder)
        sample.media[0].content.load()  # a damaged file is found now
        return reader.too_long(len(sample)) or (sample,)

    return each_row(found)


def lesson(job: Adapting) -> Lesson:
    """The flow loss of the pictures, and cross-entropy of the size that is written before each."""
    flow = FlowConfig(generate=0.0, drop=job.options.of_task.drop, damage=0.0)

    def objective(learner: Learner, length: int) -> Mixed:
        return Mixed.of(job.base.model, length, flow, job.options.seed, learner.routing)

    return media_lesson(job, "image", objective, special=False)  # pretraining has trained the special tokens


def drawing(bound: Bound, seed: int = 0) -> Drawing:
    """How pictures are drawn, by the options in the adapter's record."""
    kept = None if bound.attached is None else bound.attached.record.get("config.options")
    found, default = kept if isinstance(kept, dict) else {}, DrawOptions()
    steps = found.get("solver_steps", default.solver_steps)
    return Drawing(int(steps), float(found.get("guidance", default.guidance)), seed)


def features(pictures: Sequence["Image"]) -> Array:
    """Pictures in the feature space of `evaluation.pictures`, float64 [N, F]."""
    small = [np.asarray(p.convert("RGB").resize((SIDE, SIDE), 4)) for p in pictures]  # 4: means of areas
    return np.stack(small).reshape(len(small), -1) / 255.0


def predictions(request: ScoreRequest) -> Drawn:
    """The flow loss of each real picture, and a picture drawn of its text at its size, beside it."""
    base = request.base
    check_draws(base.loaded)
    records = Records.of(request.data)
    folder = records.folder
    make = each_row(lambda row: (_sample(base.loaded, row, folder),))
    rows = read_rows(records, ("image", "text"), make=make)
    model, codec, context = base.loaded.model, MEDIA["image"].codec, base.config.text.context
    for i, sample in enumerate(rows.texts, 1):
        if len(sample) > context:
            raise DataError(
                f"row {i} has {len(sample)} tokens, the base reads {context}", "shorten or remove it"
            )
    flow = [flow_losses_of(model, rows.texts, codec, t, base.routing) for t in TIMES]
    cfg = media_codec(base.loaded, "image").patches[codec]
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    real, found = list["Image"](), dict[int, "Image"]()
    for i, (row, sample) in enumerate(zip(rows, rows.texts, strict=True)):
        patch_NP, _ = sample.media[0].content.load()
        shape = sample.media[0].content.shape
        real.append(opened(Made(torch.from_numpy(patch_NP), shape, MEDIA["image"], cfg)))
        groups.setdefault((str(row["text"]), shape), []).append(i)
    for (text, shape), members in groups.items():
        for first in range(0, len(members), AT_ONCE):
            part = members[first : first + AT_ONCE]
            how = drawing(base, request.seed + first)
            pictures = made(base.loaded, "image", text, len(part), how, shape=shape, routing=base.routing)
            found |= {i: opened(m) for i, m in zip(part, pictures, strict=True)}
    labels = [str(row.get("label", row["text"])) for row in rows]
    drawn = features([found[i] for i in range(len(rows))])
    return Drawn(np.mean(flow, 0), labels, features(real), drawn)


def answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    """A picture of each text, as the bytes of a PNG file in base64."""
    out = []
    for item in given:
        text = str(item["text"] if isinstance(item, dict) else item)
        (picture,) = draw(bound.loaded, text, 1, drawing(bound), routing=bound.routing)
        raw = io.BytesIO()
        picture.save(raw, "PNG")
        fields = {
            "image": base64.b64encode(raw.getvalue()).decode(),
            "width": picture.width,
            "height": picture.height,
        }
        out.append(
            Shown(f"a picture of {picture.width} x {picture.height} pixels (onebase draw writes it)", fields)
        )
    return out


TASK = Task(
    name="draw",
    columns=("image", "text"),
    lesson=lesson,
    options=DrawOptions,
    methods={
        "prompt": "a saved prompt has answers of text; give `Base.draw` your prompt",
        "head": "a head predicts labels, not pictures",
        "soft": "pictures are learnt as blocks behind their text, without virtual tokens before it",
        "prefix": "pictures are learnt as blocks behind their text, without virtual tokens before it",
    },
    fits=check_draws,
    writes=always,
    samples=samples,
    by_sample=True,
    predictions=predictions,
    answer=answer,
    reads=("text",),
    files=("image",),
    tuned_by=("flow_loss",),
    signal="answers",
)
