"""Ctrl-C at a bad moment: held back during a write, noted during a loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Delay SIGINT (Ctrl-C) until the end of the block.

    Only the main thread receives signals; in other threads this does nothing. Meant for short writes that must be complete,
    such as one frame of an ASE trajectory: an incomplete frame makes the whole file unreadable.
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


@contextmanager
def noted_interrupts() -> Iterator[list]:
    """Yield a list that is no longer empty after SIGINT (Ctrl-C); a second one interrupts as usual.

    For loops that end by themselves at the next safe point. Outside of Python's main thread the list stays empty.
    """
    came, usual = [], signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):  # ignored, or a handler of C code
        yield came
        return

    def note(*args):
        came.append(args)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, usual)
