"""Initial Hessian from a cheap potential, to save steps of an expensive relaxation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..calculators.forcefield import ForceFieldCalculator
from ..calculators.names import CalculatorLike, get_calculator
from ..utils.atoms import copy_atoms, frozen_mask

if TYPE_CHECKING:
    from ase import Atoms


def surrogate_hessian(
    atoms: Atoms, calculator: CalculatorLike = 'ag-o', *, step: float = 0.02, floor: float = 2.0, rest: float = 70.0
) -> np.ndarray:
    """Return a positive definite Hessian of a cheap potential, to start a BFGS relaxation with an expensive one.

    A quasi-Newton optimizer spends most of its steps on learning the curvature. A force field with force errors of 0.1 eV/A
    has the curvature right to about 10 %, at negligible cost compared with density-functional theory::

        optimizer = BFGS(atoms)                       # atoms.calc: GPAW, VASP, 7net, ...
        optimizer.H0 = surrogate_hessian(atoms)

    :func:`ase_diffusion.relax.relax` does this with ``hessian='ag-o'``. The result is a minimum of the expensive
    potential, converged in its forces; only the path differs (with many minima it can lead to another one).

    Parameters
    ----------
    atoms : Atoms
        Fixed atoms (FixAtoms) are not displaced. Not changed.
    calculator : str, callable or Calculator
        Cheap potential, as `get_calculator` takes it. Force fields of this package evaluate all displaced copies in one batch.
    step : float
        Displacement of central differences (A).
    floor : float
        Lower limit of the absolute eigenvalues (eV/A^2): avoids long steps along soft and unstable modes of the cheap potential.
    rest : float
        Diagonal for fixed atoms (eV/A^2), the default of ``ase.optimize.BFGS``.

    Returns
    -------
    ndarray (3 n, 3 n)
        In eV/A^2, for all atoms, in the order of ``atoms``.

    Raises
    ------
    ValueError
        All atoms are fixed, step or floor is not positive, or the forces of the cheap potential are not finite.
    """
    if not (np.isfinite(step) and step > 0 and np.isfinite(floor) and floor > 0):
        raise ValueError(f'step (A) and floor (eV/A^2) are positive numbers, got {step!r} and {floor!r}')
    free = np.flatnonzero(~frozen_mask(atoms))
    if not len(free):
        raise ValueError('a Hessian needs free atoms, but FixAtoms holds all of them')
    columns = [(i, axis) for i in free for axis in range(3)]
    copies = [_displaced(atoms, i, axis, sign * step) for i, axis in columns for sign in (1, -1)]
    forces = np.array(_forces(copies, get_calculator(calculator)))[:, free].reshape(len(columns), 2, -1)
    if not np.isfinite(forces).all():
        raise ValueError('the cheap potential returned forces that are not finite; give another one, or none')
    hessian = (forces[:, 1] - forces[:, 0]) / (2 * step)
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    result = rest * np.eye(3 * len(atoms))
    index = [3 * i + axis for i, axis in columns]
    result[np.ix_(index, index)] = (vectors * np.abs(values).clip(min=floor)) @ vectors.T
    return result


def _displaced(atoms, i, axis, length):
    copy = copy_atoms(atoms)
    positions = copy.positions.copy()
    positions[i, axis] += length
    copy.set_positions(positions, apply_constraint=False)
    return copy


def _forces(copies, calculator):
    """Return the raw forces on the copies, a list of (n, 3) in eV/A."""
    if isinstance(calculator, ForceFieldCalculator):
        return calculator.forces_of(copies)
    out = []
    for atoms in copies:
        atoms.calc = calculator
        out.append(atoms.get_forces(apply_constraint=False))
        atoms.calc = None
    return out
