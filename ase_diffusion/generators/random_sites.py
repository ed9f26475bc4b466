"""Frameworks from random symmetric T sites in drawn cells, without a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms

from ..porous.growth import FARTHEST, GOOD, framework_in_cell
from ..representations import Failure

__all__ = ['GOOD', 'RandomSites']

CELLS, ATTEMPTS = 400, 5  # drawn for one framework; sets of sites in each
REASONS = (*FARTHEST, 'not near the cell or the target that was asked for')


class RandomSites:
    """Look for a framework in cells that are drawn, by random sites that are relaxed on their distances under the symmetry.

    Parameters
    ----------
    draw_cell : callable
        ``draw_cell(rng)`` -> edges (3,) in A, number of T sites, (rotations, translations).
    good : float
        A^2 per T site, largest cost of the distance least squares.
    symmetric : bool
        O in symmetric places, too, where this does not strain a framework too much.
    """

    def __init__(
        self,
        draw_cell: Callable[[np.random.Generator], tuple[np.ndarray, int, tuple[np.ndarray, np.ndarray]]],
        good: float = GOOD,
        symmetric: bool = False,
    ) -> None:
        self.draw_cell, self.good, self.symmetric = draw_cell, good, symmetric

    def __call__(self, seed: int, is_near: Callable[[Atoms], bool]) -> Atoms | Failure:
        """Return the first framework that is near the target, or the end of the attempt that came farthest."""
        rng, depth = np.random.default_rng([seed % 2**32, seed >> 32, 1]), 0
        for _ in range(CELLS):
            found = framework_in_cell(rng, *self.draw_cell(rng), attempts=ATTEMPTS, good=self.good, symmetric=self.symmetric)
            if isinstance(found, str):
                depth = max(depth, REASONS.index(found))
                continue
            atoms = _atoms_of(*found)
            if is_near(atoms):
                return atoms
            depth = len(FARTHEST)
        return Failure(REASONS[depth])


def _atoms_of(lengths: np.ndarray, scaled: np.ndarray, cost: float) -> Atoms:
    """Return a framework with its cost."""
    n = len(scaled) // 3
    atoms = Atoms(np.repeat([14, 8], [n, 2 * n]), cell=lengths, scaled_positions=scaled, pbc=True)
    atoms.wrap()
    atoms.info['cost'] = cost
    return atoms
