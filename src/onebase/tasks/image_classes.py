"""Task classify on images: a head fitted exactly, or a head trained together with the method's weights on the image trunk."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onebase.base.head import HeadConfig
from onebase.data import Rows
from onebase.data.order import ExampleOrder, one_by_one
from onebase.engine import image_features as images
from onebase.errors import UserError
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, bound_to
from onebase.methods.head import Fitted, fit_pooled, pooled_as
from onebase.methods.method import SCRATCH, Learner
from onebase.modality.text.sample import Tokens
from onebase.objective.pictures import ImageClassification, no_vector
from onebase.tasks.checks import before, head_size
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.ledgers import check_rows


def by_head(job: Adapting) -> AdapterParts:
    """Logistic regression on features of images."""
    fitted, head, facts, _, _ = _fitted(job)
    cfg = AdapterConfig(method="head", task="classify", base=bound_to(job.base), head=head)
    return job.parts(cfg, fitted.head.tensors, facts)


def lesson(job: Adapting) -> Lesson:
    """Train the head and the method's weights together, starting from the fitted head. Raises UserError for methods of virtual tokens."""
    if before(job.method, job.options):
        raise UserError(
            f"method {job.method} puts virtual tokens before a text, and these rows are images",
            "use head, lora or full for images",
        )
    o, base = job.options, job.base
    if images.of_patches(base):
        raise UserError(
            f"this base reads images as patches, and method {job.method} trains a trunk of images alone",
            "use method head",
        )
    codec, ends = base.model.cfg.image, base.model.image
    fitted, cfg, facts, paths, hashes = _fitted(job)
    positions = (codec.side // codec.patch) ** 2 + ends.front
    none = np.zeros(positions, np.int32), np.zeros(positions, np.bool_)
    rows = [Tokens(*none, f"{i} {r['image']} {r['label']}", "pictures") for i, r in enumerate(hashes)]
    plan = ExampleOrder(one_by_one(rows), min(o.batch_size, len(rows)), o.seed, o.epochs)
    number = {label: i for i, label in enumerate(cfg.labels)}

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        base.model.heads[SCRATCH] = head = fitted.head.to(base.model.device)
        objective = ImageClassification(
            SCRATCH,
            {t.id: path for t, path in zip(rows, paths, strict=True)},
            {t.id: number[r["label"]] for t, r in zip(rows, hashes, strict=True)},
            codec,
            cfg.pooling,
            learner.routing,
        )
        return Steps(objective, plan, positions, params=list(head.parameters()), ends_rate=1.0)

    return Lesson(facts, "labels", steps, fields={"head": cfg}, trunk="image")


def _fitted(job: Adapting) -> tuple[Fitted, HeadConfig, Facts, Sequence[Path], list[dict[str, Any]]]:
    """The head on the frozen base, its config, facts, the files, and the rows as a record stores them (with file hashes)."""
    o = job.options.of_task
    if o.pooling == "vector":
        raise no_vector()
    if o.contrast.first:
        raise UserError(
            "contrast.first trains vectors of texts, and these rows are images", "remove contrast.first"
        )
    if o.counts == "always":
        raise UserError("counts=always counts tokens of texts, and these rows are images", "remove counts")
    rows, labels = job.rows, job.labels()
    paths = images.image_paths(rows, rows)
    hashes = images.hashed(paths, rows)
    if job.test is not None:  # compared by the content of the image files
        test = [{"image": images.file_hash(path)} for path in images.image_paths(job.test, job.test)]
        job.test = Rows(test, job.test.places, name=job.test.name)
    facts = data_facts(hashes, labels) | check_rows(job, hashes)
    job.head = head_size(job, len(rows), len(labels), list(Counter(str(r["label"]) for r in rows).values()))
    job.reads(lambda: paths)
    x_NP = images.features(job.base, paths, pooled_as(o.pooling), None)
    number = {label: i for i, label in enumerate(labels)}
    y_N = torch.tensor([number[str(r["label"])] for r in rows])
    fitted, pooling = fit_pooled(x_NP, y_N, len(labels), o.pooling, job.options.seed)
    facts |= fitted.facts
    return fitted, HeadConfig(labels=labels, pooling=pooling, reads="image"), facts, paths, hashes
