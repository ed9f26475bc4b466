"""A toy method, whole: crystals of hydrogen in a plane as a 2-D density grid. The worked example of docs/adding_a_method.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from ase_diffusion.diffusion import Batch, GeometricVP, JointProcess, Preconditioned
from ase_diffusion.generators.base import Generator
from ase_diffusion.networks.conditions import ConditionEmbedding, LevelEmbedding
from ase_diffusion.representations import Failure
from ase_diffusion.representations.base import PlainRepresentation

CELL = 4.0  # A, edge of the square cell


# representation
@dataclass
class ToyGrid(PlainRepresentation):
    """Encode atoms in the xy plane as the field ``grid`` (B, 1, n, n): a Gaussian of width 0.4 A for each."""

    kinds: ClassVar[tuple[str, ...]] = ('toy',)
    fields: ClassVar[frozenset[str]] = frozenset({'grid'})

    n: int = 8

    def encode(self, images: list[Atoms], conditions: dict | None = None) -> Batch:
        """Return a batch of structures."""
        points = np.stack(np.meshgrid(*2 * [np.arange(self.n) / self.n], indexing='ij'), -1)  # (n, n, 2)
        grids = []
        for atoms in images:
            f = atoms.get_scaled_positions()[:, :2]
            d = points[:, :, None] - f - np.round(points[:, :, None] - f)  # (n, n, atoms, 2)
            grids.append(np.exp(-((CELL * d) ** 2).sum(-1) / (2 * 0.4**2)).sum(-1))
        grid = torch.as_tensor(np.array(grids), dtype=torch.float32)[:, None]  # (B, 1, n, n)
        return Batch.dense('grid', 4 * grid - 1, conditions=conditions)

    def decode(self, batch: Batch) -> list[Atoms | Failure]:
        """Return one atom per local maximum above one half."""
        return [self._atoms(grid) for grid in batch.fields['grid'][:, 0].double().cpu().numpy()]

    def _atoms(self, grid: np.ndarray) -> Atoms | Failure:
        around = [np.roll(grid, shift, (0, 1)) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        sites = np.argwhere((grid > 1) & (grid >= np.max(around, 0)))  # (atoms, 2)
        if not len(sites):
            return Failure('no atom is present')
        scaled = np.c_[sites / self.n, np.zeros(len(sites))]
        return Atoms(f'H{len(sites)}', cell=[CELL, CELL, CELL], scaled_positions=scaled, pbc=True)

    def augment(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch rolled by a random number of points along both axes."""
        shifts = torch.randint(self.n, (2,), generator=rng).tolist()
        return batch.with_fields(grid=torch.roll(batch.fields['grid'], shifts, (-2, -1)))

    def process(self) -> JointProcess:
        """Return the noise process of the grid."""
        return JointProcess({'grid': Preconditioned(GeometricVP(0.02, 20.0))})

    def todict(self) -> dict:
        """Return class name and parameters, JSON-serialisable."""
        return {'name': 'ToyGrid', 'n': self.n}

    @classmethod
    def fromdict(cls, values: dict) -> ToyGrid:
        """Rebuild from :meth:`todict`."""
        return cls(int(values['n']))


# network
class ToyNet(nn.Module):
    """Predict F of the grid with three circular convolutions and FiLM."""

    def __init__(self, width: int = 24, conditions: dict | None = None):
        super().__init__()
        self.settings = {'width': width, 'conditions': dict(conditions or {})}
        self.level = LevelEmbedding(width)
        self.conditions = ConditionEmbedding(conditions or {}, width)
        self.first = nn.Conv2d(1, width, 3, padding=1, padding_mode='circular')
        self.film = nn.Linear(width, 2 * width)
        self.second = nn.Conv2d(width, width, 5, padding=2, padding_mode='circular')
        self.last = nn.Conv2d(width, 1, 3, padding=1, padding_mode='circular')

    def forward(self, batch: Batch, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``{'grid': (B, 1, n, n)}``."""
        x = batch.fields['grid']  # (B, 1, n, n)
        c = self.level(c_noise.to(x.dtype))  # (B, width)
        scale, shift = self.film(nn.functional.silu(c + self.conditions(conditions, c))).chunk(2, -1)
        h = nn.functional.silu(self.first(x))  # (B, width, n, n)
        h = nn.functional.silu(self.second(h) * (1 + scale[..., None, None]) + shift[..., None, None])
        return {'grid': self.last(h)}


# generator
class ToyDiffusion(Generator):
    """Generate planes of hydrogen atoms."""

    kind = 'toy'
    default_sampling: ClassVar[dict] = {'sampler': 'heun', 'steps': 12}

    def __init__(self, *, model, **options):
        super().__init__(**options)
        self._load(model)

    def _template(self, seed: int) -> Atoms:
        return Atoms(cell=[CELL] * 3, pbc=True)

    def _untrained(self, images: list[Atoms]) -> tuple[ToyGrid, Callable[..., ToyNet]]:
        return ToyGrid(), ToyNet
