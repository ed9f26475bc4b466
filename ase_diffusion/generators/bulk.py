"""Parts of all generators of bulk crystals: which are none, symmetrisation, numbers of atoms as in the data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ase import Atoms

from ..data.crystals import read_crystals
from ..relax.relax import irelax
from ..representations.reduction import symmetrize
from ..utils.atoms import neighbors
from ..utils.checks import check_tolerance
from .base import Generator

SHORTEST, SMALLEST = 0.5, 0.1  # A and A^3: below, a structure is no crystal (CDVAE)
WIDEST = 1.0  # A, of symmetry
LARGEST = 5000.0  # A^3 per atom: above it is a gas, in which the search for neighbors takes too long
FLAT = 0.1  # volume over the product of the lengths; at least 0.7 for a Niggli cell


class BulkGenerator(Generator):
    """Generate crystals that are rejected where atoms or images are closer than 0.5 A or the volume makes no sense.

    Attributes
    ----------
    symmetrize : float or None
        Tolerance in A.
    min_distance : float
        Least distance of atoms, images of the same one included, A; up to 3.
    """

    symmetrize: float | None = None
    min_distance: float = SHORTEST

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        if not np.isfinite(atoms.positions).all():
            return 'numbers that are not finite'
        if not atoms.cell.volume >= SMALLEST:
            return f'a volume below {SMALLEST} A^3'
        if atoms.cell.volume > LARGEST * len(atoms):
            return f'a volume above {LARGEST:g} A^3 per atom'
        close = f'atoms closer than {self.min_distance:g} A, or a flat cell'
        return None if shortest_distance(atoms) >= self.min_distance else close

    def _finish(self, atoms: Atoms) -> Atoms:
        """Return the crystal in its final form; what is not finite is rejected later."""
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
            return atoms
        return self._reduced(atoms if self.symmetrize is None else symmetrize(atoms, self.symmetrize))

    def _reduced(self, atoms: Atoms) -> Atoms:
        """Return the crystal in the cell that this method hands out."""
        return atoms

    def _after_relaxation(self, atoms: Atoms) -> Atoms:
        return super()._after_relaxation(self._reduced(atoms if self.symmetrize is None else self._averaged(atoms)))

    def _averaged(self, atoms: Atoms) -> Atoms:
        """Return a relaxed crystal averaged over its symmetry, with the results of where its atoms are then."""
        new = symmetrize(atoms, self.symmetrize)
        if atoms.calc is not None and 'forces' in set(atoms.calc.results) - set(new.calc.results):
            keywords = {name: value for name, value in self.relax.items() if name not in ('frames', 'logfile')}
            [(_, point)] = irelax([new], **{**keywords, 'steps': 0})
            new.calc = new.calc if point.calc is None else point.calc
        return new

    def _min_distance_ratio(self, atoms: Atoms) -> float:
        return super()._min_distance_ratio(atoms) if BulkGenerator._reason_to_reject(self, atoms) is None else 0.0

    def _sizes(self, header: dict) -> dict[int, float]:
        """Return how many crystals of the data had how many atoms."""
        return {int(n): count for n, count in header['sizes'].items()}

    def _drawn_count(self, seed: int) -> int:
        """Return a number of atoms for this seed, with the frequencies of the data."""
        sizes = self._sizes(self.header)
        weights = np.array(list(sizes.values()), float)
        return int(np.random.default_rng(seed).choice(list(sizes), p=weights / weights.sum()))

    def _read(self, path: str | Path) -> list[Atoms]:
        return read_crystals(path)


def check_symmetrize(tolerance: float | None) -> float | None:
    """Return the tolerance, None for None and 0; raise a ValueError where it is none up to 1 A, beyond which spglib fails."""
    if tolerance is None or (tolerance == 0 and not isinstance(tolerance, bool)):
        return None
    if check_tolerance('symmetrize', tolerance) > WIDEST:
        raise ValueError(f'symmetrize is a tolerance in A, at most {WIDEST:g}, such as 0.1, or None; got {tolerance!r}')
    return float(tolerance)


def shortest_distance(atoms: Atoms) -> float:
    """Return the shortest distance between atoms of a cell that is not flat, images of the same one included, A.

    inf beyond 3 A; 0 where numbers are not finite or the cell is flat: the search for neighbors in it would take too long.
    """
    if not (np.isfinite(atoms.cell[:]).all() and np.isfinite(atoms.positions).all()):
        return 0.0
    lengths = atoms.cell.lengths()
    if not atoms.cell.volume > FLAT * lengths.prod():
        return 0.0
    if lengths.min() < 0.1:
        return float(lengths.min())
    _, _, d = neighbors(atoms, 3.0)
    return float(d.min(initial=np.inf))


def without(atoms: Atoms, symbols: Iterable[str]) -> str | None:
    """Return why a structure is rejected that lacks some of the elements, None where it has all of them."""
    lacking = sorted(set(symbols) - set(atoms.get_chemical_symbols()))
    return f'no {" and no ".join(lacking)}' if lacking else None
