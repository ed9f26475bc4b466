"""Crystals as clouds of 128 points (Li et al., point cloud-based crystal diffusion, PCCD): one dense field, 3 x 128 x 3."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from ..diffusion import Batch, GeometricVP, JointProcess, Preconditioned
from .base import Failure, PlainRepresentation, is_number, require
from .cells import cells_of_parameters, parameters_of_cells
from .cloudsites import MAX_ATOMS, POINTS, block_sites, clustered_sites, count_blocks
from .crystal import check_crystals

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MAX_ELEMENTS = 3
BAND_GAP_CLASSES = ('metal', 'semiconductor', 'insulator')
SEMICONDUCTOR_GAP = 1.5  # eV; insulators from here on
AUGMENTATIONS = ('elements', 'atoms', 'axes', 'inversion', 'half_shifts')
PAPER_LENGTH = 15.0  # A
# (mean, standard deviation) of the numbers of mp_le20, train split, Niggli cells
SCALES = {
    'log': {'positions': (0.41, 0.287), 'species': (0.38, 0.486), 'angles': (-0.05, 0.30), 'lengths': (-0.10, 0.385)},
    'paper': {name: (0.5, 0.5) for name in ('positions', 'species', 'angles', 'lengths')},
}
_PERMUTATIONS = torch.tensor(list(itertools.permutations(range(3))))  # (6, 3)


@dataclass
class PointCloud(PlainRepresentation):
    """Encode crystals as the field ``cloud`` (B, 3, 128, 3), scaled to about unit variance.

    Channel 0 holds the fractional coordinates: 128 // N consecutive copies of each of N atoms, the remainder more copies of the
    last one. Channel 1 holds the one-hot element of every row over three slots; slots of a binary compound are [A, B, A] and
    those of an element [A, A, A], and all slots of an element are set. Channel 2 holds (alpha, beta, gamma) in rows 0 to 63 and
    (a, b, c) in rows 64 to 127. A left-handed cell is inverted, so that decoding gives the same crystal up to a rotation.

    Parameters
    ----------
    elements : sequence of int, optional
        Atomic numbers that are known, all by default.
    lattice : 'log' or 'paper'
        log(length / 6 A) / 0.84 and (angle - 90) / 60, or length / 15 A and angle / 180, mapped to [-1, 1] as all of the paper.
    cut : float
        Fractional coordinates lie in [-cut, 1 - cut): few atoms of conventional cells sit at a cut slightly below 0.
    scales : dict of str to (mean, std), optional
        Of 'positions', 'species', 'angles' and 'lengths'; the cloud holds (number - mean) / std.
    augmentations : sequence of str
        See :meth:`augment`.
    dtype : torch.dtype
        Precision of networks and sampling.
    """

    kinds: ClassVar[tuple[str, ...]] = ('pointcloud',)
    fields: ClassVar[frozenset[str]] = frozenset({'cloud'})

    elements: tuple[int, ...] | None = None
    lattice: str = 'log'
    cut: float | None = None
    scales: dict[str, tuple[float, float]] | None = None
    augmentations: tuple[str, ...] = AUGMENTATIONS
    dtype: torch.dtype = torch.float32
    _known: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.lattice not in SCALES:
            raise ValueError(f"lattice must be 'log' or 'paper', got {self.lattice!r}")
        if unknown := set(self.augmentations) - set(AUGMENTATIONS):
            raise ValueError(f'unknown augmentations {sorted(unknown)}; known: {", ".join(AUGMENTATIONS)}')
        self.elements = tuple(range(1, len(chemical_symbols))) if self.elements is None else tuple(int(z) for z in self.elements)
        self.cut = (0.05 if self.lattice == 'log' else 0.0) if self.cut is None else float(self.cut)
        scales = SCALES[self.lattice] | (self.scales or {})
        self.scales = {name: (float(mean), float(std)) for name, (mean, std) in scales.items()}
        self.augmentations = tuple(self.augmentations)
        self._known = np.zeros(len(chemical_symbols), bool)
        self._known[list(self.elements)] = True

    # ---------------------------------------------------------------- crystals to clouds

    def encode(self, images: list[Atoms], conditions: dict | None = None) -> Batch:
        """Return a batch of ``images``; see :meth:`assemble`.

        Raises
        ------
        ValueError
            An image is not a crystal, has more than 16 sites, more than three elements or an unknown element.
        """
        images = check_crystals(images)
        return self.assemble(
            np.concatenate([a.get_scaled_positions() for a in images]),
            np.concatenate([a.numbers for a in images]),
            np.stack([np.asarray(a.cell) for a in images]),
            [len(a) for a in images],
            conditions=conditions,
        )

    def assemble(
        self,
        fractional: np.ndarray,
        numbers: np.ndarray,
        cells: np.ndarray,
        counts: Sequence[int] | np.ndarray,
        triples: np.ndarray | None = None,
        conditions: dict | None = None,
    ) -> Batch:
        """Build a batch from flat arrays.

        Parameters
        ----------
        fractional : (n, 3) array
        numbers : (n,) array
            Atomic numbers.
        cells : (B, 3, 3) array
            Lattice vectors in rows, A.
        counts : (B,) array
            Numbers of atoms.
        triples : (B, 3) array, optional
            The elements of the slots; sorted by atomic number by default, see :func:`slots_of`.
        conditions : dict of str to array, optional
            Name -> (B,) or (B, K) numbers.

        Returns
        -------
        Batch
            With ``elements`` (B, 119) among the conditions, and the extras ``counts`` (B,) and ``elements`` (B, 3).
        """
        numbers, counts, cells = np.asarray(numbers, int), np.asarray(counts, int), np.asarray(cells, float)
        self._check(numbers, counts)
        size, ends = len(counts), np.cumsum(counts)
        if triples is None:
            triples = [slots_of(numbers[end - n : end]) for end, n in zip(ends, counts, strict=True)]
        triples = np.asarray(triples, int).reshape(size, 3)
        lengths, angles = parameters_of_cells(cells)
        sign = np.where(np.linalg.det(cells) < 0, -1.0, 1.0)  # of a left-handed cell, all of whose vectors are turned round
        atom = np.minimum(np.arange(POINTS) // (POINTS // counts)[:, None], counts[:, None] - 1) + (ends - counts)[:, None]
        one_hot = numbers[atom][..., None] == triples[:, None]  # (B, 128, 3)
        if not one_hot.any(-1).all():
            k = int(np.nonzero(~one_hot.any(-1).all(-1))[0][0])
            raise ValueError(f'structure {k} has elements that are not among its slots {_symbols(triples[k])}')
        cloud = np.empty((size, 3, POINTS, 3))
        cloud[:, 0] = self._wrapped(sign[:, None, None] * np.asarray(fractional, float)[atom])
        cloud[:, 1] = one_hot
        cloud[:, 2, :64] = self._angle_numbers(angles)[:, None]
        cloud[:, 2, 64:] = self._length_numbers(lengths)[:, None]
        mean, std = self._scale_tensors()
        scaled = ((torch.as_tensor(cloud) - mean) / std).to(self.dtype)
        return self.batch(scaled, counts, triples, conditions)

    def blank(self, counts: Sequence[int] | np.ndarray, triples: ArrayLike, conditions: dict | None = None) -> Batch:
        """Return a batch of empty clouds for sampling; arguments as in :meth:`assemble`.

        Raises
        ------
        ValueError
            More than 16 sites, unknown elements, or fewer atoms than elements.
        """
        counts, triples = np.asarray(counts, int), np.asarray(triples, int).reshape(-1, 3)
        self._check(triples.ravel(), counts)
        for k, (n, triple) in enumerate(zip(counts, triples, strict=True)):
            if n < len(set(triple.tolist())):
                raise ValueError(f'structure {k} needs at least one atom of each of {_symbols(triple)}, got {n} atoms')
        return self.batch(torch.zeros(len(counts), 3, POINTS, 3, dtype=self.dtype), counts, triples, conditions)

    def batch(
        self, cloud: Tensor, counts: Sequence[int] | np.ndarray, triples: ArrayLike, conditions: dict | None = None
    ) -> Batch:
        """Return clouds (B, 3, 128, 3) as a batch; other arguments as in :meth:`assemble`."""
        triples = torch.as_tensor(np.asarray(triples, int)).reshape(len(cloud), 3)
        given = {
            name: torch.as_tensor(np.asarray(values, float), dtype=self.dtype) for name, values in (conditions or {}).items()
        }
        given = {'elements': multi_hot(triples, self.dtype)} | given
        return Batch.dense('cloud', cloud, given, {'counts': torch.as_tensor(np.asarray(counts, int)), 'elements': triples})

    def _check(self, numbers: np.ndarray, counts: np.ndarray) -> None:
        """Raise a ValueError for unknown elements and for too many or too few sites."""
        outside = (numbers < 1) | (numbers >= len(self._known))
        unknown = numbers[outside | ~self._known[np.where(outside, 0, numbers)]]
        if len(unknown):
            raise ValueError(f'unknown elements {_symbols(sorted(set(unknown.tolist())))}; known: {_symbols(self.elements)}')
        for k in np.nonzero((counts > MAX_ATOMS) | (counts < 1))[0][:1]:
            raise ValueError(f'a point cloud has 1 to {MAX_ATOMS} sites; structure {k} has {counts[k]}: use its primitive cell')

    # ---------------------------------------------------------------- clouds to crystals

    def decode(self, batch: Batch, method: Literal['blocks', 'clusters'] = 'blocks') -> list[Atoms | Failure]:
        """Return the crystals of a batch, periodic and right-handed.

        Parameters
        ----------
        batch : Batch
            With the elements of the slots in ``extras['elements']`` (B, 3).
        method : 'blocks' or 'clusters'
            Equal blocks of rows, whose number 1 to 16 follows from the spread within blocks, with the likeliest species among
            those in which every asked element occurs; or, as in the paper, clusters of the points of each element, here on the
            torus and without rounding.

        Raises
        ------
        ValueError
            Another method.
        """
        if method not in ('blocks', 'clusters'):
            raise ValueError(f"method must be 'blocks' or 'clusters', got {method!r}")
        mean, std = self._scale_tensors()
        cloud = batch.fields['cloud'].detach().double().cpu()
        finite = torch.isfinite(cloud).flatten(1).all(1).numpy()
        cloud = torch.nan_to_num(cloud, nan=0.0, posinf=0.0, neginf=0.0) * std + mean
        triples = batch.extras['elements'].cpu().numpy()
        cells = self._cells(cloud[:, 2].numpy())
        solid = np.isfinite(cells).all((1, 2))
        species = shared_slots(cloud[:, 1], torch.as_tensor(triples))  # (B, 128, 3)
        if method == 'blocks':
            slots = torch.as_tensor(triples)
            sites = block_sites(cloud[:, 0], species, slots, *self._block_options(slots))
        else:
            points, species = cloud[:, 0].numpy(), species.numpy()
            sites = [
                clustered_sites(p, s.argmax(-1), c, MAX_ATOMS) if good else (p[:0], s[:0].argmax(-1))
                for p, s, c, good in zip(points, species, cells, solid, strict=True)
            ]
        images = []
        for k, (fractional, slots) in enumerate(sites):
            numbers = triples[k][slots]
            if not finite[k]:
                images.append(Failure('the cloud holds NaN or infinite numbers'))
            elif not solid[k]:
                images.append(Failure('the lattice parameters form no cell'))
            elif set(triples[k].tolist()) - set(numbers.tolist()):
                images.append(Failure('an asked element has no atom'))
            else:
                images.append(Atoms(numbers, positions=fractional % 1.0 % 1.0 @ cells[k], cell=cells[k], pbc=True))
        return images

    def points(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the points of clouds: fractional coordinates (B, 128, 3), atomic numbers (B, 128), cells (B, 3, 3), A.

        A cell that the parameters do not form is NaN.
        """
        mean, std = self._scale_tensors()
        cloud = batch.fields['cloud'].detach().double().cpu() * std + mean
        triples = batch.extras['elements'].cpu()
        slots = shared_slots(cloud[:, 1], triples).argmax(-1)  # (B, 128)
        return cloud[:, 0].numpy(), triples.gather(1, slots).numpy(), self._cells(cloud[:, 2].numpy())

    def spread(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the likeliest number of atoms (B,) and the rms spread within its blocks (B,), in units of the scaled cloud."""
        mean, std = self._scale_tensors()
        cloud = batch.fields['cloud'].detach().double().cpu() * std + mean
        triples = batch.extras['elements'].cpu()
        return count_blocks(cloud[:, 0], shared_slots(cloud[:, 1], triples), *self._block_options(triples))

    def _block_options(self, triples: Tensor) -> tuple[Tensor, float, float]:
        """Return the fewest atoms (B,) and the scales of positions and species."""
        return _distinct(triples), self.scales['positions'][1], self.scales['species'][1]

    def _cells(self, channel: np.ndarray) -> np.ndarray:
        """Return cells (B, 3, 3) in A of channel 2 (B, 128, 3), NaN where the parameters form none."""
        angles, lengths = channel[:, :64].mean(1), channel[:, 64:].mean(1)
        if self.lattice == 'log':
            angles, lengths = 60.0 * angles + 90.0, 6.0 * np.exp(np.clip(0.84 * lengths, -20.0, 20.0))
        else:
            angles, lengths = 180.0 * angles, PAPER_LENGTH * lengths
        return cells_of_parameters(lengths, angles)

    def _angle_numbers(self, angles: np.ndarray) -> np.ndarray:
        return (angles - 90.0) / 60.0 if self.lattice == 'log' else angles / 180.0

    def _length_numbers(self, lengths: np.ndarray) -> np.ndarray:
        return np.log(lengths / 6.0) / 0.84 if self.lattice == 'log' else lengths / PAPER_LENGTH

    def _wrapped(self, fractional):
        """Return coordinates in [-cut, 1 - cut)."""
        return (fractional + self.cut) % 1.0 % 1.0 - self.cut

    def _scale_tensors(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (3, 128, 1), float64."""
        table = torch.empty(2, 3, POINTS, 1, dtype=torch.float64)
        for part, name in (
            ((0, slice(None)), 'positions'),
            ((1, slice(None)), 'species'),
            ((2, slice(0, 64)), 'angles'),
            ((2, slice(64, None)), 'lengths'),
        ):
            for k in range(2):
                table[k][part] = self.scales[name][k]
        return table[0], table[1]

    # ---------------------------------------------------------------- augmentation and process

    def augment(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the same crystals in other words: clean clouds, changed at random.

        'elements' permutes the slots, 'atoms' the order of the atoms, 'axes' the lattice vectors; 'inversion' changes the sign
        of the coordinates of every second crystal; 'half_shifts' moves the origin by halves of lattice vectors, between which
        centers of inversion are equivalent.
        """
        size, asked = batch.size, self.augmentations
        cloud, counts, triples = batch.fields['cloud'].clone(), batch.extras['counts'], batch.extras['elements']
        device = cloud.device

        def permutations() -> Tensor:
            return _PERMUTATIONS[torch.randint(6, (size,), generator=rng, device=rng.device).cpu()].to(device)

        if 'elements' in asked:
            order = permutations()  # (B, 3)
            triples = triples.gather(1, order)
            cloud[:, 1] = cloud[:, 1].gather(-1, order[:, None].expand(-1, POINTS, -1))
        if 'axes' in asked:
            order = permutations()
            for channel in (0, 2):
                cloud[:, channel] = cloud[:, channel].gather(-1, order[:, None].expand(-1, POINTS, -1))
        if 'atoms' in asked:
            rows = shuffled_rows(counts, rng)[:, None, :, None].expand(-1, 2, -1, 3)
            cloud[:, :2] = cloud[:, :2].gather(2, rows)
        cloud[:, 0] = self._moved(cloud[:, 0], rng)
        return replace(batch.with_fields(cloud=cloud), extras={**batch.extras, 'elements': triples})

    def stretched(self, cloud: Tensor, factors: Tensor) -> Tensor:
        """Return clouds (B, 3, 128, 3) whose lattice vectors are ``factors`` (B,) times as long."""
        mean, std = self.scales['lengths']
        lengths = cloud[:, 2, 64:] * std + mean
        factors = factors.to(cloud)[:, None, None]
        lengths = lengths + torch.log(factors) / 0.84 if self.lattice == 'log' else lengths * factors
        out = cloud.clone()
        out[:, 2, 64:] = (lengths - mean) / std
        return out

    def _moved(self, points: Tensor, rng: torch.Generator) -> Tensor:
        """Return scaled coordinates (B, 128, 3) after inversion and shifts of the origin."""
        mean, std = self.scales['positions']
        fractional, size = points * std + mean, len(points)

        def coins(*shape: int) -> Tensor:
            return torch.randint(2, (size, *shape), generator=rng, device=rng.device).to(points)

        if 'inversion' in self.augmentations:
            fractional = fractional * (1 - 2 * coins(1, 1))
        if 'half_shifts' in self.augmentations:
            fractional = fractional + 0.5 * coins(1, 3)
        return (self._wrapped(fractional) - mean) / std

    def process(self, sigma_min: float = 0.02, sigma_max: float = 80.0) -> JointProcess:
        """Return preconditioned Gaussian noise (Karras et al., arXiv 2206.00364); sigma of a single row."""
        return JointProcess({'cloud': Preconditioned(GeometricVP(sigma_min, sigma_max))})

    def check_header(self, header: dict, networks: dict[str, torch.nn.Module]) -> None:
        """Raise a ValueError where a network was trained on another form or scale of the lattice, or there is no process."""
        require('process' in header, 'a model of point clouds has a process', None)
        for number, sizes in header.get('sizes', {}).items():
            fit = int(number) in (1, 2, 3) and all(0 < int(n) <= MAX_ATOMS and is_number(c) and c >= 0 for n, c in sizes.items())
            require(fit and any(sizes.values()), 'sizes are counts of crystals by their numbers of elements and atoms', sizes)
        for network in networks.values():
            form = getattr(network, 'settings', {}).get('lattice', self.lattice)
            require(form == self.lattice, f'a network for the lattice {self.lattice!r} of the representation', form)
            for name, pair in getattr(network, 'settings', {}).get('scales', {}).items():
                require(tuple(pair) == self.scales[name], f'a network for the scale {self.scales[name]} of {name}', pair)

    def todict(self) -> dict:
        """Return the parameters, fit for JSON."""
        return {
            'name': 'PointCloud',
            'elements': list(self.elements),
            'lattice': self.lattice,
            'cut': self.cut,
            'scales': {name: list(pair) for name, pair in self.scales.items()},
            'augmentations': list(self.augmentations),
        }

    @classmethod
    def fromdict(cls, values: dict) -> PointCloud:
        """Rebuild from :meth:`todict`."""
        return cls(**{name: value for name, value in values.items() if name != 'name'})


# -------------------------------------------------------------------- parts


def slots_of(elements: ArrayLike) -> tuple[int, int, int]:
    """Return the elements of the three slots: [A, B, C], [A, B, A] or [A, A, A], sorted by atomic number.

    Raises
    ------
    ValueError
        There are none, or more than three.
    """
    distinct = sorted({int(z) for z in np.asarray(elements).ravel()})
    if not 1 <= len(distinct) <= MAX_ELEMENTS:
        raise ValueError(f'a point cloud has 1 to {MAX_ELEMENTS} elements, got {len(distinct)}: {_symbols(distinct) or "none"}')
    return tuple((distinct * 2)[:2] + [distinct[2] if len(distinct) == 3 else distinct[0]])


def fractions_of(crystals: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return the fractions (n, 3) of the elements of slots (n, 3) in crystals of these atomic numbers.

    That of an element in several slots is divided equally.
    """
    slots = np.array([slots_of(numbers) for numbers in crystals])
    share = [[np.mean(np.asarray(numbers) == z) for z in triple] for numbers, triple in zip(crystals, slots, strict=True)]
    fractions = np.array(share) / (slots[:, :, None] == slots[:, None]).sum(-1)
    return torch.as_tensor(fractions, dtype=torch.float32), torch.as_tensor(slots)


def multi_hot(triples: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return sets of elements (B, 119) of the elements of slots (B, 3)."""
    return torch.zeros(len(triples), len(chemical_symbols), dtype=dtype, device=triples.device).scatter_(1, triples, 1.0)


def band_gap_class(gaps: ArrayLike) -> np.ndarray:
    """Return 0 (metal), 1 (semiconductor, below 1.5 eV) or 2 (insulator) as float, NaN where the gap (eV) is NaN."""
    gaps = np.asarray(gaps, float)
    classes = (gaps > 0).astype(float) + (gaps >= SEMICONDUCTOR_GAP)
    return np.where(np.isfinite(gaps), classes, np.nan)


def shared_slots(species: Tensor, triples: Tensor) -> Tensor:
    """Average channel 1 (B, 128, 3) over the slots (B, 3) that have the same element."""
    same = (triples[:, :, None] == triples[:, None]).to(species)
    return species @ (same / same.sum(-1, keepdim=True))


def shuffled_rows(counts: Tensor, rng: torch.Generator) -> Tensor:
    """Return the rows (B, 128) to take so that the atoms of each cloud come in random order."""
    size, device = len(counts), counts.device
    copies = POINTS // counts[:, None]  # (B, 1)
    keys = torch.rand(size, MAX_ATOMS, generator=rng, device=rng.device).to(device)
    order = torch.where(torch.arange(MAX_ATOMS, device=device) < counts[:, None], keys, 2.0).argsort(-1)  # (B, 16)
    atom = torch.minimum(torch.arange(POINTS, device=device) // copies, counts[:, None] - 1)
    return order.gather(1, atom) * copies


def _distinct(triples: Tensor) -> Tensor:
    """Return the number of different elements (B,) of slots (B, 3)."""
    return 1 + (triples.sort(-1).values.diff(dim=-1) != 0).sum(-1)


def _symbols(numbers: Iterable[int]) -> str:
    """Return the symbols of atomic numbers, once each."""
    return ', '.join(chemical_symbols[z] if 0 < z < len(chemical_symbols) else str(z) for z in dict.fromkeys(map(int, numbers)))
