"""Counts the FLOPs of the operations that training runs, for comparison with the formula of the config."""

from torch.utils.flop_counter import FlopCounterMode

from onebase.base.model import BaseModel
from onebase.objective.base import Batch, Objective


def counted_flops(model: BaseModel, objective: Objective, batch: Batch) -> float:
    """FLOPs of one forward and backward of `batch` (matrix products and attention, as torch counts them). Gradients are discarded. Call it before
    blocks are compiled: compiled code hides its operations."""
    batch = batch.to(model.device)
    with FlopCounterMode(display=False) as counter:
        parts = model(lambda m: objective.losses(m, batch))
        sum(s for s, _ in parts.values()).backward()
    for p in model.parameters():
        p.grad = None
    return float(counter.get_total_flops())
