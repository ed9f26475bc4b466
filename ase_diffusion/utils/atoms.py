"""Helpers for ase.Atoms: masks, checks, formulas, neighbors, shortest distances."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable

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

VALID_RATIO = 0.7  # shortest distance over the sum of covalent radii
BINS = 1000  # largest number of bins per atom in a neighbor search


def copy_atoms(atoms: Atoms) -> Atoms:
    """Return a deep copy; `Atoms.copy` shares the values in `info`."""
    new = atoms.copy()
    new.info = copy.deepcopy(atoms.info)
    return new


def as_list(images: Atoms | Iterable[Atoms]) -> list[Atoms]:
    """Return structures as a list; one structure is a list of one."""
    return [images] if isinstance(images, Atoms) else list(images)


def frozen_mask(atoms: Atoms) -> np.ndarray:
    """Return the mask of atoms in a FixAtoms constraint, bool (n,)."""
    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[constraint.get_indices()] = True
    return mask


def mobile_mask(atoms: Atoms) -> np.ndarray:
    """Return the mask of atoms that are not in a FixAtoms constraint, bool (n,)."""
    return ~frozen_mask(atoms)


def judged(atoms: Atoms) -> Atoms:
    """Return a structure for metrics of its mobile atoms: where every atom is fixed, a copy in which none is."""
    if mobile_mask(atoms).any():
        return atoms
    free = atoms.copy()
    free.set_constraint()
    return free


def unsupported_constraints(atoms: Atoms) -> list[str]:
    """Return the names of constraints other than FixAtoms; batched relaxations and generators ignore these."""
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
            f'the atoms of a slab have finite positions; some of {slab.get_chemical_formula()} are NaN or infinite; correct them'
        )
    plane = slab.cell[:2]
    if not len(slab) or np.linalg.norm(np.cross(*plane)) < 1e-6 or np.abs(plane[:, 2]).max() > 1e-6:
        raise ValueError(
            'a slab has atoms, and its cell vectors a and b span the xy plane; got '
            f'{len(slab)} atoms and a = {plane[0].tolist()}, b = {plane[1].tolist()}; '
            'build it with ase.build, or turn it: slab.rotate(slab.cell[0], "x", rotate_cell=True)'
        )


def parse_formula(text: str) -> list[int]:
    """Return the atomic numbers of a formula in the order of its symbols.

    Raises
    ------
    ValueError
        The text is not a formula.
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


def neighbors(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return i, j (p,) and distances (p,) in A of all periodic pairs within a cutoff in A; each pair appears twice."""
    from matscipy.neighbours import neighbour_list

    # missing cell vectors (slabs without vacuum, molecules) would make the cell singular
    cell = atoms.cell.complete().array
    span = np.ptp(atoms.positions, axis=0).prod() if len(atoms) else 0.0
    if max(abs(np.linalg.det(cell)), span) > BINS * (len(atoms) + 1) * cutoff**3:  # its bins would fill the memory
        return _sparse_neighbors(atoms.positions, cell, atoms.pbc, float(cutoff))
    return neighbour_list('ijd', positions=atoms.positions, cell=cell, pbc=atoms.pbc, cutoff=float(cutoff))


def _sparse_neighbors(positions, cell, pbc, cutoff):
    """Return i, j, d of all periodic pairs by a tree of the atoms and of their images near the faces of the cell."""
    from scipy.spatial import cKDTree

    inverse = np.linalg.inv(cell)
    scaled = positions @ inverse
    scaled = np.where(pbc, scaled - np.floor(scaled), scaled)
    margins = cutoff * np.linalg.norm(inverse, axis=0) + 1e-9  # (3,) in fractions of the cell
    owner, images = np.arange(len(positions)), scaled
    for axis in np.flatnonzero(pbc):
        reach = int(np.ceil(margins[axis]))
        parts = [(owner, images)]
        for n in (*range(-reach, 0), *range(1, reach + 1)):
            place = images[:, axis] + n
            near = (place > -margins[axis]) & (place < 1 + margins[axis])
            parts.append((owner[near], images[near] + n * np.eye(3)[axis]))
        owner, images = (np.concatenate(each) for each in zip(*parts, strict=True))
    home = scaled @ cell
    pairs = cKDTree(home).sparse_distance_matrix(cKDTree(images @ cell), cutoff, output_type='ndarray')
    pairs = pairs[pairs['j'] != pairs['i']]  # the images begin with the atoms themselves
    order = np.argsort(pairs['i'], kind='stable')
    return pairs['i'][order], owner[pairs['j'][order]], pairs['v'][order]


def min_distance_ratio(atoms: Atoms) -> float:
    """Return the smallest distance over the sum of covalent radii, over pairs with at least one mobile atom.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    float
        Dimensionless; periodic images of the same atom count. inf without such a pair (no mobile atom, or none within twelve
        bond lengths); nan without atoms, for positions that are not finite and for atoms X, which are no elements.
    """
    if not len(atoms) or not np.isfinite(atoms.positions).all() or not (atoms.numbers > 0).all():
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


def is_valid(atoms: Atoms, ratio: float = VALID_RATIO) -> bool:
    """Return whether all distances of mobile atoms are at least `ratio` times the sum of covalent radii.

    Where every atom is fixed, all are judged. Without atoms, and with atoms X, which are no elements, it is False.
    """
    return bool(min_distance_ratio(judged(atoms)) >= ratio)
