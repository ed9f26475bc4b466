"""Nets of silica frameworks that are known: names of the IZA, and hypothetical nets that this package knows.

Nets are compared by coordination sequences and the shortest cycles at every angle (`ase_diffusion.porous.nets.net_key`),
whatever the cell and the symmetry; the 232 frameworks of the IZA have 232 keys. The file is an npz: ``iza_keys``,
``iza_codes`` and ``known_keys``, the nets of the training data of the shipped model and of the set 'silica-frameworks'.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms

from ..porous.nets import framework_net, net_key

FILE = Path(__file__).with_name('framework_nets.npz')

__all__ = ['describe_net', 'key_of_framework']


@lru_cache(maxsize=1)
def known_nets() -> tuple[dict[int, str], frozenset[int]]:
    """Return key -> code of the IZA, and the keys of the other known nets."""
    with np.load(FILE) as file:
        codes = dict(zip(file['iza_keys'].tolist(), file['iza_codes'].tolist(), strict=True))
        return codes, frozenset(file['known_keys'].tolist())


def key_of_framework(atoms: Atoms) -> int:
    """Return the key of the net of a silica framework.

    Raises
    ------
    ValueError
        The structure is no silica framework.
    """
    net = framework_net(atoms.numbers, atoms.get_scaled_positions(), atoms.cell.array)
    if isinstance(net, str):
        raise ValueError(f'a net is that of a silica framework; got {atoms.symbols}: {net}')
    return net_key(net)


def describe_net(atoms: Atoms) -> dict[str, str]:
    """Return what is known of the net of a silica framework.

    Returns
    -------
    dict
        ``net_key``; ``novelty``: 'iza', 'known' (training data of the shipped model, or 'silica-frameworks') or 'new'; and, of
        the first, ``topology``, such as 'SOD'.

    Raises
    ------
    ValueError
        The structure is no silica framework.
    """
    codes, known = known_nets()
    key = key_of_framework(atoms)
    notes = {'net_key': f'n{key:016x}', 'novelty': 'iza' if key in codes else 'known' if key in known else 'new'}
    return notes | ({'topology': codes[key]} if key in codes else {})
