"""`onebase plan`: the cost of a recipe, estimated from its config; and the choices made for this machine."""

from typing import Any

import torch

from onebase.base.config import BaseConfig, base_flops, base_parameters, step_flops
from onebase.errors import UserError
from onebase.model import count
from onebase.model.device import has_bf16, pick_device
from onebase.pretraining.objectives import objective_of
from onebase.pretraining.probing import FEW, STEPS, Measured, cut, measured
from onebase.pretraining.recipe import Recipe
from onebase.readable import duration, figure, number, size
from onebase.tasks.results import Plan
from onebase.train.loop import micro_batch_size
from onebase.train.memory import available, training_memory
from onebase.train.parallel import Parallel

AT_MOST = 20.0
"""Seconds that the measured steps may take, by the speed of a matrix product."""


def plan_recipe(recipe: Recipe) -> Plan:
    """Parameters and FLOPs, counted; memory and time, measured by some steps on a sample of the data (`probing`), or estimated where that cannot be."""
    device = pick_device(recipe.train.device)
    cfg, train = recipe.base(), recipe.train
    generates = "text" in cfg.codecs and cfg.text.head
    micro = micro_batch_size(train, Parallel(0, 1, device), whole=objective_of(recipe.objective).pairs)
    memory = training_memory(cfg, train, micro, bf16=has_bf16(device))
    free = available(device)
    per_token = base_flops(cfg, train.sequence_length)
    tokens = train.tokens or (train.steps or 0) * train.batch_size * train.sequence_length or None
    speed = matmul_speed(device)
    facts: dict[str, Any] = {
        "parameters": base_parameters(cfg),
        "flops_per_token": per_token,
        "tokens": tokens,
        "flops": per_token * tokens if tokens else None,
        "memory_bytes": vars(memory) | {"total": memory.total},
        "free_bytes": free,
        "fits": memory.total <= free,
        "micro_batch": micro,
        "cache_bytes_per_token": count.cache_bytes(cfg.trunks["text"], 1) if "text" in cfg.codecs else None,
        "device": str(device),
        "matmul_flops_per_second": speed,
        "seconds_at_40_percent": per_token * tokens / (0.4 * speed) if tokens else None,
    }
    lines = [
        f"{recipe.name} on {device}",
        f"parameters    {facts['parameters']:,}",
        f"training      {per_token / 1e6:,.1f} MFLOPs per token"
        + (
            f", {tokens / 1e6:,.1f}M tokens, {per_token * tokens:.2e} FLOPs"
            if tokens
            else f", {figure(train.minutes or 0)} minutes"
        ),
        f"memory        {size(memory.total)} estimated with micro-batches of {micro} rows: "
        + ", ".join(f"{k} {size(v)}" for k, v in vars(memory).items())
        + f"; {size(free)} free: {'fits' if facts['fits'] else 'DOES NOT FIT'}",
        *(
            [f"cache         {facts['cache_bytes_per_token']:,} bytes per token when generating in bf16"]
            if generates
            else []
        ),
        f"speed         {number(speed / 1e12)} TFLOP/s measured on a large matrix product on this machine",
    ]
    try:
        entry = objective_of(recipe.objective)
        if entry.pairs or entry.base is not None:  # what is learnt beside the text's trunk is not cut
            raise UserError(f"steps of objective {entry.name} are not measured", "run some: train.steps=5")
        found = measured(recipe, micro, _blocks(recipe, micro, speed, free))
    except UserError as e:
        facts["not_measured"] = e.cause
        lines.append(f"not measured  {e.cause}")
        if tokens:
            lines.append(
                f"time          about {duration(facts['seconds_at_40_percent'])} at 40% of that speed"
            )
        return Plan(facts, "\n".join(lines))
    facts |= _measured_facts(recipe, found, free)
    return Plan(facts, "\n".join([*lines, *_measured_lines(recipe, found, facts)]))


def _blocks(recipe: Recipe, micro: int, speed: float, free: int) -> tuple[int, ...]:
    """How many blocks are measured: all of a model that is small, else few. Raises UserError where these do not fit."""
    train = recipe.train

    def costs(cfg: BaseConfig) -> tuple[float, int]:
        flops = base_flops(cfg, train.sequence_length) * micro * train.sequence_length
        steps = STEPS * (1 if micro >= train.batch_size else 3)
        return steps * flops / (0.4 * speed), training_memory(cfg, train, micro).total

    depth = recipe.model.depth
    for blocks in [(depth,), FEW] if depth >= FEW[-1] else [(depth,)]:
        seconds, need = costs(cut(recipe.base(), blocks[-1]))
        if 2 * need <= free and seconds <= AT_MOST:
            return blocks
    if 2 * need > free:
        raise UserError(
            f"{blocks[-1]} blocks need about {size(need)}, {size(free)} are free", "lower train.micro_batch"
        )
    raise UserError(
        f"steps with {blocks[-1]} blocks would take about {duration(seconds)}",
        "lower train.micro_batch, or plan on the machine that trains",
    )


