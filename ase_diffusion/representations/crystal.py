"""Crystals as lattice, fractional coordinates and species; all three diffuse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from ..diffusion import (
    Batch,
    Categorical,
    CosineVP,
    EmbeddedCategorical,
    Gaussian,
    GeometricVE,
    GeometricVP,
    JointProcess,
    Preconditioned,
    WrappedScore,
)
from ..diffusion.preconditioned import nearest_point
from ..utils.atoms import as_list, partial_sites
from .base import PlainRepresentation, is_number, require
from .cells import right_handed
from .elements import element_points


@dataclass
class Crystal(PlainRepresentation):
    """Encode crystals as the fields ``fractional`` (n, 3), ``lattice`` (B, 3, 3) with rows in A, and ``species`` (n,).

    Parameters
    ----------
    elements : sequence of int
        Atomic numbers; a species is an index into them.
    dtype : torch.dtype
        Precision of networks and sampling.
    """

    kinds: ClassVar[tuple[str, ...]] = ('crystal',)
    fields: ClassVar[frozenset[str]] = frozenset({'fractional', 'lattice', 'species'})

    elements: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self.elements = tuple(int(z) for z in self.elements)
        self._index = np.full(len(chemical_symbols), -1)
        self._index[list(self.elements)] = np.arange(len(self.elements))

    def encode(self, images: list[Atoms], conditions: dict | None = None) -> Batch:
        """Return a batch of ``images``; ``conditions``: name -> B numbers.

        Raises
        ------
        ValueError
            No images; one is not periodic in three directions, or has an element that the representation does not know.
        """
        images = [right_handed(atoms) for atoms in check_crystals(images)]
        return self.assemble(
            np.concatenate([a.get_scaled_positions() for a in images]),
            np.concatenate([a.numbers for a in images]),
            np.stack([np.asarray(a.cell) for a in images]),
            [len(a) for a in images],
            conditions,
        )

    def assemble(
        self,
        fractional: np.ndarray,
        numbers: np.ndarray,
        cells: np.ndarray,
        counts: Sequence[int] | np.ndarray,
        conditions: dict | None = None,
    ) -> Batch:
        """Build a batch from flat arrays (fractional (n, 3), numbers (n,), cells (B, 3, 3) in A, counts (B,))."""
        species, counts = torch.as_tensor(self.index(numbers)), torch.as_tensor(np.asarray(counts, int))
        size, width = len(counts), int(counts.max())
        rows = torch.repeat_interleave(torch.arange(size), counts)
        first = torch.cumsum(counts, 0) - counts
        slots = rows * width + torch.arange(len(rows)) - first[rows]
        return Batch(
            fields={
                'fractional': torch.as_tensor(np.asarray(fractional), dtype=self.dtype),
                'lattice': self.from_cells(cells, counts),
                'species': self.from_index(species),
            },
            rows={'fractional': rows, 'lattice': torch.arange(size), 'species': rows},
            size=size,
            conditions={k: torch.as_tensor(v, dtype=self.dtype) for k, v in (conditions or {}).items()},  # (B, ...)
            extras={'slots': slots, 'counts': counts, 'width': width},
        )

    def index(self, numbers: np.ndarray) -> np.ndarray:
        """Return the species of atomic numbers; raise a ValueError for unknown elements."""
        species = self._index[np.asarray(numbers, int)]
        if (species < 0).any():
            unknown = sorted({chemical_symbols[z] for z in np.asarray(numbers)[species < 0]})
            known = ', '.join(chemical_symbols[z] for z in self.elements)
            raise ValueError(f'unknown elements {", ".join(unknown)}; known: {known}')
        return species

    def from_cells(self, cells: np.ndarray, counts: torch.Tensor) -> torch.Tensor:
        """Return the field ``lattice`` of cells (B, 3, 3) in A."""
        return torch.as_tensor(np.asarray(cells), dtype=self.dtype)

    def to_cells(self, lattice: torch.Tensor, counts: torch.Tensor) -> np.ndarray:
        """Return cells (B, 3, 3) in A, float64."""
        return lattice.detach().double().cpu().numpy()

    def from_index(self, species: torch.Tensor) -> torch.Tensor:
        """Return the field ``species`` of indices (n,)."""
        return species

    def to_index(self, species: torch.Tensor) -> torch.Tensor:
        """Return indices (n,) of the field ``species``."""
        return species

    def strained(self, batch: Batch, strain: np.ndarray) -> torch.Tensor:
        """Return the change of the field ``lattice`` when every cell is strained, (B, 3, 3)."""
        lattice, counts = batch.fields['lattice'], batch.extras['counts']
        cells = self.to_cells(lattice, counts)
        return (self.from_cells(cells + cells @ strain, counts) - self.from_cells(cells, counts)).to(lattice)

    def decode(self, batch: Batch) -> list[Atoms]:
        """Return the crystals of a batch: periodic, wrapped; cells that came out left-handed are inverted."""
        fractional = batch.fields['fractional'].detach().double().cpu().numpy()
        cells = self.to_cells(batch.fields['lattice'], batch.extras['counts'])
        numbers = np.asarray(self.elements)[self.to_index(batch.fields['species']).cpu().numpy()]
        rows = batch.rows['fractional'].cpu().numpy()
        images = []
        for k, cell in enumerate(cells):
            if np.linalg.det(cell) < 0:  # the network sees scalar products only, which do not tell left from right
                cell = -cell
            mine = rows == k
            images.append(Atoms(numbers[mine], positions=fractional[mine] % 1.0 @ cell, cell=cell, pbc=True))  # flat cells, too
        return images

    def augment(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Invert half of the crystals, f -> 1 - f: a crystal and its mirror image are equally good."""
        inverted = (torch.rand(batch.size, generator=rng) < 0.5)[batch.rows['fractional'], None]  # (n, 1)
        fractional = batch.fields['fractional']
        return batch.with_fields(fractional=torch.where(inverted, 1 - fractional, fractional))

    def process(
        self,
        *,
        steps: int = 1000,
        sigma_min: float = 0.005,
        sigma_max: float = 0.5,
        auxiliary: float = 0.05,
        weights: tuple[float, float, float] = (1.0, 1.0, 20.0),
        longest: float | None = None,
    ) -> JointProcess:
        """Return the joint process of Takahara et al. (section 4.1) with DiffCSP's values.

        Parameters
        ----------
        steps : int
            Length T of the chain of the species.
        sigma_min, sigma_max : float
            Of the fractional coordinates.
        auxiliary : float
            See :class:`ase_diffusion.diffusion.Categorical`.
        weights : (lattice, coordinates, species)
        longest : float, optional
            Longest lattice vector, A; longer estimates are shortened.
        """
        processes = {
            'fractional': WrappedScore(GeometricVE(sigma_min, sigma_max)),
            'lattice': Gaussian(CosineVP(), clip_norm=longest),
            'species': Categorical(CosineVP(), len(self.elements), steps, auxiliary),
        }
        lattice, fractional, species = weights
        return JointProcess(processes, {'fractional': fractional, 'lattice': lattice, 'species': species})

    def check_header(self, header: dict, networks: dict[str, torch.nn.Module]) -> None:
        """Raise a ValueError where the elements are not those of the network, or the sizes are no counts."""
        network = next(iter(networks.values()))
        known = len(self.elements) == network.settings['classes'] and all(0 < z < 119 for z in self.elements)
        require(known, f'{network.settings["classes"]} elements, as many as the network knows', self.elements)
        sizes = header['sizes']
        counts = all(int(n) > 0 and is_number(count) and count > 0 for n, count in sizes.items())
        require(sizes and counts, 'sizes are counts of crystals by their number of atoms', sizes)
        share = header.get('csp_fraction', 0)
        require(is_number(share), 'csp_fraction is a share', share)
        require('process' in header, 'a crystal model has a process', None)

    def todict(self) -> dict:
        """Return class name and parameters, JSON-serialisable."""
        return {'name': 'Crystal', 'elements': list(self.elements)}

    @classmethod
    def fromdict(cls, values: dict) -> Crystal:
        """Rebuild from :meth:`todict`."""
        return cls(values['elements'])


