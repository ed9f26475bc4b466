"""Progress bars with the time left: on stderr, only where somebody watches (a terminal or a notebook)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Self

__all__ = ['Progress', 'Steps', 'above_bars', 'somebody_watches']

DELAY = 0.5  # s; work that ends earlier shows no bar


def somebody_watches() -> bool:
    """Return whether stderr is a terminal, or this is a notebook."""
    isatty = getattr(sys.stderr, 'isatty', None)
    if isatty is not None and isatty():
        return True
    shell = sys.modules['IPython'].get_ipython() if 'IPython' in sys.modules else None
    return shell is not None and 'IPKernelApp' in getattr(shell, 'config', {})


def _columns() -> int:
    """Return the width of the terminal of stderr, 0 where there is none or it does not say."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return 0


class Progress:
    """Show how much of the work is done, and the time left; nothing where nobody watches.

    Parameters
    ----------
    total : int
        Pieces of work in all.
    label : str
        What they are, such as ``'relaxed'``.
    done : int
        Pieces that were done before.
    unit : str
        One piece.
    """

    def __init__(self, total: int, label: str, *, done: int = 0, unit: str = 'structure') -> None:
        self._bar = None
        if total > 0 and somebody_watches():
            from tqdm import tqdm

            width = (
                {'dynamic_ncols': True} if _columns() else {'ncols': 80, 'nrows': 20}
            )  # a terminal of size 0 would show nothing
            self._bar = tqdm(
                total=total, desc=label, initial=done, unit=f' {unit}s', leave=False, delay=DELAY, file=sys.stderr, **width
            )

    def add(self, count: int = 1) -> None:
        """Count pieces that are done."""
        if self._bar is not None:
            self._bar.update(count)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Steps(Progress):
    """Callback of samplers that shows the steps of a batch, before an optional other callback."""

    def __init__(self, steps: int, callback: Callable[..., object] | None = None) -> None:
        super().__init__(steps, 'denoising', unit='step')
        self.callback = callback

    def __call__(self, *args: object) -> None:
        self.add()
        if self.callback is not None:
            self.callback(*args)


def above_bars(stream: IO[str]) -> AbstractContextManager:
    """Return a context in which lines can be written to a stream of the terminal without harm to the bars on it."""
    isatty = getattr(stream, 'isatty', None)
    if 'tqdm' not in sys.modules or isatty is None or not isatty():
        return nullcontext()
    return sys.modules['tqdm'].tqdm.external_write_mode(file=stream)
