"""Small overlayers and networks for the laws that every network keeps."""

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms

from ase_diffusion.diffusion import Batch
from ase_diffusion.networks import ForceField, OverlayerDenoiser
from ase_diffusion.representations import Slab

SIZE = dict(features=16, blocks=2, cutoff=4.0, n_basis=8)


def overlayer(seed=0, mobile=5, frozen=6, length=5.5):
    """A disordered overlayer on a frozen disordered layer in a skewed cell, float64."""
    rng = np.random.default_rng(seed)
    cell = np.array([[length, 0.0, 0.0], [-1.1, length * 0.9, 0.0], [0.4, 0.3, 15.0]])
    low = rng.uniform(size=(frozen, 3)) * [1, 1, 0.08]
    high = rng.uniform(size=(mobile, 3)) * [1, 1, 0.16] + [0, 0, 0.14]
    numbers = [*([47, 29] * frozen)[:frozen], *([8, 47, 1] * mobile)[:mobile]]
    atoms = Atoms(numbers, cell=cell, pbc=(True, True, False))
    atoms.set_scaled_positions(np.concatenate([low, high]))
    atoms.set_constraint(FixAtoms(indices=range(frozen)))
    return atoms


def encode(*images, dtype=torch.float64) -> Batch:
    """A batch of overlayers."""
    return Slab(dtype=dtype).encode(list(images))


def denoiser(dtype=torch.float64, **options):
    """A denoiser whose every parameter is random, so that no law holds by a zero."""
    return randomised(OverlayerDenoiser, dtype, **{**SIZE, 'conditions': {'energy': (0.1, 0.5)}, **options})


def forcefield(dtype=torch.float64, **options):
    """A force field with random parameters."""
    return randomised(ForceField, dtype, **{**SIZE, **options})


def randomised(build, dtype, **settings):
    """Build a network, always the same, add noise to all parameters, and return it in evaluation mode."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        network = build(**settings)
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return network.to(dtype).eval()


def noise_of(network, batch, energy=None, level=-0.3):
    """Predicted noise (n, 3) of a denoiser; the level differs from structure to structure."""
    levels = level + 0.1 * torch.arange(batch.size, dtype=batch.extras['cell'].dtype)
    conditions = {} if energy is None else {'energy': energy}
    with torch.no_grad():
        return network(batch, levels, conditions)['positions']


def forces_of(network, batch, energy=None):
    """Forces (n, 3) of a force field."""
    with torch.no_grad():
        return network(batch)[1]