@dataclass
class LogLatticeCrystal(Crystal):
    """Encode crystals for preconditioned diffusion: ``lattice`` (B, 6) and ``species`` (n, D) are real numbers of unit size.

    The lattice is S = log sqrt(L L^T), which knows no orientation and always gives a right-handed cell of positive volume;
    its three diagonal numbers are counted from (log number of atoms) / 3, and the others times sqrt 2. A species is a point in
    the space of :func:`element_points`.

    Parameters
    ----------
    mean, std : sequence of 6 floats
        Of the lattice numbers 11, 22, 33, 23, 13, 12 of the data.
    """

    mean: tuple[float, ...] = (0.0,) * 6
    std: tuple[float, ...] = (1.0,) * 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mean, self.std = (tuple(float(x) for x in v) for v in (self.mean, self.std))
        self.table = element_points(self.elements)

    @classmethod
    def of(
        cls, elements: Sequence[int], cells: np.ndarray, counts: np.ndarray, dtype: torch.dtype = torch.float32
    ) -> LogLatticeCrystal:
        """Measure mean and standard deviation of cells (n, 3, 3); numbers that hardly vary count as 0.02."""
        numbers = log_lattice(cells, counts)
        return cls(elements, dtype, numbers.mean(0), np.maximum(numbers.std(0), 0.02))

    def from_cells(self, cells: np.ndarray, counts: torch.Tensor) -> torch.Tensor:
        numbers = log_lattice(np.asarray(cells, float), np.asarray(counts))
        return torch.as_tensor((numbers - self.mean) / self.std, dtype=self.dtype)

    def to_cells(self, lattice: torch.Tensor, counts: torch.Tensor) -> np.ndarray:
        numbers = lattice.detach().double().cpu().numpy() * self.std + self.mean
        return cells_from_log_lattice(np.clip(numbers, -5.0, 5.0), counts.cpu().numpy())

    def from_index(self, species: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.table, dtype=self.dtype)[species]

    def to_index(self, species: torch.Tensor) -> torch.Tensor:
        return nearest_point(species, torch.as_tensor(self.table, dtype=species.dtype, device=species.device))

    def process(
        self,
        *,
        sigma_min: float = 0.005,
        sigma_max: float = 0.35,
        weights: tuple[float, float, float] = (1.0, 1.0, 0.3),
    ) -> JointProcess:
        """Return the preconditioned joint process (Karras et al., arXiv 2206.00364).

        The scaled score of the coordinates has unit size at every noise level and needs no preconditioning. Lattice and
        species are decided at the times at which the coordinates are.

        Parameters
        ----------
        sigma_min, sigma_max : float
            Of the fractional coordinates. Only differences matter to a crystal, and theirs are uniform to 1.6 % from 0.35 on.
        weights : (lattice, coordinates, species)
        """
        processes = {
            'fractional': WrappedScore(GeometricVE(sigma_min, sigma_max)),
            'lattice': Preconditioned(GeometricVP(0.01, 20.0)),
            'species': EmbeddedCategorical(GeometricVP(0.2, 30.0), self.table),
        }
        lattice, fractional, species = weights
        return JointProcess(processes, {'fractional': fractional, 'lattice': lattice, 'species': species})

    def todict(self) -> dict:
        """Return class name and parameters, JSON-serialisable."""
        return {'name': 'LogLatticeCrystal', 'elements': list(self.elements), 'mean': list(self.mean), 'std': list(self.std)}

    @classmethod
    def fromdict(cls, values: dict) -> LogLatticeCrystal:
        """Rebuild from :meth:`todict`."""
        return cls(values['elements'], mean=values['mean'], std=values['std'])


