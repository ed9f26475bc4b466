"""Inaccessible pockets: periodic connected components of the points with low energy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from .adsorption import VOID

__all__ = ['accessible_mask', 'find_channels']


def find_channels(mask: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the connected regions of a periodic mask and the dimensions of their percolation.

    Parameters
    ----------
    mask : array_like of bool
        ``(nx, ny, nz)``, periodic along all axes; points that share a face are connected.

    Returns
    -------
    labels : numpy.ndarray
        ``(nx, ny, nz)`` int, 1 to m; 0 outside the mask.
    dimensions : numpy.ndarray
        ``(m,)`` int: 0 for a closed pocket, 1 to 3 for channels that percolate in this number of independent directions.

    Notes
    -----
    Regions inside the cell are joined across its faces, with the periodic image of each (union-find). A region that meets its
    own periodic image percolates along the difference of the images.
    """
    mask = np.asarray(mask, bool)
    if mask.ndim != 3:
        raise ValueError(f'a mask is (nx, ny, nz); got an array of shape {mask.shape}')
    labels, count = ndimage.label(mask)
    parent = np.arange(count + 1)
    image = np.zeros((count + 1, 3), int)  # image of a region relative to its parent
    cycles = [[] for _ in range(count + 1)]

    def root(k):
        shift = np.zeros(3, int)
        while parent[k] != k:
            shift += image[k]
            k = parent[k]
        return k, shift

    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        low, high = labels.take(0, axis), labels.take(-1, axis)
        touching = (low > 0) & (high > 0)
        for one, other in set(zip(high[touching].tolist(), low[touching].tolist(), strict=True)):
            (a, at_a), (b, at_b) = root(one), root(other)
            between = at_a + step - at_b  # image of root b relative to root a
            if a == b:
                if between.any():
                    cycles[a].append(between)
            else:
                parent[b], image[b] = a, between
                cycles[a] += cycles[b]
    roots = np.array([root(k)[0] for k in range(count + 1)])
    names, merged = np.unique(roots, return_inverse=True)  # 0 stays 0
    ranks = [np.linalg.matrix_rank(np.array(cycles[k])) if cycles[k] else 0 for k in names]
    return merged[labels], np.array(ranks[1:], int)


def accessible_mask(grid: ArrayLike, temperature: float = 298.0, *, threshold: float | None = None) -> np.ndarray:
    """Return the points in channels through the crystal, without closed pockets.

    Parameters
    ----------
    grid : array_like
        ``(nx, ny, nz)`` energies E / kB in K.
    temperature : float
        Temperature in K.
    threshold : float, optional
        In K; points with E <= threshold are passable, by default 15 kB T.

    Returns
    -------
    numpy.ndarray
        ``(nx, ny, nz)`` bool, for the argument `accessible` of `adsorption_properties`. Points above the threshold are not
        accessible; their weight in a Henry coefficient is below 3.1e-7.

    Notes
    -----
    A narrow window may appear closed on a coarse grid; check the convergence with the grid.
    """
    if np.ndim(grid) != 3:
        raise ValueError(f'an energy grid is (nx, ny, nz) in K; got an array of shape {np.shape(grid)}')
    labels, dimensions = find_channels(np.asarray(grid) <= (VOID * temperature if threshold is None else threshold))
    return np.concatenate([[False], dimensions > 0])[labels]
