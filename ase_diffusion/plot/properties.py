"""Distributions of properties of generated structures and data, with the target value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .style import PALETTE, as_numbers, new_axes, tidy

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes


PROPERTIES = {  # text and unit of known properties
    'heat_of_formation': ('Heat of formation', 'eV'),
    'heat_all': ('Heat of formation, all', 'eV'),
    'formation_energy': ('Formation energy', 'eV/atom'),
    'energy_per_atom': ('Energy', 'eV/atom'),
    'e_above_hull': ('Energy above the hull', 'eV/atom'),
    'band_gap': ('Band gap', 'eV'),
    'dir_gap': ('Direct band gap', 'eV'),
    'ind_gap': ('Indirect band gap', 'eV'),
    'energy': ('Energy', 'eV'),
}


def property_label(name: str) -> str:
    """Return the axis label of a property, text and unit; the name itself for unknown ones."""
    text, unit = PROPERTIES.get(name, (name.replace('_', ' '), ''))
    return f'{text} ({unit})' if unit else text


def asked_for(images: Iterable[Atoms], prop: str) -> float | None:
    """Return the common value of a condition of generated structures, None if it differs or is unknown."""
    from ..metrics import property_values

    try:
        values = set(property_values(images, f'condition_{prop}').tolist())
    except ValueError:
        return None
    value = values.pop()
    return value if not values and np.isfinite(value) else None


def plot_property_histogram(
    values: ArrayLike | Mapping[str, ArrayLike],
    reference: ArrayLike | None = None,
    ax: Axes | None = None,
    *,
    target: float | None = None,
    xlabel: str = 'Property',
    bins: int = 30,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Draw the distribution of a property of generated structures over that of the data, with the target value.

    Parameters
    ----------
    values : sequence of float, or dict of name to such
        Values of the generated structures; those that are not finite are ignored.
    reference : sequence of float, optional
        Values of the data, drawn in gray.
    ax : matplotlib.axes.Axes, optional
    target : float, optional
        Value of the condition, a dashed line.
    xlabel : str
        Label with unit, for example from `property_label`.
    bins : int
    limits : (float, float), optional
        Range, by default that of all values; values outside count in the outermost bins.

    Returns
    -------
    matplotlib.axes.Axes
        Heights are shares of each set.

    Raises
    ------
    ValueError
        There is no finite value.
    """
    named = dict(values) if hasattr(values, 'items') else {'generated': values}
    sets = {} if reference is None else {'data': reference}
    sets = {name: as_numbers(each) for name, each in {**sets, **named}.items()}
    sets = {name: each[np.isfinite(each)] for name, each in sets.items()}
    if not any(sets[name].size for name in named):
        raise ValueError(
            'a histogram needs at least one finite value of a generated structure; got none; evaluate or relax '
            'the structures first'
        )
    ax = new_axes((4.4, 3.0)) if ax is None else ax
    everything = np.concatenate([*sets.values(), [] if target is None else [target]])
    low, high = (everything.min(), everything.max()) if limits is None else limits
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    for k, (name, each) in enumerate(sets.items()):
        gray = name == 'data' and reference is not None
        color = '0.6' if gray else PALETTE[(k - (reference is not None)) % len(PALETTE)]
        heights = np.histogram(np.clip(each, edges[0], edges[-1]), edges)[0] / max(each.size, 1)
        ax.stairs(heights, edges, fill=True, color=color, alpha=0.5 if gray else 0.25)
        ax.stairs(heights, edges, color=color, lw=1.0 if gray else 1.5, label=f'{name} (n = {each.size})')
    if target is not None:
        ax.axvline(target, color=PALETTE[1], lw=1.2, ls=(0, (4, 2)), label=f'target, {target:.3g}'.replace('-', '\N{MINUS SIGN}'))
    ax.set(xlabel=xlabel, ylabel='Share of structures', xlim=edges[[0, -1]] + 0.02 * np.ptp(edges) * np.array([-1, 1]))
    ax.set_ylim(0, (1.05 + 0.12 * (len(sets) + (target is not None))) * ax.dataLim.y1)  # space for the legend
    ax.legend(frameon=False, fontsize=8)
    return tidy(ax)
