"""Checks of arguments: integers, numbers, limits, folders, windows."""

from __future__ import annotations

import inspect
import operator
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

LIMITS = {
    'min_distance': 'a part of the sum of two covalent radii, such as 0.4',
    'max_energy': 'an energy in eV, such as 100',
    'timeout': 'a time in seconds',
    'time_limit': 'a time in seconds',
}


CALCULATOR_KEYWORDS = ('restart', 'label', 'atoms', 'directory')  # of ase.calculators.calculator.Calculator


def check_limits(*, batch_size: int = 1, **limits: float | None) -> None:
    """Raise a ValueError for a limit that is neither positive nor None, or a batch size below 1.

    Parameters
    ----------
    batch_size : int
    **limits : float or None
        By the names in `LIMITS`; None is no limit.
    """
    for name, value in limits.items():
        if value is not None and not (np.isscalar(value) and not isinstance(value, str) and value > 0):
            raise ValueError(f'{name} is {LIMITS[name]}, above 0, or None for no limit; got {value!r}')
    check_integer('batch_size', batch_size, 1)


def check_integer(name: str, value: int, low: int, what: str = '') -> int:
    """Return an integer of at least `low`.

    Parameters
    ----------
    name : str
        Name of the argument.
    value
        An int or numpy integer.
    low : int
        The smallest value allowed.
    what : str
        Meaning of the argument, for the message.

    Raises
    ------
    ValueError
        The value is a bool, not an integer, or too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < low:
        meaning = f'{what}, an integer' if what else 'an integer'
        raise ValueError(f'{name} is {meaning}, {low} or more; got {value!r}')
    return number


def keywords_of(function: Callable) -> set[str]:
    """Return the names of the keyword-only arguments of a function."""
    arguments = inspect.signature(function).parameters.items()
    return {name for name, argument in arguments if argument.kind is argument.KEYWORD_ONLY}


def check_keywords(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a TypeError, which lists those that exist, where a keyword of the function ``name`` is none."""
    if unknown := sorted(set(given) - set(known)):
        raise TypeError(f'{name} has no option {", ".join(map(repr, unknown))}; it has {", ".join(sorted(known))}')


def check_count(name: str, what: str, value: int) -> int:
    """Return an integer of at least 1: `check_integer` with a meaning."""
    return check_integer(name, value, 1, what)


def check_number(name: str, value: float, what: str, *, low: float = 0.0, strict: bool = True) -> float:
    """Return a finite number above `low` (from `low` on where not strict) as a float.

    Parameters
    ----------
    name : str
        Name of the argument.
    value
        A real number.
    what : str
        Meaning, unit and example, for the message.
    low : float
    strict : bool

    Raises
    ------
    ValueError
        The value is not a number, not finite, or too small.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float('nan')
    if not np.isfinite(number) or number < low or (strict and number == low):
        raise ValueError(f'{name} is {what}; got {value!r}')
    return number


def check_tolerance(name: str, value: float) -> float:
    """Return a tolerance of spglib, A, which ends the process where it is not positive; raise a ValueError instead."""
    if isinstance(value, (bool, np.bool_, str)):
        raise ValueError(f'{name} is a tolerance in A, positive, such as 0.1; got {value!r}')
    return check_number(name, value, 'a tolerance in A, positive, such as 0.1')


def check_window(name: str, value: Sequence[float], what: str) -> tuple[float, float]:
    """Return a window (low, high) as two finite floats with low < high.

    Parameters
    ----------
    name : str
        Name of the argument.
    value : (float, float)
    what : str
        Unit, origin and example, for the message.

    Raises
    ------
    ValueError
        The value is not a pair of finite numbers in ascending order.
    """
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError):
        low = high = float('nan')
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f'{name} is (low, high) {what}; got {value!r}')
    return low, high


def check_folder(name: str, path: object) -> None:
    """Raise an OSError if an output file cannot be written; a file that exists is not changed.

    Parameters
    ----------
    name : str
        Name of the argument.
    path : str, Path or other
        ``'-'`` and objects other than paths are not checked.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, OSError
        The folder does not exist, the path is a folder, or the file cannot be opened for writing.
    """
    if not isinstance(path, (str, Path)) or str(path) == '-':
        return
    check_parent(name, path)
    check_writable(path)


def check_parent(name: str, path: str | os.PathLike) -> None:
    """Raise a FileNotFoundError if the folder of a file does not exist."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f'{name}={str(path)!r} needs the folder {folder}, which does not exist: mkdir -p {folder}')


def check_writable(path: str | Path) -> None:
    """Raise an OSError if no file can be written at a path; a file that exists is not changed, a new one does not stay.

    Raises
    ------
    IsADirectoryError, OSError
        The path is a folder; the file cannot be opened for writing, with the reason of the system.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f'a file is written, but {path} is a folder; name a file in it')
    try:
        if path.is_file():
            with open(path, 'r+b'):
                return
        if not path.exists():  # pipes and devices are not tried
            with open(path, 'xb'):
                pass
            path.unlink()
    except OSError as err:
        raise type(err)(f'{path} cannot be written ({err.strerror or err}); choose another file or folder') from err


def check_output_folder(path: str | Path) -> None:
    """Raise an OSError if files cannot be written in a folder that may have to be made; nothing is left behind.

    Raises
    ------
    NotADirectoryError, OSError
        The path or one of its parents is a file; no file can be made there, with the reason of the system.
    """
    path = Path(path)
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise NotADirectoryError(f'files are written into a folder, but {there} is a file; name another folder')
    try:
        descriptor, trial = tempfile.mkstemp(dir=there)
    except OSError as err:
        raise type(err)(f'no file can be written in {path} ({err.strerror or err}); choose another folder') from err
    os.close(descriptor)
    os.unlink(trial)
