"""Properties on paper: those of generated structures beside those of data and the value that was asked for."""

import numpy as np

from ase_diffusion.plot import PALETTE, new_axes, tidy

PROPERTIES = {  # names of properties that are known here: text, unit
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


def property_label(name):
    """Return text and unit of a property for an axis, the name itself where it is not known here."""
    text, unit = PROPERTIES.get(name, (name.replace('_', ' '), ''))
    return f'{text} ({unit})' if unit else text


def asked_for(images, prop):
    """Return the value of a condition that all generated structures carry, None where they differ or have none."""
    from ase_diffusion.metrics import property_values

    try:
        values = set(property_values(images, f'condition_{prop}').tolist())
    except ValueError:
        return None
    value = values.pop()
    return value if not values and np.isfinite(value) else None


def plot_property_histogram(values, reference=None, ax=None, *, target=None, xlabel='Property', bins=30, limits=None):
    """Draw the distribution of a property of generated structures over that of the data, and the value that was asked for.

    Parameters
    ----------
    values : sequence of float, or dict of name to such
        Of the generated structures; what is not finite is left out.
    reference : sequence of float, optional
        Of the data, drawn in grey.
    ax : matplotlib.axes.Axes, optional
    target : float, optional
        The condition, a dashed line.
    xlabel : str
        With the unit; `property_label` makes one.
    bins : int
    limits : (float, float), optional
        Range; by default that of everything drawn. The last bins take what lies outside.

    Returns
    -------
    matplotlib.axes.Axes
        Heights are shares of each set, so that sets of different size compare.

    Raises
    ------
    ValueError
        There is no finite value.
    """
    named = dict(values) if hasattr(values, 'items') else {'generated': values}
    sets = {} if reference is None else {'data': reference}
    sets = {name: np.asarray(each, float).ravel() for name, each in {**sets, **named}.items()}
    sets = {name: each[np.isfinite(each)] for name, each in sets.items()}
    if not any(sets[name].size for name in named):
        raise ValueError(
            'a histogram needs at least one finite value of a generated structure, but none came: judge or relax '
            'the structures first'
        )
    ax = new_axes((4.4, 3.0)) if ax is None else ax
    everything = np.concatenate([*sets.values(), [] if target is None else [target]])
    low, high = (everything.min(), everything.max()) if limits is None else limits
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    for k, (name, each) in enumerate(sets.items()):
        grey = name == 'data' and reference is not None
        color = '0.6' if grey else PALETTE[(k - (reference is not None)) % len(PALETTE)]
        heights = np.histogram(np.clip(each, edges[0], edges[-1]), edges)[0] / max(each.size, 1)
        ax.stairs(heights, edges, fill=True, color=color, alpha=0.5 if grey else 0.25)
        ax.stairs(heights, edges, color=color, lw=1.0 if grey else 1.5, label=f'{name} (n = {each.size})')
    if target is not None:
        ax.axvline(target, color=PALETTE[1], lw=1.2, ls=(0, (4, 2)), label=f'target, {target:.3g}'.replace('-', '\N{MINUS SIGN}'))
    ax.set(xlabel=xlabel, ylabel='Share of structures', xlim=edges[[0, -1]] + 0.02 * np.ptp(edges) * np.array([-1, 1]))
    ax.set_ylim(0, (1.05 + 0.12 * (len(sets) + (target is not None))) * ax.dataLim.y1)  # room for the legend
    ax.legend(frameon=False, fontsize=8)
    return tidy(ax)
