"""Checks that a base can be adapted to a task by a method, before any row is read."""

import time
from collections.abc import Sequence

import torch

from onebase.base.folder import LoadedBase
from onebase.errors import UserError
from onebase.methods.logistic import FOLDS, solve_bytes, solve_flops
from onebase.methods.table import METHODS
from onebase.readable import duration, size
from onebase.tasks.job import Adapting, HeadSize
from onebase.tasks.options import AdaptOptions
from onebase.train.memory import available

HOURS = 2.0
"""Hours, at most, that fitting a head may take by the estimate."""


def check_reads(base: LoadedBase, images: bool, remedy: str) -> None:
    """Refuse a base that cannot read the rows. images: the method can train this task on images alone. Raises UserError with the reason."""
    cfg = base.model.cfg
    if not images:
        check_text(base, remedy)
    if base.text_codec is None:
        return
    if "text" in cfg.trunks and base.model.trunk.reads_memory:
        raise UserError(
            "this base transcribes speech: it reads text only together with audio, and the rows of this task have none",
            "use task transcribe (docs/speech.md), or adapt a text base",
        )


def check_text(base: LoadedBase, remedy: str) -> None:
    """Raises UserError for a base that reads no text."""
    if base.text_codec is None:
        raise UserError(f"this base reads no text, only {', '.join(sorted(base.model.cfg.codecs))}", remedy)


def check_writes(base: LoadedBase, task: str, method: str, remedy: str) -> None:
    """Refuse a base that predicts no next tokens, where training or answers need them. Raises UserError with the reason."""
    what = f"task {task!r} with method {method!r} predicts next tokens"
    cfg = base.model.cfg
    if base.model.trunk.cfg.direction != "causal":
        raise UserError(f"this base reads in both directions and predicts no next token: {what}", remedy)
    if not cfg.text.head:
        raise UserError(f"this base has no language-model head and predicts no tokens: {what}", remedy)


def before(method: str, options: AdaptOptions) -> int:
    """Virtual tokens that the method puts before the first token of a text."""
    return METHODS[method].virtual(options.of_method)


def check_room(base: LoadedBase, method: str, options: AdaptOptions) -> None:
    """Raises UserError where virtual tokens leave no room for a text."""
    context = base.model.cfg.text.context if base.text_codec is not None else 0
    if (virtual := before(method, options)) > context - 2 and virtual:
        raise UserError(
            f"{virtual} virtual tokens leave no room in a context of {context}", "lower -o virtual=N"
        )


def head_size(job: Adapting, examples: int, outputs: int, rows_of_labels: Sequence[int]) -> HeadSize:
    """The cost of fitting the head exactly. examples: how many rows (or tokens) it is fitted on; rows_of_labels: rows of each label.
    Raises UserError where memory or HOURS do not suffice, before any text is read."""
    trunk = job.base.model.cfg.trunks["text" if job.base.text_codec is not None else "image"]
    features = 3 * trunk.width
    folds = bool(rows_of_labels) and min(rows_of_labels) >= FOLDS
    cost = HeadSize(
        solve_bytes(examples, features, outputs), solve_flops(examples, features, outputs, folds) / _rate()
    )
    free = available(torch.device("cpu"))
    if cost.bytes > free or cost.seconds > HOURS * 3600:
        raise UserError(
            f"a head of {outputs:,} outputs on {examples:,} examples takes about {size(cost.bytes)} and {duration(cost.seconds)} to fit; "
            f"{size(free)} are free, and the limit is {HOURS:g} h",
            "give fewer labels or rows (for labels that are free text use task complete, or find the nearest text with task embed)",
        )
    return cost


def _rate() -> float:
    """fp64 operations per second of this machine, measured on one matrix product of a few milliseconds."""
    a = torch.ones(384, 384, dtype=torch.float64)
    a @ a
    start = time.perf_counter()
    a @ a
    return 2 * 384**3 / max(1e-6, time.perf_counter() - start)
