"""Crystals in their usual form: Niggli-reduced, symmetrised in place."""

from __future__ import annotations

import logging

import numpy as np
import spglib
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress

from ..utils.atoms import voigt_stress
from ..utils.checks import check_tolerance
from .cells import of_spglib, right_handed

log = logging.getLogger(__name__)

SLIGHT = 0.01  # A; forces and stress of a crystal that is averaged over its symmetry remain true


def niggli(atoms: Atoms) -> Atoms:
    """Return the same crystal in its Niggli cell, lower triangular, right-handed, wrapped; order and info stay.

    Energy, forces and stress that it carries stay as well, the latter two turned with it.

    A cell that spglib cannot reduce (flat or nearly so) comes back as it is, in the same orientation.
    """
    cell = np.asarray(atoms.cell)
    if np.linalg.matrix_rank(cell) < 3:
        return atoms.copy()
    reduced = of_spglib(spglib.niggli_reduce, cell)
    if reduced is None:
        reduced = cell
    whole = np.round(np.asarray(reduced) @ np.linalg.inv(cell))  # new vectors in terms of the old ones
    if round(abs(np.linalg.det(whole))) != 1:
        whole = np.eye(3)
    if np.linalg.det(whole @ cell) < 0:
        whole = -whole
    fractional = np.linalg.solve(whole.T, atoms.get_scaled_positions(wrap=False).T).T
    new = _rebuilt(atoms, whole @ cell, fractional)
    _carry_results(atoms, new, np.linalg.solve(whole @ cell, np.asarray(new.cell)))
    return new


def _carry_results(atoms: Atoms, new: Atoms, turn: np.ndarray, without: tuple[str, ...] = ()) -> None:
    """Give ``new`` the results of ``atoms``, whose row vectors times ``turn`` (3, 3) are its own, but for those ``without``."""
    results = {} if atoms.calc is None else {name: x for name, x in atoms.calc.results.items() if name not in without}
    kept = {name: results[name] for name in ('energy', 'free_energy', 'magmom', 'magmoms', 'charges') if name in results}
    if np.ndim(kept.get('magmoms', 0)) > 1:  # vectors
        kept['magmoms'] = kept['magmoms'] @ turn
    if 'forces' in results:
        kept['forces'] = results['forces'] @ turn
    if 'stress' in results:
        kept['stress'] = voigt_stress(turn.T @ voigt_6_to_full_3x3_stress(voigt_stress(results['stress'])) @ turn)
    if kept:
        new.calc = SinglePointCalculator(new, **kept)
        new.calc.name = atoms.calc.name


def symmetrize(atoms: Atoms, tolerance: float = 0.01) -> Atoms:
    """Return the crystal averaged over the symmetry that spglib finds within ``tolerance`` (A); no atom is added or lost.

    The operations are those that map its own cell on itself: a supercell in a lattice of less symmetry than its crystal, such as
    an orthorhombic one of hexagonal diamond, gets no more. The energy that it carries stays; forces and stress where no atom
    moves by more than 0.01 A.

    Raises
    ------
    ValueError
        The tolerance is not positive.
    """
    tolerance, atoms = check_tolerance('symmetrize', tolerance), right_handed(atoms)
    fractional = atoms.get_scaled_positions()
    found = of_spglib(spglib.get_symmetry, (np.asarray(atoms.cell), fractional, atoms.numbers), symprec=tolerance)
    if found is None:
        return _copy_with_results(atoms)
    metric = np.asarray(atoms.cell) @ np.asarray(atoms.cell).T
    metric = np.mean([w.T @ metric @ w for w in found['rotations']], axis=0)
    total = np.zeros_like(fractional)
    for rotation, shift in zip(found['rotations'], found['translations'], strict=True):
        image = fractional @ rotation.T + shift  # (n, 3)
        gap = image[:, None] - fractional  # (n, n, 3), image i to atom j
        gap -= np.round(gap)
        length = np.einsum('ijk,kl,ijl->ij', gap, metric, gap) + 1e6 * (atoms.numbers[:, None] != atoms.numbers)
        target = length.argmin(1)
        if len(set(target.tolist())) != len(target):  # not one image on each atom: the tolerance is too wide
            return _copy_with_results(atoms)
        total[target] += gap[np.arange(len(target)), target]
    moved = total / len(found['rotations'])
    new = _rebuilt(atoms, np.linalg.cholesky(metric), fractional + moved)
    turn = np.linalg.solve(np.asarray(atoms.cell), np.asarray(new.cell))
    stretch = np.abs(turn @ turn.T - np.eye(3)).max() * np.cbrt(new.cell.volume)
    slight = max(np.linalg.norm(moved @ new.cell[:], axis=1).max(), stretch) < SLIGHT
    _carry_results(atoms, new, turn, () if slight else ('forces', 'stress'))
    return new


def _copy_with_results(atoms: Atoms) -> Atoms:
    new = atoms.copy()
    _carry_results(atoms, new, np.eye(3))
    return new


def _rebuilt(atoms: Atoms, cell: np.ndarray, fractional: np.ndarray) -> Atoms:
    """Return a copy with another cell, turned into lower triangular form, and wrapped positions."""
    new = atoms.copy()
    metric = cell @ cell.T
    try:
        cell = np.linalg.cholesky(metric)
    except np.linalg.LinAlgError:
        log.debug('the metric is not positive: the cell stays as it is')
    new.set_cell(cell)
    new.set_scaled_positions(fractional)
    new.pbc = True
    new.wrap(eps=1e-9)
    return new
