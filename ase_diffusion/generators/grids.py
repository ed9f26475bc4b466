"""Parts of a generation of grids with the symmetry of a space group: draws, noise, predictions; two frameworks mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..diffusion import Batch, JointProcess
from ..diffusion.batch import Network
from ..representations.voxels import GridSymmetry
from .tasks import FromNoise


@dataclass(frozen=True)
class Draw:
    """What is given of a framework: the edges of its cell, its space group, T number and grid.

    Parameters
    ----------
    edges : numpy.ndarray
        ``(3,)`` A.
    shape : (int, int, int)
        Points of the grid.
    silicon : int
    symmetry : GridSymmetry or None
    operations : (rotations, translations), optional
        Of the symmetry, fractional.
    """

    edges: np.ndarray
    shape: tuple[int, int, int]
    silicon: int
    symmetry: GridSymmetry | None
    operations: tuple[np.ndarray, np.ndarray] | None = None


class SymmetricNoise:
    """Draw the noise of every structure from its own generator on the CPU, averaged over its space group at unit variance.

    Parameters
    ----------
    seeds : sequence of int
    symmetries : sequence of GridSymmetry or None
    """

    def __init__(self, seeds: Sequence[int], symmetries: Sequence[GridSymmetry | None]) -> None:
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.symmetries = list(symmetries)

    def bind(self, rows: Tensor) -> SymmetricNoise:
        """Return the source for a dense field: itself."""
        return self

    def normal(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers (B, C, X, Y, Z)."""
        parts = []
        for generator, symmetry in zip(self.generators, self.symmetries, strict=True):
            noise = torch.randn(like.shape[1:], generator=generator, dtype=like.dtype)
            parts.append(noise if symmetry is None else symmetry.average(noise, noise=True))
        return torch.stack(parts).to(like.device)

    def uniform(self, like: Tensor) -> Tensor:
        """Draw uniform numbers, without symmetry."""
        parts = [torch.rand(like.shape[1:], generator=generator, dtype=like.dtype) for generator in self.generators]
        return torch.stack(parts).to(like.device)


class Interpolation(FromNoise):
    """Begin with two frameworks, noised and mixed.

    Parameters
    ----------
    x : Tensor
        ``(2, C, X, Y, Z)``, their fields.
    weight : float
        Of the second.
    draw : Draw
    steps : int
        Of a generation from noise.
    start : float
        Time at which to begin.
    """

    name, relaxes, chooses = 'interpolate', True, False

    def __init__(self, x: Tensor, weight: float, draw: Draw, steps: int, start: float) -> None:
        super().__init__(None, max(10, math.ceil(steps * start)), start)
        self.x, self.weight, self.draw = x, float(weight), draw

    def begin(self, process: JointProcess, batch: Batch, noise: SymmetricNoise, network: Network) -> tuple[JointProcess, dict]:
        """Return the process and the keywords of the sampler; the mixed noise keeps its variance."""
        one, like = process.processes['grids'], batch.fields['grids']
        x = self.x.to(like)
        t = torch.full((len(like),), self.start, dtype=torch.float64)
        alpha, sigma = one.scales(t.to(like.device), like)
        first, second = noise.normal(like), noise.normal(like)
        share = torch.tensor([1 - self.weight, self.weight], dtype=like.dtype, device=like.device)
        eps = (share[0] * first + share[1] * second) / share.square().sum().sqrt()
        mean = share[0] * x[0] + share[1] * x[1]
        mixed = batch.with_fields(grids=alpha * mean + sigma * eps)
        return process, {'start': self.start, 'steps': self.steps, 'initial': mixed}

    def labels(self) -> dict:
        return {'operation': self.name, 'weight': self.weight}


def with_multiplicity(network: Network) -> Network:
    """Return the network with the multiplicity of the symmetry as a condition that guidance does not drop."""

    def call(batch, c_noise, conditions):
        given = batch.extras.get('multiplicity')
        return network(batch, c_noise, conditions if given is None else {**conditions, 'multiplicity': given})

    return call


def averaged(network: Network, symmetries: Sequence[GridSymmetry | None]) -> Network:
    """Return the network with every prediction averaged over the space group of its structure."""

    def call(batch, c_noise, conditions):
        grids = network(batch, c_noise, conditions)['grids']  # (B, C, X, Y, Z)
        parts = [x if symmetry is None else symmetry.average(x) for x, symmetry in zip(grids, symmetries, strict=True)]
        return {'grids': torch.stack(parts)}

    return call
