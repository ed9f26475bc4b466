"""Clouds of points that become crystals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from .drawing import atom_colors
from .style import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_cloud(
    points: ArrayLike, numbers: ArrayLike, cell: ArrayLike | None = None, ax: Axes | None = None, *, size: float = 12.0
) -> Axes:
    """Draw a cloud of points in its cell, seen along the third lattice vector, in the colors of the elements.

    Parameters
    ----------
    points : array_like
        ``(n, 3)`` fractional coordinates, drawn within the cell.
    numbers : array_like
        ``(n,)`` atomic numbers.
    cell : array_like, optional
        ``(3, 3)`` lattice vectors in rows, A; a unit square where it is None or no cell.
    ax : Axes, optional
    size : float
        Area of the markers, square points.

    Raises
    ------
    ValueError
        The shapes do not fit.
    """
    points, numbers = np.asarray(points, float), np.asarray(numbers, int)
    if points.ndim != 2 or points.shape[1:] != (3,) or numbers.shape != points.shape[:1]:
        raise ValueError(f'a cloud is points (n, 3) and numbers (n,); got the shapes {points.shape} and {numbers.shape}')
    cell = np.eye(3) if cell is None else np.asarray(cell, float)
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-6:
        cell = np.eye(3)
    a, b = cell[0] / np.linalg.norm(cell[0]), cell[1]
    up = b - (b @ a) * a
    plane = np.array([a, up / np.linalg.norm(up)])  # (2, 3)
    ax = new_axes((2.4, 2.4)) if ax is None else ax
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]) @ cell @ plane.T
    ax.plot(*corners.T, color='0.6', linewidth=0.8, zorder=0)
    inside = points % 1.0 % 1.0
    order = inside[:, 2].argsort()
    flat = inside * [1, 1, 0] if np.abs(cell[2] @ plane.T).max() > 1e-9 else inside  # the projection along c, within the cell
    x, y = (flat @ cell @ plane.T)[order].T
    ax.scatter(x, y, s=size, c=atom_colors(Atoms(numbers))[order], edgecolors='0.25', linewidths=0.3)
    ax.set_aspect('equal')
    ax.axis('off')
    return ax
