"""Checks of arguments: integers, numbers, limits, folders, windows."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np

LIMITS = {
    'min_distance': 'a part of the sum of two covalent radii, such as 0.4',
    'max_energy': 'an energy in eV, such as 100',
    'timeout': 'a time in seconds',
    'time_limit': 'a time in seconds',
}


def check_limits(*, batch_size: Any = 1, **limits: float | None) -> None:
    """Raise a ValueError for a limit that is neither positive nor None, or a batch size below 1.

    Parameters
    ----------
    batch_size : int
    **limits : float or None
        By the names in `LIMITS`; None is no limit.
    """
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise ValueError(f'{name} is {LIMITS[name]}, above 0, or None for no limit; got {value!r}')
    check_integer('batch_size', batch_size, 1)


def check_integer(name: str, value: Any, low: int, what: str = '') -> int:
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


def check_count(name: str, what: str, value: Any) -> int:
    """Return an integer of at least 1: `check_integer` with a meaning."""
    return check_integer(name, value, 1, what)


def check_number(name: str, value: Any, what: str, *, low: float = 0.0, strict: bool = True) -> float:
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


def check_window(name: str, value: Any, what: str) -> tuple[float, float]:
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


def check_folder(name: str, path: Any) -> None:
    """Raise a FileNotFoundError if the folder of an output file does not exist.

    Parameters
    ----------
    name : str
        Name of the argument.
    path : str, Path or other
        ``'-'`` and objects other than paths are not checked.
    """
    if isinstance(path, (str, Path)) and str(path) != '-' and not Path(path).absolute().parent.is_dir():
        folder = Path(path).absolute().parent
        raise FileNotFoundError(f'{name}={str(path)!r} needs the folder {folder}, which does not exist: mkdir -p {folder}')
