"""Loads the loops that numba compiles (extra `fast`), if available: `fused` for operations between products, `direct` for products with
matrices as they are stored."""

import functools
import os
from typing import Any

import torch


def is_plain() -> bool:
    """Whether `ONEBASE_KERNELS=plain` restricts kernels to torch's own operations, for comparison."""
    return os.environ.get("ONEBASE_KERNELS") == "plain"


@functools.cache
def _compiled() -> Any:
    """The modules `fused` and `direct`; None without numba."""
    threads = torch.get_num_threads()
    try:
        # Parallel loops must use the OpenMP threads that torch has started: another threading layer would compete with them.
        import numba
        import numba.np.ufunc.omppool

        from onebase.model.kernels import direct, fused
    except ImportError:
        return None
    # Starting numba's threads sets OpenMP's number to that of the cores: restore torch's number.
    numba.get_num_threads()
    torch.set_num_threads(threads)
    return fused, direct


def loops_for(dtype: torch.dtype, device: torch.device) -> Any:
    """The module `fused`, if numba is installed and the dtype is bf16 or fp32 on a CPU; else None: use torch's operations.

    Loading takes most of a second (the first time, with compilation, eight), so it is loaded for the second token.
    """
    if dtype not in (torch.bfloat16, torch.float32) or device.type != "cpu" or is_plain():
        return None
    modules = _compiled()
    return None if modules is None else modules[0]


def direct() -> Any:
    """The module `direct`, which multiplies by matrices as they are stored; None without numba. As slow to load as `loops_for`."""
    modules = None if is_plain() else _compiled()
    return None if modules is None else modules[1]


def loaded() -> Any:
    """The module `direct` if it is already loaded, else None: for short work with an equal result without it."""
    return direct() if _compiled.cache_info().currsize else None
