"""`onebase plan`: the cost of a recipe, estimated from its config; and the choices made for this machine."""

from typing import Any

import torch

from onebase.base.config import base_flops, base_parameters
from onebase.model import count
from onebase.model.device import has_bf16, pick_device
from onebase.pretraining.recipe import Recipe
from onebase.readable import duration, figure, number, size
from onebase.tasks.results import Plan
from onebase.train.loop import micro_batch_size
from onebase.train.memory import available, training_memory
from onebase.train.parallel import Parallel


def plan_recipe(recipe: Recipe) -> Plan:
    """Parameters, FLOPs, memory, and the time at the measured matrix speed of this machine."""
    device = pick_device(recipe.train.device)
    cfg, train = recipe.base(), recipe.train
    micro = micro_batch_size(train, Parallel(0, 1, device))
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
        f"memory        {size(memory.total)} with micro-batches of {micro} rows: "
        + ", ".join(f"{k} {size(v)}" for k, v in vars(memory).items())
        + f"; {size(free)} free: {'fits' if facts['fits'] else 'DOES NOT FIT'}",
        *(
            [f"cache         {facts['cache_bytes_per_token']:,} bytes per token when generating in bf16"]
            if "text" in cfg.codecs
            else []
        ),
        f"speed         {number(speed / 1e12)} TFLOP/s measured on a large matrix product on this machine",
    ]
    if tokens:
        lines.append(f"time          about {duration(facts['seconds_at_40_percent'])} at 40% of that speed")
    return Plan(facts, "\n".join(lines))


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
