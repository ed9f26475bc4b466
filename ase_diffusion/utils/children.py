"""Python processes that do not import files of the working folder in place of modules (random.py, numpy.py, ...)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ['python_path', 'unshadowed']

NAME = 'PYTHONSAFEPATH'  # Python then leaves out the working folder, which ``-c`` and ``-m`` put first on the path


@contextmanager
def unshadowed() -> Iterator[None]:
    """Start processes of multiprocessing (spawn) and dask without the working folder on their path.

    They take over the path of this process later, so that what this process can import is importable there too.
    """
    before = os.environ.get(NAME)
    os.environ[NAME] = '1'
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(NAME, None)
        else:
            os.environ[NAME] = before


def python_path() -> str:
    """Return the path of this process as PYTHONPATH for ``python -P``; the working folder only where this process has it."""
    return os.pathsep.join(folder or os.getcwd() for folder in sys.path)
