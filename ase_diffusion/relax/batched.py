"""Relaxation of many overlayers at once with our own force field: one network call for all of them."""

from __future__ import annotations

import numpy as np
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from ..representations.slab import Slab, check_same_pbc, check_slab
from ..utils.atoms import copy_atoms, frozen_mask
from ..utils.memory import keep_freed_memory
from .forcefield import check_known, load_forcefield
from .relax import check_numbers


def relax_batched(images, model='ag-o', *, fmax=0.05, steps=200, maxstep=0.2, batch_size=16, device=None, callback=None):
    """Relax overlayers in batches; the same conventions of results as :func:`ase_diffusion.relax.relax`.

    Every structure has a BFGS history of its own (dense Hessian, start 70 eV/A^2, longest step ``maxstep``: the algorithm of
    ``ase.optimize.BFGS``) and leaves the batch when its largest force is below ``fmax``; the next one takes its place.

    Parameters
    ----------
    images : list of Atoms
        On a frozen substrate; not changed.
    model : str or Path
        Force field, see :func:`ase_diffusion.relax.forcefield.load_forcefield`.
    fmax : float
        eV/A.
    steps : int
        Largest number of steps per structure.
    callback : callable, optional
        Called with (index, relaxed atoms) as each structure is done.
    """
    check_numbers(fmax, steps)
    keep_freed_memory()
    network, header = load_forcefield(model, device)
    check_same_pbc(images)
    for atoms in images:
        check_slab(atoms)
        check_known(atoms, header, network.passive_edges)
    waiting = [_State(k, copy_atoms(atoms)) for k, atoms in enumerate(images)]
    results: list = [None] * len(images)
    active: list[_State] = []
    while waiting or active:
        while waiting and len(active) < batch_size:
            active.append(waiting.pop(0))
        _evaluate(network, active)
        for state in list(active):
            if state.advance(fmax, steps, maxstep):
                active.remove(state)
                results[state.index] = state.result(str(model))
                if callback is not None:
                    callback(state.index, results[state.index])
    return results


def _evaluate(network, states) -> None:
    device = network.scale.device
    batch = Slab().encode([s.atoms for s in states]).to(device)
    with torch.no_grad():
        energy, forces = network(batch)
        energy = (energy.double() + network.reference_energy(batch)).cpu().numpy()
    parts = np.split(forces.double().cpu().numpy(), np.cumsum([(~s.frozen).sum() for s in states])[:-1])
    for state, e, f in zip(states, energy, parts, strict=True):
        state.energy, state.forces = float(e), f


class _State:
    """One structure on its way down."""

    def __init__(self, index, atoms):
        self.index, self.atoms, self.frozen = index, atoms, frozen_mask(atoms)
        self.steps, self.hessian, self.last = 0, None, None
        self.energy, self.forces, self.first, self.error, self.converged = np.nan, None, None, None, False

    def advance(self, fmax, steps, maxstep) -> bool:
        """Make one BFGS step, or return True when done."""
        if not np.isfinite(self.energy) or not np.isfinite(self.forces).all():
            self.error = 'the force field returned numbers that are not finite'
            return True
        if self.first is None:
            self.first = self.energy
        self.converged = bool(np.linalg.norm(self.forces, axis=1).max(initial=0.0) < fmax)
        if self.converged or self.steps >= steps:
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

    def result(self, model: str):
        """Return the relaxed structure with energy, raw forces and provenance."""
        atoms = self.atoms
        pairs = atoms.info.setdefault('key_value_pairs', {})
        pairs.update(relax_steps=self.steps, relax_converged=self.converged, relax_calculator=model)
        if self.error is not None:
            pairs['relax_failed'] = True
            atoms.info.setdefault('data', {})['relax_error'] = self.error
            return atoms
        pairs['energy_generated'] = self.first
        forces = np.zeros((len(atoms), 3))
        forces[~self.frozen] = self.forces
        atoms.calc = SinglePointCalculator(atoms, energy=self.energy, forces=forces)
        return atoms
