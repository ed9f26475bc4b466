"""Compositional validity: the charge neutrality and electronegativity test of SMACT.

A composition passes if each element can take one of its oxidation states so that the charges cancel and every cation is less
electronegative than every anion; one element alone passes, and so do metals among themselves. The tables are those of SMACT
(Davies et al., J. Open Source Softw. 4, 1361 (2019)), see DATA.md.

Results equal those of the loop over all combinations in the script of CDVAE (Xie et al., ICLR 2022) with the oxidation states of
SMACT from 2014, without enumeration: sorted by electronegativity, cations come before anions, so that for each border between
them the set of possible total charges suffices. The number of elements is not limited. Elements without an electronegativity
(He, Ne, Ar, Pm in the table of SMACT) pass only as pure elements; the script of CDVAE may pass them, depending on the version of
SMACT.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ...representations.charges import is_charge_neutral
from .structures import check_crystals, is_crystal, reduced_formula

if TYPE_CHECKING:
    from ase import Atoms


def compositional_validity(images: Iterable[Atoms]) -> np.ndarray:
    """Return which crystals pass the test of charge neutrality and electronegativities.

    Parameters
    ----------
    images : list of Atoms

    Returns
    -------
    numpy.ndarray
        bool, shape (n,); False for structures that are no crystals.
    """
    return np.array([is_crystal(atoms) and is_charge_neutral(reduced_formula(atoms)) for atoms in check_crystals(images)])
