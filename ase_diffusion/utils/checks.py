"""Checks of arguments: integers, numbers, limits, folders."""

from __future__ import annotations

import operator
from pathlib import Path

import numpy as np


def check_limits(*, batch_size=1, **limits):
    """Raise where a limit cannot be meant."""
    meaning = {
        'min_distance': 'a part of the sum of two covalent radii, such as 0.4',
        'max_energy': 'an energy in eV, such as 100',
        'timeout': 'a time in seconds',
        'time_limit': 'a time in seconds',
    }
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise ValueError(f'{name} is {meaning[name]}, above 0, or None for no limit; got {value!r}.')
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f'batch_size is an integer, 1 or more; got {batch_size!r}.')


def check_integer(name: str, value, low: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f'{name} is an integer, {low} or more; got {value!r}') from None
    if isinstance(value, bool) or number < low:
        raise ValueError(f'{name} is an integer, {low} or more; got {value!r}')
    return number


def check_folder(name: str, path) -> None:
    """Raise a FileNotFoundError where the folder of a file to be written does not exist."""
    if isinstance(path, (str, Path)) and str(path) != '-' and not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f'{name}={str(path)!r} needs the folder {Path(path).absolute().parent}; make it first')
