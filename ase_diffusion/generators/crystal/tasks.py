"""Parts of the crystal generator: perturbation of given crystals, which elements may occur, guidance by a calculator."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from ...diffusion import Batch, JointProcess
from ...diffusion.batch import Network
from ...representations.crystal import Crystal, check_crystal
from ...representations.reduction import niggli
from ..tasks import FromStructures, check_noise

log = logging.getLogger(__name__)


def perturbation(
    parents: list[Atoms],
    noise: float,
    process: JointProcess,
    representation: Crystal,
    *,
    limit: int,
    steps: int,
    numbers: Sequence[int] | None = None,
) -> FromStructures:
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
    numbers : sequence of int, optional
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
    return FromStructures(parents, noise, steps, process.schedule.time(noise / length))


class AllowedElements:
    """Wrap a network so that only some species come out.

    Parameters
    ----------
    allowed : list of bool, one for each species
    """

    def __init__(self, network: Network, allowed: list[bool]) -> None:
        self.network, self.allowed = network, torch.tensor(allowed)

    def __call__(self, batch: Batch, c_noise: torch.Tensor, conditions: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        pred = self.network(batch, c_noise, conditions)
        allowed = self.allowed.to(pred['species'].device)
        return {**pred, 'species': torch.where(allowed, pred['species'], -torch.inf)}
