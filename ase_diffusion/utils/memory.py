"""Keep freed memory: large tensors are made and dropped at every step of a network."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

__all__ = ['keep_freed_memory']

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Tell glibc to reuse large blocks in place of returning them to the system; does nothing elsewhere.

    By default every block above some hundred kB to 32 MB is mapped anew, and each of its pages faults at the first write:
    measured, that makes up more than half of the time of PaiNN on a CPU. The setting holds for the whole process.

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
