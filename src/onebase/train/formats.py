"""The number formats that a run computes in: they depend on the chip, and changes on resume are logged and recorded."""

from collections.abc import Mapping

import torch

from onebase.base.model import BaseModel
from onebase.train.muon import Muon
from onebase.train.optim import Optimizers

NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def formats(model: BaseModel, optim: Optimizers) -> dict[str, str]:
    """Format by kind of computation. Weights, gradients and sums are always fp32."""
    used = {"activations": NAMES[model.compute_dtype]}
    if isinstance(optimizer := optim.parts.get("muon"), Muon):
        used["newton_schulz"] = NAMES[optimizer.dtype]
    return used


def go_on(kept: dict[str, dict[str, str]], now: Mapping[str, str], step: int) -> str | None:
    """Add the formats from `step` on to `kept` (keyed by first step); returns a log line if they differ from those before.

    Another format changes rounding only: the losses stay within the tolerance in docs/training.md. So the run resumes, and logs it. Old
    checkpoints without formats used Newton-Schulz in bf16 on every chip; the format of their activations is unknown.
    """
    if step == 0:
        kept["0"] = dict(now)
        return None
    if not kept:
        kept["0"] = dict.fromkeys(now, "unknown") | (
            {"newton_schulz": "bf16"} if "newton_schulz" in now else {}
        )
    before = kept[max(kept, key=int)]
    other = {k: v for k, v in now.items() if before.get(k) not in (v, "unknown")}
    if not other:
        return None
    kept[str(step)] = dict(now)
    changed = ", ".join(f"{k.replace('_', '-')} in {v} (before: {before.get(k)})" for k, v in other.items())
    return f"from step {step} on {changed}, because of the chip; losses differ from those of an uninterrupted run by rounding"
