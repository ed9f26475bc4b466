"""Figures: ``plot_x(data, ax=None, ...) -> ax``; functions for several panels return a Figure.

Matplotlib is imported at the first figure.
"""

from __future__ import annotations

from ..utils.lazy import lazy_names

_HOME = {
    'plot_structure': 'structures',
    'plot_structures': 'structures',
    'plot_crystal': 'crystals',
    'plot_crystals': 'crystals',
    'plot_crystens': 'crystens',
    'plot_composition_grid': 'compositions',
    'plot_property_histogram': 'properties',
    'property_label': 'properties',
    'plot_energy_ladder': 'energies',
    'plot_energy_histogram': 'energies',
    'plot_cloud': 'clouds',
    'plot_denoising_strip': 'denoising',
    'plot_success_curve': 'success',
    'plot_evaluation': 'evaluation',
    'plot_isosurface': 'grids',
    'plot_slice': 'grids',
    'PALETTE': 'style',
    'new_axes': 'style',
    'tidy': 'style',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOME)
