"""Plans a job without training: runs it up to its first step, and estimates steps, tokens, memory and time of the rest.

B rows, T time.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch

from onebase.base.config import base_flops
from onebase.data import Rows
from onebase.data.labelled import Data
from onebase.errors import UserError
from onebase.methods.bound import Bound
from onebase.methods.table import BY_STEPS, METHODS
from onebase.model import count
from onebase.model.device import compute_dtype
from onebase.objective.base import Batch, Row, takes_whole_step
from onebase.objective.cross_entropy import CHUNK
from onebase.objective.distil import TokenDistil
from onebase.objective.media_text import MediaText
from onebase.objective.next_token import NextToken
from onebase.objective.policy import Policy
from onebase.objective.preference import Preference
from onebase.readable import duration, size
from onebase.tasks.class_scores import is_multilabel
from onebase.tasks.job import Adapting
from onebase.tasks.plan_reading import by_reading
from onebase.tasks.results import Plan
from onebase.tasks.table import prepared
from onebase.train.loop import Job, micro_batch_size
from onebase.train.memory import MemoryEstimate, available, forget_peak, held, most_held
from onebase.train.parallel import Parallel

STEPS, TIMED = 4, 2
"""Steps whose batches are counted, and timed repeats of forward and backward of one micro-batch, after one to warm up."""
TIMING = "forward and backward of one micro-batch, {} times after a warm-up; without the time of AdamW"
WRITING = "; the completions of the first steps were generated once"


class _Planned(Exception):
    """Carries the facts of the plan; ends the job where the loop would begin."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__()
        self.facts = facts


def planned(
    base: Bound,
    data: Data,
    *,
    task: str | None,
    method: str | None,
    options: Mapping[str, object],
    columns: Mapping[str, str] | None = None,
    test: Data | None = None,
) -> Plan:
    """Do everything that `adapted` does before step 1, then estimate the rest. The base is left unchanged. Raises what `adapted` raises."""
    if base.attached is not None and not base.own:
        raise UserError("this base has an adapter on it", "plan on the plain base: onebase.load(ref)")
    job, maker = prepared(
        base.loaded, data, task=task, method=method, options=options, columns=columns, test=test
    )
    return plan_of(job, maker)


def plan_of(job: Adapting, maker: Callable[[Adapting], object]) -> Plan:
    """The plan of a job whose rows are read; log lines go into its text, and no callback is called."""
    lines: list[str] = []
    job = replace(job, log=lines.append, callbacks=())
    method = job.method
    began = time.perf_counter()
    state = torch.get_rng_state()
    try:
        found = by_reading(job, maker) if method not in BY_STEPS else _by_steps(job, maker)
    finally:
        torch.set_rng_state(state)
    rows = job.rows
    facts: dict[str, Any] = {
        "task": job.task,
        "method": method,
        "rows": len(rows),
        "columns": list(dict.fromkeys(k for r in rows for k in r)),
    }
    if counted := _labels(rows):
        facts["labels"] = counted
    facts |= found
    if job.head is not None:
        facts["head"] = {"bytes": job.head.bytes, "seconds": job.head.seconds}
    facts["seconds"]["before"] = round(
        max(0.0, time.perf_counter() - began - facts["seconds"].pop("probe")), 3
    )
    return Plan(facts, _text(facts, lines))


def _labels(rows: Rows) -> dict[str, int]:
    """How many rows have each label, most common first."""
    multilabel = is_multilabel(rows)
    each = (r.get("labels", ()) if multilabel else [r["label"]] if "label" in r else () for r in rows)
    return dict(Counter(x for labels in each for x in dict.fromkeys(map(str, labels))).most_common())


def _by_steps(job: Adapting, maker: Callable[[Adapting], object]) -> dict[str, Any]:
    """The plan of a job that trains by steps: runs the job up to where the loop would begin."""
    job.run = lambda loop: _probe(job, loop)
    try:
        maker(job)
    except _Planned as e:
        return e.facts
    raise AssertionError(f"method {job.method} trains without the loop")


def _probe(job: Adapting, loop: Job) -> NoReturn:
    """Replaces the loop: with the adapter on the base as in training, count the first steps and time one micro-batch."""
    began = time.perf_counter()
    cfg, model, objective = loop.train, loop.model, loop.objective
    steps, device = cfg.steps or 1, model.device
    model.compute_dtype = compute_dtype(cfg.dtype, device)  # as the loop sets it; the caller resets it
    start = time.perf_counter()
    by_step, n_rows = [], 0
    for step in range(min(STEPS, steps)):
        # One step at a time: rows that the model generates are only known until the next ones are.
        rows = loop.rows.rows(step)
        by_step.append(_batches(loop, rows, step))
        n_rows += len(rows)
    # Generated rows cost time within their step; all others are prepared ahead.
    writing = 0.0 if getattr(loop.rows, "ahead", True) else (time.perf_counter() - start) / len(by_step)
    positions, tokens, supervised = (  # means per step
        sum(sum(measure(b) for b in batches) for batches in by_step) / len(by_step)
        for measure in (_positions, lambda b: b.tokens, lambda b: sum(b.counts.values()))
    )
    batch = max(by_step[0], key=_positions)
    on_device = batch.to(device)
    times = []
    counts, before = forget_peak(device), held(device)
    for _ in range(1 + TIMED):
        start = time.perf_counter()
        parts = model(lambda m: objective.losses(m, on_device))
        sum(s / max(1, n) for s, n in parts.values()).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
        params = [p for p in model.parameters() if p.requires_grad]
        for p in params:
            p.grad = None
    grown = most_held(device) - before if counts else 0
    seconds = sum(times[1:]) / TIMED / _positions(batch) * positions + writing
    memory = _memory(loop, params, batch, copied=METHODS[job.method].replaces)
    # Beside what the timed ones had, steps have the moments, and gradients of earlier micro-batches.
    kept = memory.optimizer + (memory.gradients if len(by_step[0]) > 1 else 0)
    peak = {"peak_bytes": grown + kept} if grown > 0 else {}
    free = available(device)
    # The last step may be shorter: the equivalent number of steps as large as those seen.
    whole = steps if loop.rows.total is None else loop.rows.total * len(by_step) / n_rows
    total = round(tokens * whole)
    raise _Planned(
        {
            "steps": steps,
            "batch_size": cfg.batch_size,
            "sequence_length": cfg.sequence_length,
            "micro_batch": _rows_at_a_time(loop),
            "parameters_learnt": sum(p.numel() for p in params),
            "tokens": total,
            "tokens_supervised": round(supervised * whole),
            "flops": base_flops(model.cfg, cfg.sequence_length) * total,
            "memory_bytes": vars(memory) | {"total": memory.total},
            **peak,
            "free_bytes": free,
            "fits": memory.total - memory.weights <= free,  # weights are there already
            "seconds": {
                "step": seconds * whole / steps,
                "steps": seconds * whole,
                "how": TIMING.format(TIMED) + (WRITING if writing else ""),
                "probe": time.perf_counter() - began,
            },
        }
    )


