"""Guidance of crystals by forces and stress of a calculator."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from ...calculators.forces import Forces
from ...calculators.names import CalculatorLike, calculator_name
from ...diffusion import Batch
from ...representations.crystal import Crystal
from ..guidance import CallCounter, guidance_options

log = logging.getLogger(__name__)


@dataclass
class CrystalGuidance(CallCounter):
    """Move atoms along the forces, and the lattice along the stress, of an ASE calculator after each late step.

    Parameters
    ----------
    calculator : str, ASE calculator or factory
    strength : float
        Displacement per unit force and step, A^2/eV, times (1 - t).
    stress_strength : float
        Strain per unit stress, in A^3/eV, times (1 - t); 0 leaves the lattice alone, as does a calculator without stress.
    below : float
        Guidance acts at times t < below.
    every : int
        At every k-th step.
    cap, strain_cap : float
        Largest displacement (A) and strain of one step.
    directory, time_limit : optional
        Folder for the files of calculators, and seconds for one call, as in
        :class:`ase_diffusion.calculators.forces.Forces`. A call that takes longer is a failure like others: it displaces nothing.

    Attributes
    ----------
    calls, failures : int
        Evaluations of one crystal, and those that raised, took too long or gave no finite forces, or were not begun since the
        cell is exactly flat.
    seconds : float
        Time that they took.
    """

    calculator: CalculatorLike
    strength: float = 0.02
    stress_strength: float = 0.05
    below: float = 0.2
    every: int = 1
    cap: float = 0.05
    strain_cap: float = 0.01
    directory: str | Path | None = None
    time_limit: float | None = None

    @classmethod
    def coerce(
        cls, guidance: CalculatorLike | CrystalGuidance | dict | bool | None, calculator: CalculatorLike | None
    ) -> CrystalGuidance | None:
        """Accept None, True, a dict, a calculator (or what makes one) or a CrystalGuidance, which is copied, and a calculator."""
        made = guidance_options(cls, guidance, calculator)
        if made is not None:
            made.compute = Forces(made.calculator, made.directory, time_limit=made.time_limit)
        return made

    def bind(self, representation: Crystal, count: int) -> Callable[[Batch, float], dict[str, torch.Tensor]]:
        """Return the hook ``(batch, t) -> displacements`` of the fields, for a batch of ``count`` crystals."""
        steps, move = [0], self.timed(self._move)
        self.compute.begin(count)

        def hook(batch, t: float) -> dict:
            steps[0] += 1
            if t >= self.below or steps[0] % self.every:
                return {}
            moves = [move(k, atoms, t) for k, atoms in enumerate(representation.decode(batch))]
            f = batch.fields['fractional']
            sites = torch.as_tensor(np.concatenate([m[0] for m in moves]), dtype=f.dtype, device=f.device)
            return {'fractional': sites, 'lattice': representation.strained(batch, np.stack([m[1] for m in moves]))}

        return hook

    def _move(self, k: int, atoms: Atoms, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Return fractional displacements (n, 3) and strain (3, 3) of crystal k; nothing where the calculator fails."""
        size, strain = self.every * (1 - t), np.zeros((3, 3))
        self.calls += 1
        try:
            inverse = np.linalg.inv(np.asarray(atoms.cell))  # raises where the cell is exactly flat
            forces, stress = self.compute(k, atoms, stress=bool(self.stress_strength))
        except Exception as error:  # any calculator may raise anything; it is counted
            self.error = f'{type(error).__name__}: {error}'
            log.debug('guidance: no forces: %s', error)
            self.failures += 1
            return np.zeros((len(atoms), 3)), strain
        step = self.strength * size * forces
        step *= min(1.0, self.cap / max(np.linalg.norm(step, axis=1).max(), 1e-12))
        if stress is not None:
            strain = -self.stress_strength * size * stress
            strain *= min(1.0, self.strain_cap / max(np.abs(strain).max(), 1e-12))
        return step @ inverse, strain

    def close(self) -> None:
        """End the process of the calculator, where there is a time limit; the next call starts another one."""
        self.compute.close()

    def todict(self) -> dict:
        """Return the parameters, fit for JSON."""
        names = ('strength', 'stress_strength', 'below', 'every', 'cap', 'strain_cap')
        values = {name: getattr(self, name) for name in names}
        if self.time_limit is not None:
            values['time_limit'] = self.time_limit
        return {**values, 'calculator': self.calculator if isinstance(self.calculator, str) else calculator_name(self.calculator)}
