"""Ctrl-C in the middle of a write waits until the write is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Hold back SIGINT (Ctrl-C) while the block runs; it takes effect right after it.

    Only Python's main thread receives signals; in others this does nothing. For blocks that take milliseconds and must
    not be left half done, such as one frame of an ASE trajectory: an unfinished one makes the whole file unreadable.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    before = signal.signal(signal.SIGINT, lambda *args: came.append(args))
    try:
        yield
    finally:
        # a handler that C code installed is reported as None and cannot be put back
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
        if came:
            signal.raise_signal(signal.SIGINT)
