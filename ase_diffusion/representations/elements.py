"""Chemical elements as points in space, neighbors in the periodic table close to each other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase.data import chemical_symbols

_NOBLE = (2, 10, 18, 36, 54, 86, 118)


def period_and_group(z: int) -> tuple[int, int]:
    """Return period (1 to 7) and column: groups 1 to 18, f elements 19 (La, Ac) to 33 (Lu, Lr)."""
    if not 1 <= z < len(chemical_symbols):
        raise ValueError(f'an atomic number lies between 1 and {len(chemical_symbols) - 1}, got {z}')
    period = next(k for k, last in enumerate(_NOBLE, 1) if z <= last)
    for first in (57, 89):
        if first <= z <= first + 14:
            return period, 19 + z - first
    back = _NOBLE[period - 1] - z  # columns from the right end
    if back < 6 and z > 2:
        return period, 18 - back
    if z == 2:
        return 1, 18
    place = z - (_NOBLE[period - 2] if period > 1 else 0)  # 1, 2, ... from the left end
    if place <= 2:
        return period, place
    return period, 18 - back  # d elements, all right of the f elements


def element_points(numbers: Iterable[int]) -> np.ndarray:
    """Return the points (K, D) of elements: one-hot period and column, centred, of unit variance in the mean over D.

    Elements of one period or one column lie at the same distance from each other, sqrt 2 less than others.
    """
    pairs = [period_and_group(int(z)) for z in numbers]
    columns = [sorted({pair[axis] for pair in pairs}) for axis in (0, 1)]
    points = np.array([[float(pair[axis] == value) for axis in (0, 1) for value in columns[axis]] for pair in pairs])
    points = points[:, points.std(0) > 0] if len(pairs) > 1 else points
    points = points - points.mean(0) if len(pairs) > 1 else points
    return points / np.sqrt((points**2).mean())
