"""Executors of a campaign: this process, local processes, or the workers of a dask client."""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from multiprocessing import parent_process
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import MissingDependency
from ..utils.children import unshadowed
from ..utils.provenance import note

if TYPE_CHECKING:
    from ase import Atoms
    from distributed import Client, LocalCluster
    from distributed import Future as DaskFuture

    from ..relax.relaxer import Relaxer


LOCAL = {  # dask settings for local processes
    'distributed.scheduler.allowed-failures': 1,  # a structure that killed two workers counts as failed
    'distributed.comm.timeouts.connect': '120s',  # busy machines
    'distributed.deploy.lost-worker-timeout': '1h',  # restarts of workers may take longer than the default of 15 s
}
_kept = threading.local()  # in a worker: relaxer of its campaign


def work(token: str, frozen: bytes, chunk: list[tuple[int, Atoms]]) -> list[Atoms]:
    """Relax a chunk of (number, Atoms) in a worker and return a list of Atoms; the worker keeps the calculator."""
    if getattr(_kept, 'token', None) != token:
        from ..relax.relaxer import Relaxer

        if parent_process() is not None:  # a process for this campaign only; elsewhere logging belongs to the user
            logging.getLogger('ase_diffusion').setLevel(logging.ERROR)  # failures are in the log of the campaign
        if getattr(_kept, 'token', None) is not None:
            _kept.relaxer.close()
        calculator, settings, options = pickle.loads(frozen)
        _kept.relaxer, _kept.token = Relaxer(calculator, settings, **options), token
    return relax_chunk(_kept.relaxer, chunk)


def relax_chunk(relaxer: Relaxer, chunk: list[tuple[int, Atoms]]) -> list[Atoms]:
    """Return the relaxed Atoms of a chunk of (number, Atoms), in its order, with the time per structure (s)."""
    begun = time.perf_counter()
    results = dict(relaxer.iterate([atoms for _, atoms in chunk], [number for number, _ in chunk]))
    seconds = (time.perf_counter() - begun) / len(chunk)
    for atoms in results.values():
        note(atoms, relax_seconds=round(seconds, 3))
    return [results[index] for index in range(len(chunk))]


class SerialExecutor:
    """Run tasks serially in the current process."""

    description: str = 'this process'

    def __init__(self, relaxer: Relaxer) -> None:
        self.relaxer = relaxer

    def slots(self) -> int:
        """Return the number of chunks that may be in progress."""
        return 1

    def submit(self, chunk: list[tuple[int, Atoms]]) -> Future:
        """Relax a chunk and return its completed future."""
        return self.call(relax_chunk, self.relaxer, chunk)

    def call(self, function: Callable, *args: object) -> Future:
        """Call a function and return its completed future."""
        future = Future()
        try:
            future.set_result(function(*args))
        except Exception as err:  # raised by future.result()
            future.set_exception(err)
        return future

    def died(self, err: BaseException) -> bool:
        """Return whether an error means that a worker died."""
        return False

    def close(self) -> None:
        """End the process of the calculator, if any."""
        self.relaxer.close()


class DaskExecutor:
    """Run tasks on dask workers; structures are generated in a thread of this process.

    Parameters
    ----------
    token, frozen
        Identifier of the campaign, and (calculator, Settings, options of Relaxer) pickled.
    workers : int
        Number of local processes without a client.
    client : distributed.Client, optional
        Not closed.
    """

    def __init__(self, token: str, frozen: bytes, workers: int, client: Client | None = None) -> None:
        try:
            import distributed
        except ModuleNotFoundError as err:
            raise MissingDependency('dask[distributed]', 'search') from err
        self.token, self.frozen, self.owned, self.asked, self.count = token, frozen, client is None, 0.0, workers
        self.cluster, self.client = None, client
        if self.owned:
            import dask

            self.configured = dask.config.set(LOCAL)  # until close
            self.unshadowed = unshadowed()  # until close: processes that died are started again
            self.unshadowed.__enter__()
            self.cluster, self.client = local_cluster(distributed, workers)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix='generate')
        local = f'{workers} local process{"es" if workers > 1 else ""}'
        self.description = local if self.owned else f'dask at {client.scheduler.address}'

    def slots(self) -> int:
        """Return the number of chunks that may be in progress: one per local process, more for a cluster, which may grow."""
        if not self.owned and time.monotonic() - self.asked > 10:
            self.count = max(16, 2 * sum(self.client.nthreads().values()))
            self.asked = time.monotonic()
        return self.count

    def submit(self, chunk: list[tuple[int, Atoms]]) -> DaskFuture:
        """Submit a chunk and return its future."""
        return self.client.submit(work, self.token, self.frozen, chunk, pure=False)

    def call(self, function: Callable, *args: object) -> Future:
        """Call a function in a thread of this process and return its future."""
        return self.thread.submit(function, *args)

    def died(self, err: BaseException) -> bool:
        """Return whether an error means that a worker died."""
        from distributed import KilledWorker

        return isinstance(err, KilledWorker)

    def close(self) -> None:
        """Cancel tasks in progress and stop local processes."""
        self.thread.shutdown(wait=False, cancel_futures=True)
        if self.owned:
            self.client.close(timeout=5)
            self.cluster.close(timeout=20)
            self.configured.__exit__(None, None, None)
            self.unshadowed.__exit__(None, None, None)


def check_workers(workers: int) -> None:
    """Raise a MissingDependency if local processes are asked for and dask is not installed; nothing is imported."""
    if workers > 0 and (find_spec('dask') is None or find_spec('distributed') is None):
        raise MissingDependency('dask[distributed]', 'search')


def local_cluster(distributed: ModuleType, workers: int) -> tuple[LocalCluster, Client]:
    """Return a cluster of local processes (one thread each) that ignore Ctrl-C, and its client."""

    class IgnoreInterrupt(distributed.WorkerPlugin):
        """Ignore Ctrl-C in workers; the parent process stops them."""

        def setup(self, worker):
            import signal

            signal.signal(signal.SIGINT, signal.SIG_IGN)

    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // workers)))  # workers share the cores
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        memory_limit=0,
        host='127.0.0.1',
        silence_logs=logging.CRITICAL,
    )
    client = distributed.Client(cluster, timeout='120s')
    client.register_plugin(IgnoreInterrupt())
    return cluster, client
