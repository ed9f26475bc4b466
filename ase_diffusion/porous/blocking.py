"""Inaccessible pockets: periodic connected components of the points with low energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from .adsorption import VOID, as_mask

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ['accessible_mask', 'find_channels']


def find_channels(mask: ArrayLike, cell: Atoms | ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the connected regions of a periodic mask and the dimensions of their percolation.

    Parameters
    ----------
    mask : array_like of bool
        ``(nx, ny, nz)``, periodic along all axes.
    cell : Atoms, Cell or array_like, optional
        Cell of the grid, (3, 3) rows in A. With it, points are connected whose Voronoi cells in the lattice of grid points share
        a face, so that the result does not depend on the choice of the cell vectors. Without it, and for right angles, these
        are the neighbors along the axes.

    Returns
    -------
    labels : numpy.ndarray
        ``(nx, ny, nz)`` int, 1 to m; 0 outside the mask.
    dimensions : numpy.ndarray
        ``(m,)`` int: 0 for a closed pocket, 1 to 3 for channels that percolate in this number of independent directions.

    Notes
    -----
    Each point of a region has the number of cell vectors that lead to it along a tree from the first one. A bond that
    leads to another image of a point closes a path through the crystal; the rank of these vectors is the dimension.
    """
    if np.ndim(mask) != 3:
        raise ValueError(f'a mask is (nx, ny, nz); got an array of shape {np.shape(mask)}')
    mask = as_mask(mask)
    shape = np.array(mask.shape)
    steps = np.eye(3, dtype=int) if cell is None else _facing(np.array(getattr(cell, 'cell', cell), float) / shape[:, None])
    if not mask.any():
        return np.zeros(mask.shape, int), np.zeros(0, int)
    index = np.full(mask.shape, -1)
    points = np.argwhere(mask)  # (p, 3)
    index[mask] = np.arange(len(points))
    one, other, moved = [], [], []
    for step in steps:
        ends = points + step
        partner = index[tuple((ends % shape).T)]
        near = partner >= 0
        one.append(np.flatnonzero(near))
        other.append(partner[near])
        moved.append((ends // shape)[near])
    one, other, moved = (np.concatenate(each) for each in (one, other, moved))
    count, region = connected_components(coo_matrix((np.ones(len(one)), (one, other)), (len(points),) * 2), directed=False)
    image = _images(len(points), one, other, moved, region, count)
    around = image[one] + moved - image[other]  # (bonds, 3), not 0 where a path closes through the crystal
    closing = around.any(1)
    dimensions = np.zeros(count, int)
    for k in np.unique(region[one[closing]]):
        vectors = np.unique(around[closing & (region[one] == k)], axis=0)
        dimensions[k] = np.linalg.matrix_rank(vectors)
    labels = np.zeros(mask.shape, int)
    labels[mask] = region + 1
    return labels, dimensions


def _facing(vectors):
    """Return the integer steps (m, 3), one of each pair, whose points share a face of their Voronoi cells in a lattice (3, 3)."""
    from ase.geometry import minkowski_reduce

    reduced, change = minkowski_reduce(vectors)
    ranges = np.array([(i, j, k) for i in range(-2, 3) for j in range(-2, 3) for k in range(-2, 3) if (i, j, k) > (0, 0, 0)])
    places = ranges @ reduced
    lengths = (places**2).sum(1)
    both = np.concatenate([places, -places])
    # the middle of a facing pair is nearer to the two than to any other point
    middle = ((places[:, None] / 2 - both[None]) ** 2).sum(-1)  # (m, 2 m)
    own = np.arange(len(places))
    middle[own, own] = np.inf
    faces = (middle > lengths[:, None] / 4 * (1 + 1e-6)).all(1)
    return (ranges[faces] @ change).astype(int)


def _images(count, one, other, moved, region, regions):
    """Return the image (n, 3) of each point relative to the first point of its region, along a tree of bonds."""
    first = np.full(regions, count)
    np.minimum.at(first, region, np.arange(count))
    roots = np.full(regions, count)  # an extra point is bonded to the first one of each region
    bonds = coo_matrix((np.ones(len(one) + regions), (np.r_[one, roots], np.r_[other, first])), (count + 1,) * 2).tocsr()
    parent = breadth_first_order(bonds, count, directed=False)[1]
    image = np.zeros((count + 1, 3), int)
    parent[count] = count
    parent[first] = first
    key = np.r_[one * (count + 1) + other, other * (count + 1) + one]
    shift = np.concatenate([moved, -moved])
    order = np.argsort(key, kind='stable')
    inner = np.flatnonzero(parent[:count] != np.arange(count))
    at = np.searchsorted(key[order], parent[inner] * (count + 1) + inner)
    image[inner] = shift[order[at]]
    while (parent[:count] != parent[parent[:count]]).any():  # jumps of 1, 2, 4, ... bonds
        image[:count] += image[parent[:count]]
        parent = parent[parent]
    return image[:count]


def accessible_mask(
    grid: ArrayLike, temperature: float = 298.0, *, threshold: float | None = None, cell: Atoms | ArrayLike | None = None
) -> np.ndarray:
    """Return the points in channels through the crystal, without closed pockets.

    Parameters
    ----------
    grid : array_like
        ``(nx, ny, nz)`` energies E / kB in K.
    temperature : float
        Temperature in K.
    threshold : float, optional
        In K; points with E <= threshold are passable, by default 15 kB T.
    cell : Atoms, Cell or array_like, optional
        As in `find_channels`.

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
    if not np.isfinite(grid).all():
        raise ValueError('an energy grid is of finite numbers, in K; there are others in it (energy_grid makes none)')
    labels, dimensions = find_channels(np.asarray(grid) <= (VOID * temperature if threshold is None else threshold), cell)
    return np.concatenate([[False], dimensions > 0])[labels]
