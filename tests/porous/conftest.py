"""Two frameworks by their published coordinates, and the sum that every grid is compared with."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.spacegroup import crystal

from ase_diffusion.porous import interaction

# Baerlocher, McCusker, Database of Zeolite Structures, https://www.iza-structure.org/databases: idealized SiO2
LTA_SITES = 'O 0 .2122 .5  O .1103 .1103 .3384  O 0 .2967 .2967  Si 0 .1823 .3684'
MFI_SITES = """
O .5012 .0699 .7018  O .3875 .0743 .8008  O .3995 .1366 .6251  O .3972 .0034 .6326  O .3290 .0385 .9722
O .3297 .9555 .8155  O .2571 .0663 .8106  O .2910 .1296 .1060  O .2034 .0455 .0275  O .2936 .0010 .1564
O .1075 .1265 .0883  O .0846 .0370 .9443  O .1301 .0781 .7670  O .0728 .9589 .7832  O .2201 .1313 .6456
O .4911 .8548 .7169  O .3681 .8311 .7743  O .4263 .7500 .6431  O .3217 .8611 .9561  O .2410 .8582 .7990
O .2943 .7500 .0579  O .1976 .8313 .0003  O .0948 .7500 .0205  O .0809 .8670 .9275  O .1177 .8370 .7406
O .2116 .7500 .6913  Si .4214 .0711 .6898  Si .3259 .0336 .8500  Si .2792 .0536 .0655  Si .1246 .0514 .0481
Si .0721 .0360 .8233  Si .2034 .0687 .7197  Si .4195 .8274 .6805  Si .3152 .8765 .8361  Si .2733 .8278 .0402
Si .1185 .8279 .0183  Si .0657 .8794 .8087  Si .1947 .8288 .7092"""


def framework(sites, group, lengths):
    """Return a framework with orthogonal cell vectors."""
    words = sites.split()
    places = np.array(words, object).reshape(-1, 4)
    atoms = crystal(places[:, 0].tolist(), places[:, 1:].astype(float), spacegroup=group, cellpar=[*lengths, 90, 90, 90])
    return Atoms(atoms.get_chemical_symbols(), positions=atoms.positions, cell=atoms.cell, pbc=True)


@pytest.fixture(scope='session')
def lta():
    return framework(LTA_SITES, 221, (11.919, 11.919, 11.919))


@pytest.fixture(scope='session')
def mfi():
    return framework(MFI_SITES, 62, (20.090, 19.738, 13.142))


def direct_sum(atoms, shape, cutoff, **options):
    """Return the energies in float64 by the plain sum over points, atoms and images."""
    a, b = interaction(atoms, **options)
    cell = atoms.cell.array
    reach = np.ceil(cutoff * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int) + 1
    images = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    places = ((atoms.get_scaled_positions() + images[:, None]) @ cell).reshape(-1, 3)
    a, b = np.tile(a, len(images)), np.tile(b, len(images))
    energy = []
    for point in np.array(list(itertools.product(*(np.arange(n) / n for n in shape)))) @ cell:
        square = ((places - point) ** 2).sum(1)
        near = square < cutoff**2
        q = 1 / np.maximum(square[near], 0.01) ** 3
        energy.append((q * (a[near] * q - b[near])).sum())
    return np.reshape(energy, shape)


@pytest.fixture
def exact():
    return direct_sum


def random_crystal(seed, *, shortest=2.5, longest=9.0, atoms=4, skew=0.45):
    """Return a triclinic crystal of O, Si and Al with some atoms outside the cell."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(shortest, longest, 3)) @ (np.eye(3) + rng.uniform(-skew, skew, (3, 3)))
    symbols = ['O', *rng.choice(['O', 'Si', 'Al'], atoms - 1)]
    return Atoms(symbols, scaled_positions=rng.uniform(-1, 2, (atoms, 3)), cell=cell, pbc=True)


@pytest.fixture
def make_crystal():
    return random_crystal
