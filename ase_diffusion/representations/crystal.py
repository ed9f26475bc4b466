"""Crystals as lattice, fractional coordinates and species; all three diffuse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from ..diffusion import Batch, Categorical, CosineVP, Gaussian, GeometricVE, JointProcess, WrappedScore

FIELDS = ('fractional', 'lattice', 'species')


@dataclass
class Crystal:
    """Encode crystals as the fields ``fractional`` (n, 3), ``lattice`` (B, 3, 3) with rows in A, and ``species`` (n,).

    Parameters
    ----------
    elements : sequence of int
        Atomic numbers; a species is an index into them.
    dtype : torch.dtype
        Precision of networks and sampling.
    """

    elements: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __post_init__(self):
        self.elements = tuple(int(z) for z in self.elements)
        self._index = np.full(len(chemical_symbols), -1)
        self._index[list(self.elements)] = np.arange(len(self.elements))

    def encode(self, images: list[Atoms], conditions: dict | None = None) -> Batch:
        """Return a batch of ``images``; ``conditions``: name -> B numbers.

        Raises
        ------
        ValueError
            An image is not periodic in three directions, or has an element that the representation does not know.
        """
        for k, atoms in enumerate(images):
            check_crystal(atoms, f'structure {k}')
        return self.assemble(
            np.concatenate([a.get_scaled_positions() for a in images]), np.concatenate([a.numbers for a in images]),
            np.stack([np.asarray(a.cell) for a in images]), [len(a) for a in images], conditions)  # fmt: skip

    def assemble(self, fractional, numbers, cells, counts, conditions=None) -> Batch:
        """Build a batch from flat arrays (fractional (n, 3), numbers (n,), cells (B, 3, 3) in A, counts (B,))."""
        species = self._index[np.asarray(numbers, int)]
        if (species < 0).any():
            unknown = sorted({chemical_symbols[z] for z in np.asarray(numbers)[species < 0]})
            known = ', '.join(chemical_symbols[z] for z in self.elements)
            raise ValueError(f'unknown elements {", ".join(unknown)}; known: {known}')
        counts = torch.as_tensor(np.asarray(counts, int))
        size, width = len(counts), int(counts.max())
        rows = torch.repeat_interleave(torch.arange(size), counts)
        first = torch.cumsum(counts, 0) - counts
        slots = rows * width + torch.arange(len(rows)) - first[rows]
        return Batch(
            fields={'fractional': torch.as_tensor(np.asarray(fractional), dtype=self.dtype),
                    'lattice': torch.as_tensor(np.asarray(cells), dtype=self.dtype), 'species': torch.as_tensor(species)},
            rows={'fractional': rows, 'lattice': torch.arange(size), 'species': rows},
            size=size,
            conditions={k: torch.as_tensor(np.asarray(v, float), dtype=self.dtype).reshape(size)
                        for k, v in (conditions or {}).items()},
            extras={'slots': slots, 'counts': counts, 'width': width},
        )  # fmt: skip

    def decode(self, batch: Batch) -> list[Atoms]:
        """Return the crystals of a batch: periodic, wrapped; cells that came out left-handed are inverted."""
        fractional, cells = (batch.fields[name].detach().double().cpu().numpy() for name in ('fractional', 'lattice'))
        numbers = np.asarray(self.elements)[batch.fields['species'].cpu().numpy()]
        rows = batch.rows['fractional'].cpu().numpy()
        images = []
        for k, cell in enumerate(cells):
            if np.linalg.det(cell) < 0:  # the network sees scalar products only, which do not tell left from right
                cell = -cell
            mine = rows == k
            images.append(Atoms(numbers[mine], scaled_positions=fractional[mine] % 1.0, cell=cell, pbc=True))
        return images

    def todict(self) -> dict:
        """Return the parameters, fit for JSON."""
        return {'name': 'Crystal', 'elements': list(self.elements)}


def check_crystal(atoms: Atoms, name: str = 'the crystal') -> None:
    """Raise a ValueError if ``atoms`` is not a crystal: atoms, finite positions, a cell with volume, periodic in 3-D."""
    if not isinstance(atoms, Atoms):
        raise TypeError(f'{name} must be an ase.Atoms, got {type(atoms).__name__}')
    if len(atoms) == 0:
        raise ValueError(f'{name} has no atoms')
    cell = np.asarray(atoms.cell)
    if not (np.isfinite(cell).all() and np.isfinite(atoms.positions).all()) or abs(np.linalg.det(cell)) < 1e-3:
        raise ValueError(f'{name} needs finite positions and a cell with three independent vectors, got {cell.tolist()}')
    if not atoms.pbc.all():
        raise ValueError(f'a crystal is periodic in three directions; {name} has pbc={atoms.pbc.tolist()}: set atoms.pbc = True')


def crystal_process(classes: int, *, steps=1000, sigma_min=0.005, sigma_max=0.5, auxiliary=0.05,
                    weights=(1.0, 1.0, 20.0), longest=None) -> JointProcess:  # fmt: skip
    """Return the joint process of the paper (section 4.1) with DiffCSP's values.

    Parameters
    ----------
    classes : int
        Number of elements.
    steps : int
        T of the species' loss.
    sigma_min, sigma_max : float
        Of the fractional coordinates.
    auxiliary : float
        See :class:`Categorical`.
    weights : (lattice, coordinates, species)
    longest : float, optional
        Longest lattice vector, A; see ``limit`` of :class:`Gaussian`.
    """
    processes = {'fractional': WrappedScore(GeometricVE(sigma_min, sigma_max)), 'lattice': Gaussian(CosineVP(), longest),
                 'species': Categorical(CosineVP(), classes, steps, auxiliary)}  # fmt: skip
    lattice, fractional, species = weights
    return JointProcess(processes, {'fractional': fractional, 'lattice': lattice, 'species': species})
