"""Pictures of CrysTens images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..networks.image_layout import FIELDS, HEADER, SIZE

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from ..representations import CrysTens

TITLES = ('length of f$_i$ - f$_j$', 'x$_i$ - x$_j$', 'y$_i$ - y$_j$', 'z$_i$ - z$_j$')
ROWS = ('Z', 'x', 'y', 'z', 'a', 'b', 'c', '$\\alpha$', '$\\beta$', '$\\gamma$', 'group', '')


def plot_crystens(image: Atoms | ArrayLike, *, representation: CrysTens | None = None, cmap: str = 'RdBu_r') -> Figure:
    """Draw the four channels of a CrysTens image: rows of numbers above and beside the block of pairs (paper, figs. 1 and 2).

    Every field is drawn on a scale of its own, from the smallest to the largest of its numbers in the image (numbers that are
    all equal are shown in the middle); the pair block from -1 to 1. Pixels without an atom are grey.

    Parameters
    ----------
    image : Atoms, or array of (4, 64, 64)
        A crystal of at most 52 atoms, or one of the images of
        :meth:`ase_diffusion.generators.crystens.CrysTensDiffusion.sample_images`.
    representation : CrysTens, optional
        Encodes a crystal; default: one with its default scales.
    cmap : str
        Matplotlib colormap.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        The image has another shape or numbers that are not finite, or the crystal does not fit into one.
    """
    import matplotlib.pyplot as plt

    pixels = _pixels(image, representation)
    figure, axes = plt.subplots(1, 4, figsize=(14, 4), layout='constrained')
    for channel, (ax, title) in enumerate(zip(axes, TITLES, strict=True)):
        shown = ax.imshow(_scaled(pixels[channel]), cmap=cmap, vmin=-1, vmax=1, interpolation='nearest')
        ax.set_facecolor('0.8')
        for place in (ax.axhline, ax.axvline):
            place(HEADER - 0.5, color='black', lw=0.6)
        ax.set_title(title)
        ax.set_xticks([HEADER, SIZE - 1], ['atom 1', '52'])
        ax.set_yticks(range(HEADER), ROWS if channel == 0 else [''] * HEADER, fontsize=6)
    figure.colorbar(shown, ax=axes, label='on the scale of each field', shrink=0.8)
    return figure


def _pixels(image: Atoms | ArrayLike, representation: CrysTens | None) -> np.ndarray:
    """Return an image (4, 64, 64) in the units of the paper."""
    from ase import Atoms

    from ..representations import CrysTens

    if isinstance(image, Atoms):
        representation = representation or CrysTens()
        return representation.raw(representation.encode([image]).fields['image'])[0].numpy()
    pixels = np.asarray(image, float)
    if pixels.shape != (4, SIZE, SIZE):
        raise ValueError(f'an image has the shape (4, {SIZE}, {SIZE}), got {pixels.shape}; draw several one by one')
    if not np.isfinite(pixels).all():
        raise ValueError('an image to draw holds finite numbers, this one has NaN or infinite ones')
    return pixels


def _scaled(channel: np.ndarray) -> np.ndarray:
    """Return a channel on [-1, 1], NaN where there is no atom."""
    out = np.full(channel.shape, np.nan)
    here = np.flatnonzero(channel[0, HEADER:]) + HEADER  # Z is 0 in absent slots
    if not len(here):
        return out
    for row in range(FIELDS.index('present')):
        numbers = np.stack([channel[row, here], channel[here, row]])
        low, high = numbers.min(), numbers.max()
        middle, half = (low + high) / 2, max((high - low) / 2, 1e-9)
        out[row, here], out[here, row] = (numbers - middle) / half if high - low > 1e-6 * abs(middle) else (0.0, 0.0)
    out[np.ix_(here, here)] = channel[np.ix_(here, here)]
    return out
