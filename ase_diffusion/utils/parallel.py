"""Map a function over a list in several processes, in order, with a progress bar."""

from __future__ import annotations

import multiprocessing
import operator
import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

__all__ = ['count_processes', 'parallel_map']

FEW = 4  # items; fewer per process are not worth its start


def count_processes(processes: int | None = None) -> int:
    """Return the given number of processes, by default the number of cores available to this process.

    Raises
    ------
    ValueError, TypeError
        The number is below 1 (ValueError) or not an integer (TypeError).
    """
    if processes is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    try:
        count = operator.index(processes)
    except TypeError:
        raise TypeError(f'processes is a whole number or None (all cores), got {processes!r}') from None
    if count < 1:
        raise ValueError(f'processes is 1 or more, or None for all cores; got {processes}')
    return count


def parallel_map(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    processes: int | None = None,
    progress: bool = False,
    label: str | None = None,
) -> list[Any]:
    """Return ``[function(item) for item in items]``, computed in several processes.

    The result does not depend on the number of processes. Processes are forked where possible, so that scripts need no
    ``if __name__ == '__main__'``; the function must not use torch, because its threads do not survive a fork.

    Parameters
    ----------
    function : callable
        Function at module level, or a `functools.partial` of one (it is pickled).
    items : iterable
    processes : int, optional
        All cores available to this process by default; 1 computes in this process.
    progress : bool
        Show a progress bar on stderr.
    label : str, optional
        Label of the progress bar.
    """
    items = list(items)
    count = min(count_processes(processes), max(1, len(items) // FEW))
    if count == 1:
        return list(_bar(map(function, items), len(items), progress, label))
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    context = multiprocessing.get_context(method)
    chunk = max(1, min(32, len(items) // (8 * count)))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_ignore_interrupts)
    try:
        return list(_bar(pool.map(function, items, chunksize=chunk), len(items), progress, label))
    finally:
        pool.shutdown(cancel_futures=True)


def _bar(results, total, progress, label):
    """Return the results, wrapped in a progress bar if wanted."""
    if not progress:
        return results
    from tqdm import tqdm

    return tqdm(results, total=total, desc=label, leave=False)


def _ignore_interrupts():
    """Ignore Ctrl-C in a worker; the parent process stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
