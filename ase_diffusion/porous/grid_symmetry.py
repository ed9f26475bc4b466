"""Space groups on grids: orbits of points, averages over the group, sizes of grids that a group maps to themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def orbit_representatives(
    rotations: ArrayLike, translations: ArrayLike, shape: Sequence[int], device: str | torch.device = 'cpu'
) -> Tensor:
    """Return the first point of the orbit of every point of a grid, (V,) int64, points counted in C order.

    Parameters
    ----------
    rotations : (G, 3, 3) array_like of int
    translations : (G, 3) array_like
        Operations x -> R x + t in fractional coordinates, which form a group with the lattice.
    shape : (int, int, int)
    device : str or torch.device

    Raises
    ------
    ValueError
        An operation does not map grid points to grid points, or the operations are no group.
    """
    n = np.array([int(m) for m in shape])
    rotations, translations = np.asarray(rotations), np.asarray(translations, float)
    matrices, steps = rotations * n[:, None] / n, translations * n  # (G, 3, 3), (G, 3) in voxels
    wrong = (np.abs(matrices - np.round(matrices)).max((1, 2)) > 1e-6) | (np.abs(steps - np.round(steps)).max(1) > 0.01)
    if wrong.any():
        k = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f'the operation {rotations[k].tolist()} + {translations[k].tolist()} maps no grid of {tuple(n.tolist())} points to '
            'itself: take sizes from symmetric_shape'
        )
    matrices, steps = (torch.tensor(np.round(v).astype(np.int32), device=device) for v in (matrices, steps))
    images = torch.zeros((), dtype=torch.int32, device=device)
    for a, size in enumerate(n.tolist()):
        along = [matrices[:, a, b, None] * torch.arange(m, dtype=torch.int32, device=device) for b, m in enumerate(n.tolist())]
        along[0] = along[0] + steps[:, a, None]
        image = along[0][:, :, None, None] + along[1][:, None, :, None] + along[2][:, None, None, :]  # (G, X, Y, Z)
        images = images * size + image.remainder_(size)
    images = images.flatten(1).long()  # (G, V)
    first = images.amin(0)
    if not bool((first[images] == first).all()) or not bool((first[first] == first).all()):
        raise ValueError('operations form a group with the identity; these are not closed')
    return first


@dataclass(frozen=True)
class GridSymmetry:
    """The orbits of the points of a grid under a space group.

    Parameters
    ----------
    labels : Tensor
        ``(V,)`` int64, the orbit of each voxel, counted from 0.
    sizes : Tensor
        ``(orbits,)`` float64, voxels per orbit.
    shape : (int, int, int)
    """

    labels: Tensor
    sizes: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, rotations: ArrayLike, translations: ArrayLike, shape: Sequence[int]) -> GridSymmetry:
        """Find the orbits of operations x -> R x + t in fractional coordinates, which form a group with the lattice.

        Parameters
        ----------
        rotations : (G, 3, 3) array_like of int
        translations : (G, 3) array_like
        shape : (int, int, int)

        Raises
        ------
        ValueError
            See :func:`orbit_representatives`.
        """
        first = orbit_representatives(rotations, translations, shape)
        labels = torch.unique(first, return_inverse=True)[1]
        return cls(labels, torch.bincount(labels).double(), tuple(int(n) for n in shape))

    @property
    def multiplicity(self) -> float:
        """Points per orbit, on average; 1 without symmetry."""
        return len(self.labels) / len(self.sizes)

    def average(self, grid: Tensor, noise: bool = False) -> Tensor:
        """Average grids (..., X, Y, Z) over the group; ``noise=True`` rescales white noise to its variance before."""
        if tuple(grid.shape[-3:]) != self.shape:
            raise ValueError(f'the symmetry is that of grids of {self.shape} points; got {tuple(grid.shape[-3:])}')
        labels, sizes = self.labels.to(grid.device), self.sizes.to(grid.device, grid.dtype)
        flat = grid.flatten(-3)  # (..., V)
        total = flat.new_zeros(*flat.shape[:-1], len(sizes)).index_add_(-1, labels, flat)
        mean = total / (sizes.sqrt() if noise else sizes)
        return mean.index_select(-1, labels).reshape(grid.shape)


def symmetrize_grid(grid: Tensor, operations: GridSymmetry | tuple[ArrayLike, ArrayLike], noise: bool = False) -> Tensor:
    """Average grids (..., X, Y, Z) over the operations of a space group.

    Parameters
    ----------
    grid : Tensor
    operations : GridSymmetry or (rotations, translations)
        See :meth:`GridSymmetry.of`; a ready GridSymmetry saves the search for orbits.
    noise : bool
        Multiply by the square root of the number of voxels that are averaged: white noise keeps its variance.
    """
    if not isinstance(operations, GridSymmetry):
        operations = GridSymmetry.of(*operations, grid.shape[-3:])
    return operations.average(grid, noise)


def symmetric_shape(
    lengths: ArrayLike, operations: tuple[ArrayLike, ArrayLike], pitch: float = 0.95, multiple: int = 2
) -> tuple[int, int, int]:
    """Return numbers of voxels that the operations of a space group map to themselves, near ``pitch`` along each axis.

    Parameters
    ----------
    lengths : (3,) array_like
        A.
    operations : (rotations, translations)
        See :meth:`GridSymmetry.of`.
    pitch : float
        A per voxel.
    multiple : int
        The numbers are multiples of it, too.
    """
    rotations, translations = np.asarray(operations[0]), np.asarray(operations[1], float)
    denominators = [next((m for m in range(1, 25) if np.abs(t * m - np.round(t * m)).max() < 1e-3), None) for t in translations.T]
    if None in denominators:
        raise ValueError(f'translations are fractions with denominators up to 24; got {translations.tolist()}')
    coupled = np.abs(rotations).sum(0) > 0  # (3, 3), axes that operations mix
    lengths, shape = np.asarray(lengths, float), [0, 0, 0]
    for axis in range(3):
        mine = np.flatnonzero(coupled[axis] | coupled[:, axis])
        step = math.lcm(multiple, *(denominators[k] for k in mine))
        mean = float(np.exp(np.log(lengths[mine]).mean()))
        most = math.ceil(2 * mean / pitch / step) + 2
        sizes = [step * k for k in range(1, most) if step * k >= 4]
        shape[axis] = min(sizes, key=lambda n: abs(math.log(mean / n / pitch)))
    return tuple(shape)