def _batches(loop: Job, rows: Sequence[Row], step: int) -> list[Batch]:
    """The micro-batches of a step, as the loop forms them in one process."""
    size = len(rows) if takes_whole_step(loop.objective) else _rows_at_a_time(loop)
    first = step * loop.train.batch_size
    return [loop.objective.batch(rows[i : i + size], first + i) for i in range(0, len(rows), size)]


def _rows_at_a_time(loop: Job) -> int:
    """Rows of a micro-batch."""
    if takes_whole_step(loop.objective):
        return loop.train.batch_size
    return micro_batch_size(loop.train, Parallel(0, 1, loop.model.device))


def _positions(batch: Batch) -> int:
    """Positions of a batch, padding included."""
    return sum(x.cols.pos.numel() for x in batch.inputs.values())


def _memory(loop: Job, params: Sequence[torch.Tensor], batch: Batch, copied: bool) -> MemoryEstimate:
    """Bytes at the peak of a step: weights as stored, gradients and moments of trained parameters, activations of a micro-batch."""
    model = loop.model
    width = 2 if model.compute_dtype == torch.bfloat16 else 4
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    trained = sum(p.numel() * p.element_size() for p in params)
    logits = teacher = 0
    if isinstance(loop.objective, TokenDistil):
        teacher = sum(p.numel() * p.element_size() for p in loop.objective.teacher.model.parameters())
    trunks, read = model.cfg.trunks, Counter[str]()
    for name, given in batch.inputs.items():  # texts may be read in chunks of other names
        read[next((t for t in trunks if name.startswith(t)), "text")] += given.cols.pos.numel()
    if isinstance(loop.objective, (MediaText, NextToken, Policy, Preference, TokenDistil)):
        vocab, positions = model.cfg.text.vocab_size, read["text"]
        logits = (
            min(positions, CHUNK) * vocab * (4 + 2 * width) + 2 * positions * trunks["text"].width * width
        )
    return MemoryEstimate(
        weights=weights * (2 if copied else 1) + teacher,
        gradients=trained,
        optimizer=2 * trained,
        activations=sum(
            count.activation_bytes(trunks[name], n, loop.train.sequence_length, width)
            for name, n in read.items()
        ),
        logits=logits,
    )


def _text(facts: dict[str, Any], logged: Sequence[str]) -> str:
    seconds = facts["seconds"]
    lines = [
        f"{facts['task']} by {facts['method']}: a plan; nothing is trained or written",
        f"rows          {facts['rows']:,}"
        + (f", columns {', '.join(facts['columns'])}" if facts["columns"] else ""),
    ]
    if labels := facts.get("labels"):
        shown = ", ".join(f"{k} {n:,}" for k, n in list(labels.items())[:20])
        lines.append(f"labels        {len(labels)}: {shown}{', ...' if len(labels) > 20 else ''}")
    lines += logged
    if "steps" in facts:
        lines += [
            f"steps         {facts['steps']:,} of {facts['batch_size']} rows of at most {facts['sequence_length']:,} tokens, micro-batches of {facts['micro_batch']} rows",
            f"tokens        about {facts['tokens']:,} read, {facts['tokens_supervised']:,} with a loss; at most {facts['flops']:.2e} FLOPs",
            f"trained       {facts['parameters_learnt']:,} parameters",
        ]
    elif facts.get("tokens"):
        lines.append(f"tokens        {facts['tokens']:,}")
    if memory := facts.get("memory_bytes"):
        parts = ", ".join(f"{k} {size(v)}" for k, v in memory.items() if k != "total")
        lines.append(
            f"memory        about {size(memory['total'])}: {parts}; {size(facts['free_bytes'])} free besides the weights: "
            + ("fits" if facts["fits"] else "DOES NOT FIT")
        )
    if peak := facts.get("peak_bytes"):
        lines.append(f"peak          about {size(peak)} more than before step 1, measured by one micro-batch")
    if head := facts.get("head"):
        lines.append(
            f"head          about {size(head['bytes'])} and {duration(head['seconds'])} to fit (estimated)"
        )
    whole = seconds.get("steps", seconds.get("reading", 0.0))
    lines.append(
        f"time          about {duration(whole)}, and {duration(seconds['before'])} before it; measured: {seconds['how']}"
    )
    return "\n".join(lines)
