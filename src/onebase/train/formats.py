"""The number formats that a run computes in: what the chip decides of them, and what a run that goes on elsewhere says."""

from collections.abc import Mapping

import torch

from onebase.base.model import BaseModel
from onebase.train.muon import Muon
from onebase.train.optim import Optimizers

NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def formats(model: BaseModel, optim: Optimizers) -> dict[str, str]:
    """What is computed in which format. Weights, gradients and sums are fp32 always."""
    found = {"activations": NAMES[model.compute_dtype]}
    if isinstance(optimizer := optim.parts.get("muon"), Muon):
        found["newton_schulz"] = NAMES[optimizer.dtype]
    return found


def go_on(kept: dict[str, dict[str, str]], now: Mapping[str, str], step: int) -> str | None:
    """Note in `kept` (by the step from which on) what holds from `step`; one line for the user where it is not what held before.

    Another format is another rounding, not another run: the losses stay within what docs/training.md says. So the run goes on, and says
    so. Checkpoints made before formats were kept had Newton-Schulz in bf16 on every chip; what their activations were is not known.
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
    return f"from step {step} on {changed}: the chip decides; losses differ from those of an undisturbed run by rounding"
