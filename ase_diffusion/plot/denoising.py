"""Frames of a denoising trajectory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.atoms import as_list
from .structures import plot_structures

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure


KEYS = ('noise_level', 'sigma', 'level')  # keys of the noise level, in info or its key_value_pairs


def _level(atoms):
    """Return the stored noise level of a frame in A, None without one."""
    known = {**atoms.info, **atoms.info.get('key_value_pairs', {})}
    return next((float(known[key]) for key in KEYS if key in known), None)


def plot_denoising_strip(
    frames: Iterable[Atoms],
    *,
    levels: Sequence[float] | None = None,
    count: int = 6,
    view: str = 'top',
    symbol: str = r'\sigma',
    unit: str = ' Å',
    width: float = 7.0,
    **options: Any,
) -> Figure:
    """Draw frames of a denoising trajectory side by side, with their noise levels.

    Parameters
    ----------
    frames : list of Atoms
        From noise to structure.
    levels : sequence of float, optional
        Noise level of each frame; by default read from ``info`` (or its ``key_value_pairs``) as noise_level, sigma or level.
        Frames are not labeled without noise levels.
    count : int
        Number of frames shown: the first, the last, and evenly spaced ones between them.
    view : {'top', 'side', 'both'}
    symbol, unit : str
        Symbol and unit of the noise level in labels.
    width : float
        Width of the figure in inches.
    **options
        As in `plot_structures`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    frames = as_list(frames)
    if not frames:
        raise ValueError('nothing to draw: the list of frames is empty; sample with denoising_trajectory=... to keep them')
    if levels is not None and len(levels) != len(frames):
        raise ValueError(f'every frame needs a noise level; got {len(levels)} levels for {len(frames)} frames')
    levels = [_level(atoms) for atoms in frames] if levels is None else list(levels)
    shown = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    labels = None
    if any(levels[k] is not None for k in shown):
        labels = ['' if levels[k] is None else f'${symbol}$ = {levels[k]:.2g}{unit}' for k in shown]
    views = ('top', 'side') if view == 'both' else (view,)
    figure = plot_structures([frames[k] for k in shown], labels=labels, views=views, columns=len(shown), width=width, **options)
    _arrow(figure)
    return figure


def _arrow(figure):
    """Add an arrow from noise to structure below the panels."""
    from matplotlib.patches import FancyArrowPatch

    extra = 0.24  # inches
    width, height = figure.get_size_inches()
    for ax in figure.axes:
        box = ax.get_position(original=True)
        ax.set_position([box.x0, (box.y0 * height + extra) / (height + extra), box.width, box.height * height / (height + extra)])
    figure.set_size_inches(width, height + extra)
    y = 0.5 * extra / (height + extra)
    figure.add_artist(
        FancyArrowPatch(
            (0.09, y), (0.87, y), transform=figure.transFigure, arrowstyle='-|>', mutation_scale=9, lw=0.9, color='0.35'
        )
    )
    for x, text, side in ((0.08, 'noise', 'right'), (0.88, 'structure', 'left')):
        figure.text(x, y, text, ha=side, va='center', fontsize=8, color='0.25')
