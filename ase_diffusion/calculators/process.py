"""A process of its own for calculators that may hang: it can be killed, with all that it started.

Run as ``python -m ase_diffusion.calculators.process`` by :class:`CalculatorProcess`, never by users.
"""

import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from .factory import freeze

START_LIMIT = 600.0  # s; importing a network and loading its weights on a busy machine


class CalculatorProcessFailed(RuntimeError):
    """One call of a child failed: it took too long, its process died, or what it called raised."""


class CalculatorProcess:
    """Call something that has a calculator in another process, each call within a time limit.

    The process starts with the first call (or :meth:`start`), and again after a call that took too long or killed it.

    Parameters
    ----------
    make : callable
        ``make(calculator, *args)`` is called in the other process and returns what is called there. A class or function at
        the top of a module.
    calculator : str, Path, callable or Calculator
        Must be fit for pickle, as must `args`.
    args
        More arguments of `make`.
    timeout : float
        Seconds for one call.

    Raises
    ------
    ValueError
        The calculator or another argument cannot be pickled.
    """

    def __init__(self, make, calculator, *args, timeout):
        self.timeout = None if math.isinf(timeout) else timeout
        self.process, self._end = None, lambda: None
        self.message = freeze(calculator, make, *args)

    def __call__(self, *args):
        """Return what the other process returns for these arguments.

        Raises
        ------
        CalculatorProcessFailed
            With the reason as text.
        Exception
            The process had to be started, and what `make` did raised this error.
        """
        self.start()
        try:
            self.pipe.send(args)
            if not self.pipe.poll(self.timeout):
                self.close()
                raise CalculatorProcessFailed(f'no result within the time limit of {self.timeout:g} s')
            done, result = self.pipe.recv()
        except CalculatorProcessFailed:
            raise
        except (EOFError, OSError):
            status = self.process.wait()
            self.close()
            raise CalculatorProcessFailed(f'the process of the calculator died with status {status}') from None
        except BaseException:  # Ctrl-C; the result of this call must not become that of the next one
            self.close()
            raise
        if not done:
            raise CalculatorProcessFailed(result)
        return result

    def start(self):
        """Start the process, unless it runs; raise the error where the calculator cannot be made."""
        if self.process is not None and self.process.poll() is None:
            return
        self.close()
        self.pipe, theirs = Pipe()
        reader, life = os.pipe()  # closes when this process dies, however it dies
        command = [sys.executable, '-m', 'ase_diffusion.calculators.process', str(theirs.fileno()), str(reader)]
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        if 'torch' in sys.modules:
            environment['OMP_NUM_THREADS'] = str(sys.modules['torch'].get_num_threads())
        self.process = subprocess.Popen(
            command, pass_fds=(theirs.fileno(), reader), start_new_session=True, env=environment, stdin=subprocess.DEVNULL
        )
        self._end = weakref.finalize(self, _kill, os.getpid(), self.process, self.pipe, life)  # also where nobody calls close
        theirs.close()
        os.close(reader)
        try:
            self.pipe.send_bytes(self.message)
            if not self.pipe.poll(START_LIMIT):
                raise TimeoutError(f'a calculator is made within {START_LIMIT:g} s; this one was not; try it without time limit')
            error = self.pipe.recv()
        except EOFError:
            error = RuntimeError(f'the process of the calculator died with status {self.process.wait()} before it began')
        except BaseException:
            self.close()
            raise
        if error is not None:
            self.close()
            raise error

    def close(self):
        """Kill the process and all that it started; the next call starts another one."""
        self._end()
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def _kill(parent, process, pipe, life):
    """End a process and all that it started; a fork of the parent has no right to."""
    if os.getpid() != parent:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    pipe.close()
    os.close(life)


def main(pipe, life):
    """Answer what comes through the pipe until it is closed."""
    threading.Thread(target=_die_with_parent, args=(life,), daemon=True).start()
    pipe = Connection(pipe)
    try:
        calculator, make, *args = pickle.loads(pipe.recv_bytes())
        function = make(calculator, *args)
    except Exception as err:  # the parent raises it
        pipe.send(_portable(err))
        return
    pipe.send(None)
    while True:
        try:
            args = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(*args)
        except Exception as err:  # any calculator may raise anything
            answer = False, f'{type(err).__name__}: {err}'
        pipe.send(answer)


def _portable(err):
    """Return the error, or one with its text where it does not survive pickle."""
    try:
        pickle.loads(pickle.dumps(err))
    except Exception:
        return RuntimeError(f'{type(err).__name__}: {err}')
    return err


def _die_with_parent(life):
    """Wait for the end of the parent; then go, with all that the calculator started."""
    os.read(life, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == '__main__':
    main(*(int(text) for text in sys.argv[1:]))
