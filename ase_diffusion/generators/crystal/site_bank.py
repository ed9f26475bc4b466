"""Occupied sites of known crystals, for generators that are told where symmetry lets atoms be."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms

from ...representations.cells import CENTERING, centering_of, conventional
from .bank import SAME_TYPE
from .prototypes import Prototypes, as_prototypes, shipped_prototypes


class SiteBank:
    """Crystals by the number of atoms of the conventional cell and by space group.

    Parameters
    ----------
    bank : Prototypes
        In primitive cells.
    """

    def __init__(self, bank: Prototypes) -> None:
        self.bank = bank
        self.groups, self.species = bank.groups, bank.table['species']  # (n,)
        factors = np.array([0] + [CENTERING[centering_of(number)] for number in range(1, 231)])
        self.sizes = bank.natoms * factors[self.groups]  # (n,)

    @classmethod
    def coerce(cls, sites: bool | str | Path | Iterable[Atoms]) -> SiteBank | None:
        """Return the bank that a user asks for: True for the one that ships, a file or a list of Atoms; None for False.

        Raises
        ------
        TypeError
            It is something else.
        """
        if sites is False:
            return None
        if sites is True:
            return shipped_sites()
        if isinstance(sites, (Atoms, int, float)) or not hasattr(sites, '__iter__'):
            raise TypeError(f'sites is True, False, a file of crystals or a list of Atoms; got {type(sites).__name__}')
        return cls(as_prototypes(sites))

    def holds(self, natoms: int, group: int, elements: int) -> bool:
        """Return whether there is a crystal of this size and space group with at least so many elements."""
        return bool(((self.sizes == natoms) & (self.groups == group) & (self.species >= elements)).any())

    def draw(self, natoms: int | None, group: int | None, rng: np.random.Generator, elements: int = 1) -> Atoms | None:
        """Return a crystal at random in its conventional cell; None where there is none of this size and space group.

        One of at least so many ``elements`` where there is one.
        """
        rows = np.flatnonzero(
            (self.sizes == natoms if natoms is not None else self.sizes <= 52)
            & (self.groups == group if group is not None else True)
        )
        rows, poor = rng.permutation(rows), False
        for row in rows:
            if self.species[row] < elements:
                poor = True
                continue
            atoms = conventional(self.bank.original(row), SAME_TYPE)
            if len(atoms) == self.sizes[row] and atoms.info['key_value_pairs']['space_group'] == self.groups[row]:
                return atoms
        return self.draw(natoms, group, rng) if poor else None


@lru_cache(maxsize=1)
def shipped_sites() -> SiteBank:
    """Return the sites of the crystals that ship."""
    return SiteBank(shipped_prototypes())
