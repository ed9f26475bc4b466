"""Unit cells of crystals, seen along a direction with little overlap of atoms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from ..utils.atoms import as_list, check_one
from .drawing import arrange, atom_colors, check_labels, crop, lighten, view_axes, window_axes

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType


EDGE = 0.35  # A; atoms this close to a face of the cell are also drawn at the opposite one
BOND = 1.1  # longest bond over the sum of covalent radii
SHELL = 1.2  # longest bond over the shortest distance of either atom
NONMETALS = [1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 32, 33, 34, 35, 51, 52, 53]  # every bond has at least one of them
FADE = 0.45  # lightening of the farthest atoms
Direction = str | Sequence[float]  # 'auto', 'a', 'b', 'c', or [u, v, w] along u a + v b + w c
PIECES = 10  # segments of each cell edge, each in front of or behind the atoms


class _Drawing(NamedTuple):
    """Projected cell in A; depths grow towards the viewer."""

    centers: np.ndarray  # (m, 2)
    depths: np.ndarray  # (m,) front of the spheres
    radii: np.ndarray  # (m,)
    colors: np.ndarray  # (m, 3)
    bonds: np.ndarray  # (b, 2, 3) from atom to atom
    edges: np.ndarray  # (12 * PIECES, 2, 3) of the cell
    window: tuple  # x0, x1, y0, y1


def _filled(atoms, shift):
    """Return index (m,) and fractional coordinates (m, 3) of the atoms in the cell, with copies at opposite faces.

    With shift the origin is an atom of the rarest species (the largest of several).
    """
    scaled = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T
    if shift:
        counts = np.bincount(atoms.numbers)[atoms.numbers]
        scaled = scaled - scaled[np.lexsort((-covalent_radii[atoms.numbers], counts))[0]]
    heights = atoms.cell.volume / np.linalg.norm(np.cross(*(np.roll(atoms.cell.array, -k, axis=0) for k in (1, 2))), axis=1)
    edge = np.minimum(EDGE / heights, 0.2)
    scaled = (scaled + edge) % 1.0 - edge  # [-edge, 1 - edge)
    index, spots = np.arange(len(atoms)), scaled
    for axis in range(3):
        near = spots[:, axis] < edge[axis]
        index, spots = np.append(index, index[near]), np.concatenate([spots, spots[near] + np.eye(3)[axis]])
    return index, spots


def _rotations(cell):
    """Yield view axes (3, 3), rows right, up and towards the viewer, with c upright and many azimuths."""
    c = cell[2] / np.linalg.norm(cell[2])
    a = cell[0] - (cell[0] @ c) * c
    a /= np.linalg.norm(a)
    b = np.cross(c, a)
    for elevation in np.radians((15, 22, 8, 30)):
        for azimuth in np.radians((-70, -75, -65, -60, -55, -50, -80, -45, -40, -35, -30, -25, -20, -15)):
            level = np.cos(azimuth) * a + np.sin(azimuth) * b
            towards = np.cos(elevation) * level + np.sin(elevation) * c
            yield view_axes(towards, c)


def _hidden(flat, radii):
    """Return a measure of the overlap of disks at flat (m, 2), 0 for none."""
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    smaller = np.minimum(radii[:, None], radii[None])
    overlap = np.clip((radii[:, None] + radii[None] - apart) / (2 * smaller), 0, 1) ** 2
    return (overlap.sum() - len(flat)) / len(flat)


def _rotation(direction, cell, points, radii):
    """Return right, up and towards the viewer as rows, (3, 3)."""
    if isinstance(direction, str) and direction == 'auto':
        scores = [(round(_hidden(points @ turn[:2].T, radii), 2), k, turn) for k, turn in enumerate(_rotations(cell))]
        return min(scores, key=lambda row: row[:2])[2]
    if isinstance(direction, str):
        if direction not in ('a', 'b', 'c'):
            raise ValueError(f"a direction is 'auto', 'a', 'b', 'c' or three integers or numbers [u, v, w]; got {direction!r}")
        direction = np.eye(3)['abc'.index(direction)]
    direction = np.asarray(direction, float)
    if direction.shape != (3,) or not np.isfinite(direction).all() or not direction.any():
        raise ValueError(f'a direction [u, v, w] along u a + v b + w c has three numbers, not all 0; got {direction.tolist()}')
    towards = direction @ cell / np.linalg.norm(direction @ cell)
    across = [vector - (vector @ towards) * towards for vector in cell[[2, 1, 0]]]  # c is upright unless it is the view direction
    up = next(vector for vector in across if np.linalg.norm(vector) > 0.1 * np.linalg.norm(cell, axis=1).min())
    return view_axes(towards, up)


def _drawing(atoms, direction, radius, colors, shift):
    """Return the projection of a unit cell."""
    _check(atoms)
    cell = atoms.cell.array
    index, scaled = _filled(atoms, shift)
    radii = radius * (0.2 + 0.3 * covalent_radii[atoms.numbers[index]])  # small atoms are drawn larger for visibility
    turn = _rotation(direction, cell, scaled @ cell, radii)
    points = scaled @ cell @ turn.T  # (m, 3)
    cell = cell @ turn.T
    near = points[:, 2]
    faces = atom_colors(atoms, colors)[index]
    faces = lighten(faces, FADE * (near.max() - near) / (np.ptp(near) or 1.0))
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) @ cell
    starts = [(corner, axis) for axis in range(3) for corner in corners[_on(axis)]]
    ticks = np.linspace(0, 1, PIECES + 1)[:, None]
    lines = np.array([corner + ticks * cell[axis] for corner, axis in starts])  # (12, PIECES + 1, 3)
    edges = np.stack([lines[:, :-1], lines[:, 1:]], axis=2).reshape(-1, 2, 3)
    low = np.minimum((points[:, :2] - radii[:, None]).min(0), corners[:, :2].min(0)) - 0.1
    high = np.maximum((points[:, :2] + radii[:, None]).max(0), corners[:, :2].max(0)) + 0.1
    bonds = _bonds(points, radii, atoms.numbers, index)
    return _Drawing(points[:, :2], near + radii, radii, faces, bonds, edges, (low[0], high[0], low[1], high[1]))


def _bonds(points, radii, numbers, index):
    """Return the bonds between neighbors, from sphere to sphere, (b, 2, 3); index (m,) maps points to atoms."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    apart[apart < 0.4] = np.inf  # the atom itself, and overlapping atoms
    nearest = np.full(len(numbers), np.inf)
    np.minimum.at(nearest, index, apart.min(1))
    reach = SHELL * nearest[index]
    size, covalent = covalent_radii[numbers[index]], np.isin(numbers[index], NONMETALS)
    limits = np.minimum(BOND * (size[:, None] + size), np.minimum(reach[:, None], reach))
    first, second = np.nonzero(np.triu((apart < limits) & (covalent[:, None] | covalent), 1))
    along = (points[second] - points[first]) / apart[first, second][:, None]
    skin = 0.9 * radii[:, None]
    return np.stack([points[first] + skin[first] * along, points[second] - skin[second] * along], axis=1)