def _measured_facts(recipe: Recipe, found: Measured, free: int) -> dict[str, Any]:
    """Peak, seconds and tokens of a step, and each modality's part of it."""
    flops = step_flops(recipe.base(), recipe.train.sequence_length, found.tokens, found.learnt)
    read, whole = sum(found.tokens.values()), sum(flops.values())
    steps = recipe.train.planned_steps
    return {
        "peak_bytes": found.peak,
        "program_bytes": found.program,
        "fits": found.peak + found.program <= free,
        "blocks_measured": list(found.blocks),
        "step_seconds": found.seconds,
        "tokens_per_step": read,
        "tokens_per_second": read / found.seconds,
        "flops_per_step": whole,
        "seconds": found.seconds * steps if steps else None,
        "modalities": {
            name: {
                "tokens_per_step": n,
                "share": n / read,
                "flops_per_step": flops[name],
                "flops_share": flops[name] / whole,
                "tokens_per_second": n / found.seconds,
            }
            for name, n in found.tokens.items()
        },
    }


def _measured_lines(recipe: Recipe, found: Measured, facts: dict[str, Any]) -> list[str]:
    part = (
        ""
        if len(found.blocks) == 1
        else f" with {found.blocks[0]} and {found.blocks[1]} of {recipe.model.depth} blocks"
    )
    lines = [
        f"measured      steps{part}, on a sample of the data:",
        f"  memory      {size(found.peak)} at the peak of a step, beside {size(found.program)} of the program; "
        + ("fits" if facts["fits"] else "DOES NOT FIT"),
        f"  step        {duration(found.seconds)}, {facts['tokens_per_step']:,.0f} tokens, {facts['tokens_per_second']:,.0f} a second",
    ]
    for name, x in facts["modalities"].items():
        lines.append(
            f"  {name:<11} {x['tokens_per_step']:,.0f} tokens a step ({x['share']:.0%}), {x['flops_per_step'] / 1e9:,.1f} GFLOPs "
            f"({x['flops_share']:.0%}), {x['tokens_per_second']:,.0f} a second"
        )
    if facts["seconds"]:
        lines.append(f"time          about {duration(facts['seconds'])}")
    return lines


def plan_machine() -> Plan:
    """Number formats and fastest kernels on this machine: measured at first use, and stored (`onebase.machine`)."""
    from onebase import machine
    from onebase.model.kernels.quickest import STORAGES, most_rows

    device = pick_device("cpu")
    native = has_bf16(device)
    rows = {kind: most_rows(kind) for kind in STORAGES}
    speeds = {"fp32": matmul_speed(device, 1024, torch.float32)}
    if native:
        speeds["bf16"] = matmul_speed(device, 1024, torch.bfloat16)
    facts: dict[str, Any] = machine.facts() | {
        "cores": machine.cores(),
        "bf16_native": native,
        "number_format": "bf16" if native else "fp32",
        "newton_schulz": "bf16" if native else "fp32",
        "matmul_flops_per_second": speeds,
        "rows_as_stored": rows,
        "choices": [vars(c) for c in machine.known()],
        "file": str(machine.path()),
        "busy": machine.is_busy(),
    }
    lines = [
        f"processor     {facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, instructions {facts['instructions']}",
        f"numbers       {facts['number_format']} for auto: "
        + ("this chip has native bf16" if native else "this chip has no native bf16, it would be emulated"),
        f"Muon          Newton-Schulz in {facts['newton_schulz']}",
        "products      " + ", ".join(f"{k} {v / 1e9:,.0f} GFLOP/s" for k, v in speeds.items()),
    ]
    for kind, most in rows.items():
        what = f"as stored, for up to {most} rows at a time" if most else "after conversion to a dense one"
        lines.append(f"{kind:<13} a matrix is multiplied {what}")
    for c in machine.known():
        times = ", ".join(f"{option} {duration(s)}" for option, s in c.seconds.items())
        lines.append(f"measured      {c.question}: {times}" + (" (busy: not stored)" if c.busy else ""))
    if not rows[STORAGES[0]]:
        lines.append("              the compiled loops need the extra `fast` (numba)")
    return Plan(facts, "\n".join([*lines, f"stored in     {facts['file']}"]))


def matmul_speed(device: torch.device, size: int = 2048, dtype: torch.dtype | None = None) -> float:
    """FLOP/s of a square matrix product (default dtype: the training format), best of three."""
    import time

    dtype = dtype or (torch.bfloat16 if has_bf16(device) else torch.float32)
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
