"""The learning rate over a run, as a factor of each group's own rate."""

from onebase.train.config import ScheduleConfig


def factor(cfg: ScheduleConfig, step: int, total: int) -> float:
    """Factor at `step` (from 0) of `total`: warm-up, flat, linear warm-down; the last step is just above `final`."""
    up = min(1.0, (step + 1) / cfg.warmup) if cfg.warmup else 1.0
    down_steps = max(1.0, cfg.warmdown * total)
    left = (total - step) / down_steps
    down = min(1.0, left * (1 - cfg.final) + cfg.final) if cfg.warmdown else 1.0
    return up * down
