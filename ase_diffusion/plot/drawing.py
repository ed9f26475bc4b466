"""Parts that drawings of slabs and of crystals share: colors, view directions, axes in A."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers
from ase.data.colors import jmol_colors

from ..utils.atoms import mobile_mask
from .style import new_axes

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

SUBSTRATE = ('#c9c9c9', '#e6e6e6')  # top layer, deeper layers
SILVER = '#7f9dc4'  # jmol's gray for Ag is that of the substrate
LAYER_GAP = 0.8  # A; frozen atoms within this height of the highest are the top layer
PANELS = 5  # structures per row by default


def surface_axes(atoms: Atoms) -> np.ndarray:
    """Return orthonormal rows (3, 3): along the first cell vector, across it, surface normal (x, y, z without a cell)."""
    cell = atoms.cell.array
    normal = np.cross(cell[0], cell[1])
    return np.eye(3) if np.linalg.norm(normal) < 1e-6 else view_axes(normal, np.cross(normal, cell[0]))


def view_axes(towards: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return orthonormal rows (3, 3): right, up and towards the viewer.

    Parameters
    ----------
    towards : numpy.ndarray
        (3,) direction from the structure to the viewer.
    up : numpy.ndarray
        (3,) direction that is upright on the page, not parallel to `towards`; only its part across `towards` counts.
    """
    towards = towards / np.linalg.norm(towards)
    up = up - (up @ towards) * towards
    up = up / np.linalg.norm(up)
    return np.array([np.cross(up, towards), up, towards])


def atom_colors(atoms: Atoms, colors: Mapping[str, ColorType] | None = None) -> np.ndarray:
    """Return RGB colors (n, 3): gray for frozen atoms by layer, for others jmol's (silver-blue for Ag) or the given ones.

    Parameters
    ----------
    atoms : Atoms
    colors : dict, optional
        Symbol to matplotlib color.
    """
    from matplotlib.colors import to_rgb

    table = jmol_colors.copy()
    table[47] = to_rgb(SILVER)
    for symbol, color in (colors or {}).items():
        table[atomic_numbers[symbol]] = to_rgb(color)
    faces = table[atoms.numbers]
    frozen = ~mobile_mask(atoms)
    if frozen.any():
        heights = atoms.positions @ surface_axes(atoms)[2]
        top = heights > heights[frozen].max() - LAYER_GAP
        faces[frozen & top], faces[frozen & ~top] = to_rgb(SUBSTRATE[0]), to_rgb(SUBSTRATE[1])
    return faces


def lighten(colors: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    """Return colors (n, 3) moved towards white by an amount from 0 (unchanged) to 1 (white), a number or (n,)."""
    return colors + (1 - colors) * np.reshape(amount, (-1, 1))


def window_axes(window: Sequence[float], size: float, extra: float = 0.0) -> Axes:
    """Return axes in a new figure for a window (x0, x1, y0, y1) in A.

    Parameters
    ----------
    window : (float, float, float, float)
    size : float
        Longer edge of the window on the page, in inches.
    extra : float
        Additional height for texts, in inches.
    """
    x0, x1, y0, y1 = window
    scale = size / max(x1 - x0, y1 - y0)
    return new_axes(((x1 - x0) * scale, (y1 - y0) * scale + extra))


def crop(ax: Axes, window: Sequence[float]) -> Axes:
    """Limit axes to a window (x0, x1, y0, y1) in A, without frame and ticks, and return them."""
    ax.set(xlim=window[:2], ylim=window[2:], aspect='equal', xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def check_labels(images: Sequence, labels: Sequence[str] | None, kind: str) -> None:
    """Raise a ValueError if there are no images, or if the numbers of labels and images differ.

    Parameters
    ----------
    images, labels
        Labels may be None.
    kind : str
        What the images are, for the message: 'structures', 'crystals', 'frames'.
    """
    if not len(images):
        raise ValueError(f'nothing to draw: the list of {kind} is empty')
    if labels is not None and len(labels) != len(images):
        raise ValueError(f'each of the {kind} needs a label; got {len(labels)} labels for {len(images)} {kind}')


def arrange(number: int, columns: int | None) -> tuple[int, int]:
    """Return the columns (at most `PANELS` by default) and the blocks of rows for a number of structures."""
    columns = columns or min(number, PANELS)
    return columns, -(-number // columns)
