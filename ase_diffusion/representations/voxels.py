"""Silica frameworks as grids: energy of methane, density of Si and O (J. Mater. Chem. A 12, 6507, 2024, section 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from ..diffusion.batch import Batch
from ..diffusion.joint import JointProcess
from ..diffusion.preconditioned import Preconditioned
from ..diffusion.schedules import GeometricVP
from ..porous.framework_grids import (
    CHANNELS,
    FrameworkGrids,
    grid_shape,
    scale_boltzmann,
    scale_energy,
    unscale_boltzmann,
    unscale_energy,
)
from ..porous.grid_symmetry import GridSymmetry, symmetric_shape, symmetrize_grid
from .base import Failure, PlainRepresentation
from .crystal import check_crystal, check_crystals

__all__ = ['GridSymmetry', 'Voxels', 'symmetric_shape', 'symmetrize_grid']


@dataclass
class Voxels(PlainRepresentation):
    """Encode frameworks as one dense field ``grids`` (B, C, X, Y, Z), C = 3 or 4.

    Channels: E / kB of methane in K, clipped to [-4000, 5000], linear to [-1, 1]; densities of Si and O (Gaussians of height
    1), linear from [0, 1] to [-1, 1]; optionally log(1 + exp(-E / kB T)) at 298 K, linear to [-1, 1]. The field is
    (scaled - mean) / std. All maps are invertible inside the clipping limits. Points lie at fractional coordinates i / n.

    Parameters
    ----------
    shape : (int, int, int) or None
        Voxels of every structure, (32, 32, 32) in the paper; None: from the cell, by ``pitch`` and ``multiple``.
    pitch, multiple
        See :func:`ase_diffusion.porous.framework_grids.grid_shape`.
    width : float
        A, of the Gaussians exp(-r^2 / width^2).
    channels : int
        3, or 4 with the Boltzmann channel.
    mean, std : sequences of float, optional
        Of the scaled channels over the training data; 0 and 1 where absent.
    sigma : (float, float)
        Smallest and largest noise of :meth:`process`, in units of the standard deviation of the data.
    dtype : torch.dtype
        Of the field.

    Raises
    ------
    ValueError
        Another number of channels, or of means and standard deviations.
    """

    kinds: ClassVar[tuple[str, ...]] = ('zeolite',)
    fields: ClassVar[frozenset[str]] = frozenset({'grids'})

    shape: tuple[int, int, int] | None = (32, 32, 32)
    pitch: float = 0.95
    multiple: int = 4
    width: float = 1.0
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    sigma: tuple[float, float] = (0.05, 40.0)
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.channels not in (3, 4):
            raise ValueError(f'there are 3 channels (energy, Si, O), or 4 with the Boltzmann channel; got {self.channels}')
        self.shape = None if self.shape is None else tuple(int(n) for n in self.shape)
        self.mean = tuple(float(x) for x in (self.mean or (0.0,) * self.channels))
        self.std = tuple(float(x) for x in (self.std or (1.0,) * self.channels))
        self.sigma = tuple(float(x) for x in self.sigma)
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(
                f'{self.channels} channels have as many means and positive standard deviations; got {self.mean}, {self.std}'
            )

    @classmethod
    def of(cls, grids: FrameworkGrids, **options: Any) -> Voxels:
        """Return a representation with the scales, the width and the channels of training data."""
        options = {'width': grids.width, 'channels': grids.channels} | options
        return cls(mean=grids.mean.tolist(), std=grids.std.tolist(), **options)

    def shape_of(self, atoms: Atoms) -> tuple[int, int, int]:
        """Return the numbers of voxels along the cell vectors of a structure."""
        return self.shape or grid_shape(atoms.cell.lengths(), self.pitch, self.multiple)

    def check(self, atoms: Atoms) -> None:
        """Raise a ValueError for what is no crystal."""
        check_crystal(atoms)

    def encode(self, images: list[Atoms], conditions: dict | None = None) -> Batch:
        """Return a batch of ``images``; ``conditions``: name -> B numbers.

        Extras: ``cells`` (B, 3, 3), rows in A. A cell of any shape can be encoded.

        Raises
        ------
        ValueError
            An image is no crystal, or, with ``shape=None``, images have grids of different shapes.
        """
        from ..porous import density_grid, energy_grid

        images = check_crystals(images)
        shapes = sorted({self.shape_of(atoms) for atoms in images})
        if len(shapes) > 1:
            raise ValueError(
                f'a batch holds grids of one shape; got {shapes}: group structures by shape_of(atoms), or give a shape'
            )
        energy = torch.from_numpy(np.asarray(energy_grid(list(images), shape=shapes[0]), np.float64))
        silicon, oxygen = (density_grid(list(images), symbol, shape=shapes[0], width=self.width) for symbol in ('Si', 'O'))
        field = self.from_grids(energy, torch.from_numpy(silicon), torch.from_numpy(oxygen))
        cells = torch.as_tensor(np.stack([np.asarray(atoms.cell) for atoms in images]), dtype=self.dtype)
        return self.batch(field, cells, conditions)

    def batch(self, field: Tensor, cells: np.ndarray | Tensor, conditions: dict | None = None) -> Batch:
        """Return a batch of a field (B, C, X, Y, Z) and cells (B, 3, 3) in A."""
        size = len(field)
        given = {name: torch.as_tensor(v, dtype=self.dtype) for name, v in (conditions or {}).items()}  # (B, ...)
        return Batch(
            fields={'grids': field},
            rows={'grids': torch.arange(size)},
            size=size,
            conditions={name: values.reshape(size) for name, values in given.items()},
            extras={'cells': torch.as_tensor(cells, dtype=self.dtype)},
        )

    def empty(self, cells: np.ndarray, shape: Sequence[int] | None = None, conditions: dict | None = None) -> Batch:
        """Return a batch of zeros to sample into, for cells (B, 3, 3) in A and, with ``shape=None`` here, their shape."""
        cells = np.asarray(cells, float).reshape(-1, 3, 3)
        shape = shape or self.shape or grid_shape(np.linalg.norm(cells[0], axis=1), self.pitch, self.multiple)
        return self.batch(torch.zeros(len(cells), self.channels, *shape, dtype=self.dtype), cells, conditions)

    def from_grids(self, energy: Tensor, silicon: Tensor, oxygen: Tensor) -> Tensor:
        """Return the field (B, C, X, Y, Z) of energies in K and densities, each (B, X, Y, Z)."""
        energy = energy.double()
        parts = [scale_energy(energy), 2 * silicon.double() - 1, 2 * oxygen.double() - 1]
        if self.channels == 4:
            parts.append(scale_boltzmann(energy))
        mean, std = self._scales(energy)
        return ((torch.stack(parts, 1) - mean) / std).to(self.dtype)

    def to_grids(self, field: Tensor) -> dict[str, Tensor]:
        """Return ``energy`` in K, ``Si`` and ``O`` and, of four channels, ``boltzmann`` = exp(-E / kB T), each (B, X, Y, Z).

        Energies beyond the clipping limits come back as the limits.
        """
        mean, std = self._scales(field)
        scaled = field.double() * std + mean
        maps = (unscale_energy, _density, _density, unscale_boltzmann)
        return {name: back(scaled[:, k]) for k, (name, back) in enumerate(zip(CHANNELS, maps, strict=True)) if k < self.channels}

    def decode(self, batch: Batch, assemble: Callable[..., Any] | None = None) -> list[Atoms | Failure]:
        """Return the frameworks of a batch, or why a grid is none.

        Parameters
        ----------
        batch : Batch
        assemble : callable, optional
            ``assemble(silicon, oxygen, cell)`` of two (X, Y, Z) densities and a cell (3, 3) in A, with ``atoms`` (or None) and
            ``reason`` in what it returns; by default :func:`ase_diffusion.porous.silica.framework_from_grid` for the width of
            the Gaussians. The keyword ``operations`` is a space group (rotations, translations) where ``batch.extras`` has
            ``operations``, a group or None for each structure, and ``least_volume`` that of the extras, where there is one. Its
            ``step``, ``moved`` and ``cost`` are kept in ``atoms.info``, where there are any.
        """
        if assemble is None:
            from ..porous.silica import framework_from_grid

            assemble = partial(framework_from_grid, width=self.width)
        grids = {name: grid.cpu().numpy() for name, grid in self.to_grids(batch.fields['grids'].detach()).items()}
        cells = batch.extras['cells'].double().cpu().numpy()
        images = []
        groups = batch.extras.get('operations') or [None] * batch.size
        more = {name: batch.extras[name] for name in ('least_volume',) if name in batch.extras}
        for silicon, oxygen, cell, group in zip(grids['Si'], grids['O'], cells, groups, strict=True):
            result = assemble(silicon, oxygen, cell, **({} if group is None else {'operations': group}), **more)
            if result.atoms is None:
                images.append(Failure(str(result.reason)))
                continue
            result.atoms.info |= {name: getattr(result, name) for name in ('step', 'moved', 'cost') if hasattr(result, name)}
            images.append(result.atoms)
        return images

    def augment(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Translate, reflect and rotate every structure at random, the same structure in other coordinates.

        Rolls by whole voxels and reflections differ from structure to structure; so does the order of the axes where the three
        have equally many voxels, which is one for the batch otherwise. Cells change with their grids: the cell M C M^T belongs
        to the signed permutation M.
        """
        x, cells = batch.fields['grids'], batch.extras['cells']
        size, shape = len(x), x.shape[2:]
        points = torch.tensor(shape)
        shift = (torch.rand(size, 3, generator=rng) * points).long().clamp(max=points - 1)  # (B, 3) voxels
        sign = 2 * torch.randint(2, (size, 3), generator=rng) - 1  # (B, 3)
        index = [(torch.arange(n) * sign[:, a, None] + shift[:, a, None]) % n for a, n in enumerate(shape)]
        index = [i.to(x.device) for i in index]
        rows = torch.arange(size, device=x.device)[:, None, None, None]
        moved = x.movedim(1, -1)[rows, index[0][:, :, None, None], index[1][:, None, :, None], index[2][:, None, None, :]]
        sign = sign.to(cells)
        cells = sign[:, :, None] * cells * sign[:, None, :]
        moved = moved.movedim(-1, 1)  # (B, C, X, Y, Z)
        orders = [torch.randperm(3, generator=rng).tolist() for _ in range(size if len(set(shape)) == 1 else 1)]
        if len(orders) == 1:
            order = orders[0]
            moved, cells = moved.permute(0, 1, *(2 + a for a in order)), cells[:, order][:, :, order]
        else:
            moved = torch.stack([grid.permute(0, *(1 + a for a in order)) for grid, order in zip(moved, orders, strict=True)])
            cells = torch.stack([cell[order][:, order] for cell, order in zip(cells, orders, strict=True)])
        out = batch.with_fields(grids=moved.contiguous())
        out.extras = {**batch.extras, 'cells': cells}
        return out

    def process(self) -> JointProcess:
        """Return preconditioned Gaussian noise (Karras et al., arXiv 2206.00364) on the field."""
        return JointProcess({'grids': Preconditioned(GeometricVP(*self.sigma))})

    def todict(self) -> dict:
        """Return the parameters, fit for JSON."""
        names = ('shape', 'pitch', 'multiple', 'width', 'channels', 'mean', 'std', 'sigma')
        values = {name: getattr(self, name) for name in names}
        return {'name': 'Voxels'} | {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def fromdict(cls, values: dict) -> Voxels:
        """Rebuild from :meth:`todict`."""
        return cls(**{name: value for name, value in values.items() if name != 'name'})

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (C, 1, 1, 1), float64."""
        return tuple(torch.tensor(v, dtype=torch.float64, device=like.device)[:, None, None, None] for v in (self.mean, self.std))


def _density(x: Tensor) -> Tensor:
    return (x + 1) / 2
