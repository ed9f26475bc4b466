"""Isosurfaces and slices of grids over periodic cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .style import PALETTE, new_axes

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType
    from mpl_toolkits.mplot3d import Axes3D


LIGHT = np.array([0.35, -0.55, 0.76])  # direction of the light


def isosurface(grid: ArrayLike, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the isosurface of a periodic grid as quadrilaterals (surface nets).

    One vertex per voxel crossed by the surface, at the mean of the crossings of its edges, and one face per grid edge with
    ends on different sides (Gibson, MICCAI 1998). Crossings are interpolated in arctan of the values, because energies
    rise steeply at walls.

    Parameters
    ----------
    grid : array_like
        ``(nx, ny, nz)``, periodic.
    level : float

    Returns
    -------
    vertices : numpy.ndarray
        ``(v, 3)`` fractional coordinates from 0 to slightly above 1: the surface extends to the first voxel outside.
    faces : numpy.ndarray
        ``(f, 4)`` int, indices of the corners, counterclockwise seen from the side of larger values.
    """
    grid = np.asarray(grid, float)
    if grid.ndim != 3 or min(grid.shape) < 2:
        raise ValueError(f'a surface needs a grid (nx, ny, nz) with at least 2 points along each axis; got {grid.shape}')
    if not np.isscalar(level):
        raise TypeError(f'the level of a surface is a number, such as 0.0; got {type(level).__name__}')
    if not np.isfinite(level) or not grid.min() < level < grid.max():
        raise ValueError(
            f'a surface lies between the smallest and the largest value, {grid.min():.6g} and {grid.max():.6g}; '
            f'got level={level!r}'
        )
    shape = np.array(grid.shape)
    value = np.pad(grid, (0, 2), mode='wrap') - level
    value = np.arctan(value / max(np.median(np.abs(value)), 1e-12))
    above = value > 0
    total, count = np.zeros((*(shape + 1), 3)), np.zeros(shape + 1)
    edges = []
    for axis in range(3):
        one, other = (np.take(value, range(k, k + shape[axis] + 1), axis) for k in (0, 1))
        crossed = (one > 0) != (other > 0)
        where = np.argwhere(crossed)
        place = where.astype(float)
        first, second = one[crossed], other[crossed]
        place[:, axis] += first / (first - second)
        side = [k for k in range(3) if k != axis]
        for i in (0, 1):
            for j in (0, 1):  # the four voxels around an edge
                voxel = where.copy()
                voxel[:, side[0]] -= i
                voxel[:, side[1]] -= j
                inside = ((voxel >= 0) & (voxel <= shape)).all(1)
                index = tuple(voxel[inside].T)
                np.add.at(total, index, place[inside])
                np.add.at(count, index, 1)
        edges.append((axis, side, where, above[tuple(where.T)]))
    number = np.full(count.shape, -1)
    number[count > 0] = np.arange((count > 0).sum())
    vertices = total[count > 0] / count[count > 0][:, None] / shape
    return vertices, np.concatenate([_faces(number, shape, *edge) for edge in edges])


def _faces(number, shape, axis, side, where, above):
    """Return the faces (f, 4) around the crossed edges along an axis, if all four voxels exist."""
    keep = ((where[:, side] >= 1) & (where[:, side] <= shape[side])).all(1) & (where[:, axis] < shape[axis])
    where, above = where[keep], above[keep]
    ring = []
    for i, j in ((0, 0), (1, 0), (1, 1), (0, 1)):
        voxel = where.copy()
        voxel[:, side[0]] -= i
        voxel[:, side[1]] -= j
        ring.append(number[tuple(voxel.T)])
    ring = np.stack(ring, -1)
    turn = above ^ (axis == 1)  # side = (0, 2) is left-handed about axis 1
    return np.where(turn[:, None], ring[:, ::-1], ring)


