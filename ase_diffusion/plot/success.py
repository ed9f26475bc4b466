"""Success probability of a search against its cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .style import PALETTE, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType


def plot_success_curve(
    x: ArrayLike,
    p: ArrayLike,
    band: tuple[ArrayLike, ArrayLike] | None = None,
    ax: Axes | None = None,
    *,
    label: str | None = None,
    color: ColorType | None = None,
    logx: bool = False,
    xlabel: str = 'Number of relaxations',
    ylabel: str = 'Probability of success',
) -> Axes:
    """Draw the success probability against the cost; repeated calls on the same axes compare searches.

    Parameters
    ----------
    x : sequence of float
        Cost: number of relaxations, or CPU time with another `xlabel`, shape (m,).
    p : sequence of float
        Probability, shape (m,).
    band : (low, high), optional
        Limits of the confidence band, two sequences of shape (m,).
    ax : matplotlib.axes.Axes, optional
    label : str, optional
        Name in the legend.
    color : optional
        The next color of the palette by default.
    logx : bool
        Use a logarithmic axis, without the point at x = 0.
    xlabel, ylabel : str

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        The shapes differ.
    """
    x, p = np.asarray(x, float), np.asarray(p, float)
    band = None if band is None else np.asarray(band, float)
    if x.shape != p.shape or (band is not None and band.shape != (2, *p.shape)):
        shape = None if band is None else band.shape
        raise ValueError(
            f'x, p and both limits of the band run over the same points, but x has shape {x.shape}, '
            f'p {p.shape} and the band {shape}: pass band=(low, high)'
        )
    ax = new_axes((4.2, 3.0)) if ax is None else ax
    color = PALETTE[len(ax.get_lines()) % len(PALETTE)] if color is None else color
    if logx:
        keep = x > 0
        x, p, band = x[keep], p[keep], None if band is None else band[:, keep]
        ax.set_xscale('log')
    if band is not None:
        ax.fill_between(x, *band, color=color, alpha=0.18, lw=0)
    ax.plot(x, p, color=color, lw=1.6, label=label)
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1])
    left, right = ax.dataLim.intervalx
    ax.set_xlim(left if logx else min(left, 0), right)
    ax.grid(axis='y', color='0.9', lw=0.6)
    ax.set_axisbelow(True)
    if label:
        ax.legend(frameon=False, fontsize=8)
    return tidy(ax)
