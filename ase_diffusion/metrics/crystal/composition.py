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
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from .structures import check_crystals, is_crystal, reduced_formula

if TYPE_CHECKING:
    from ase import Atoms


@lru_cache(maxsize=1)
def _elements():
    """Return {atomic number: (electronegativity or None, is a metal, oxidation states)}."""
    table = {}
    for line in Path(__file__).with_name('smact_elements.txt').read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            symbol, x, kind, *states = line.split()
            table[chemical_symbols.index(symbol)] = (None if x == '-' else float(x), kind == 'm', [int(s) for s in states])
    return table


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


@lru_cache(maxsize=100_000)
def is_charge_neutral(formula: tuple[tuple[int, int], ...]) -> bool:
    """Return whether a composition passes the test.

    Parameters
    ----------
    formula : tuple of (int, int)
        Atomic numbers and counts, as returned by `reduced_formula`.

    Returns
    -------
    bool
    """
    if len(formula) == 1:
        return True
    elements = [_elements().get(number, (None, False, [])) for number, _ in formula]
    if all(is_metal for _, is_metal, _ in elements):
        return True
    if any(x is None for x, _, _ in elements):
        return False
    ranked = sorted((x, count, states) for (x, _, states), (_, count) in zip(elements, formula, strict=True))
    return any(_can_be_neutral(ranked, border) for border in range(1, len(ranked)) if ranked[border - 1][0] < ranked[border][0])


def _can_be_neutral(ranked, border):
    """Return whether charges can cancel with the elements before the border as cations and the others as anions."""
    totals = {0}
    for place, (_, count, states) in enumerate(ranked):
        charges = [count * state for state in states if (state > 0) == (place < border)]
        totals = {total + charge for total in totals for charge in charges}
    return 0 in totals
