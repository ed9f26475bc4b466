"""Colors and axes that the figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

# Okabe and Ito: distinct for color-blind readers, and in print
PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')


def new_axes(figsize: tuple[float, float]) -> Axes:
    """Return the axes of a new figure of the given size in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout='constrained')[1]


def tidy(ax: Axes) -> Axes:
    """Remove the upper and right frame lines of axes; return the axes."""
    ax.spines[['top', 'right']].set_visible(False)
    return ax


def as_numbers(values: ArrayLike) -> np.ndarray:
    """Return values as floats (n,); raise a TypeError for what are none, such as structures."""
    try:
        return np.asarray(values, float).ravel()
    except (TypeError, ValueError):
        raise TypeError(
            f'numbers are drawn, such as [atoms.get_potential_energy() for atoms in images]; got {type(values).__name__}'
        ) from None
