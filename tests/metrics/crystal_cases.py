"""Crystals with known answers."""

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell


def perovskite(symbols='SrTiO3', a=3.9):
    """Return a cubic perovskite ABO3."""
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Atoms(symbols, scaled_positions=places, cell=[a] * 3, pbc=True)


def disguised(atoms, seed=0):
    """Return the same crystal in a skew supercell of two, shifted, rotated, its atoms in another order."""
    rng = np.random.default_rng(seed)
    new = make_supercell(atoms, [[1, 1, 0], [-1, 1, 0], [0, 1, 1]])
    new.rotate(rng.uniform(10, 80), rng.normal(size=3), rotate_cell=True)
    new.positions += rng.normal(size=3)
    new.wrap()
    return new[rng.permutation(len(new))]


def rattled(atoms, width=0.02, seed=0):
    """Return the crystal with its atoms moved by some hundredths of an A."""
    new = atoms.copy()
    new.positions += np.random.default_rng(seed).normal(scale=width, size=new.positions.shape)
    return new


def zoo():
    """Return some different crystals."""
    return [
        bulk('NaCl', 'rocksalt', a=5.64),
        bulk('CsCl', 'cesiumchloride', a=4.12),
        bulk('ZnS', 'zincblende', a=5.41),
        bulk('Cu', 'fcc', a=3.6),
        bulk('Fe', 'bcc', a=2.87),
        bulk('C', 'diamond', a=3.57),
        perovskite(),
        perovskite('BaTiO3', 4.0),
        bulk('MgO', 'rocksalt', a=4.21),
        bulk('NaCl', 'cesiumchloride', a=3.5),
    ]


def broken():
    """Return invalid crystals: atoms on top of each other (twice), flat, not finite, a cell vector too short, no cell."""
    close = Atoms('NaCl', positions=[[0, 0, 0], [0.3, 0, 0]], cell=[5] * 3, pbc=True)
    across = Atoms('NaCl', positions=[[0.1, 0, 0], [4.9, 0, 0]], cell=[5] * 3, pbc=True)
    flat = Atoms('NaCl', positions=[[0, 0, 0], [2, 0, 0]], cell=[5, 5, 1e-4], pbc=True)
    unknown = Atoms('NaCl', positions=[[0, 0, 0], [np.nan, 0, 0]], cell=[5] * 3, pbc=True)
    short = Atoms('Na', cell=[0.4, 9, 9], pbc=True)
    return [close, across, flat, unknown, short, Atoms('Na', pbc=True)]
