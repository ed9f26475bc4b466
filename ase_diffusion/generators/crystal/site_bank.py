"""Occupied sites of known crystals, for generators that are told where symmetry lets atoms be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms

from ...representations.cells import CENTERING, centering_of, conventional
from .bank import SAME_TYPE
from .prototypes import Prototypes, given_prototypes, shipped_prototypes

FEW = 10  # crystals
MOST = 52  # atoms of a conventional cell where no number of them is asked for


class SiteBank:
    """Crystals by the number of atoms of the conventional cell and by space group.

    Parameters
    ----------
    bank : Prototypes
        In primitive cells.
    record : bool, str or dict
        What the provenance says of it.
    """

    def __init__(self, bank: Prototypes, record: bool | str | dict = True) -> None:
        self.bank, self.record = bank, record
        self.groups, self.species, self.orbits = bank.groups, bank.table['species'], bank.orbits  # (n,)
        factors = np.array([0] + [CENTERING[centering_of(number)] for number in range(1, 231)])
        self.sizes = bank.natoms * factors[self.groups]  # (n,)
        self._pairs: dict[int, list[set[tuple[int, int]]]] = {}

    @classmethod
    def coerce(cls, sites: bool | str | Path | Iterable[Atoms]) -> SiteBank | None:
        """Return the bank that a user asks for: True for the one that ships, a file or a list of Atoms; None for False.

        Raises
        ------
        TypeError
            It is something else.
        ValueError
            There is no crystal.
        """
        if sites is False:
            return None
        if sites is True:
            return shipped_sites()
        return cls(*given_prototypes('sites', 'True, False, a file of crystals or a list of Atoms', sites))

    def counted(self) -> dict[str, dict[str, int]]:
        """Return how many crystals there are by number of atoms and space group, as the header of a model says it."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for (size, group), count in Counter(zip(self.sizes.tolist(), self.groups.tolist(), strict=True)).items():
            if size <= MOST:
                found[str(size)][str(group)] = count
        return found

    def _rows(self, natoms: int | None, group: int | None) -> np.ndarray:
        """Return the crystals of this size and space group; None: of any."""
        fits = self.sizes <= MOST if natoms is None else self.sizes == natoms
        return np.flatnonzero(fits if group is None else fits & (self.groups == group))

    def pairs(self, elements: int) -> list[set[tuple[int, int]]]:
        """Return sizes and space groups of crystals of so many elements or more, and of those whose sites can have so many.

        Those of fewer than ten crystals are left out: they would be the sites of nearly all samples.
        """
        if elements not in self._pairs:
            fits = [(self.sizes <= MOST) & (have >= elements) for have in (self.species, self.orbits)]
            fits = [fit for fit in fits if fit.sum() >= FEW]
            self._pairs[elements] = [set(zip(self.sizes[f].tolist(), self.groups[f].tolist(), strict=True)) for f in fits]
        return self._pairs[elements]

    def holds(self, natoms: int, group: int, elements: int) -> bool:
        """Return whether there is a crystal of this size and space group with at least so many elements."""
        return bool((self.species[self._rows(natoms, group)] >= elements).any())

    def most_orbits(self, natoms: int | None, group: int | None) -> int:
        """Return how many elements sites of this size and space group can have at most; 0 where there are no sites."""
        return int(self.orbits[self._rows(natoms, group)].max(initial=0))

    def draw(self, natoms: int | None, group: int | None, rng: np.random.Generator, elements: int = 1) -> Atoms | None:
        """Return a crystal at random in its conventional cell; None where there is none of this size and space group.

        One of at least so many ``elements`` where there is one, else one whose sites can have so many.
        """
        for have in (self.species, self.orbits, np.full_like(self.orbits, elements)):
            for row in rng.permutation(self._rows(natoms, group)):
                if have[row] < elements:
                    continue
                atoms = conventional(self.bank.original(row), SAME_TYPE)
                if len(atoms) == self.sizes[row] and atoms.info['key_value_pairs']['space_group'] == self.groups[row]:
                    return atoms
        return None


@lru_cache(maxsize=1)
def shipped_sites() -> SiteBank:
    """Return the sites of the crystals that ship."""
    return SiteBank(shipped_prototypes())
