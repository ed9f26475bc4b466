"""Energy levels with multiplicities, and distributions of energies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .style import PALETTE, as_numbers, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


HALF = 0.34  # half the length of a level, in columns


def _named(data):
    """Return a dict of name to finite energies (n,); a sequence becomes one unnamed entry."""
    data = data if hasattr(data, 'items') else {'': data}
    named = {name: as_numbers(values) for name, values in data.items()}
    named = {name: values[np.isfinite(values)] for name, values in named.items()}
    if not any(values.size for values in named.values()):
        raise ValueError('a plot needs at least one finite energy; got none; relax the structures first')
    return named


def levels(energies: ArrayLike, tol: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Group energies into levels.

    Parameters
    ----------
    energies : sequence of float
    tol : float
        Width of a level: energies within `tol` above its lowest one, in eV.

    Returns
    -------
    energies, counts : numpy.ndarray
        Lowest energy and number of members of each level, ascending, shape (m,).
    """
    values, counts = [], []
    for energy in np.sort(np.asarray(energies, float)):
        if values and energy - values[-1] <= tol:
            counts[-1] += 1
        else:
            values.append(energy)
            counts.append(1)
    return np.array(values), np.array(counts, int)


def plot_energy_ladder(
    energies: ArrayLike | Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    tol: float = 0.02,
    top: float | None = None,
    ylabel: str = 'Energy (eV)',
    labels: bool = True,
) -> Axes:
    """Draw energy levels, with the number of structures on each.

    Parameters
    ----------
    energies : sequence of float, or dict of name to such
        Energies in eV, one column per name; values that are not finite are ignored.
    ax : matplotlib.axes.Axes, optional
    tol : float
        Width of a level in eV.
    top : float, optional
        Highest energy shown, in eV; the number of structures above it is written at the upper end.
    ylabel : str
    labels : bool
        Write the multiplicities where there is space, the largest first. The line width grows with the multiplicity.

    Returns
    -------
    matplotlib.axes.Axes
    """
    named = _named(energies)
    ax = new_axes((1.0 + 1.1 * max(len(named), 2), 3.4)) if ax is None else ax
    everything = np.concatenate(list(named.values()))
    low, high = everything.min(), everything.max() if top is None else top
    span = (high - low) or 1.0
    for column, values in enumerate(named.values()):
        steps, counts = levels(values[values <= high], tol)
        ax.hlines(
            steps,
            column - HALF,
            column + HALF,
            color=PALETTE[column % len(PALETTE)],
            lw=np.minimum(0.8 + 0.45 * np.log2(counts), 2.6),
        )
        written = np.zeros(0)
        for k in np.argsort(-counts, kind='stable') if labels else ():
            if counts[k] > 1 and (np.abs(written - steps[k]) > 0.035 * span).all():
                ax.annotate(
                    rf'$\times${counts[k]}',
                    (column + HALF, steps[k]),
                    (3, 0),
                    textcoords='offset points',
                    va='center',
                    fontsize=7,
                )
                written = np.append(written, steps[k])
        above = int((values > high).sum())
        if above:
            ax.annotate(
                f'{above} above',
                (column, 1),
                (0, 2),
                xycoords=('data', 'axes fraction'),
                ha='center',
                textcoords='offset points',
                fontsize=7,
                color='0.35',
            )
    ax.set(xlim=(-0.6, len(named) - 0.3), ylim=(low - 0.05 * span, high + 0.05 * span), ylabel=ylabel)
    ax.set_xticks(range(len(named)), list(named))
    ax.tick_params(axis='x', length=0)
    return tidy(ax)


def plot_energy_histogram(
    energies: ArrayLike | Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    bins: int = 30,
    limits: tuple[float, float] | None = None,
    xlabel: str = 'Energy (eV)',
    density: bool = True,
) -> Axes:
    """Draw distributions of energies on common bins, with their medians.

    Parameters
    ----------
    energies : dict of name to sequence of float, or one sequence
        Energies in eV; values that are not finite are ignored.
    ax : matplotlib.axes.Axes, optional
    bins : int
    limits : (float, float), optional
        Range in eV, that of the data by default; values outside count in the outermost bins.
    xlabel : str
    density : bool
        Draw shares instead of counts, to compare sets of different size.

    Returns
    -------
    matplotlib.axes.Axes
    """
    named = _named(energies)
    ax = new_axes((4.2, 2.8)) if ax is None else ax
    everything = np.concatenate(list(named.values()))
    low, high = limits or (everything.min(), everything.max())
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    for k, (name, values) in enumerate(named.items()):
        if not values.size:
            continue
        color = PALETTE[k % len(PALETTE)]
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        heights = counts / values.size if density else counts
        label = f'{name} (n = {values.size})' if name else None
        ax.stairs(heights, edges, fill=True, color=color, alpha=0.22)
        ax.stairs(heights, edges, color=color, lw=1.3, label=label)
        median = np.median(values)
        if edges[0] <= median <= edges[-1]:
            ax.plot(median, -0.025, marker='^', ms=6, color=color, clip_on=False, zorder=4, transform=ax.get_xaxis_transform())
    ax.set(xlabel=xlabel, ylabel='Share of structures' if density else 'Structures', xlim=edges[[0, -1]])
    ax.set_ylim(bottom=0)
    if any(named):
        ax.legend(frameon=False, fontsize=8)
    return tidy(ax)
