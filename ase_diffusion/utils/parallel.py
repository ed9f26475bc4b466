"""Map a function over a list in several processes, in order, with a progress bar; a process that dies does not end the others."""

from __future__ import annotations

import multiprocessing
import operator
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Self, TypeVar

__all__ = ['ProcessDied', 'Workers', 'count_processes', 'parallel_map', 'safe_paths']

Item = TypeVar('Item')
Result = TypeVar('Result')

FEW = 4  # items; fewer per process are not worth its start
AHEAD = 2  # chunks per process that are handed out in advance


class ProcessDied(RuntimeError):
    """Error for an item whose process was killed or crashed, also when it was alone."""


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


@contextmanager
def safe_paths() -> Iterator[None]:
    """Start child processes of the block without the working folder on their path, unless it is on that of this process.

    Python puts the working folder first for ``-c`` and ``-m``; a file random.py or numpy.py there would hide the module.
    """
    before = os.environ.get('PYTHONSAFEPATH')
    if '' not in sys.path:
        os.environ['PYTHONSAFEPATH'] = '1'
    try:
        yield
    finally:
        if before is None:
            os.environ.pop('PYTHONSAFEPATH', None)
        else:
            os.environ['PYTHONSAFEPATH'] = before


@contextmanager
def _no_main(function):
    """Start child processes of the block without the script of this process, unless the function is defined there.

    A script without ``if __name__ == '__main__'`` would start itself in each of them.
    """
    main = sys.modules['__main__']
    home = getattr(getattr(function, 'func', function), '__module__', '__main__')
    kept = {} if home == '__main__' else {name: vars(main)[name] for name in ('__file__', '__spec__') if name in vars(main)}
    try:
        for name in kept:
            setattr(main, name, None)
        yield
    finally:
        vars(main).update(kept)


class Workers:
    """Processes for several maps; started at the first one that is worth it.

    Parameters
    ----------
    processes : int, optional
        All cores available to this process by default; 1 computes in this process.
    method : {None, 'fork', 'spawn'}
        None forks where possible, so that scripts need no ``if __name__ == '__main__'``; the functions must then not use torch,
        because its threads do not survive a fork.
    few : int
        Smallest number of items per process.
    """

    def __init__(self, processes: int | None = None, method: str | None = None, few: int = FEW) -> None:
        self.count, self.few = count_processes(processes), few
        self.method = method or ('fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn')
        self._pool = None

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, chunk: int | None = None, lost: Any = ProcessDied
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index, function(item)) as they come.

        Parameters
        ----------
        function : callable
            Function at module level, or a `functools.partial` of one (it is pickled).
        items : sequence
        chunk : int, optional
            Items per message.
        lost : optional
            Value for an item whose process dies twice: among others, and alone; by default a `ProcessDied` is raised.
        """
        count = min(self.count, max(1, len(items) // self.few))
        if count == 1:
            yield from ((index, function(item)) for index, item in enumerate(items))
            return
        chunk = chunk or max(1, min(32, len(items) // (8 * count)))
        waiting = deque(range(k, min(k + chunk, len(items))) for k in range(0, len(items), chunk))
        flight = {}
        while waiting or flight:
            broken = False
            try:
                while waiting and len(flight) < AHEAD * self.count:
                    rows = waiting.popleft()
                    flight[self._submit(function, [items[k] for k in rows], self.count)] = rows
            except BrokenProcessPool:
                waiting.appendleft(rows)
                broken = True
            done = wait(flight, return_when=FIRST_COMPLETED).done if flight else ()
            suspects = []
            for future in list(done):
                rows = flight.pop(future)
                try:
                    yield from zip(rows, future.result(), strict=True)
                except BrokenProcessPool:
                    suspects += rows
                    broken = True
            if broken:
                for future, rows in flight.items():
                    if wait([future]).done and future.exception() is None:
                        yield from zip(rows, future.result(), strict=True)
                    else:
                        suspects += rows
                flight.clear()
                self.close()
                yield from self._alone(function, items, sorted(suspects), lost)

    def _submit(self, function, items, count):
        """Return the future of a chunk."""
        with safe_paths(), _no_main(function if self.method == 'spawn' else None):
            if self._pool is None:
                context = multiprocessing.get_context(self.method)
                self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_ignore_interrupts)
            return self._pool.submit(_chunk, function, items)

    def _alone(self, function, items, rows, lost):
        """Yield (index, result) of items one by one, each alone in a process, which tells the one that kills it."""
        for row in rows:
            try:
                yield row, self._submit(function, [items[row]], 1).result()[0]
            except BrokenProcessPool:
                self.close()
                if lost is ProcessDied:
                    raise ProcessDied(
                        f'the process of item {row} died twice, for example for want of memory; leave it out, or take processes=1'
                    ) from None
                yield row, lost
        self.close()

    def close(self) -> None:
        """Stop the processes once their present chunks are done; the next map starts others."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    processes: int | None = None,
    progress: bool = False,
    label: str | None = None,
    lost: Any = ProcessDied,
) -> list[Result]:
    """Return ``[function(item) for item in items]``, computed in several processes.

    The result does not depend on the number of processes. Processes are forked where possible, see `Workers`.

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
    lost : optional
        Value for an item whose process dies; by default a `ProcessDied` is raised.
    """
    items = list(items)
    results = [None] * len(items)
    with Workers(processes) as workers, progress_bar(len(items), progress, label) as update:
        for index, result in workers.run(function, items, lost=lost):
            results[index] = result
            update(1)
    return results


@contextmanager
def progress_bar(total: int, progress: bool, label: str | None = None) -> Iterator[Callable[[int], object]]:
    """Yield a function that advances a progress bar on stderr, or does nothing where none is wanted."""
    if not progress:
        yield lambda steps: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=label, leave=False) as bar:
        yield bar.update


def _chunk(function, items):
    """Return the results of a chunk."""
    return [function(item) for item in items]


def _ignore_interrupts():
    """Ignore Ctrl-C in a worker; the parent process stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
