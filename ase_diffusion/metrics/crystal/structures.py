"""Crystals as lists of Atoms: checks, structural validity, density, lattice and symmetry.

A crystal is an Atoms object with periodicity in three directions. Broken structures (positions that are not finite, a flat
cell, overlapping atoms) raise no errors: they are invalid and count as failures.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from ...utils.atoms import neighbors
from ...utils.checks import check_tolerance
from ...utils.parallel import parallel_map
from ...utils.unread import is_unread, named

if TYPE_CHECKING:
    from pymatgen.core import Structure


MIN_DISTANCE = 0.5  # A
MIN_VOLUME = 0.1  # A^3
SKEWED = 1.0  # A; cells with closer planes are reduced before the neighbor search
SYMPREC = 0.01  # A
VACUUM = 25.0  # A
FEATURES = ('a', 'b', 'c', 'alpha', 'beta', 'gamma', 'space_group', 'Z', 'density', 'n_elements')
AMU_PER_A3 = 1.66053906660  # g/cm^3


def check_crystals(images: Atoms | Iterable[Atoms], name: str = 'images') -> list[Atoms]:
    """Return a list of structures, at least one of them a crystal; the others are invalid in all metrics.

    Parameters
    ----------
    images : Atoms or iterable of Atoms
    name : str
        Name in error messages.

    Raises
    ------
    ValueError
        The list is empty, or no structure has atoms and is periodic in three directions.
    TypeError
        An object is not an Atoms object.
    """
    images = [images] if isinstance(images, Atoms) else list(images)
    if not images:
        raise ValueError(f'{name}: a metric needs at least one crystal; got an empty list')
    for index, atoms in enumerate(images):
        if not isinstance(atoms, Atoms):
            raise TypeError(
                f'{name}: a crystal is an ase.Atoms; number {index} is {type(atoms).__name__}; '
                'for pymatgen structures: AseAtomsAdaptor.get_atoms(structure)'
            )
    if not any(is_crystal(atoms) for atoms in images):
        raise ValueError(f'{name}: a metric needs at least one crystal; {named(no_crystals(images))}')
    return images


def is_crystal(atoms: Atoms) -> bool:
    """Return whether a structure has atoms, all of them elements, and is periodic in three directions."""
    return bool(len(atoms) and atoms.pbc.all() and (atoms.numbers > 0).all())


def no_crystals(images: Iterable[Atoms]) -> list[str]:
    """Return why structures are no crystals, each with its number."""
    reasons = []
    for index, atoms in enumerate(images):
        if is_unread(atoms):
            reasons.append(f'number {index} was not read ({atoms.info["unread"]})')
        elif not len(atoms):
            reasons.append(f'number {index} has no atoms')
        elif not (atoms.numbers > 0).all():
            reasons.append(f'number {index} ({atoms.get_chemical_formula()}) has atoms X, which are no elements')
        elif not atoms.pbc.all():
            pbc = f'pbc {atoms.pbc.tolist()}, set atoms.pbc = True if its cell is meant'
            reasons.append(f'number {index} ({atoms.get_chemical_formula()}) has {pbc}')
    return reasons


def structural_validity(images: Iterable[Atoms]) -> np.ndarray:
    """Return which crystals have distances of at least 0.5 A and a volume of at least 0.1 A^3.

    Distances are periodic and include those between an atom and its own images (unlike in the script of CDVAE).

    Parameters
    ----------
    images : list of Atoms

    Returns
    -------
    numpy.ndarray
        bool, shape (n,).
    """
    return np.array([is_sound(atoms) for atoms in check_crystals(images)])


def is_sound(atoms: Atoms) -> bool:
    """Return whether one crystal is structurally valid."""
    cell = atoms.cell.array
    volume = atoms.cell.volume
    if not is_crystal(atoms) or not (np.isfinite(atoms.positions).all() and np.isfinite(cell).all()) or volume < MIN_VOLUME:
        return False
    if np.linalg.norm(cell, axis=1).min() < MIN_DISTANCE:  # its own image
        return False
    try:
        if volume / np.linalg.norm(np.cross(cell, np.roll(cell, 1, axis=0)), axis=1).max() < SKEWED:
            from ase.geometry import minkowski_reduce

            cell = minkowski_reduce(cell)[0]
        scaled = np.linalg.solve(cell.T, atoms.positions.T).T % 1.0
        inside = Atoms(atoms.numbers, positions=scaled @ cell, cell=cell, pbc=True)
        return not len(neighbors(inside, MIN_DISTANCE - 1e-9)[2])
    except (RuntimeError, ValueError, np.linalg.LinAlgError):  # too flat or too skewed to be reduced
        return False


def reduced_formula(atoms: Atoms) -> tuple[tuple[int, int], ...]:
    """Return the composition with the greatest common divisor taken out, as a tuple of (atomic number, count)."""
    numbers, counts = np.unique(atoms.numbers, return_counts=True)
    return tuple(zip(numbers.tolist(), (counts // np.gcd.reduce(counts)).tolist(), strict=True))


def to_structure(atoms: Atoms) -> Structure:
    """Return the pymatgen Structure of a crystal (lattice, species and positions only), vacuum beyond 25 A cut."""
    from pymatgen.core import Lattice, Structure

    atoms = cut_vacuum(atoms)
    return Structure(Lattice(atoms.cell.array), atoms.numbers.tolist(), atoms.get_scaled_positions())


def cut_vacuum(atoms: Atoms, width: float = VACUUM) -> Atoms:
    """Return a crystal whose empty layers are no wider than `width` (A); one without wider ones is returned unchanged.

    The costs of comparisons and of Voronoi cells grow with the third power of an empty layer, and nothing depends on it.
    """
    if atoms.cell.lengths().max() <= width:
        return atoms
    from ase.geometry import minkowski_reduce

    cell = np.array(minkowski_reduce(atoms.cell.array)[0])  # it may be the array of the input
    scaled = np.linalg.solve(cell.T, atoms.positions.T).T % 1.0
    changed = False
    for axis in range(3):
        height = 1 / np.linalg.norm(np.linalg.inv(cell)[:, axis])
        order = np.argsort(scaled[:, axis])
        heights = scaled[order, axis] * height
        gaps = np.diff(np.append(heights, heights[0] + height))
        if gaps.max() > width:
            kept = np.minimum(gaps, width)
            scaled[order, axis] = np.append(0.0, np.cumsum(kept)[:-1]) / kept.sum()
            cell[axis] *= kept.sum() / height
            changed = True
    return Atoms(atoms.numbers, scaled_positions=scaled, cell=cell, pbc=True) if changed else atoms


def crystal_features(
    images: Iterable[Atoms], *, symprec: float = SYMPREC, processes: int | None = None, progress: bool = False
) -> dict[str, np.ndarray]:
    """Return features of crystals for comparisons of distributions.

    Lattice parameters are those of the Niggli-reduced primitive cell, so that they do not depend on the choice of the cell (with
    a <= b <= c). The script of CrysTens uses the cells of its cif files.

    Parameters
    ----------
    images : list of Atoms
    symprec : float
        Tolerance of spglib for the primitive cell and the space group, in A.
    processes : int, optional
    progress : bool

    Returns
    -------
    dict of str to numpy.ndarray
        'a', 'b', 'c' (A), 'alpha', 'beta', 'gamma' (degrees), 'space_group' (1 to 230), 'density' (g/cm^3) and 'n_elements',
        each of shape (n,), rounded to 4 decimals, nan for structurally invalid crystals; and 'Z', the concatenated atomic
        numbers of the valid crystals.
    """
    images, symprec = check_crystals(images), check_tolerance('symprec', symprec)
    rows = np.array(
        parallel_map(
            partial(_features, symprec=symprec),
            images,
            processes=processes,
            progress=progress,
            lost=np.full(len(FEATURES) - 1, np.nan),
            label='symmetry',
        )
    )
    named = dict(zip([name for name in FEATURES if name != 'Z'], rows.T, strict=True))
    sound = [atoms.numbers for atoms, row in zip(images, rows, strict=True) if np.isfinite(row[0])]
    named['Z'] = np.concatenate(sound).astype(float) if sound else np.zeros(0)
    return {name: named[name] for name in FEATURES}


def _features(atoms, symprec):
    """Return the features of one crystal in order, without Z; nan for an invalid crystal."""
    import spglib

    if not is_sound(atoms):
        return np.full(len(FEATURES) - 1, np.nan)
    crystal = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # deprecation of the error handling of spglib
        data = _quietly(spglib.get_symmetry_dataset, crystal, symprec=symprec)
        lattice = crystal[0] if data is None else data.primitive_lattice
        niggli = _quietly(spglib.niggli_reduce, lattice)
    cell = atoms.cell.new(lattice if niggli is None else niggli)
    group = 1 if data is None else data.number
    # rounding errors would separate equal values, which distorts K-S statistics of ideal angles
    return np.round([*cell.cellpar(), group, density(atoms), len(set(atoms.numbers.tolist()))], 4)


def _quietly(function, *args, **kwargs):
    """Return the result of a function of spglib, None after an error; its output on stderr is suppressed."""
    os.environ.setdefault('SPGLIB_WARNING', 'OFF')
    try:
        return function(*args, **kwargs)
    except Exception:  # spglib returns None or raises, depending on the version
        return None


def density(atoms: Atoms) -> float:
    """Return the density of a crystal in g/cm^3."""
    return float(atoms.get_masses().sum() / atoms.cell.volume * AMU_PER_A3)
