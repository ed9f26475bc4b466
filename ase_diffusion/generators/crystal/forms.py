"""What generators of crystals have in common: which structures are none, and the form in which the others are returned."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from ...representations.reduction import niggli, symmetrize
from .tasks import shortest_distance

SHORTEST, SMALLEST = 0.5, 0.1  # A and A^3: below, a structure is no crystal (CDVAE)
LARGEST = 5000.0  # A^3 per atom: above it is a gas, in which looking for neighbors takes for ever


def reason_to_reject(atoms: Atoms, shortest: float = SHORTEST) -> str | None:
    """Return why a structure is no crystal, or None.

    Parameters
    ----------
    atoms : Atoms
        In its Niggli cell.
    shortest : float
        Least distance of atoms, images of the same one included, A; up to 3.
    """
    if not np.isfinite(atoms.positions).all():
        return 'numbers that are not finite'
    if not atoms.cell.volume >= SMALLEST:
        return f'a volume below {SMALLEST} A^3'
    if atoms.cell.volume > LARGEST * len(atoms):
        return f'a volume above {LARGEST:g} A^3 per atom'
    return None if shortest_distance(atoms) >= shortest else f'atoms closer than {shortest:g} A, or a flat cell'


def check_tolerance(tolerance) -> None:
    """Raise a ValueError where the tolerance of symmetrization is neither None nor positive."""
    if tolerance is not None and (isinstance(tolerance, (bool, str)) or not tolerance > 0):
        raise ValueError(f'symmetrize is a tolerance in A, positive; got {tolerance!r}')


def finished(atoms: Atoms, tolerance: float | None = None) -> Atoms:
    """Return a decoded crystal in its Niggli cell, wrapped; averaged over its symmetry where there is a tolerance (A).

    Where numbers are not finite it comes back as it is, see :func:`reason_to_reject`.
    """
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
        return atoms
    return niggli(atoms if tolerance is None else symmetrize(atoms, tolerance))
