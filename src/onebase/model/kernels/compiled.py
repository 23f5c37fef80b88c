"""The loops that numba compiles (extra `fast`), where they are: `fused` for what stands between products, `direct` for products with matrices
as they are stored."""

import functools
import os
from typing import Any

import torch


def is_plain() -> bool:
    """Whether `ONEBASE_KERNELS=plain` asks for torch's own operations alone, to compare with."""
    return os.environ.get("ONEBASE_KERNELS") == "plain"


@functools.cache
def _compiled() -> Any:
    """The modules `fused` and `direct`; None without numba."""
    threads = torch.get_num_threads()
    try:
        # Loops in threads want those of OpenMP, which torch has started: another library's would get in their way.
        import numba
        import numba.np.ufunc.omppool

        from onebase.model.kernels import direct, fused
    except ImportError:
        return None
    # numba's threads start here and set OpenMP's number to that of the cores: torch's is what it was asked to be.
    numba.get_num_threads()
    torch.set_num_threads(threads)
    return fused, direct


def loops_for(dtype: torch.dtype, device: torch.device) -> Any:
    """The module `fused`, where numba is installed and numbers are bf16 or fp32 on a CPU; else None, and torch's operations do it.

    It takes most of a second to come (and once, to be compiled, eight), so it is asked for when a second token is.
    """
    if dtype not in (torch.bfloat16, torch.float32) or device.type != "cpu" or is_plain():
        return None
    found = _compiled()
    return None if found is None else found[0]


def direct() -> Any:
    """The module `direct`, which multiplies by matrices as they are stored; None without numba. As slow to come as `loops_for`."""
    found = None if is_plain() else _compiled()
    return None if found is None else found[1]


def loaded() -> Any:
    """The module `direct` where it has come already, else None: for what is too short to wait for it and says the same without."""
    return direct() if _compiled.cache_info().currsize else None
