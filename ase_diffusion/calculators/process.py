"""Separate process for calculators that may hang; it is killed with all its child processes.

Started as ``python -m ase_diffusion.calculators.process`` by :class:`CalculatorProcess` only.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Self

from ..utils.children import python_path
from .factory import freeze
from .names import CalculatorLike

START_LIMIT = 600.0  # s; includes imports and loading of weights on a busy machine


class CalculatorProcessFailed(RuntimeError):
    """Error of a call in another process: time limit exceeded, process died, or the function raised."""


class CalculatorProcess:
    """Call a function with a calculator in another process, each call within a time limit.

    The process starts with the first call (or :meth:`start`), and again after a time limit or a crash.

    Parameters
    ----------
    make : callable
        ``make(calculator, *args)`` runs in the other process and returns the function to call there. A class or function at
        module level.
    calculator : str, Path, callable or Calculator
        Must be picklable, like `args`.
    args
        Further arguments of `make`.
    timeout : float
        Time limit of one call in seconds.

    Raises
    ------
    ValueError
        The calculator or another argument cannot be pickled.
    """

    def __init__(self, make: Callable[..., Callable], calculator: CalculatorLike, *args: object, timeout: float) -> None:
        self.timeout = None if math.isinf(timeout) else timeout
        self.process, self._end = None, lambda: None
        self.message = freeze(calculator, make, *args)

    def __call__(self, *args: object) -> Any:
        """Return the result of the function in the other process.

        Raises
        ------
        CalculatorProcessFailed
            With the reason as text.
        Exception
            Error of `make` when the process is started.
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
        except BaseException:  # Ctrl-C; the pending result must not become that of the next call
            self.close()
            raise
        if not done:
            raise CalculatorProcessFailed(result)
        return result

    def start(self) -> None:
        """Start the process unless it runs; errors of `make` are raised here."""
        if self.process is not None and self.process.poll() is None:
            return
        self.close()
        self.pipe, theirs = Pipe()
        reader, life = os.pipe()  # closes when this process ends in any way
        command = [sys.executable, '-P', '-m', 'ase_diffusion.calculators.process', str(theirs.fileno()), str(reader)]
        environment = {**os.environ, 'PYTHONPATH': python_path()}
        if 'torch' in sys.modules:
            environment['OMP_NUM_THREADS'] = str(sys.modules['torch'].get_num_threads())
        self.process = subprocess.Popen(
            command, pass_fds=(theirs.fileno(), reader), start_new_session=True, env=environment, stdin=subprocess.DEVNULL
        )
        self._end = weakref.finalize(self, _kill, os.getpid(), self.process, self.pipe, life)  # also without a call of close
        theirs.close()
        os.close(reader)
        try:
            self.pipe.send_bytes(self.message)
            if not self.pipe.poll(START_LIMIT):
                raise TimeoutError(f'a calculator is made within {START_LIMIT:g} s; this one was not; try it without time limit')
            error = self.pipe.recv()
        except (EOFError, ConnectionError):
            status = self.process.wait()
            error = RuntimeError(f'the process of the calculator died with status {status} before it began; stderr says why')
        except BaseException:
            self.close()
            raise
        if error is not None:
            self.close()
            raise error

    def close(self) -> None:
        """Kill the process and its child processes; the next call starts a new one."""
        self._end()
        self.process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _kill(parent, process, pipe, life):
    """Kill a process and its child processes, unless called in a fork of the parent."""
    if os.getpid() != parent:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    pipe.close()
    os.close(life)


def main(pipe: int, life: int) -> None:
    """Answer calls that arrive through the pipe until it is closed."""
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
        except Exception as err:  # calculators raise any error
            answer = False, f'{type(err).__name__}: {err}'
        pipe.send(answer)


def _portable(err):
    """Return the error, or a RuntimeError with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(err))
    except Exception:
        return RuntimeError(f'{type(err).__name__}: {err}')
    return err


def _die_with_parent(life):
    """Wait for the end of the parent, then kill the process group."""
    os.read(life, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == '__main__':
    main(*(int(text) for text in sys.argv[1:]))
