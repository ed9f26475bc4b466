"""Cells of crystals: space groups, conventional settings, lengths and angles."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import cache
from itertools import product
from numbers import Real
from typing import Any

import numpy as np
import spglib
import spglib.error
from ase import Atoms

from ..utils.checks import check_tolerance

log = logging.getLogger(__name__)

SPGLIB_ERRORS = (spglib.error.SpglibError,) if hasattr(spglib.error, 'SpglibError') else ()  # since spglib 2.7


def space_group(atoms: Atoms, tolerance: float = 0.01) -> int:
    """Return the space group, 1 to 230, that ``atoms.info['key_value_pairs']`` or else spglib says; 1 where it finds none."""
    known = atoms.info.get('key_value_pairs', {}).get('space_group')
    if isinstance(known, Real) and known in range(1, 231):
        return int(known)
    return space_group_of(atoms, tolerance)


def space_group_of(atoms: Atoms, tolerance: float) -> int:
    """Return the number of the space group that spglib finds within ``tolerance`` (A); 1 where it finds none."""
    found = _symmetry(atoms, tolerance)
    return 1 if found is None else int(found.number)


def structure_type(atoms: Atoms, tolerance: float) -> str:
    """Return space group and Wyckoff letters of the occupied sites, sorted, as ``'225 a b'``; ``'1'`` without symmetry."""
    found = _symmetry(atoms, tolerance)
    if found is None:
        return '1'
    first = np.unique(found.equivalent_atoms)
    return ' '.join([str(found.number), *sorted(found.wyckoffs[k] for k in first)])


def conventional(atoms: Atoms, tolerance: float = 0.01) -> Atoms:
    """Return the crystal in its conventional cell and standard setting (spglib), symmetrised within ``tolerance`` (A).

    ``info['key_value_pairs']['space_group']`` is set, and other entries stay. Where spglib finds no symmetry the crystal comes
    back as it is, in space group 1.
    """
    found = _symmetry(atoms, tolerance)
    if found is None:
        new, number = atoms.copy(), 1
    else:
        new = Atoms(found.std_types, scaled_positions=found.std_positions, cell=found.std_lattice, pbc=True)
        new.info, number = dict(atoms.info), int(found.number)
    new.info['key_value_pairs'] = dict(atoms.info.get('key_value_pairs', {})) | {'space_group': number}
    return new


def right_handed(atoms: Atoms) -> Atoms:
    """Return the crystal with all vectors of a left-handed cell turned round: lengths and angles alone give its mirror image."""
    if np.linalg.det(atoms.cell) >= 0:
        return atoms
    new = atoms.copy()
    new.set_cell(-atoms.cell[:])
    new.calc = atoms.calc
    return new


@cache
def equivalent_origins(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return maps f -> sign f + shift under which a space group in its conventional setting keeps its operations as they stand.

    They give other descriptions of the same crystal, or of its mirror image, in the same setting; shifts are multiples of a
    quarter of the cell.

    Parameters
    ----------
    number : int
        1 to 230.

    Returns
    -------
    signs : (k,) array of 1 and -1
    shifts : (k, 3) array
    """
    rotations, t = operations_of(number)
    t = np.round(t * 48).astype(int) % 48
    kinds = np.unique(rotations.reshape(len(rotations), 9), axis=0, return_inverse=True)[1].reshape(-1)
    shifts = np.tile(list(product(range(0, 48, 12), repeat=3)), (2, 1))  # (128, 3) in 1/48
    signs = np.repeat([1, -1], len(shifts) // 2)
    moved = (signs[:, None, None] * t + shifts[:, None] - np.einsum('oij,sj->soi', rotations, shifts)) % 48

    def code(translations):
        return ((kinds * 48 + translations[..., 0]) * 48 + translations[..., 1]) * 48 + translations[..., 2]

    kept = np.isin(code(moved), code(t)).all(1)
    return signs[kept], shifts[kept] / 48


CENTERING = {'P': 1, 'A': 2, 'B': 2, 'C': 2, 'I': 2, 'R': 3, 'F': 4}  # lattice points of a conventional cell


@cache
def centering_of(number: int) -> str:
    """Return the letter of the lattice of a space group, a key of :data:`CENTERING`."""
    kind = of_spglib(spglib.get_spacegroup_type, _hall_numbers()[number])
    return str(kind['international_short'] if isinstance(kind, dict) else kind.international_short)[0]


@cache
def operations_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the operations of a space group in its conventional setting, those of centering among them.

    Parameters
    ----------
    number : int
        1 to 230.

    Returns
    -------
    rotations : (G, 3, 3) int array
    translations : (G, 3) array
        Fractional, multiples of 1/24.
    """
    found = of_spglib(spglib.get_symmetry_from_database, _hall_numbers()[number])
    return np.array(found['rotations'], int), np.round(24 * found['translations']) / 24


@cache
def _hall_numbers() -> dict[int, int]:
    """Return the number of the setting that spglib takes for the conventional one of each space group: the first."""
    first: dict[int, int] = {}
    for hall in range(1, 531):
        kind = of_spglib(spglib.get_spacegroup_type, hall)
        first.setdefault(int(kind['number'] if isinstance(kind, dict) else kind.number), hall)
    return first


def _symmetry(atoms: Atoms, tolerance: float):
    """Return spglib's data set of a crystal, None where it finds no symmetry."""
    tolerance = check_tolerance('the tolerance of spglib', tolerance)
    crystal = (np.asarray(atoms.cell), atoms.get_scaled_positions(), atoms.numbers)
    return of_spglib(spglib.get_symmetry_dataset, crystal, tolerance)


def common_operations(images: list[Atoms], tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the operations that all of several structures have in their own cells and origins.

    Parameters
    ----------
    images : list of Atoms
    tolerance : float
        A.

    Returns
    -------
    rotations, translations : numpy.ndarray
        ``(G, 3, 3)`` int and ``(G, 3)``, fractional, multiples of 1/24: a group with the lattice, at least the identity.
    """
    common, tolerance = None, check_tolerance('the tolerance of spglib', tolerance)
    for atoms in images:
        cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
        found = of_spglib(spglib.get_symmetry, cell, tolerance)
        if found is None:
            return np.eye(3, dtype=int)[None], np.zeros((1, 3))
        steps = np.round(24 * found['translations'])
        whole = np.abs(24 * found['translations'] - steps).max(1) < 0.24
        codes = {
            (*r.ravel().tolist(), *(t % 24).astype(int).tolist())
            for r, t in zip(found['rotations'][whole], steps[whole], strict=True)
        }
        common = codes if common is None else common & codes
    table = np.array(sorted(common)) if common else np.r_[np.eye(3, dtype=int).ravel(), 0, 0, 0][None]
    return table[:, :9].reshape(-1, 3, 3), table[:, 9:] / 24


def of_spglib(function: Callable, *args: Any, **options: Any) -> Any:
    """Return what a function of spglib returns, None where it finds nothing: older versions return that, newer ones raise.

    Its DeprecationWarning is no failure, also where warnings are errors; every other exception is raised. Numbers that are not
    finite, with which spglib ends the process, have no symmetry.
    """
    if not all(np.isfinite(np.asarray(part, float)).all() for part in (args[0] if isinstance(args[0], tuple) else args[:1])):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        try:
            return function(*args, **options)
        except SPGLIB_ERRORS as error:
            log.debug('%s: %s', function.__name__, error)
            return None


def parameters_of_cells(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths (B, 3) in A and angles alpha, beta, gamma (B, 3) in degrees of cells (B, 3, 3)."""
    lengths = np.linalg.norm(cells, axis=2)
    unit = cells / lengths[..., None]
    return lengths, np.degrees(np.arccos(np.clip((unit[:, [1, 0, 0]] * unit[:, [2, 2, 1]]).sum(2), -1, 1)))


def cells_of_parameters(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return cells (B, 3, 3), lower triangular: a along x, b in the xy plane; NaN where no cell has these parameters."""
    cos = np.where(angles == 90.0, 0.0, np.cos(np.radians(angles)))
    sin = np.sqrt(1 - cos[:, 2] ** 2)
    cells = np.zeros((len(lengths), 3, 3))
    with np.errstate(all='ignore'):
        cells[:, 0, 0] = 1.0
        cells[:, 1, 0], cells[:, 1, 1] = cos[:, 2], sin
        cells[:, 2, 0], cells[:, 2, 1] = cos[:, 1], (cos[:, 0] - cos[:, 1] * cos[:, 2]) / sin
        cells[:, 2, 2] = np.sqrt(1 - cells[:, 2, 0] ** 2 - cells[:, 2, 1] ** 2)
        cells = cells * lengths[..., None]
    inside = ((angles > 0) & (angles < 180)).all(1) & (lengths > 0).all(1)
    cells[~inside | ~(np.abs(np.linalg.det(np.nan_to_num(cells))) > 1e-3)] = np.nan
    return cells
