"""Batched relaxation: one network call per step and batch, by a force field of this package or, on a GPU, SevenNet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import BFGS

from ..calculators.batches import OverlayerBatches
from ..calculators.forcefield import ForceFieldCalculator, load_forcefield
from ..calculators.names import calculator_name
from ..representations.slab import check_same_pbc
from ..utils.atoms import copy_atoms, frozen_mask, unsupported_constraints
from ..utils.memory import keep_freed_memory
from ..utils.provenance import note
from .settings import Settings
from .single import Guard, RelaxationFailed, check_end, clean, failed

if TYPE_CHECKING:
    import torch
    from ase import Atoms

    from ..calculators.batches import SevenNetBatches
    from ..networks.forcefield import ForceField


GUARD_EVERY = 10  # steps between checks of distances; a check costs a tenth of a step


def relax_batched(
    images: Sequence[Atoms],
    model: str | Path | ForceField | ForceFieldCalculator = 'ag-o',
    *,
    fmax: float = 0.05,
    steps: int = 200,
    maxstep: float = 0.2,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    callback: Callable[[int, Atoms], object] | None = None,
) -> list[Atoms]:
    """Relax overlayers in batches; results follow the conventions of :func:`ase_diffusion.relax.relax`, which uses this.

    Each structure has its own BFGS history (dense Hessian, initially 70 eV/A^2, longest step ``maxstep`` in A: the algorithm of
    ``ase.optimize.BFGS``). It leaves the batch when its largest force is below ``fmax``; the next structure takes its place.

    Parameters
    ----------
    images : list of Atoms
        Overlayers on a frozen substrate; not changed.
    model : str, Path, ForceField or ForceFieldCalculator
        Force field, see :func:`ase_diffusion.calculators.forcefield.load_forcefield`.
    fmax : float
        Largest force at convergence (eV/A).
    steps : int
        Largest number of steps per structure.
    callback : callable, optional
        Called with (index, relaxed atoms) as each structure is done.

    Raises
    ------
    ValueError
        fmax or steps is not valid, or the structures differ in pbc.
    """
    settings = Settings(BFGS, fmax, steps)
    check_same_pbc(images)
    results: list = [None] * len(images)
    for number, atoms in irelax_batched(images, model, settings, maxstep=maxstep, batch_size=batch_size, device=device):
        note(atoms, relax_calculator=calculator_name(model))
        results[number] = atoms
        if callback is not None:
            callback(number, atoms)
    return results


def irelax_batched(
    images: Sequence[Atoms],
    model: str | Path | ForceField | ForceFieldCalculator | OverlayerBatches | SevenNetBatches,
    settings: Settings,
    *,
    maxstep: float = 0.2,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    frames: list[list[Atoms]] | None = None,
) -> Iterator[tuple[int, Atoms]]:
    """Load the force field and return an iterator over (number, relaxed atoms), in the order of convergence.

    The model may also be one of :mod:`ase_diffusion.calculators.batches`. ``frames`` has a list for each structure, to which its
    steps are added.
    """
    keep_freed_memory()
    if not hasattr(model, 'evaluate'):
        parts = (model.network, model.header) if hasattr(model, 'network') else load_forcefield(model, device)
        model = OverlayerBatches(*parts)
    return _iterate(images, model, settings, maxstep, batch_size, frames)


def _iterate(images, model, settings, maxstep, batch_size, frames):
    waiting = list(enumerate(images))
    active: list[_State] = []
    while waiting or active:
        while waiting and len(active) < batch_size:
            number, atoms = waiting.pop(0)
            try:
                model.check(atoms)
                _check_constraints(atoms)
                active.append(_State(number, atoms, settings, None if frames is None else frames[number]))
            except Exception as err:  # the other structures continue
                yield number, failed(atoms, err, number)
        for state, found in zip(list(active), _evaluated(model, [s.atoms for s in active]), strict=True):
            try:
                if isinstance(found, Exception):
                    raise found
                state.put(*found)
                done = state.advance(settings, maxstep)
                result = state.result() if done else None
            except Exception as err:
                done, result = True, failed(state.origin, err, state.number)
            if done:
                active.remove(state)
                yield state.number, result


def _evaluated(model, images):
    """Return energy and forces of each structure, or its error: where a batch fails, its structures are evaluated one by one."""
    if not images:
        return []
    try:
        energies, forces = model.evaluate(images)
    except Exception as err:
        return [err] if len(images) == 1 else [_evaluated(model, [atoms])[0] for atoms in images]
    return list(zip(map(float, energies), forces, strict=True))


def _check_constraints(atoms):
    if others := unsupported_constraints(atoms):
        raise ValueError(
            f'batches know no constraint but FixAtoms; the structure has {", ".join(others)}; take '
            'ase_diffusion.relax.relax, which relaxes such structures one by one'
        )


class _State:
    """State of one structure in the batch: positions, energy, forces, BFGS history."""

    def __init__(self, number, atoms, settings, path=None):
        self.number, self.origin, self.atoms, self.frozen = number, atoms, copy_atoms(atoms), frozen_mask(atoms)
        self.guard = Guard(atoms, settings.min_distance, settings.max_energy)
        self.steps, self.hessian, self.last = 0, None, None
        self.energy, self.forces, self.first, self.converged = np.nan, None, None, False
        self.raw, self.path = None, path

    def put(self, energy, forces) -> None:
        """Take energy (eV) and raw forces (n, 3) in eV/A of the current positions."""
        self.energy, self.raw, self.forces = energy, forces, forces[~self.frozen]
        if self.path is not None:
            self.path.append(self._frame(copy_atoms(self.atoms)))
            note(self.path[-1], step=self.steps)

    def _frame(self, atoms):
        atoms.calc = SinglePointCalculator(atoms, energy=self.energy, free_energy=self.energy, forces=self.raw)
        return atoms

    def advance(self, settings, maxstep) -> bool:
        """Take one BFGS step; return True if the structure is finished."""
        if not np.isfinite(self.energy) or not np.isfinite(self.forces).all():
            raise RelaxationFailed('the force field returned numbers that are not finite')
        if self.first is None:
            self.first = self.energy
        self.converged = bool(np.linalg.norm(self.forces, axis=1).max(initial=0.0) < settings.fmax)
        done = self.converged or self.steps >= settings.steps
        self.guard(self.atoms, self.energy, distances=done or self.steps % GUARD_EVERY == 0)
        if done:
            check_end(self.forces, self.steps)
            return True
        force, position = self.forces.ravel(), self.atoms.positions[~self.frozen].ravel()
        self._update(position, force)
        omega, vectors = np.linalg.eigh(self.hessian)
        step = (vectors @ (force @ vectors / np.abs(omega))).reshape(-1, 3)
        longest = np.linalg.norm(step, axis=1).max()
        if longest > maxstep:
            step *= maxstep / longest
        self.last = (position, force)
        moved = self.atoms.positions.copy()
        moved[~self.frozen] += step
        self.atoms.set_positions(moved, apply_constraint=False)
        self.steps += 1
        return False

    def _update(self, position, force):
        if self.hessian is None:
            self.hessian = 70.0 * np.eye(len(position))
            return
        dr, df = position - self.last[0], force - self.last[1]
        if np.abs(dr).max() < 1e-7:
            return
        dg = self.hessian @ dr
        self.hessian -= np.outer(df, df) / (dr @ df) + np.outer(dg, dg) / (dr @ dg)

    def result(self):
        """Return the relaxed structure with energy, raw forces and provenance."""
        atoms = self.atoms
        clean(atoms)
        note(atoms, relax_steps=self.steps, relax_converged=self.converged, energy_generated=self.first)
        return self._frame(atoms)
