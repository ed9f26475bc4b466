"""Parts of the crystal generator: perturbation of given crystals, which elements may occur, guidance by a calculator."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from ..relax.calculators import calculator_name
from ..relax.forces import Forces
from ..representations.crystal import Crystal, check_crystal
from ..representations.reduction import niggli
from ..utils.atoms import neighbours
from .guidance import Costs, guidance_options
from .tasks import Perturbation, check_noise

log = logging.getLogger(__name__)

FLAT = 0.1  # volume over the product of the lengths; at least 0.7 for a Niggli cell


def perturbation(parents, noise, process, representation: Crystal, *, limit: int, steps: int, numbers=None) -> Perturbation:
    """Return the task that begins with given crystals, noised.

    Parameters
    ----------
    parents : list of Atoms
        Taken in turn.
    noise : float
        A; the time of the diffusion is that at which sigma times the mean of the cube roots of the volumes is ``noise``.
    limit : int
        Most atoms of the model.
    steps : int
        Of a generation from noise.
    numbers : list of int, optional
        Composition of the generator, which parents must have.

    Raises
    ------
    ValueError
        noise is not above the least that the model knows; a structure is no crystal, too large, of another composition, or has
        unknown elements.
    """
    for k, atoms in enumerate(parents):
        check_crystal(atoms, f'structure {k}')
        if len(atoms) > limit:
            raise ValueError(f'structure {k} has {len(atoms)} atoms, the model knows cells of up to {limit}')
        if numbers is not None and sorted(atoms.numbers.tolist()) != sorted(numbers):
            raise ValueError(f'structure {k} is {atoms.get_chemical_formula()}, not the composition of the generator')
    representation.encode(parents)  # raises for elements that the model does not know
    length = float(np.mean([atoms.cell.volume ** (1 / 3) for atoms in parents]))
    noise = check_noise(noise, process.schedule.sigma_min * length)
    parents = [niggli(atoms) for atoms in parents]  # the cells that models are trained on
    return Perturbation(parents, noise, steps, process.schedule.time(noise / length))


class AllowedElements:
    """Wrap a network so that only some species come out.

    Parameters
    ----------
    allowed : list of bool, one for each species
    """

    def __init__(self, network, allowed: list[bool]):
        self.network, self.allowed = network, torch.tensor(allowed)

    def __call__(self, batch, level, conditions):
        pred = self.network(batch, level, conditions)
        allowed = self.allowed.to(pred['species'].device)
        return {**pred, 'species': torch.where(allowed, pred['species'], -torch.inf)}


@dataclass
class CrystalGuidance(Costs):
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
        Folder for the files of calculators, and seconds for one call, as in :class:`ase_diffusion.relax.forces.Forces`. A call
        that takes longer is a failure like others: it displaces nothing.

    Attributes
    ----------
    calls, failures : int
        Evaluations of one crystal, and those that raised, took too long or gave no finite forces, or were not begun since the
        cell is exactly flat.
    seconds : float
        Time that they took.
    """

    calculator: object
    strength: float = 0.02
    stress_strength: float = 0.05
    below: float = 0.2
    every: int = 1
    cap: float = 0.05
    strain_cap: float = 0.01
    directory: object = None
    time_limit: float | None = None

    @classmethod
    def coerce(cls, guidance, calculator) -> CrystalGuidance | None:
        """Accept None, True, a dict, a calculator (or what makes one) or a CrystalGuidance, which is copied, and a calculator."""
        made = guidance_options(cls, guidance, calculator)
        if made is not None:
            made.compute = Forces(made.calculator, made.directory, time_limit=made.time_limit)
        return made

    def bind(self, representation: Crystal, count: int):
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


def shortest_distance(atoms: Atoms) -> float:
    """Return the shortest distance between atoms of a reduced cell, images of the same one included, A.

    inf beyond 3 A; 0 where numbers are not finite or the cell is flat: looking for neighbours in it would take for ever.
    """
    if not (np.isfinite(atoms.cell[:]).all() and np.isfinite(atoms.positions).all()):
        return 0.0
    lengths = atoms.cell.lengths()
    if not atoms.cell.volume > FLAT * lengths.prod():
        return 0.0
    if lengths.min() < 0.1:
        return float(lengths.min())
    _, _, d = neighbours(atoms, 3.0)
    return float(d.min(initial=np.inf))
