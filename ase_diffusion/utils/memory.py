"""Reuse of freed memory: networks allocate and free large tensors at every step."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

__all__ = ['keep_freed_memory']

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Set glibc to reuse large memory blocks instead of returning them to the system; no effect on other C libraries.

    By default blocks above some hundred kB to 32 MB are mapped anew, with a page fault at the first write to each page: more
    than half of the time of PaiNN on a CPU, measured. The setting applies to the whole process.

    Returns
    -------
    bool
        Whether the setting was made.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
