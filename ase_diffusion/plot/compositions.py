"""Grids of crystals, labeled and ordered by a property."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.atoms import as_list
from .crystals import formula_label, plot_crystals
from .properties import PROPERTIES

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure


def plot_composition_grid(
    images: Atoms | Iterable[Atoms],
    *,
    values: Sequence[float] | None = None,
    prop: str | None = None,
    unit: str | None = None,
    columns: int = 4,
    count: int = 16,
    **options: Any,
) -> Figure:
    """Draw crystals in a grid, labeled by formula and a property, sorted by the property.

    Parameters
    ----------
    images : list of Atoms
    values : sequence of float, optional
        Values of the property; by default those stored with the crystals under the name `prop` (see
        `metrics.property_values`). Crystals with nan come last, without a number in the label.
    prop : str, optional
        Name of the property.
    unit : str, optional
        Unit in the label; by default that of a known property.
    columns : int
    count : int
        Largest number of crystals: those with the lowest values, or the first ones without a property.
    **options
        As in `plot_crystals`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        The numbers of values and images differ, or no crystal has the property; errors of `plot_crystals`.
    """
    images = as_list(images)
    if values is None and prop is not None:
        from ..metrics import property_values

        values = property_values(images, prop)
    values = np.full(len(images), np.nan) if values is None else np.asarray(values, float)
    if values.shape != (len(images),):
        raise ValueError(f'every crystal has one value, shape ({len(images)},); got {values.shape}')
    order = np.argsort(values, kind='stable')[:count]  # nan last
    unit = PROPERTIES.get(prop, ('', ''))[1] if unit is None else unit
    number = [f'{values[k]:.3f} {unit}'.rstrip().replace('-', '\N{MINUS SIGN}') for k in order]
    labels = [
        formula_label(images[k]) + (f'\n{text}' if np.isfinite(values[k]) else '') for k, text in zip(order, number, strict=True)
    ]
    options.setdefault('same_scale', False)
    return plot_crystals([images[k] for k in order], labels=labels, columns=min(columns, max(len(order), 1)), **options)