_I, _J = np.array([0, 1, 2, 1, 0, 0]), np.array([0, 1, 2, 2, 2, 1])
_ROOT = np.array([1.0, 1.0, 1.0, 2**0.5, 2**0.5, 2**0.5])


def log_lattice(cells: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return six numbers of each cell (B, 3, 3): log sqrt(L L^T), less a third of log(number of atoms) on the diagonal."""
    values, vectors = np.linalg.eigh(cells @ cells.transpose(0, 2, 1))
    s = np.einsum('bij,bj,bkj->bik', vectors, 0.5 * np.log(np.maximum(values, 1e-12)), vectors)
    return s[:, _I, _J] * _ROOT - np.log(counts)[:, None] / 3 * (_ROOT == 1)


def cells_from_log_lattice(numbers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return cells (B, 3, 3), symmetric matrices: the inverse of :func:`log_lattice` up to a rotation."""
    s = np.empty((len(numbers), 3, 3))
    s[:, _I, _J] = s[:, _J, _I] = (numbers + np.log(counts)[:, None] / 3 * (_ROOT == 1)) / _ROOT
    values, vectors = np.linalg.eigh(s)
    return np.einsum('bij,bj,bkj->bik', vectors, np.exp(values), vectors)


def check_crystal(atoms: Atoms, name: str = 'the crystal') -> None:
    """Raise a ValueError if ``atoms`` is not a crystal: atoms, finite positions, a cell with volume, periodic in 3-D."""
    if not isinstance(atoms, Atoms):
        raise TypeError(f'{name} must be an ase.Atoms, got {type(atoms).__name__}')
    if len(atoms) == 0:
        raise ValueError(f'{name} has no atoms')
    cell = np.asarray(atoms.cell)
    if len(bad := np.flatnonzero(~np.isfinite(atoms.positions).all(1))):
        raise ValueError(f'{name} needs finite positions; those of atoms {bad[:10].tolist()} are NaN or infinite')
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-3:
        raise ValueError(f'{name} needs a cell with three independent vectors, got {cell.tolist()}')
    if not atoms.numbers.all():
        raise ValueError(f'a crystal has elements; {name} has atoms X, which are none')
    if not atoms.pbc.all():
        raise ValueError(f'a crystal is periodic in three directions; {name} has pbc={atoms.pbc.tolist()}: set atoms.pbc = True')
    if partial := partial_sites(atoms):
        raise ValueError(
            f'a crystal has whole atoms; in {name} {partial}: choose an ordered structure and delete atoms.info["occupancy"]'
        )


def check_crystals(images: Iterable[Atoms]) -> list[Atoms]:
    """Return crystals as a list; raise a ValueError where there is none, or one is no crystal."""
    images = as_list(images)
    if not images:
        raise ValueError('a batch holds one or more structures; got none')
    for k, atoms in enumerate(images):
        check_crystal(atoms, f'structure {k}')
    return images
