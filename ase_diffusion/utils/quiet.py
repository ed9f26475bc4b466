"""What compiled libraries print although nobody asked."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ['quiet_libraries']


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Discard what C code prints to the standard output of this process; what Python printed before comes out as ever.

    HiGHS, the solver of :func:`scipy.optimize.milp`, prints a line of its own debugging where its display is off
    (https://github.com/jump-dev/HiGHS.jl/issues/312). Without a standard output, or a C library to flush, nothing is done.
    """
    try:
        flush = ctypes.CDLL(None).fflush
        sys.stdout.flush()
        flush(None)
        kept = os.dup(1)
    except (OSError, AttributeError, TypeError, ValueError):
        yield
        return
    try:
        with open(os.devnull, 'wb') as nothing:
            os.dup2(nothing.fileno(), 1)
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)
