"""Pictures of CrysTens images."""

import numpy as np
import pytest
from ase.build import bulk

from ase_diffusion import plot
from ase_diffusion.plot.crystens import _scaled


def drawn(figure):
    """The four images of a figure."""
    return [ax.images[0].get_array() for ax in figure.axes[:4]]


def test_four_channels_of_a_crystal():
    atoms = bulk('NaCl', 'rocksalt', a=5.64, cubic=True)
    pixels = drawn(plot.plot_crystens(atoms))
    z, x = np.ma.filled(pixels[0], np.nan)[[0, 1], 12:20]
    assert z.tolist() == [-1.0] * 4 + [1.0] * 4  # Na, then Cl
    assert x[0] == -1 and x.max() == 1 and np.isnan(np.ma.filled(pixels[0], np.nan)[:, 20:]).all()
    block = np.ma.filled(pixels[1], np.nan)[12:20, 12:20]
    assert block == pytest.approx(-block.T) and np.abs(block).max() == pytest.approx(0.5)
    assert (np.ma.filled(pixels[2], np.nan)[4, 12:20] == 0).all()  # all copies of a equal


def test_what_is_no_image_is_refused():
    for wrong, match in ((np.zeros((3, 64, 64)), 'shape'), (np.full((4, 64, 64), np.nan), 'finite')):
        with pytest.raises(ValueError, match=match):
            plot.plot_crystens(wrong)
    with pytest.raises(ValueError, match='52 atoms'):
        plot.plot_crystens(bulk('Cu', cubic=True).repeat((3, 3, 2)))
    assert np.isnan(_scaled(np.zeros((64, 64)))).all()  # an image without atoms