def _on(axis):
    """Return which of the eight corners have the fractional coordinate 0 along an axis, bool (8,)."""
    return np.arange(8) // (4, 2, 1)[axis] % 2 == 0


def _check(atoms):
    """Raise a ValueError for structures without a cell in three dimensions."""
    if not (len(atoms) and atoms.pbc.all() and abs(atoms.cell.volume) > 1e-3):
        formula = atoms.get_chemical_formula() or 'no atoms'
        raise ValueError(
            f'a crystal has atoms, a cell and three periodic directions; got {formula} with pbc'
            f' {atoms.pbc.tolist()}; plot_structure draws slabs and molecules'
        )
    if not np.isfinite(atoms.positions).all():
        raise ValueError('a crystal to be drawn has finite positions; metrics.structural_validity finds those that have not')


def _draw(ax, drawing):
    """Draw into axes, from far to near; return the axes."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    depths = np.concatenate([drawing.depths, drawing.bonds[:, :, 2].mean(1), drawing.edges[:, :, 2].mean(1)])
    places = np.empty(len(depths))
    places[np.argsort(depths, kind='stable')] = np.linspace(2, 3, len(depths))
    disks, bonds, edges = np.split(places, np.cumsum([len(drawing.depths), len(drawing.bonds)]))
    for center, size, color, place in zip(drawing.centers, drawing.radii, drawing.colors, disks, strict=True):
        ax.add_patch(Circle(center, size, facecolor=color, edgecolor='0.15', lw=0.6, zorder=place))
    looks = {'color': '0.6', 'lw': 2.2}, {'color': '0', 'lw': 0.8}
    for lines, where, look in zip((drawing.bonds, drawing.edges), (bonds, edges), looks, strict=True):
        for line, place in zip(lines, where, strict=True):
            ax.add_collection(LineCollection([line[:, :2]], capstyle='round', zorder=place, **look), autolim=False)
    return crop(ax, drawing.window)


def formula_label(atoms: Atoms) -> str:
    """Return the formula of the cell with subscripts, metals first."""
    return f'{atoms.symbols.formula.convert("metal"):latex}'


def _name_elements(ax, atoms, colors, fontsize=8):
    """Write a legend of the elements below the axes."""
    from matplotlib.lines import Line2D

    numbers, first = np.unique(atoms.numbers, return_index=True)
    order = np.argsort(-covalent_radii[numbers], kind='stable')
    faces = atom_colors(atoms, colors)[first]
    handles = [
        Line2D(
            [], [], ls='', marker='o', ms=0.7 * fontsize, mfc=faces[k], mec='0.15', mew=0.6, label=chemical_symbols[numbers[k]]
        )
        for k in order
    ]
    ax.legend(
        handles=handles,
        ncols=min(len(handles), 6),
        loc='upper center',
        bbox_to_anchor=(0.5, 0.0),
        frameon=False,
        borderaxespad=0.1,
        borderpad=0.0,
        handlelength=1.0,
        handletextpad=0.1,
        columnspacing=0.7,
        fontsize=fontsize,
    )


def plot_crystal(
    atoms: Atoms,
    ax: Axes | None = None,
    *,
    direction: Direction = 'auto',
    label: str | None = None,
    radius: float = 1.0,
    colors: Mapping[str, ColorType] | None = None,
    shift: bool = True,
    elements: bool = True,
) -> Axes:
    """Draw the unit cell of a crystal with its atoms.

    Atoms at faces, edges and corners of the cell are drawn with their copies; far atoms are lighter. Bonds connect atoms that
    are closer than 1.1 times the sum of covalent radii, in the first shell of both, and not both metals. Parallel projection.

    Parameters
    ----------
    atoms : Atoms
        Periodic in three directions.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.
    direction : 'auto', 'a', 'b', 'c' or (float, float, float)
        Direction to the viewer: a cell vector, or u a + v b + w c; by default the one of least overlap, with c upright.
    label : str, optional
        Title.
    radius : float
        Scale of the disks.
    colors : dict, optional
        Symbol to matplotlib color.
    shift : bool
        Move the origin to an atom of the rarest species, so that equal structures look equal.
    elements : bool
        Draw a legend of the elements.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        The structure is not a crystal, or the direction is not valid.
    """
    check_one(atoms, 'plot_crystals draws several')
    drawing = _drawing(atoms, direction, radius, colors, shift)
    ax = ax or window_axes(drawing.window, 2.8, 0.5)
    if label:
        ax.set_title(label, fontsize=9)
    if elements:
        _name_elements(ax, atoms, colors)
    return _draw(ax, drawing)


def plot_crystals(
    images: Atoms | Iterable[Atoms],
    *,
    labels: Sequence[str] | None = None,
    directions: Sequence[Direction] = ('auto',),
    columns: int | None = None,
    width: float = 7.0,
    same_scale: bool = True,
    radius: float = 1.0,
    colors: Mapping[str, ColorType] | None = None,
    shift: bool = True,
) -> Figure:
    """Draw unit cells side by side, one row per direction.

    Parameters
    ----------
    images : list of Atoms
        Periodic in three directions.
    labels : sequence of str, optional
        Titles of the columns; formulas by default.
    directions : sequence of directions
        As in `plot_crystal`, e.g. ``('a', 'b', 'c')``.
    columns : int, optional
        Crystals per row, at most 5 by default; further crystals start a new block of rows.
    width : float
        Width of the figure in inches; narrower for less than three columns.
    same_scale : bool
        Use one scale for all panels; otherwise each cell fills its panel.
    radius, colors, shift
        As in `plot_crystal`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        The list is empty, a structure is not a crystal, or the numbers of labels and images differ.
    """
    import matplotlib.pyplot as plt

    images = as_list(images)
    labels = [formula_label(atoms) for atoms in images] if labels is None else list(labels)
    check_labels(images, labels, 'crystals')
    if not len(directions):
        raise ValueError('nothing to draw: the list of directions is empty')
    columns, blocks = arrange(len(images), columns)
    rows = [[_drawing(atoms, direction, radius, colors, shift) for atoms in images] for direction in directions]
    sizes = np.array([[(d.window[1] - d.window[0], d.window[3] - d.window[2]) for d in row] for row in rows])  # (rows, n, 2), A
    panel, gap = min(width / columns, 2.4), 0.08  # inches
    if same_scale:
        inches = sizes * (panel - 2 * gap) / sizes.max()
    else:
        inches = sizes * (panel - 2 * gap) / sizes.max((0, 2))[:, None]
    title, foot = 0.06 + 0.15 * max(1 + text.count('\n') for text in labels), 0.24
    tall = inches[:, :, 1].max(1) + gap  # (rows,)
    height = blocks * (title + tall.sum() + foot)
    left = 0.0 if len(directions) == 1 else 0.22
    page = np.array([left + panel * columns, height])
    figure = plt.figure(figsize=page)
    for k, atoms in enumerate(images):
        block, column = divmod(k, columns)
        top = height * (1 - block / blocks) - title
        x = left + column * panel
        figure.text((x + panel / 2) / page[0], (top + 0.04) / height, labels[k], fontsize=8, ha='center', va='bottom')
        for direction, row, size, room in zip(directions, rows, inches[:, k], tall, strict=True):
            corner = (x + (panel - size[0]) / 2, top - (room - gap + size[1]) / 2)
            _draw(figure.add_axes(np.divide((*corner, *size), (*page, *page))), row[k])
            if not column and left and not (isinstance(direction, str) and direction == 'auto'):
                name = direction if isinstance(direction, str) else f'[{" ".join(f"{x:g}" for x in direction)}]'
                figure.text(
                    0.14 / page[0],
                    (top - (room - gap) / 2) / height,
                    f'along {name}',
                    fontsize=8,
                    rotation=90,
                    ha='center',
                    va='center',
                )
            top -= room
        bottom = figure.add_axes(np.divide((x, top, panel, 0.01), (*page, *page)))
        bottom.set_axis_off()
        _name_elements(bottom, atoms, colors, fontsize=7)
    return figure
