"""The C library's allocator, told to keep what training frees."""

import ctypes
import functools
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc reuse large blocks instead of giving them back to the system; true if it took the setting.

    Training on CPU frees and asks for the same large tensors at every step. By default glibc maps each one above 32 MB anew and
    the system zeroes every page of it again: about a fifth of an eager step's time where it was measured. The process keeps its
    peak memory until it ends. Elsewhere than on glibc it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Both are int in C; the trim threshold's largest value means never.
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
