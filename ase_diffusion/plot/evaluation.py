"""Summary figure of the metrics of a set of crystals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import PALETTE, tidy

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure


SHARES = {
    'structural_validity': 'structural validity',
    'compositional_validity': 'compositional validity',
    'uniqueness': 'unique',
    'novelty': 'novel',
}
NAMES = {'alpha': r'$\alpha$', 'beta': r'$\beta$', 'gamma': r'$\gamma$', 'space_group': 'space group', 'n_elements': 'elements'}


def plot_evaluation(
    report: dict[str, Any], images: Iterable[Atoms] | None = None, reference: Iterable[Atoms] | None = None
) -> Figure:
    """Draw a report of `metrics.crystal.evaluate`.

    Parameters
    ----------
    report : dict
    images, reference : list of Atoms, optional
        Crystals for the distributions of density and number of elements (structurally valid ones).

    Returns
    -------
    matplotlib.figure.Figure
        Panels: shares; K-S statistics; densities; numbers of elements, or energies above the hull if known. With a property (that
        of the success rates, otherwise the formation energy by CHGNet) two more: its distribution with that of the reference
        and the target value; and volumes per atom.
    """
    import matplotlib.pyplot as plt

    prop = _property(report, images, reference)
    figure, axes = plt.subplots(2, 2 if prop is None else 3, figsize=(8.0 if prop is None else 11.5, 5.6), layout='constrained')
    _shares(axes[0, 0], report)
    _ks(axes[0, 1], report.get('ks', {}))
    sets = {name: _sound(each) for name, each in (('evaluated', images), ('reference', reference)) if each}
    _densities(axes[1, 0], sets)
    if 'stability' in report:
        _above_hull(axes[1, 1], report['stability'])
    else:
        _elements(axes[1, 1], sets)
    if prop is not None:
        from .properties import plot_property_histogram

        values, data, options = prop
        plot_property_histogram({'evaluated': values}, data, axes[0, 2], **options)
        _volumes(axes[1, 2], sets)
    for ax in axes.flat:
        tidy(ax)
    return figure


def _property(report, images, reference):
    """Return values, reference values (or None) and options of the histogram; None without a property."""
    from ..metrics import property_values
    from .properties import asked_for, property_label

    name = report.get('success', {}).get('property')
    if name is not None and images:
        values, label = property_values(images, name), property_label(name)
    elif 'formation_energy' in report and 'values' in report['formation_energy']:
        name, label = 'formation_energy', 'Formation energy by CHGNet (eV/atom)'
        values = np.array([np.nan if x is None else x for x in report['formation_energy']['values']], float)
    else:
        return None
    if not np.isfinite(values).any():
        return None
    try:
        data = property_values(reference, name) if reference else None
    except ValueError:  # not known for the reference
        data = None
    return values, data, {'target': asked_for(images, name) if images else None, 'xlabel': label}


def _sound(images):
    """Return the structurally valid crystals."""
    from ..metrics import structural_validity

    return [atoms for atoms, sound in zip(images, structural_validity(images), strict=True) if sound]


def _shares(ax, report):
    """Draw the shares as bars, the first one on top."""
    shares = {label: report.get(key) for key, label in SHARES.items()}
    if 'coverage' in report:
        shares |= {'COV-R': report['coverage']['recall'], 'COV-P': report['coverage']['precision']}
    if 'prediction' in report:
        shares['match rate'] = report['prediction']['match_rate']
    for name in ('success', 'success_formation_energy'):
        shares |= {key: value for key, value in report.get(name, {}).items() if key.startswith('SR')}
    if 'stability' in report:
        shares['S.U.N.'] = report['stability']['sun']
    shares = {label: value for label, value in shares.items() if value is not None}
    bars = ax.barh(list(shares), [100 * value for value in shares.values()], color=PALETTE[0], height=0.65)
    ax.bar_label(bars, fmt='%.1f', padding=2, fontsize=7)
    ax.invert_yaxis()
    ax.set(xlim=(0, 112), xticks=range(0, 101, 25), xlabel=f'Share of {report["n"]} crystals (%)')


def _ks(ax, statistics):
    """Draw the K-S statistics as bars."""
    statistics = {NAMES.get(name, name): value for name, value in statistics.items() if value is not None}
    ax.bar(list(statistics), list(statistics.values()), color=PALETTE[5], width=0.65)
    ax.set_xticks(range(len(statistics)), list(statistics), rotation=45, ha='right', rotation_mode='anchor')
    ax.set(ylim=(0, max([0.05, *statistics.values()]) * 1.1), ylabel='K-S statistic')
    if not statistics:
        _empty(ax, 'no reference')


def _densities(ax, sets):
    """Draw the densities on common bins."""
    from ..metrics.crystal.structures import density

    _distributions(ax, sets, density, r'Density (g/cm$^3$)')


def _volumes(ax, sets):
    """Draw the volumes per atom on common bins."""
    _distributions(ax, sets, lambda atoms: atoms.cell.volume / len(atoms), 'Volume (Å$^3$/atom)')


def _distributions(ax, sets, function, label):
    """Draw the distributions of a positive quantity on common bins."""
    values = {name: np.array([function(atoms) for atoms in each]) for name, each in sets.items() if each}
    if not values:
        _empty(ax, 'no valid crystals')
        return
    edges = np.linspace(0, np.quantile(np.concatenate(list(values.values())), 0.995) * 1.05, 31)
    for k, (name, each) in enumerate(values.items()):
        heights = np.histogram(np.clip(each, 0, edges[-1]), edges)[0] / len(each)
        look = {'fill': True, 'alpha': 0.3} if k else {'lw': 1.4}
        ax.stairs(heights, edges, color=PALETTE[k], label=f'{name} (n = {len(each)})', **look)
    ax.set(xlabel=label, ylabel='Share', xlim=edges[[0, -1]], ylim=(0, 1.3 * ax.dataLim.y1))  # room for the legend
    ax.legend(frameon=False, fontsize=8)


def _elements(ax, sets):
    """Draw the shares of unary, binary, ... crystals."""
    counts = {name: np.array([len(set(atoms.numbers.tolist())) for atoms in each]) for name, each in sets.items() if each}
    if not counts:
        _empty(ax, 'no valid crystals')
        return
    lowest, highest = min(each.min() for each in counts.values()), max(each.max() for each in counts.values())
    for k, (name, each) in enumerate(counts.items()):
        heights = np.bincount(each, minlength=highest + 1)[1:] / len(each)
        ax.bar(np.arange(1, highest + 1) + 0.38 * (k - (len(counts) - 1) / 2), heights, 0.36, color=PALETTE[k], label=name)
    ax.set(xlabel='Elements in a crystal', ylabel='Share', xticks=range(lowest, highest + 1), xlim=(lowest - 0.6, highest + 0.6))
    ax.legend(frameon=False, fontsize=8)


def _above_hull(ax, stability):
    """Draw the distribution of the energies above the hull."""
    values = np.array([value for value in stability['above_hull'] if value is not None], float)
    if not values.size:
        _empty(ax, 'no energies')
        return
    edges = np.linspace(min(values.min(), -0.05), max(np.quantile(values, 0.95), 2 * stability['limit']), 31)
    ax.hist(np.clip(values, edges[0], edges[-1]), edges, color=PALETTE[0], alpha=0.7)
    ax.axvline(stability['limit'], color=PALETTE[1], lw=1.2, ls='--')
    ax.set(xlabel='Energy above the hull, CHGNet (eV/atom)', ylabel='Crystals', xlim=edges[[0, -1]])


def _empty(ax, text):
    """Write why a panel is empty."""
    ax.text(0.5, 0.5, text, ha='center', va='center', transform=ax.transAxes, color='0.4')
    ax.set(xticks=[], yticks=[])
