"""Where relaxations of a campaign run: in this process, in local processes, or wherever a dask Client leads."""

import logging
import os
import pickle
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import parent_process

from ..errors import MissingDependency

LOCAL = {  # of dask, for local processes
    'distributed.scheduler.allowed-failures': 1,  # a structure that has killed two workers is given up
    'distributed.comm.timeouts.connect': '120s',  # busy machines
    'distributed.deploy.lost-worker-timeout': '1h',  # a worker that died is started again, which may take longer than 15 s
}
_kept = threading.local()  # of a worker: the relaxer of the campaign it works for


def work(token, frozen, chunk):
    """Relax a chunk of (number, Atoms) in a worker, which keeps the calculator for the next one; returns a list of Atoms."""
    if getattr(_kept, 'token', None) != token:
        from ..relax.relaxer import Relaxer

        if parent_process() is not None:  # a process for this work only; of others, logging belongs to the user
            logging.getLogger('ase_diffusion').setLevel(logging.ERROR)  # a failure has its line in the log of the campaign
        if getattr(_kept, 'token', None) is not None:
            _kept.relaxer.close()
        calculator, settings, options = pickle.loads(frozen)
        _kept.relaxer, _kept.token = Relaxer(calculator, settings, **options), token
    return relax_chunk(_kept.relaxer, chunk)


def relax_chunk(relaxer, chunk):
    """Return relaxed Atoms for a chunk of (number, Atoms), in its order; each has its time in seconds with it."""
    begun = time.perf_counter()
    results = dict(relaxer.iterate([atoms for _, atoms in chunk], [number for number, _ in chunk]))
    seconds = (time.perf_counter() - begun) / len(chunk)
    for atoms in results.values():
        atoms.info['key_value_pairs']['relax_seconds'] = round(seconds, 3)
    return [results[index] for index in range(len(chunk))]


class SerialExecutor:
    """Everything in this process, one thing after the other."""

    description = 'this process'

    def __init__(self, relaxer):
        self.relaxer = relaxer

    def slots(self):
        """Return how many chunks may be under way."""
        return 1

    def submit(self, chunk):
        """Return the future of a chunk, done already."""
        return self.call(relax_chunk, self.relaxer, chunk)

    def call(self, function, *args):
        """Call a function of the parent; returns its future."""
        future = Future()
        try:
            future.set_result(function(*args))
        except Exception as err:  # whoever asks for the result gets it
            future.set_exception(err)
        return future

    def died(self, err):
        """Tell whether an error means that a worker died."""
        return False

    def close(self):
        """End the process of the calculator, if there is one."""
        self.relaxer.close()


class DaskExecutor:
    """Workers of dask; structures are made in a thread of this process meanwhile.

    Parameters
    ----------
    token, frozen
        Name of the campaign, and (calculator, Settings, options of Relaxer) as bytes.
    workers : int
        Local processes, where no client is given.
    client : distributed.Client, optional
        Stays open.
    """

    def __init__(self, token, frozen, workers, client=None):
        try:
            import distributed
        except ModuleNotFoundError as err:
            raise MissingDependency('dask[distributed]', 'search') from err
        self.token, self.frozen, self.owned, self.asked, self.count = token, frozen, client is None, 0.0, workers
        self.cluster, self.client = None, client
        if self.owned:
            import dask

            self.configured = dask.config.set(LOCAL)  # until close
            self.cluster, self.client = local_cluster(distributed, workers)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix='generate')
        local = f'{workers} local process{"es" if workers > 1 else ""}'
        self.description = local if self.owned else f'dask at {client.scheduler.address}'

    def slots(self):
        """Return how many chunks may be under way: one for each local process; more for a cluster, which may grow."""
        if not self.owned and time.monotonic() - self.asked > 10:
            self.count = max(16, 2 * sum(self.client.nthreads().values()))
            self.asked = time.monotonic()
        return self.count

    def submit(self, chunk):
        """Return the future of a chunk."""
        return self.client.submit(work, self.token, self.frozen, chunk, pure=False)

    def call(self, function, *args):
        """Call a function of the parent in its thread; returns its future."""
        return self.thread.submit(function, *args)

    def died(self, err):
        """Tell whether an error means that a worker died."""
        from distributed import KilledWorker

        return isinstance(err, KilledWorker)

    def close(self):
        """Stop; what is under way is given up."""
        self.thread.shutdown(wait=False, cancel_futures=True)
        if self.owned:
            self.client.close(timeout=5)
            self.cluster.close(timeout=20)
            self.configured.__exit__(None, None, None)


def local_cluster(distributed, workers):
    """Return a cluster of local processes, one thread each, and its client; Ctrl-C is for the parent alone."""

    class IgnoreInterrupt(distributed.WorkerPlugin):
        """Leave Ctrl-C to the parent, which stops in order."""

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