def plot_isosurface(
    grid: ArrayLike,
    level: float = 0.0,
    cell: Atoms | ArrayLike | None = None,
    ax: Axes3D | None = None,
    *,
    atoms: Atoms | None = None,
    color: ColorType = PALETTE[0],
    alpha: float = 0.9,
    view: tuple[float, float] = (20, -60),
) -> Axes3D:
    """Draw an isosurface of a grid over a periodic cell.

    Parameters
    ----------
    grid : array_like
        ``(nx, ny, nz)``; 32^3 points are enough for a figure.
    level : float
        Value in the unit of the grid, such as 0 K for the wall of a pore.
    cell : Atoms, Cell or array_like, optional
        Rows in A; the cell of `atoms` by default, a unit cube without atoms.
    ax : mpl_toolkits.mplot3d.Axes3D, optional
    atoms : Atoms, optional
        Drawn as dots.
    color : matplotlib color
    alpha : float
    view : (float, float)
        Elevation and azimuth in degrees.

    Returns
    -------
    mpl_toolkits.mplot3d.Axes3D
    """
    from matplotlib.colors import to_rgb
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    cell = _cell(cell if cell is not None else atoms)
    vertices, faces = isosurface(grid, level)
    corners = (vertices @ cell)[faces]  # (f, 4, 3)
    normal = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    shade = 0.45 + 0.55 * np.abs(normal @ LIGHT / np.linalg.norm(LIGHT))
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(4.5, 4.5), layout='constrained').add_subplot(projection='3d')
    colors = np.concatenate([np.array(to_rgb(color)) * shade[:, None], np.full((len(shade), 1), alpha)], 1)
    ax.add_collection3d(Poly3DCollection(corners, facecolors=colors, edgecolors='none', antialiased=False))
    box = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) @ cell
    for i in range(8):
        for bit in (1, 2, 4):
            if not i & bit:
                ax.plot(*box[[i, i | bit]].T, color='black', lw=0.7)
    if atoms is not None:
        from ase.data.colors import jmol_colors

        places = atoms.get_scaled_positions() @ cell
        ax.scatter(*places.T, c=jmol_colors[atoms.numbers], s=14, edgecolors='black', linewidths=0.3, depthshade=False)
    low, high = box.min(0), box.max(0)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]), xlabel='x (Å)', ylabel='y (Å)', zlabel='z (Å)')
    ax.set_box_aspect(high - low)
    ax.view_init(*view)
    return ax


def plot_slice(
    grid: ArrayLike,
    cell: Atoms | ArrayLike | None = None,
    ax: Axes | None = None,
    *,
    axis: int = 2,
    position: float = 0.0,
    limits: tuple[float, float] | None = None,
    cmap: str = 'viridis',
    label: str | None = 'E / kB (K)',
) -> Axes:
    """Draw one plane of a grid over a periodic cell, with true angles and lengths.

    Parameters
    ----------
    grid : array_like
        ``(nx, ny, nz)``.
    cell : Atoms, Cell or array_like, optional
        Rows in A; a unit cube by default.
    ax : matplotlib.axes.Axes, optional
    axis : {0, 1, 2}
        Cell vector of the cut; the plane is spanned by the other two.
    position : float
        Fractional coordinate along `axis`; the nearest plane of points is shown.
    limits : (float, float), optional
        Range of colors. By default symmetric around zero down to the smallest value for grids with negative values (wells
        beside walls), otherwise the full range.
    cmap : str
    label : str or None
        Label of the color bar; None for no color bar.

    Returns
    -------
    matplotlib.axes.Axes
    """
    grid, cell = np.asarray(grid, float), _cell(cell)
    if grid.ndim != 3 or axis not in (0, 1, 2):
        raise ValueError(f'a slice is cut from a grid (nx, ny, nz) along axis 0, 1 or 2; got {grid.shape} and axis={axis!r}')
    plane = grid.take(round(position % 1.0 * grid.shape[axis]) % grid.shape[axis], axis)
    one, other = (cell[k] for k in range(3) if k != axis)
    length = np.linalg.norm(one)
    along = other @ one / length
    flat = np.array([[length, 0.0], [along, np.sqrt(max(other @ other - along**2, 0.0))]])
    places = np.stack(np.meshgrid(*(np.arange(n + 1) / n for n in plane.shape), indexing='ij'), -1) @ flat
    if limits is None:
        limits = (plane.min(), -plane.min()) if plane.min() < 0 < plane.max() else (plane.min(), plane.max())
    ax = ax or new_axes((4.2, 3.4))
    image = ax.pcolormesh(
        places[..., 0],
        places[..., 1],
        np.pad(plane, (0, 1), mode='wrap'),
        vmin=limits[0],
        vmax=limits[1],
        cmap=cmap,
        shading='gouraud',
        rasterized=True,
    )
    if label is not None:
        ax.figure.colorbar(image, ax=ax, label=label, extend='max' if plane.max() > limits[1] else 'neither')
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) @ flat
    ax.plot(*corners.T, color='black', lw=0.8)
    ax.set(aspect='equal', xlabel='Å', ylabel='Å')
    return ax


def _cell(cell):
    """Return the rows (3, 3) of Atoms, a Cell or an array; a unit cube for None."""
    cell = np.eye(3) if cell is None else np.array(getattr(cell, 'cell', cell), float)
    if cell.shape != (3, 3) or not abs(np.linalg.det(cell)) > 0:
        raise ValueError(f'a cell is (3, 3) rows in A with a volume; got {cell.tolist()}')
    return cell
