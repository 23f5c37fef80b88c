"""Task segment: the mask of an object in a picture from points or a box, by a mask head trained together with the method's weights."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onebase.base.folder import LoadedBase
from onebase.base.head import HeadConfig
from onebase.base.masks import MaskHead, Prompt
from onebase.data import Rows, read_rows
from onebase.data.bad_rows import refuse_bad
from onebase.data.order import ExampleOrder, one_by_one
from onebase.engine import image_features as images
from onebase.engine.answers import of_task
from onebase.engine.segmenting import masks_of, prompts_of
from onebase.errors import DataError, UserError
from onebase.evaluation.predictions import MaskPairs
from onebase.methods.method import SCRATCH, Learner
from onebase.modality.image.pixels import read_picture
from onebase.modality.text.sample import Tokens
from onebase.objective.segment import Bools, MaskExample, Segmentation, central_click
from onebase.tasks.base import ScoreRequest, Task
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.ledgers import check_rows
from onebase.tasks.media_rows import NO_VIRTUAL

DETAIL = 16
"""Channels of a new head's convolutions at full size."""
TRAINED = "prompts are read by the trunk, so the trunk must be trained, or have LoRA"


def read_mask(path: str | Path, size: tuple[int, int]) -> Bools:
    """A mask file as bool [H, W]: white is the object, black is not. Raises DataError for a mask of another size than its picture, or an
    empty one."""
    grey = read_picture(path).convert("L")
    if grey.size != size:
        raise DataError(
            f"{path} has {grey.width} x {grey.height} pixels, its picture has {size[0]} x {size[1]}",
            "give a mask of the picture's size",
        )
    mask = np.asarray(grey) > 127
    if not mask.any():
        raise DataError(f"{path}: no pixel of the mask is white", "white is the object, black is not")
    return mask


def of_row(row: Mapping[str, Any], size: tuple[int, int]) -> Prompt:
    """The prompts of a row; empty if it has none. Raises UserError for those that do not fit."""
    points, box = row.get("points"), row.get("box")
    if points is None and box is None:
        return ()
    found = prompts_of(points, None if box is None else [box], size)
    if len(found) > 1:
        raise UserError(
            f"the points are of {len(found)} objects", "a row is one object: points is a list of (x, y)"
        )
    return found[0]


def examples(rows: Rows) -> tuple[list[tuple[Path, Path, Prompt]], list[dict[str, Any]]]:
    """Picture, mask and prompts of each row, all checked, and the rows as a record stores them (with file hashes). Raises DataError naming the
    row."""
    found, hashes = [], []
    pictures, masks = (
        images.image_paths(rows, rows),
        images.image_paths([{"image": r["mask"]} for r in rows], rows),
    )
    bad: dict[int, tuple[str, str]] = {}
    for i, (row, picture, mask) in enumerate(zip(rows, pictures, masks, strict=True)):
        try:
            size = read_picture(picture).size
            read_mask(mask, size)
            found.append((picture, mask, of_row(row, size)))
        except UserError as e:
            bad[i] = e.cause, e.remedy
            continue
        hashes.append(
            {k: row[k] for k in ("points", "box") if row.get(k) is not None}
            | {"image": images.file_hash(picture), "mask": images.file_hash(mask)}
        )
    refuse_bad(bad, rows.places)
    return found, hashes


def head_config(base: LoadedBase, patch: int) -> HeadConfig:
    """Of the base's own head of masks, or of a new one."""
    own = base.head
    if own is not None and own.task == "segment" and own.config.patch == patch:
        return own.config
    return HeadConfig(reads="image", gives="masks", patch=patch, detail=DETAIL)


def lesson(job: Adapting) -> Lesson:
    """Train a mask head and the method's weights together; it starts from the base's own mask head where it has one."""
    o, base = job.options, job.base
    codec = base.model.cfg.image
    found, hashes = examples(job.rows)
    if job.test is not None:  # compared by the content of the files
        test = [{"image": h} for h in map(images.file_hash, images.image_paths(job.test, job.test))]
        job.test = Rows(test, job.test.places, name=job.test.name)
    facts = data_facts(hashes) | check_rows(job, hashes)
    positions = (codec.side // codec.patch) ** 2 + base.model.image.front
    none = np.zeros(positions, np.int32), np.zeros(positions, np.bool_)
    rows = [Tokens(*none, f"{i} {r['image']} {r['mask']}", "pictures") for i, r in enumerate(hashes)]
    plan = ExampleOrder(one_by_one(rows), min(o.batch_size, len(rows)), o.seed, o.epochs)
    by_id = {t.id: e for t, e in zip(rows, found, strict=True)}
    cfg = head_config(base, codec.patch)

    def read(name: str) -> MaskExample:
        picture, mask, prompt = by_id[name]
        image = read_picture(picture)
        return MaskExample(image, read_mask(mask, image.size), prompt)

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        own = base.head
        head = (
            MaskHead.of(cfg, own.tensors)
            if own is not None and own.config == cfg
            else MaskHead.new(cfg, base.model.cfg.trunks["image"].width, codec.channels)
        )
        base.model.heads[SCRATCH] = head = head.to(base.model.device)
        objective = Segmentation(SCRATCH, read, codec, o.seed, learner.routing)
        return Steps(objective, plan, positions, params=list(head.parameters()), ends_rate=1.0)

    return Lesson(facts, "answers", steps, fields={"head": cfg}, trunk="image")


@torch.no_grad()
def predictions(request: ScoreRequest) -> MaskPairs:
    """The overlap of each row's mask with the one that its prompts give; a row without prompts is clicked at the object's centre."""
    of_task(request.base, "segment", "gives masks")
    rows = read_rows(request.data, ("image", "mask"), check=problem)
    found, _ = examples(rows)
    overlaps, scores = [], []
    for picture, mask, prompt in found:
        image = read_picture(picture)
        true = read_mask(mask, image.size)
        made = masks_of(request.base, image, [prompt or central_click(true)])
        got = made.masks[0]
        overlaps.append(float((got & true).sum() / (got | true).sum()))
        scores.append(float(made.scores[0]))
    return MaskPairs(np.array(overlaps), np.array(scores))


def problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the values of a row, and what to do."""
    for name in ("image", "mask"):
        if not isinstance(row.get(name), (str, Path)):
            return (
                f"{name!r} is {type(row.get(name)).__name__}, a path is expected",
                "give the path of a file",
            )
    for name, what in (("points", "[[x, y], ...]"), ("box", "[x0, y0, x1, y1]")):
        if row.get(name) is not None and not isinstance(row[name], (list, tuple)):
            return f"{name!r} is {type(row[name]).__name__}, a list is expected", f"give {what}"
    return None


TASK = Task(
    name="segment",
    columns=("image", "mask"),
    lesson=lesson,
    methods={
        "head": TRAINED,
        "prompt": "a prompt is text, and masks are drawn from points and boxes",
        "soft": NO_VIRTUAL,
        "prefix": NO_VIRTUAL,
    },
    images=True,
    check=problem,
    compared=("image",),
    reads=("image",),
    files=("image", "mask"),
    predictions=predictions,
    tuned_by=("iou",),
    signal="answers",
)
