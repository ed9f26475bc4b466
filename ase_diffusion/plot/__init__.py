"""Figures: ``plot_x(data, ax=None, ...) -> ax``; those of many panels return a Figure.

Matplotlib is imported when one is drawn.
"""

from ..utils.lazy import lazy_names

_HOME = {
    'plot_structure': 'structures',
    'plot_structures': 'structures',
    'plot_crystal': 'crystals',
    'plot_crystals': 'crystals',
    'plot_composition_grid': 'crystals',
    'plot_property_histogram': 'properties',
    'property_label': 'properties',
    'plot_energy_ladder': 'energies',
    'plot_energy_histogram': 'energies',
    'plot_denoising_strip': 'denoising',
    'plot_success_curve': 'success',
    'plot_evaluation': 'evaluation',
    'plot_isosurface': 'grids',
    'plot_slice': 'grids',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOME)

# Okabe and Ito: told apart by colour-blind readers, and in print
PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')


def new_axes(figsize):
    """Return the axes of a new figure of that size in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout='constrained')[1]


def tidy(ax):
    """Remove the upper and right frame lines of axes; return the axes."""
    ax.spines[['top', 'right']].set_visible(False)
    return ax
