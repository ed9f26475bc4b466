"""Small things about ase.Atoms that several rooms need; imported by its own name, because it needs ase."""

from __future__ import annotations

import copy
import re

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import chemical_symbols, covalent_radii
from ase.formula import Formula

__all__ = [
    'check_surface_cell',
    'copy_atoms',
    'frozen_mask',
    'is_valid',
    'mobile_mask',
    'neighbors',
    'parse_formula',
    'min_distance_ratio',
]

VALID_RATIO = 0.7  # of the sum of the covalent radii


def copy_atoms(atoms):
    """Return a copy that shares nothing: `Atoms.copy` shares what lies inside info."""
    new = atoms.copy()
    new.info = copy.deepcopy(atoms.info)
    return new


def frozen_mask(atoms):
    """Return which atoms FixAtoms holds, bool (n,)."""
    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[constraint.get_indices()] = True
    return mask


def mobile_mask(atoms):
    """Return which atoms are free to move, bool (n,): False for atoms in a FixAtoms constraint."""
    return ~frozen_mask(atoms)


def unsupported_constraints(atoms):
    """Return the names of the constraints that are not FixAtoms, which our own batches and generators do not obey."""
    return sorted({type(each).__name__ for each in atoms.constraints if not isinstance(each, FixAtoms)})


def check_surface_cell(slab: Atoms) -> None:
    """Raise unless there are atoms with finite positions and the cell vectors a and b span the xy plane.

    Raises
    ------
    TypeError
        It is not an Atoms object.
    ValueError
        A condition is not met. Slabs for training and sampling must meet more, see `ase_diffusion.representations.slab`.
    """
    if not isinstance(slab, Atoms):
        raise TypeError(f'a slab is an ase.Atoms object; got {type(slab).__name__}; read files with ase.io.read')
    if not np.isfinite(slab.positions).all():
        raise ValueError(
            f'the atoms of a slab have finite positions; some of {slab.get_chemical_formula()} are NaN or infinite; mend them'
        )
    plane = slab.cell[:2]
    if not len(slab) or np.linalg.norm(np.cross(*plane)) < 1e-6 or np.abs(plane[:, 2]).max() > 1e-6:
        raise ValueError(
            'a slab has atoms, and its cell vectors a and b span the xy plane; got '
            f'{len(slab)} atoms and a = {plane[0].tolist()}, b = {plane[1].tolist()}; '
            'build it with ase.build, or turn it: slab.rotate(slab.cell[0], "x", rotate_cell=True)'
        )


def parse_formula(text):
    """Return the atomic numbers of a formula, in its order.

    Raises
    ------
    ValueError
        It is not a formula.
    """
    try:
        if not re.fullmatch(r'[A-Za-z0-9()]+', text.strip()):
            raise ValueError
        numbers = [chemical_symbols.index(symbol) for symbol in Formula(text.strip())]
    except (ValueError, KeyError, AttributeError):
        numbers = []
    if not numbers or 0 in numbers:
        raise ValueError(f"a formula is element symbols with whole numbers, such as 'Ag6O3'; got {text!r}")
    return numbers


def neighbors(atoms, cutoff):
    """Return i, j (p,) and distances (p,) in A of all periodic pairs within the cutoff, each pair both ways."""
    from matscipy.neighbours import neighbour_list

    # missing cell vectors (slabs without vacuum, molecules) would make the cell singular
    return neighbour_list('ijd', positions=atoms.positions, cell=atoms.cell.complete().array, pbc=atoms.pbc, cutoff=float(cutoff))


def min_distance_ratio(atoms):
    """Return the smallest distance over the sum of covalent radii, over pairs with at least one mobile atom.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    float
        Dimensionless; images of the same atom count. inf without such a pair (no mobile atom, or none within twelve
        bond lengths), nan for positions that are not finite.
    """
    if not np.isfinite(atoms.positions).all():
        return float('nan')
    mobile = mobile_mask(atoms)
    if not mobile.any():
        return float('inf')
    radii = covalent_radii[atoms.numbers]
    for bound in (1.5, 3.0, 6.0, 12.0):  # every ratio up to `bound` is inside this cutoff
        i, j, d = neighbors(atoms, bound * 2 * radii.max())
        keep = mobile[i] | mobile[j]
        ratios = d[keep] / (radii[i] + radii[j])[keep]
        if ratios.size and ratios.min() <= bound:
            return float(ratios.min())
    return float('inf')


def is_valid(atoms, ratio=VALID_RATIO):
    """Tell whether no mobile atom comes closer to any atom than `ratio` times the sum of their covalent radii."""
    return bool(min_distance_ratio(atoms) >= ratio)
