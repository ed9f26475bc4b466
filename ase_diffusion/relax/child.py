"""A process of its own for calculators that may hang: it can be killed, with all that it started.

Run as ``python -m ase_diffusion.relax.child`` by :class:`Child`, never by users.
"""

import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from .supply import Supply, freeze

START_LIMIT = 600.0  # s; importing a network and loading its weights on a busy machine


class Child:
    """Relax structures in another process, each within a time limit.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        Must be fit for pickle.
    settings : Settings
    timeout : float
        Seconds for one structure.
    directory, device
        As in :class:`ase_diffusion.relax.supply.Supply`.

    Raises
    ------
    ValueError
        The calculator or the optimizer cannot be pickled.
    """

    def __init__(self, calculator, settings, timeout, directory=None, device=None):
        self.timeout, self.process = timeout, None
        self.message = freeze((calculator, settings, directory, device))

    def relax(self, number, atoms):
        """Return (relaxed atoms, frames), or (None, reason)."""
        self._start()
        try:
            self.pipe.send((number, atoms))
            if not self.pipe.poll(self.timeout):
                self.close()
                return None, f'no result within the time limit of {self.timeout:g} s'
            return self.pipe.recv()
        except (EOFError, OSError):
            status = self.process.wait()
            self.close()
            return None, f'the process of the calculator died with status {status}'

    def _start(self):
        if self.process is not None and self.process.poll() is None:
            return
        self.close()
        self.pipe, theirs = Pipe()
        reader, self.life = os.pipe()  # closes when this process dies, however it dies
        command = [sys.executable, '-m', 'ase_diffusion.relax.child', str(theirs.fileno()), str(reader)]
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        if 'torch' in sys.modules:
            environment['OMP_NUM_THREADS'] = str(sys.modules['torch'].get_num_threads())
        self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(), reader), start_new_session=True, env=environment,
                                        stdin=subprocess.DEVNULL)  # fmt: skip
        theirs.close()
        os.close(reader)
        try:
            self.pipe.send_bytes(self.message)
            if not self.pipe.poll(START_LIMIT):
                raise TimeoutError(f'A calculator is made within {START_LIMIT:g} s; this one was not. Try it without timeout.')
            error = self.pipe.recv()
        except EOFError:
            error = RuntimeError(f'The process of the calculator died with status {self.process.wait()} before it began.')
        except BaseException:
            self.close()
            raise
        if error is not None:
            self.close()
            raise error

    def close(self):
        """Kill the process and all that it started."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.pipe.close()
        os.close(self.life)
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def main(pipe, life):
    """Relax what comes through the pipe until it is closed."""
    threading.Thread(target=_die_with_parent, args=(life,), daemon=True).start()
    pipe = Connection(pipe)
    try:
        calculator, settings, directory, device = pickle.loads(pipe.recv_bytes())
        supply = Supply(calculator, directory, device)
    except Exception as err:  # noqa: BLE001  the parent raises it
        pipe.send(_portable(err))
        return
    pipe.send(None)
    for _ in itertools.count():
        try:
            number, atoms = pipe.recv()
        except EOFError:
            return
        pipe.send(_one(supply, settings, number, atoms))


def _one(supply, settings, number, atoms):
    from .single import relax_one

    path = []
    try:
        result = relax_one(atoms, supply.get(number), settings, path)
    except Exception as err:  # noqa: BLE001  any calculator may raise anything
        supply.failed()
        return None, f'{type(err).__name__}: {err}'
    return result, path


def _portable(err):
    """Return the error, or one with its text where it does not survive pickle."""
    try:
        pickle.loads(pickle.dumps(err))
    except Exception:  # noqa: BLE001
        return RuntimeError(f'{type(err).__name__}: {err}')
    return err


def _die_with_parent(life):
    """Wait for the end of the parent; then go, with all that the calculator started."""
    os.read(life, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == '__main__':
    main(*(int(text) for text in sys.argv[1:]))
