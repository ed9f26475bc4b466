"""Top and side views of slabs, overlayers and molecules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase.data import covalent_radii

from ..utils.atoms import as_list, check_one, mobile_mask
from .drawing import arrange, atom_colors, check_labels, crop, lighten, surface_axes, window_axes

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType


SMALL = 6.0  # A; narrower cells are repeated
FADE = 0.55  # lightening of images outside the cell
SHADE = 0.3  # lightening of atoms SHADE_DEPTH below the nearest mobile atom
SHADE_DEPTH = 4.0  # A


class _Scene(NamedTuple):
    """Disks to draw, from far to near, and the window around them, in A."""

    centers: np.ndarray  # (m, 2)
    radii: np.ndarray  # (m,)
    colors: np.ndarray  # (m, 3)
    edges: np.ndarray  # (m, 3)
    outline: np.ndarray  # (k, 2) closed polygon of the cell, empty without one
    window: tuple  # x0, x1, y0, y1


def _lateral(atoms):
    """Return the in-plane cell (2, 2) in the frame of `surface_axes`, None unless periodic along both vectors."""
    if not atoms.pbc[:2].all() or np.linalg.norm(np.cross(*atoms.cell.array[:2])) < 1e-6:
        return None
    return atoms.cell.array[:2] @ surface_axes(atoms)[:2].T


def _default_repeat(lateral):
    """Return the repeats (int, int) that make a narrow cell at least SMALL wide."""
    area = abs(np.linalg.det(lateral))
    widths = area / np.linalg.norm(lateral[::-1], axis=1)  # between opposite cell edges
    return tuple(int(np.ceil(SMALL / width - 0.02)) if width < SMALL else 1 for width in widths)


def _images(points, lateral, window):
    """Return atom index (m,) and shifted points (m, 3) of all periodic images in the lateral window."""
    scaled = points[:, :2] @ np.linalg.inv(lateral)
    points = points.copy()
    points[:, :2] -= np.floor(scaled + 1e-6) @ lateral
    x0, x1, y0, y1 = window
    corners = np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) @ np.linalg.inv(lateral)
    low, high = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 1
    shifts = np.stack(np.meshgrid(*(np.arange(p, q + 1) for p, q in zip(low, high, strict=True)), indexing='ij'), -1)
    shifts = shifts.reshape(-1, 2) @ lateral
    every = np.repeat(points[None], len(shifts), axis=0)
    every[..., :2] += shifts[:, None]
    keep = (every[..., 0] > x0) & (every[..., 0] < x1) & (every[..., 1] > y0) & (every[..., 1] <= y1)
    return np.nonzero(keep)[1], every[keep]


def _window(flat, lateral, repeat, margin):
    """Return x0, x1, y0, y1 around the (repeated) cell, or around the points of a molecule, and the cell's corners."""
    if lateral is None:
        flat = flat if len(flat) else np.zeros((1, 2))
        low, high = flat.min(0) - margin - 1.0, flat.max(0) + margin + 1.0
        return (low[0], high[0], low[1], high[1]), np.zeros((0, 2))
    block = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * repeat @ lateral
    low, high = block.min(0) - margin, block.max(0) + margin
    return (low[0], high[0], low[1], high[1]), np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) @ lateral


def _scene(atoms, view, repeat, margin, radius, colors):
    """Return the projection of a structure."""
    points = atoms.positions @ surface_axes(atoms).T  # (n, 3)
    points, real = points[np.isfinite(points).all(1)], np.flatnonzero(np.isfinite(points).all(1))
    lateral = _lateral(atoms)
    repeat = repeat or (_default_repeat(lateral) if lateral is not None else (1, 1))
    window, outline = _window(points[:, :2], lateral, repeat, margin)
    pad = 2.0  # A; disks at the border of the window are cut, not missing
    if lateral is None:
        index, spots = np.arange(len(points)), points
    elif view == 'top':
        around = (window[0] - pad, window[1] + pad, window[2] - pad, window[3] + pad)
        index, spots = _images(points, lateral, around)
    else:
        depth = abs(np.linalg.det(lateral)) / np.linalg.norm(lateral[0]) * repeat[1]
        index, spots = _images(points, lateral, (window[0] - pad, window[1] + pad, -1e-3, depth - 1e-3))
    atom = real[index]
    mobile = mobile_mask(atoms)[atom]
    radii = radius * (0.35 + 0.75 * covalent_radii[atoms.numbers[atom]])  # small atoms are drawn larger for visibility
    faces, edges = atom_colors(atoms, colors)[atom], np.zeros((len(atom), 3))
    edges[~mobile] = 0.45
    nearness = spots[:, 2] if view == 'top' else -spots[:, 1]
    if mobile.any():
        behind = np.clip((nearness[mobile].max() - nearness) / SHADE_DEPTH, 0, 1) * SHADE
        faces = lighten(faces, np.where(mobile, behind, 0.0))
    if view == 'top' and lateral is not None:
        scaled = spots[:, :2] @ np.linalg.inv(lateral)
        outside = ((scaled < -0.01) | (scaled > np.array(repeat) + 0.01)).any(1)
        faces, edges = lighten(faces, FADE * outside), lighten(edges, FADE * outside)
    flat = spots[:, :2] if view == 'top' else spots[:, [0, 2]]
    if view == 'side':
        heights = points[:, 2] if len(points) else np.zeros(1)
        extent = (heights.min() - 1.6, heights.max() + 1.6)
        window, outline = (*window[:2], *extent), np.zeros((0, 2))
    order = np.argsort(nearness, kind='stable')
    return _Scene(flat[order], radii[order], faces[order], edges[order], outline, window)


