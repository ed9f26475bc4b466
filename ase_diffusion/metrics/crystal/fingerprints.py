"""Fingerprints of crystals: environments of sites, and compositions.

Structure: for each site CrystalNN (Pan et al., Inorg. Chem. 60, 1590 (2021); in pymatgen) gives weights of coordination numbers;
the fingerprint holds each weight and its product with the order parameters of the motifs of that number (Zimmermann and Jain,
RSC Adv. 10, 6063 (2020)); a crystal has the mean over its sites. These are the 61 numbers of matminer's
``CrystalNNFingerprint('ops')``.

Composition: 22 elemental properties, of each the minimum, maximum, range, mean, average deviation and mode over the composition
(Ward et al., npj Comput. Mater. 2, 16028 (2016)). These are the 132 numbers of matminer's ``ElementProperty('magpie')``.

Both agree with matminer 0.10.1, which is not required (it needs pandas < 3 and pymongo).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...utils.parallel import parallel_map
from .structures import check_crystals, is_crystal, is_sound, reduced_formula, to_structure

if TYPE_CHECKING:
    from ase import Atoms


MAX_COORDINATION = 24
# rotation-invariant q2, q4, q6 for coordination numbers with no (or few) motifs in pymatgen
STEINHARDT = {9: ('q2', 'q4', 'q6'), 10: ('q2', 'q4', 'q6'), 11: ('q2', 'q4', 'q6'), 12: ('q2', 'q4', 'q6')}
LENGTH = 61  # length of a structure fingerprint
STATISTICS = 6


@lru_cache(maxsize=1)
def _order_parameters():
    """Return {coordination number: order parameters}, in the order of the fingerprint."""
    from pymatgen.analysis.local_env import CN_OPT_PARAMS, LocalStructOrderParams

    table = {1: [LocalStructOrderParams(['sgl_bd'], parameters=[None])]}
    for number in range(2, MAX_COORDINATION + 1):
        kinds = [(kind[0], kind[1] if len(kind) > 1 else None) for kind in CN_OPT_PARAMS.get(number, {}).values()]
        kinds += [(name, None) for name in STEINHARDT.get(number, ())]
        table[number] = [LocalStructOrderParams([name], parameters=[parameters]) for name, parameters in kinds]
    return table


@lru_cache(maxsize=1)
def _crystal_nn():
    from pymatgen.analysis.local_env import CrystalNN

    return CrystalNN()


def _structure_fingerprint(atoms):
    """Return the mean over the sites, (61,); nan for an invalid crystal or an error of CrystalNN."""
    if not is_sound(atoms):
        return np.full(LENGTH, np.nan)
    structure = to_structure(atoms)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # no oxidation states
        try:
            return np.mean([_site_fingerprint(structure, index) for index in range(len(structure))], axis=0)
        except Exception:  # CrystalNN raises many kinds of errors for unusual structures
            return np.full(LENGTH, np.nan)


def _site_fingerprint(structure, index):
    """Return the fingerprint of one site, a list of 61."""
    data = _crystal_nn().get_nn_data(structure, index)
    values = []
    for number, parameters in _order_parameters().items():
        weight = data.cn_weights.get(number, 0)
        values.append(weight)
        if not weight:
            values += [0.0] * len(parameters)
            continue
        sites = [structure[index], *(neighbor['site'] for neighbor in data.cn_nninfo[number])]
        around = list(range(1, len(sites)))
        values += [weight * (each.get_order_parameters(sites, 0, indices_neighs=around)[0] or 0.0) for each in parameters]
    return values


def structure_fingerprints(images: Iterable[Atoms], *, processes: int | None = None, progress: bool = False) -> np.ndarray:
    """Return the mean CrystalNN fingerprints of crystals.

    About 10 ms per atom and core, the slowest of the metrics.

    Parameters
    ----------
    images : list of Atoms
    processes : int, optional
        All cores by default.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    numpy.ndarray
        Shape (n, 61), dimensionless; nan for invalid crystals and errors of CrystalNN.
    """
    images = check_crystals(images)
    return np.array(
        parallel_map(
            _structure_fingerprint,
            images,
            processes=processes,
            progress=progress,
            lost=np.full(LENGTH, np.nan),
            label='CrystalNN',
        )
    )


@lru_cache(maxsize=1)
def _properties():
    """Return the elemental properties by atomic number, (119, 22); unknown values are the mean over the elements."""
    lines = Path(__file__).with_name('magpie_elements.txt').read_text(encoding='utf-8').splitlines()
    rows = np.array([line.split()[1:] for line in lines if not line.startswith('#')][1:], float)  # H to Og
    table = np.vstack([np.full(rows.shape[1], np.nan), rows])
    return np.where(np.isnan(table), np.nanmean(rows, axis=0), table)


def composition_fingerprints(images: Iterable[Atoms], *, scale: bool = True) -> np.ndarray:
    """Return the Magpie vectors of crystals.

    Parameters
    ----------
    images : list of Atoms
    scale : bool
        Standardize by the mean and standard deviation over the training split of mp_le20, for all data sets. The script of CDVAE
        does the same with other constants (the first three means are 21.2, 58.2, 37.0 there and 19.8, 58.2, 38.4 here).

    Returns
    -------
    numpy.ndarray
        Shape (n, 132): for each of 22 properties minimum, maximum, range, mean, average deviation, mode; nan for structures
        that are no crystals.
    """
    nothing = np.full(STATISTICS * _properties().shape[1], np.nan)
    images = check_crystals(images)
    vectors = np.array([_magpie(reduced_formula(atoms)) if is_crystal(atoms) else nothing for atoms in images])
    if not scale:
        return vectors
    mean, deviation = _scale()
    return (vectors - mean) / deviation


@lru_cache(maxsize=1)
def _scale():
    """Return mean and standard deviation, each (132,)."""
    return np.loadtxt(Path(__file__).with_name('magpie_scale.txt')).T


@lru_cache(maxsize=100_000)
def _magpie(formula):
    """Return the features of a composition, (132,)."""
    numbers, counts = np.array(formula).T
    weights = counts / counts.sum()
    values = _properties()[numbers]  # (elements, 22)
    mean = weights @ values
    deviation = weights @ np.abs(values - mean)
    mode = values[counts == counts.max()].min(0)
    low, high = values.min(0), values.max(0)
    return np.stack([low, high, high - low, mean, deviation, mode], axis=1).ravel()
