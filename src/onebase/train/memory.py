"""Estimates the memory of a training run from its configs, and refuses one that does not fit."""

import os
from dataclasses import dataclass

import torch

from onebase.base.config import BaseConfig, base_parameters
from onebase.errors import UserError
from onebase.modality.image.config import image_vectors
from onebase.model import count
from onebase.objective.cross_entropy import CHUNK
from onebase.readable import size
from onebase.train.config import TrainConfig


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one rank, by kind. An estimate: the allocator and libraries add to it."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def training_memory(
    cfg: BaseConfig, train: TrainConfig, micro: int, world: int = 1, bf16: bool = True
) -> MemoryEstimate:
    """Peak memory of training: fp32 weights and gradients, optimizer moments, one micro-batch of `micro` rows."""
    total = base_parameters(cfg)
    trunk = next(iter(cfg.trunks.values())) if "text" not in cfg.trunks else cfg.trunks["text"]
    vocab_size = cfg.text.vocab_size if "text" in cfg.codecs and cfg.text.head else 0
    matrices = sum(count.matrix_parameters(t, max(1, len(t.groups))) for t in cfg.trunks.values())
    blocks = sum(len(t.blocks) for t in cfg.trunks.values())
    moments = 2 * total - (matrices if train.muon else 0)  # Muon keeps one moment, AdamW two
    width = 2 if bf16 else 4
    tokens = micro * train.sequence_length
    return MemoryEstimate(
        weights=4 * total // world,
        gradients=4 * total // world + 4 * total // max(1, blocks) // world,
        optimizer=4 * moments // world,
        activations=count.activation_bytes(trunk, tokens, train.sequence_length, width)
        + sum(
            _tower_bytes(cfg, name, micro, width)
            for name in cfg.trunks
            if name != "text" and "text" in cfg.trunks
        ),
        logits=min(tokens, CHUNK) * vocab_size * (4 + 2 * width) + 2 * tokens * trunk.width * width
        if vocab_size
        else 0,
    )


def _tower_bytes(cfg: BaseConfig, name: str, rows: int, width: int) -> int:
    """Activations of an image tower on so many pictures."""
    vectors = image_vectors(cfg.image)
    return count.activation_bytes(cfg.trunks[name], rows * vectors, vectors, width)


def available(device: torch.device) -> int:
    """Free bytes on a device; for CPUs, memory available without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            for line in f:
                if line.startswith("MemAvailable"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def held(device: torch.device) -> int:
    """Bytes that this process has in memory now, on a GPU those that torch has there. 0 where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return _status("VmRSS")


def most_held(device: torch.device) -> int:
    """The most bytes it has had, since `forget_peak`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return _status("VmHWM")


def forget_peak(device: torch.device) -> bool:
    """Let the peak be counted anew; false where the system cannot (proc(5), clear_refs)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as f:
            f.write("5")
    except OSError:
        return False
    return True


def _status(key: str) -> int:
    try:
        with open("/proc/self/status", encoding="ascii") as f:
            return next((int(line.split()[1]) * 1024 for line in f if line.startswith(key)), 0)
    except OSError:
        return 0


def check_memory(
    cfg: BaseConfig, train: TrainConfig, micro: int, device: torch.device, world: int = 1
) -> MemoryEstimate:
    """The memory of the run. Raises UserError when it exceeds the free memory, with the setting that would fit."""
    need = training_memory(cfg, train, micro, world)
    free = available(device)
    if need.total <= free:
        return need
    fits = next((m for m in range(micro, 0, -1) if training_memory(cfg, train, m, world).total <= free), 0)
    fits = next((m for m in range(fits, 0, -1) if train.batch_size % m == 0), 0)
    remedy = (
        f"set train.micro_batch={fits}"
        if fits
        else "even one row at a time does not fit: lower model.width or model.depth, or use more ranks (torchrun)"
    )
    raise UserError(f"this run needs about {size(need.total)} on {device}, {size(free)} are free", remedy)
