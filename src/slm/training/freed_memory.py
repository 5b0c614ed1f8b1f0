"""Memory that a training step frees stays with the process, for the next step to take."""

from __future__ import annotations

import ctypes
import platform

# malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; whether it does.

    By itself it maps every large tensor afresh and unmaps it when it is freed: the kernel clears each page again, in
    a training step of GPT-2's 124 M a quarter of a million of them. The most that is held does not grow.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, _MOST))