def _draw(ax, scene):
    """Draw a scene into axes, cropped to its window; return the axes."""
    from matplotlib.collections import EllipseCollection

    sizes = 2 * scene.radii
    ax.add_collection(
        EllipseCollection(
            sizes,
            sizes,
            np.zeros_like(sizes),
            units='xy',
            offsets=scene.centers,
            offset_transform=ax.transData,
            facecolors=scene.colors,
            edgecolors=scene.edges,
            linewidths=0.5,
        )
    )
    if len(scene.outline):
        ax.plot(*scene.outline.T, color='black', lw=1.0, ls=(0, (4, 2)), zorder=3)
    return crop(ax, scene.window)


def plot_structure(
    atoms: Atoms,
    ax: Axes | None = None,
    *,
    view: str = 'top',
    repeat: tuple[int, int] | None = None,
    margin: float = 1.5,
    radius: float = 0.9,
    colors: Mapping[str, ColorType] | None = None,
    label: str | None = None,
) -> Axes:
    """Draw one structure, its cell and its periodic surroundings.

    Frozen atoms are gray, the top layer darker than deeper ones; mobile atoms have the colors of jmol (silver-blue for Ag),
    lighter with the distance from the viewer. Images outside the cell are faded in the top view; the side view looks along
    the surface, perpendicular to the first cell vector, and shows one period in depth.

    Parameters
    ----------
    atoms : Atoms
        A slab, a crystal, or a molecule without cell.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.
    view : {'top', 'side'}
    repeat : (int, int), optional
        Cells shown completely along the first two vectors; by default cells narrower than 6 A are repeated.
    margin : float
        Width of the surroundings of the cell, in A.
    radius : float
        Scale of the disks; 1 is about the covalent radius.
    colors : dict, optional
        Symbol to matplotlib color, for mobile atoms.
    label : str, optional
        Title.

    Returns
    -------
    matplotlib.axes.Axes
    """
    check_one(atoms, 'plot_structures draws several')
    _check_view(view)
    scene = _scene(atoms, view, repeat, margin, radius, colors)
    ax = ax or window_axes(scene.window, 3.2, 0.25 if label else 0.0)
    if label:
        ax.set_title(label, fontsize=9)
    return _draw(ax, scene)


def _check_view(view):
    if view not in ('top', 'side'):
        raise ValueError(f"a view is 'top' or 'side'; got {view!r}")


def plot_structures(
    images: Atoms | Iterable[Atoms],
    *,
    labels: Sequence[str] | None = None,
    views: Sequence[str] = ('top', 'side'),
    columns: int | None = None,
    width: float = 7.0,
    repeat: tuple[int, int] | None = None,
    margin: float = 1.5,
    radius: float = 0.9,
    colors: Mapping[str, ColorType] | None = None,
) -> Figure:
    """Draw structures side by side on one scale, one row per view.

    Parameters
    ----------
    images : list of Atoms
    labels : sequence of str, optional
        Titles of the columns.
    views : sequence of {'top', 'side'}
        Rows.
    columns : int, optional
        Structures per row, at most 5 by default; further structures start a new block of rows.
    width : float
        Width of the figure in inches; narrower for less than three columns.
    repeat, margin, radius, colors
        As in `plot_structure`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    images = as_list(images)
    check_labels(images, labels, 'structures')
    for view in views:
        _check_view(view)
    columns, blocks = arrange(len(images), columns)
    scenes = {view: [_scene(atoms, view, repeat, margin, radius, colors) for atoms in images] for view in views}
    spans = {view: np.array([s.window for s in scenes[view]]) for view in views}  # (n, 4)
    wide = max((span[:, 1] - span[:, 0]).max() for span in spans.values())  # A
    panel = min(width / columns, 3.2)  # inches
    gap, title = 0.06 * panel, 0.22 if labels is not None else 0.0
    tall = {view: (spans[view][:, 3] - spans[view][:, 2]).max() for view in views}  # A
    scale = (panel - gap) / wide  # inches per A, the same everywhere
    inches = {view: tall[view] * scale for view in views}
    height = blocks * (sum(inches.values()) + title + gap * len(views))
    figure = plt.figure(figsize=(panel * columns, height))
    for k in range(len(images)):
        block, column = divmod(k, columns)
        top = height * (1 - block / blocks) - title
        for view in views:
            top -= inches[view]
            x0, x1, y0, y1 = scenes[view][k].window
            size = np.array([x1 - x0, y1 - y0]) * scale
            lift = inches[view] - size[1] if view == 'top' else 0.0  # top views are aligned at the top, side views at the bottom
            corner = (column * panel + (panel - size[0]) / 2, top + lift)
            ax = _draw(figure.add_axes(np.divide((*corner, *size), 2 * (panel * columns, height))), scenes[view][k])
            if labels is not None and view == views[0]:
                ax.set_title(labels[k], fontsize=8, pad=3)
            top -= gap
    return figure
