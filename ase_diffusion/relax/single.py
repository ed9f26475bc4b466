"""Relaxation of one structure, with checks for explosion, collapse and meaningless results."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from ..calculators.factory import check_room, needs_periodic
from ..calculators.names import calculator_title
from ..utils.atoms import copy_atoms, frozen_mask, min_distance_ratio, voigt_stress
from ..utils.provenance import OF_RELAXATION, forget_notes, note
from .settings import Settings

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


logger = logging.getLogger(__name__)

CARRIED = ('free_energy', 'magmom', 'magmoms', 'charges')  # results kept besides energy, forces and stress
MAX_TRAVEL = 50.0  # A; larger displacements are explosions
MAX_FORCE = 1e3  # eV/A; larger final forces are outside the range of the potential


class RelaxationFailed(RuntimeError):
    """Error for a structure outside the range of the calculator."""


class Guard:
    """Check that raises a RelaxationFailed if a structure explodes or collapses.

    Parameters
    ----------
    origin : Atoms
        Initial structure.
    min_distance : float or None
        Smallest distance over the sum of covalent radii, lowered to the value of the initial structure.
    max_energy : float or None
        Largest energy above the start (eV).
    """

    def __init__(self, origin: Atoms, min_distance: float | None = 0.4, max_energy: float | None = 100.0) -> None:
        self.min_distance, self.max_energy, self.first = min_distance, max_energy, None
        if min_distance is not None:
            ratio = min_distance_ratio(origin)
            self.min_distance = min(min_distance, 0.999 * ratio) if np.isfinite(ratio) else min_distance

    def __call__(self, atoms: Atoms, energy: float, *, distances: bool = True) -> None:
        """Check the energy and, unless `distances` is False, the distances of a step."""
        self.first = energy if self.first is None else self.first
        if self.max_energy is not None and energy - self.first > self.max_energy:
            raise RelaxationFailed(
                f'the energy rose by {energy - self.first:.1f} eV, which is more than max_energy = {self.max_energy:g} eV: '
                'the structure explodes'
            )
        if distances and self.min_distance is not None and (ratio := min_distance_ratio(atoms)) < self.min_distance:
            raise RelaxationFailed(
                f'two atoms came as close as {ratio:.2f} times the sum of their covalent radii, which is less than '
                f'min_distance = {self.min_distance:.2f}: the calculator pulls them into each other'
            )


def relax_one(atoms: Atoms, calc: Calculator, settings: Settings, path: list[Atoms]) -> Atoms:
    """Return a relaxed copy and append every step to `path`; errors of the calculator are not caught."""
    if not len(atoms):
        raise RelaxationFailed('the structure has no atoms')
    work, fixed = copy_atoms(atoms), frozen_mask(atoms)
    clean(work)
    if settings.pbc is not None:
        work.pbc = settings.pbc
    elif needs_periodic(calc):
        work.pbc = True
        check_room(work, atoms)
    work.calc = calc
    guard = Guard(work, settings.min_distance, settings.max_energy)
    energy_generated, _ = evaluate(work, atoms)
    opt = settings.optimizer(work if settings.filter is None else settings.filter(work), logfile=None)
    if settings.hessian is not None:
        from .hessian import surrogate_hessian  # needs torch, unlike other relaxations

        opt.H0 = surrogate_hessian(atoms, settings.hessian)

    def observe():
        energy, forces = evaluate(work, atoms)
        guard(work, work.get_potential_energy())  # what the optimizer lowers: constraints such as Hookean add to it
        frame = snapshot(work, energy, forces, atoms.pbc)
        note(frame, step=int(opt.nsteps))
        path.append(frame)

    opt.attach(observe)
    converged = bool(opt.run(fmax=settings.fmax, steps=settings.steps))
    if not np.array_equal(work.positions[fixed], atoms.positions[fixed]):
        if not np.array_equal(work.cell[:], atoms.cell[:]):
            raise RelaxationFailed('the cell changed and moved atoms that FixAtoms holds')
        work.positions[fixed] = atoms.positions[fixed]
    energy, forces = evaluate(work, atoms)
    check_end(forces[~fixed], opt.nsteps)
    result = snapshot(work, energy, forces, atoms.pbc)
    assert np.array_equal(result.positions[fixed], atoms.positions[fixed])
    note(result, relax_steps=int(opt.nsteps), relax_converged=converged, energy_generated=energy_generated)
    return result


def check_end(forces: np.ndarray, steps: int) -> None:
    """Raise a RelaxationFailed if final forces (n, 3) in eV/A exceed MAX_FORCE."""
    if np.abs(forces).max(initial=0.0) > MAX_FORCE:
        raise RelaxationFailed(f'forces above {MAX_FORCE:g} eV/A are left after {steps} steps')


def evaluate(work: Atoms, origin: Atoms) -> tuple[float, np.ndarray]:
    """Return energy (eV) and forces (n, 3) in eV/A of the calculator, without constraints.

    Raises
    ------
    RelaxationFailed
        These or the positions are not valid.
    """
    if not np.isfinite(work.positions).all():
        raise RelaxationFailed('the positions became NaN or infinite')
    travel = np.linalg.norm(work.positions - origin.positions, axis=1).max(initial=0.0)
    if travel > MAX_TRAVEL and np.array_equal(work.cell[:], origin.cell[:]):
        raise RelaxationFailed(f'an atom moved {travel:.0f} A, which is more than {MAX_TRAVEL:.0f} A')
    try:
        energy = np.asarray(work.get_potential_energy(apply_constraint=False))
    except np.linalg.LinAlgError as error:
        if work.cell.rank == 3:
            raise
        raise RelaxationFailed(
            f'{type(work.calc).__name__} needs three cell vectors, the structure has {work.cell.rank}; '
            'atoms.center(vacuum=10, axis=2) makes the third one of a slab'
        ) from error
    forces = np.array(work.get_forces(apply_constraint=False), dtype=float)  # (n, 3)
    if energy.size != 1 or forces.shape != (len(work), 3):
        raise RelaxationFailed(
            f'a calculator returns one energy and forces of shape {(len(work), 3)}; this one returned shapes '
            f'{energy.shape} and {forces.shape}'
        )
    energy = float(energy.item())
    if not np.isfinite(energy):
        raise RelaxationFailed(f'the calculator returned the energy {energy}')
    if not np.isfinite(forces).all():
        raise RelaxationFailed('the calculator returned forces that are NaN or infinite')
    if getattr(work.calc, 'converged', None) is False:  # ASE's Vasp does not raise
        raise RelaxationFailed(
            f'the self-consistent field of {type(work.calc).__name__} in {getattr(work.calc, "directory", ".")} did not '
            'converge, so its forces mean little; allow more iterations (nelm) or change the mixing (algo, amix)'
        )
    return energy, forces


def snapshot(work: Atoms, energy: float, forces: np.ndarray, pbc: Sequence[bool] | np.ndarray) -> Atoms:
    """Return a copy with periodicity `pbc` and a SinglePointCalculator with energy (eV) and raw forces (eV/A)."""
    frame = copy_atoms(work)
    frame.pbc = pbc
    found = getattr(work.calc, 'results', {})
    results = {'energy': energy, 'forces': forces}
    for name in CARRIED:
        if found.get(name) is not None:
            value = np.array(found[name], dtype=float)  # ase.db writes float32 and reads float64
            results[name] = value.item() if value.size == 1 and name in ('free_energy', 'magmom') else value
    if found.get('stress') is not None and frame.pbc.all():  # meaningless for a slab in vacuum
        results['stress'] = voigt_stress(found['stress'])
    frame.calc = SinglePointCalculator(frame, **results)
    frame.calc.name = calculator_title(work.calc)
    return frame


def clean(atoms: Atoms) -> None:
    """Remove what an earlier relaxation or search noted."""
    forget_notes(atoms, OF_RELAXATION)
    if isinstance(data := atoms.info.get('data'), dict):
        data.pop('relax_error', None)


def reason_of(err: Exception) -> str:
    """Return kind and text of an error; of one without text, where it was raised."""
    if str(err):
        return f'{type(err).__name__}: {err}'
    frames = traceback.extract_tb(err.__traceback__)
    where = f', raised in {Path(frames[-1].filename).name}, line {frames[-1].lineno}: {frames[-1].line}' if frames else ''
    return f'{type(err).__name__} without a text{where}'


def failed(atoms: Atoms, err: Exception | str, number: int) -> Atoms:
    """Return a copy of the input with the reason of the failure; `err` is an error or a text."""
    text = err if isinstance(err, str) else reason_of(err)
    text = ' '.join(text.split())
    logger.warning('relaxation of structure %d (%s) failed: %s', number, atoms.get_chemical_formula(), text)
    result = copy_atoms(atoms)
    result.calc = None
    clean(result)
    note(result, relax_failed=True, relax_converged=False)
    result.info.setdefault('data', {})['relax_error'] = text
    return result
