"""Whether a base can learn a task by a method at all: what is refused before any row is read, and why."""

import time
from collections.abc import Sequence

import torch

from onebase.base.folder import LoadedBase
from onebase.errors import UserError
from onebase.methods.head import FOLDS, solve_bytes, solve_flops
from onebase.methods.table import METHODS
from onebase.readable import duration, size
from onebase.tasks.job import Adapting, HeadSize
from onebase.tasks.options import AdaptOptions
from onebase.train.memory import available

HOURS = 2.0
"""Hours that fitting a head may take by the estimate."""


def check_reads(base: LoadedBase, images: bool, remedy: str) -> None:
    """Refuse a base that cannot read the rows. images: this method of the task also learns from images alone. Raises UserError with the
    reason."""
    cfg = base.model.cfg
    if base.text_codec is None:
        if not images:
            raise UserError(
                f"this base reads no text, only {', '.join(sorted(cfg.codecs))}",
                remedy,
            )
        return
    if "text" in cfg.trunks and base.model.trunk.reads_memory:
        raise UserError(
            "this base writes down what it hears: it reads text beside a sound alone, and the rows of adapt have none",
            "adapt a base of text; a LoRA that PEFT made for this one is used as it is (with_adapter, docs/speech.md)",
        )


def check_writes(base: LoadedBase, task: str, method: str, remedy: str) -> None:
    """Refuse a base that predicts no next tokens, for what is learnt (or said) by them. Raises UserError with the reason."""
    what = f"task {task!r} with method {method!r} predicts next tokens"
    cfg = base.model.cfg
    if base.model.trunk.cfg.direction != "causal":
        raise UserError(
            f"this base reads in both directions and predicts no next token: {what}",
            remedy,
        )
    if not cfg.text.head:
        raise UserError(
            f"this base gives hidden states and predicts no tokens: {what}",
            remedy,
        )


def before(method: str, options: AdaptOptions) -> int:
    """Places that the method takes before the first token of a text."""
    return METHODS[method].virtual(options.of_method)


def check_room(base: LoadedBase, method: str, options: AdaptOptions) -> None:
    """Raises UserError where what stands before a text leaves no room for it."""
    context = base.model.cfg.text.context if base.text_codec is not None else 0
    if (taken := before(method, options)) > context - 2 and taken:
        raise UserError(
            f"{taken} virtual tokens leave no room in a context of {context}", "give fewer: -o virtual=N"
        )


def head_size(job: Adapting, examples: int, outputs: int, rows_of_labels: Sequence[int]) -> HeadSize:
    """What fitting the head exactly takes. examples: what it is fitted on (rows, or tokens); rows_of_labels: how many rows each label has.
    Raises UserError where memory or HOURS do not hold it, before anything is read."""
    trunk = job.base.model.cfg.trunks["text" if job.base.text_codec is not None else "image"]
    features = 3 * trunk.width
    folds = bool(rows_of_labels) and min(rows_of_labels) >= FOLDS
    found = HeadSize(
        solve_bytes(examples, features, outputs),
        solve_flops(examples, features, outputs, folds) / _rate(),
    )
    free = available(torch.device("cpu"))
    if found.bytes > free or found.seconds > HOURS * 3600:
        raise UserError(
            f"a head of {outputs:,} outputs on {examples:,} examples takes about {size(found.bytes)} and {duration(found.seconds)} to fit; "
            f"{size(free)} are free, and {HOURS:g} h is the most",
            "give fewer labels or rows (are the labels free text? learn them by task complete, or find the nearest text by task embed)",
        )
    return found


def _rate() -> float:
    """fp64 operations a second of this machine, measured on one product of a few milliseconds."""
    a = torch.ones(384, 384, dtype=torch.float64)
    a @ a
    start = time.perf_counter()
    a @ a
    return 2 * 384**3 / max(1e-6, time.perf_counter() - start)
