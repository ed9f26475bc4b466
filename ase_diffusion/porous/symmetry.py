"""Sites in space groups with orthogonal cells: special positions, orbits, images."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numba import njit

ORDER = 192  # operations of the largest group


@cache
def orthogonal_groups(most: int = ORDER) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return the operations of the space groups with orthogonal cells, 16 to 142 and 195 to 230.

    Parameters
    ----------
    most : int
        Largest number of operations, centring included.

    Returns
    -------
    list of (int, numpy.ndarray, numpy.ndarray)
        163 without a limit: number, rotations ``(order, 3, 3)`` and translations ``(order, 3)``, float64, fractional columns:
        x' = R x + t.
    """
    from ase.spacegroup import Spacegroup

    groups = []
    for number in (*range(16, 143), *range(195, 231)):
        rotations, translations = zip(*Spacegroup(number).get_symop(), strict=True)
        if len(rotations) <= most:
            groups.append((number, np.array(rotations, float), np.array(translations, float)))
    return groups


@njit(cache=True)
def settle_site(
    x: np.ndarray,
    lengths: np.ndarray,
    rotations: np.ndarray,
    translations: np.ndarray,
    radius: float,
    image: np.ndarray,
    fixing: np.ndarray,
) -> int:
    """Move a site onto the mean of its images nearer than a radius, until nothing changes; return how many fix it.

    `fixing` (order,) is filled with the operations that map the site onto itself.
    """
    count = 0
    mean = np.empty(3)
    for _ in range(6):
        mean[:] = 0.0
        count = 0
        moved = 0.0
        for g in range(len(rotations)):
            square = 0.0
            for a in range(3):
                y = translations[g, a]
                for b in range(3):
                    y += rotations[g, a, b] * x[b]
                y -= x[a]
                image[a] = y - round(y)
                square += (image[a] * lengths[a]) ** 2
            if square < radius * radius:
                fixing[count] = g
                count += 1
                for a in range(3):
                    mean[a] += image[a]
        for a in range(3):
            mean[a] /= count
            x[a] += mean[a]
            moved += (mean[a] * lengths[a]) ** 2
        if moved < 1e-16:
            return count
    return 0


@njit(cache=True)
def orbit_of(
    x: np.ndarray,
    rotations: np.ndarray,
    translations: np.ndarray,
    lengths: np.ndarray,
    out: np.ndarray,
    operations: np.ndarray,
    limit: int,
) -> int:
    """Fill the images of a site inside the cell and the operation of each; return their number, limit + 1 if more."""
    count = 0
    y = np.empty(3)
    for g in range(len(rotations)):
        for a in range(3):
            y[a] = translations[g, a]
            for b in range(3):
                y[a] += rotations[g, a, b] * x[b]
            y[a] -= math.floor(y[a])
        new = True
        for k in range(count):
            square = 0.0
            for a in range(3):
                u = y[a] - out[k, a]
                u -= round(u)
                square += (u * lengths[a]) ** 2
            if square < 0.01:
                new = False
                break
        if new:
            if count == limit:
                return limit + 1
            out[count] = y
            operations[count] = g
            count += 1
    return count


@njit(cache=True)
def images_of(
    x: np.ndarray, owner: np.ndarray, operation: np.ndarray, rotations: np.ndarray, translations: np.ndarray, out: np.ndarray
) -> None:
    """Fill the positions (n, 3) of all sites from those of the orbits (u, 3); not wrapped."""
    for k in range(len(owner)):
        g, u = operation[k], owner[k]
        for a in range(3):
            y = translations[g, a]
            for b in range(3):
                y += rotations[g, a, b] * x[u, b]
            out[k, a] = y
