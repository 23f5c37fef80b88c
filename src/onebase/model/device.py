"""Selects device and dtype from a user's settings, limits threads, and configures the CPU allocator for training."""

import ctypes
import functools
import logging
import os
import sys

import torch

from onebase.errors import UserError
from onebase.machine import cores

log = logging.getLogger(__name__)


@functools.cache
def fit_threads() -> None:
    """Limit torch's threads to the cores that this process may use, once, unless the user set a number: in a container torch sees all cores
    of the host, and oversubscribed threads are many times slower than a single one."""
    if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys() and torch.get_num_threads() > cores():
        torch.set_num_threads(cores())


def pick_device(name: str) -> torch.device:
    """`auto`: an NVIDIA GPU if there is one, else Apple's, else the CPU. Raises UserError when the named device is absent."""
    fit_threads()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = name.split(":")[0]
    if kind not in present:
        raise UserError(f"unknown device {name!r}", "use auto, cpu, cuda or mps")
    if not present[kind]:
        here = ", ".join(k for k, v in present.items() if v)
        raise UserError(f"there is no {kind} device on this machine", f"use one of: {here}")
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is native: on CPUs by AVX-512 BF16 or AMX, else it is emulated and slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        cpu = torch.backends.cpu.get_cpu_capability()
        flags = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return cpu == "AVX512" and bool(flags)
    return False


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bf16 where the chip has it, else fp32."""
    if name == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    known = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if name not in known:
        raise UserError(f"unknown dtype {name!r}", "use auto, bf16 or fp32")
    if known[name] == torch.bfloat16 and device.type == "cpu" and not has_bf16(device):
        _warn_emulated()
    return known[name]


@functools.cache
def _warn_emulated() -> None:
    """Warn once per process that the requested dtype is slower than the default."""
    log.warning("this CPU has no native bf16: it is emulated, many times slower than fp32; use dtype auto")


M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


@functools.cache
def keep_freed_memory() -> bool:
    """Make glibc reuse large blocks instead of returning them to the system; true if the setting was accepted.

    Training on CPU frees and allocates the same large tensors at every step. By default glibc maps each one above 32 MB anew and
    the system zeroes every page again: measured as about a fifth of an eager step's time. The process keeps its peak memory until
    it ends. Without glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Both are int in C; the maximum trim threshold means never.
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
