"""Crystals as images of 4 x 64 x 64 numbers, CrysTens (Alverson et al., Digital Discovery 3, 62, 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from ase import Atoms

from ..diffusion import Batch, GeometricVP, JointProcess, Preconditioned
from ..networks.image_layout import ATOMS, CELL, FIELDS, HEADER, LENGTH, PRESENT, SIZE, build_image, pair_block, strips
from ..networks.site_symmetry import FORMS, projections
from .base import Failure, PlainRepresentation, is_number, require
from .cells import cells_of_parameters, operations_of, parameters_of_cells, right_handed, space_group
from .clustering import k_means, merge_close
from .crystal import check_crystals

CHUNK = 256  # images decoded at once, in float64
SAME_SITE = 1e-5  # two atoms of one element whose fractional coordinates are closer than this are one
ERRORS = 4.5  # values that differ by fewer standard errors are one: two equal ones differ by more once in 700 times
# mean and standard deviation of the fields in 14,228 conventional cells of the Materials Project; lengths as logarithms
MEAN = (28.94, 0.4254, 0.4329, 0.4527, 1.859, 1.87, 2.091, 89.97, 93.4, 95.48, 103.7, 0.0, 0.6684, 0.0, 0.0, 0.0)
STD = (23.5, 0.2935, 0.292, 0.2923, 0.3862, 0.4092, 0.4491, 3.778, 9.46, 12.35, 78.97, 1.0, 0.2349, 0.4089, 0.4081, 0.4101)
# paper, section 3.1: ranges of its data, lengths in A
LOW = (1.0, 0.0, 0.0, 0.0, 1.76, 1.76, 2.17, 59.8, 59.7, 58.9, 1.0, -1.0, 0.0214, -1.0, -1.0, -1.0)
HIGH = (99.0, 1.0, 1.0, 1.0, 42.66, 45.18, 116.2, 120.0, 138.4, 120.0, 230.0, 1.0, 1.6547, 1.0, 1.0, 1.0)
_LENGTHS = np.isin(FIELDS, ('a', 'b', 'c'))


@dataclass
class CrysTens(PlainRepresentation):
    """Encode crystals of at most 52 atoms as the field ``image`` (B, 4, 64, 64).

    Every number of a field enters as (value - shift) / scale, in float32: Z, fractional x, y, z, the lengths in A (by default
    their logarithms), angles in degrees, the number of the space group, the length and the parts of f_i - f_j. By default shift
    and scale are mean and standard deviation of the data, so that what EDM noises has unit variance. Row 11, padding in the
    paper, is 1 where there is an atom and -1 where there is none: a value of the other fields never says so. Atoms are sorted
    by Z, x, y, z.

    Parameters
    ----------
    shift, scale : 16 floats
        Of the fields of :data:`ase_diffusion.networks.image_layout.FIELDS`; see :meth:`of` and :meth:`published`.
    absent : float
        Pixels without an atom, and of atoms with themselves; 0 in channels 1 to 3 of the pair block.
    log_lengths : bool
        Whether lengths enter as logarithms.
    clusters : (int, int), optional
        K of K-means on Z and on coordinates, (3, 6) in the paper. By default the number of clusters follows from the gaps between
        the values, on the circle for coordinates: values that differ by less than 4.5 standard errors of the image's own copies,
        or than the tolerances below, are one.
    tolerance : (float, float, float)
        Least tolerances of Z, of fractional coordinates and of angles (degrees) to 60, 90 and 120.
    guesses : bool
        Whether the pair block has a say in where atoms are (paper, fig. 3), or their own coordinates only.
    dtype : torch.dtype
    """

    kinds: ClassVar[tuple[str, ...]] = ('crystens',)
    fields: ClassVar[frozenset[str]] = frozenset({'image'})

    shift: tuple[float, ...] = MEAN
    scale: tuple[float, ...] = STD
    absent: float = 0.0
    log_lengths: bool = True
    clusters: tuple[int, int] | None = None
    tolerance: tuple[float, float, float] = (0.5, 1e-6, 1e-4)
    guesses: bool = True
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self.shift, self.scale, self.tolerance = (tuple(float(x) for x in v) for v in (self.shift, self.scale, self.tolerance))
        self.absent = float(self.absent)
        self.clusters = None if self.clusters is None else tuple(int(k) for k in self.clusters)
        if len(self.shift) != len(FIELDS) or len(self.scale) != len(FIELDS) or min(self.scale) <= 0:
            raise ValueError(f'shift and scale hold {len(FIELDS)} numbers, scale positive ones; got {self.shift}, {self.scale}')
        if any(self.shift[13:]):
            raise ValueError(f'the shift of dx, dy, dz is 0, since these channels are antisymmetric; got {self.shift[13:]}')
        if self.clusters is not None and (len(self.clusters) != 2 or min(self.clusters) < 1):
            raise ValueError(f'clusters are two positive numbers, of Z and of coordinates, or None; got {self.clusters}')

    @classmethod
    def of(
        cls, images: list[Atoms], *, scaling: Literal['standard', 'minmax'] = 'standard', log_lengths: bool = True, **options: Any
    ) -> CrysTens:
        """Measure shift and scale of crystals.

        Parameters
        ----------
        images : list of Atoms
        scaling : 'standard' or 'minmax'
            Mean and standard deviation, or the ranges of the data to [-1, 1] with -1 where there is no atom (paper).
        log_lengths : bool
        **options
            Of the class.
        """
        return cls.of_table(*table_of(images), scaling=scaling, log_lengths=log_lengths, **options)

    @classmethod
    def of_table(
        cls,
        atoms: np.ndarray,
        cell: np.ndarray,
        counts: np.ndarray,
        *,
        scaling: Literal['standard', 'minmax'] = 'standard',
        log_lengths: bool = True,
        **options: Any,
    ) -> CrysTens:
        """Measure shift and scale of the arrays of :func:`table_of`."""
        cell = _with_logarithms(cell) if log_lengths else cell
        here = np.arange(ATOMS) < counts[:, None]
        f = atoms[..., 1:]
        both = here[:, :, None] & here[:, None] & ~np.eye(ATOMS, dtype=bool)
        rows = np.linspace(0, len(f) - 1, min(len(f), 2000)).astype(int)  # pairs are many
        d = (f[rows][:, :, None] - f[rows][:, None])[both[rows]]
        pairs = [np.linalg.norm(d, axis=-1), *d.T]
        values = [*atoms[here].T, *cell.T, np.array([-1.0, 1.0]), *(p if len(p) else np.array([-1.0, 1.0]) for p in pairs)]
        if scaling == 'standard':
            shift = np.array([v.mean() for v in values])
            scale = np.array([v.std() for v in values])
        elif scaling == 'minmax':
            low, high = np.array([v.min() for v in values]), np.array([v.max() for v in values])
            low[1:4], high[1:4], low[13:], high[13:] = 0.0, 1.0, -1.0, 1.0
            shift, scale = (high + low) / 2, (high - low) / 2
            options = {'absent': -1.0} | options
        else:
            raise ValueError(f"scaling is 'standard' or 'minmax', got {scaling!r}")
        shift[13:] = 0.0
        return cls(tuple(shift), tuple(np.where(scale > 1e-6, scale, 1.0)), log_lengths=log_lengths, **options)

    @classmethod
    def published(cls, **options: Any) -> CrysTens:
        """Return the min-max ranges and the clusters of the paper; what lies outside the ranges leaves [-1, 1]."""
        low, high = np.array(LOW), np.array(HIGH)
        ranges = dict(shift=(high + low) / 2, scale=(high - low) / 2, absent=-1.0, log_lengths=False)
        return cls(**ranges | dict(clusters=(3, 6)) | options)

    def encode(self, images: list[Atoms], conditions: dict | None = None) -> Batch:
        """Return a batch of ``images``; the numbers of atoms are in ``extras['counts']`` (B,).

        Parameters
        ----------
        images : list of Atoms
            Cells as they are, see :func:`ase_diffusion.representations.cells.conventional`. The space group is that of
            ``info['key_value_pairs']['space_group']``, else what spglib finds.
        conditions : dict, optional
            Name -> B numbers, or (B, K) for sets.

        Raises
        ------
        ValueError
            An image has more than 52 atoms, partly occupied sites, no three periodic directions or no volume.
        """
        return self.assemble(*table_of(images), conditions)

    def assemble(self, atoms: np.ndarray, cell: np.ndarray, counts: np.ndarray, conditions: dict | None = None) -> Batch:
        """Build a batch from the arrays of :func:`table_of`."""
        counts = torch.as_tensor(np.asarray(counts), dtype=torch.long)
        cell = _with_logarithms(cell) if self.log_lengths else np.asarray(cell)
        shift, scale = (torch.tensor(v, dtype=torch.float64) for v in (self.shift, self.scale))
        image = torch.empty(len(counts), 4, SIZE, SIZE, dtype=self.dtype)
        for k in range(0, len(counts), CHUNK):
            part = slice(k, k + CHUNK)
            image[part] = build_image(
                torch.as_tensor(atoms[part]), torch.as_tensor(cell[part]), counts[part], shift, scale, self.absent
            )
        given = {name: torch.as_tensor(np.asarray(v, float), dtype=self.dtype) for name, v in (conditions or {}).items()}
        return Batch.dense('image', image, given, {'counts': counts})

    def decode(self, batch: Batch) -> list[Atoms | Failure]:
        """Return the crystals of a batch, periodic and wrapped, or why there is none.

        ``info['key_value_pairs']['space_group']`` is the number in the image, not that of the atoms.

        Raises
        ------
        ValueError
            The field ``image`` has another shape.
        """
        image = self._check(batch.fields['image'])
        return [found for part in image.split(CHUNK) for found in self._decode(part)]

    def variances(self, image: torch.Tensor) -> dict[str, np.ndarray]:
        """Return how far the copies of an image agree before they are averaged (paper, tables 1 and 2), each (B,).

        Returns
        -------
        dict
            ``lattice`` (A^2), ``angle`` (deg^2), ``space_group``, ``coordinate``: variances over the 8 A (8) copies, mean of the
            three lengths, angles or axes and the atoms. ``agreement``: mean of |own - final coordinate|, ``agreement_per_atom``:
            that by A. ``pair_difference``: sum over all pairs of |channel 0 - distance of the final coordinates| by A.
            ``atoms``: A. NaN for images without an atom.
        """
        image = self._check(image)
        parts = [self._read(part)[0] for part in image.split(CHUNK)]
        names = ('atoms', 'lattice', 'angle', 'space_group', 'coordinate', 'agreement', 'agreement_per_atom', 'pair_difference')
        return {name: np.concatenate([part[name] for part in parts] or [np.empty(0)]) for name in names}

    def raw(self, image: torch.Tensor) -> torch.Tensor:
        """Return images (B, 4, 64, 64) in the units of the paper: lengths in A, 0 in the padding and where there is no atom."""
        image = self._check(image)
        counts = torch.as_tensor(self._counts(image))
        here = (torch.arange(ATOMS) < counts[:, None]).to(image)
        out = torch.zeros_like(image)
        copies = self._unscaled(image)  # (B, 4, 2, 12, 52)
        copies[:, :, :, PRESENT] = 0.0
        copies = copies * here[:, None, None, None]
        out[:, :, :HEADER, HEADER:], out[:, :, HEADER:, :HEADER] = copies[:, :, 0], copies[:, :, 1].transpose(2, 3)
        shift, scale = (torch.tensor(v[LENGTH:], dtype=torch.float64)[:, None, None] for v in (self.shift, self.scale))
        both = here[:, :, None] * here[:, None] * (1 - torch.eye(ATOMS).to(image))
        out[:, :, HEADER:, HEADER:] = (image[:, :, HEADER:, HEADER:] * scale + shift) * both[:, None]
        return out

    def process(self, sigma_min: float = 0.004, sigma_max: float = 80.0) -> JointProcess:
        """Return EDM noise. It reaches 80 standard deviations, since the mean of 8 A copies still knows a number at 10."""
        return JointProcess({'image': Preconditioned(GeometricVP(sigma_min, sigma_max))})

    def check_header(self, header: dict, networks: dict[str, torch.nn.Module]) -> None:
        """Raise a ValueError where a network that needs the numbers of atoms has none, or was trained on other scales."""
        for network in networks.values():
            if 'tied' not in network.settings:
                continue
            mine = self.todict()
            same = all(network.settings[name] == mine[name] for name in ('shift', 'scale', 'absent', 'log_lengths'))
            require(same, 'network and representation have the same shift and scale', network.settings['shift'])
            sizes = header.get('sizes')
            counts = sizes and all(0 < int(n) <= ATOMS and is_number(count) and count > 0 for n, count in sizes.items())
            require(counts, f'sizes are counts of crystals by their number of atoms, at most {ATOMS}', sizes)
            groups = header.get('groups', {})
            tables = all(n in sizes and all(is_number(k) and k > 0 for k in found.values()) for n, found in groups.items())
            require(tables, 'groups are counts of crystals by number of atoms and space group', groups)

    def todict(self) -> dict:
        """Return class name and parameters, JSON-serialisable."""
        values = {f.name: getattr(self, f.name) for f in fields_of(self) if f.name != 'dtype'}
        return {'name': 'CrysTens'} | {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def fromdict(cls, values: dict) -> CrysTens:
        """Rebuild from :meth:`todict`."""
        return cls(**{name: value for name, value in values.items() if name != 'name'})

    def _check(self, image: torch.Tensor) -> torch.Tensor:
        if image.dim() != 4 or tuple(image.shape[1:]) != (4, SIZE, SIZE):
            raise ValueError(f'images have the shape (B, 4, {SIZE}, {SIZE}), got {tuple(image.shape)}')
        return image.detach().double().cpu()

    def _counts(self, image: torch.Tensor) -> np.ndarray:
        """Return the numbers of atoms (B,): the A that fits best to 'the first A slots hold an atom'."""
        sign = strips(image)[:, :, :, PRESENT].mean((1, 2))  # (B, 52)
        total = torch.cat([torch.zeros_like(sign[:, :1]), torch.nan_to_num(sign).cumsum(1)], 1)
        return total.argmax(1).numpy()

    def _unscaled(self, image: torch.Tensor) -> torch.Tensor:
        """Return the copies (B, 4, 2, 12, 52) of the header in their units."""
        shift, scale = (torch.tensor(v[:HEADER], dtype=torch.float64)[:, None] for v in (self.shift, self.scale))
        copies = strips(image) * scale + shift
        if self.log_lengths:
            copies[:, :, :, 4:7] = copies[:, :, :, 4:7].clamp(-20.0, 20.0).exp()
        return copies

    def _read(self, image: torch.Tensor) -> tuple[dict, dict]:
        """Return statistics of the copies, each (B,), and averages with their standard errors, of float64 images."""
        counts = self._counts(image)
        n = torch.as_tensor(counts).double().clamp(min=1)
        here = (torch.arange(ATOMS) < torch.as_tensor(counts)[:, None]).double()  # (B, 52)
        copies = self._unscaled(image).flatten(1, 2)  # (B, 8, 12, 52)
        cell, weight = copies[:, :, CELL], here[:, None, None] / (8 * n)[:, None, None, None]
        cell_mean = (cell * weight).sum((1, 3))  # (B, 7)
        cell_var = ((cell - cell_mean[:, None, :, None]).square() * weight).sum((1, 3))
        own, own_var = copies[:, :, :4].mean(1), copies[:, :, :4].var(1, unbiased=False)  # (B, 4, 52)
        length, d = pair_block(image)
        both = here[:, :, None] * here[:, None]
        d = d * torch.tensor(self.scale[13:], dtype=torch.float64)[:, None, None] * both[:, None]  # (B, 3, 52, 52)
        f = own[:, 1:] * here[:, None]
        guess = (f[..., None] - d) * both[:, None]  # (B, 3, 52, 52): of atom j by atom i; that of itself for i = j
        final = guess.sum(2) / n[:, None, None]  # (B, 3, 52)
        guess_var = ((guess - final[:, :, None]).square() * both[:, None]).sum(2) / n[:, None, None]
        rebuilt = (final[..., :, None] - final[..., None, :]).square().sum(1).sqrt()
        length = length * self.scale[LENGTH] + self.shift[LENGTH]
        pairs = ((length - rebuilt).abs() * both * (1 - torch.eye(ATOMS))).sum((1, 2)) / n

        def mean(x):  # (B, 3, 52) -> (B,)
            return (x * here[:, None]).sum((1, 2)) / (x.shape[1] * n)

        agreement = mean((f - final).abs())
        statistics = {
            'atoms': n,
            'lattice': cell_var[:, :3].mean(1),
            'angle': cell_var[:, 3:6].mean(1),
            'space_group': cell_var[:, 6],
            'coordinate': mean(own_var[:, 1:]),
            'agreement': agreement,
            'agreement_per_atom': agreement / n,
            'pair_difference': pairs,
        }
        empty = torch.as_tensor(counts) == 0
        statistics = {name: x.masked_fill(empty, float('nan')).numpy() for name, x in statistics.items()}
        site_error = torch.maximum(mean(own_var[:, 1:]) / 8, mean(guess_var) / n).sqrt()
        averages = {
            'counts': counts,
            'cell': cell_mean,
            'Z': own[:, 0],
            'sites': final if self.guesses else f,
            'Z_error': (mean(own_var[:, :1]) / 8).sqrt(),
            'site_error': site_error,
            'angle_error': (cell_var[:, 3:6].mean(1) / (8 * n)).sqrt(),
        }
        return statistics, {name: np.asarray(x) for name, x in averages.items()}

    def _decode(self, image: torch.Tensor) -> list[Atoms | Failure]:
        finite = torch.isfinite(image).flatten(1).all(1).numpy()
        read = self._read(torch.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0))[1]
        counts = np.where(finite, read['counts'], 0)
        z, sites, kept = self._clustered(read, counts)
        angles = self._snapped(read['cell'][:, 3:6], read['angle_error'])
        cells = cells_of_parameters(read['cell'][:, :3], angles)
        group = np.clip(np.round(np.nan_to_num(read['cell'][:, 6])), 1, 230).astype(int)
        out = []
        for k, n in enumerate(counts):
            if not finite[k]:
                out.append(Failure('the image holds NaN or infinite numbers'))
            elif n == 0:
                out.append(Failure('no atom is present'))
            elif not np.isfinite(cells[k]).all():
                out.append(Failure('no cell has these lengths and angles'))
            else:
                mine = kept[k]
                atoms = Atoms(z[k, mine], positions=sites[k, mine] @ cells[k], cell=cells[k], pbc=True)
                atoms.info['key_value_pairs'] = {'space_group': int(group[k])}
                out.append(atoms)
        return out

    def _clustered(self, read: dict, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Z (B, 52), sites (B, 52, 3) in [0, 1) and which slots hold an atom of its own, bool (B, 52)."""
        here = np.arange(ATOMS) < counts[:, None]
        rows = np.repeat(np.arange(len(counts)), counts)
        z, sites = read['Z'][here], read['sites'].transpose(0, 2, 1)[here]  # (n,), (n, 3)
        if self.clusters is None:
            z = merge_close(z, rows, np.clip(ERRORS * read['Z_error'], self.tolerance[0], 3.0))
            near = np.clip(ERRORS * read['site_error'], self.tolerance[1], max(0.03, self.tolerance[1]))
            sites = merge_close(sites.ravel(), np.repeat(rows, 3), near, 1.0).reshape(-1, 3)
        else:
            z = k_means(z, rows, len(counts), self.clusters[0])
            sites = k_means(sites.ravel(), np.repeat(rows, 3), len(counts), self.clusters[1]).reshape(-1, 3)
        numbers, places = np.zeros(here.shape, int), np.zeros((*here.shape, 3))
        numbers[here] = np.clip(np.round(z), 1, 118).astype(int)
        sites = sites % 1.0
        places[here] = np.where(sites > 1 - 1e-9, 0.0, sites)
        first, second = np.triu_indices(ATOMS, 1)
        kept = here.copy()
        gap = places[:, first] - places[:, second]
        same = (np.abs(gap - np.round(gap)) < SAME_SITE).all(-1) & (numbers[:, first] == numbers[:, second]) & here[:, second]
        row, pair = np.nonzero(same)
        kept[row, second[pair]] = False
        return numbers, places, kept

    def _snapped(self, angles: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Return angles (B, 3), those as close to 60, 90 or 120 degrees as their errors (B,) allow being just that."""
        tolerance = np.clip(ERRORS * error, self.tolerance[2], max(0.5, self.tolerance[2]))[:, None]
        for usual in (60.0, 90.0, 120.0):
            angles = np.where(np.abs(angles - usual) <= tolerance, usual, angles)
        return angles


def table_of(images: list[Atoms]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Z and fractional coordinates (B, 52, 4), lengths, angles and space groups (B, 7) and numbers of atoms (B,).

    Atoms are sorted by Z, x, y, z, and wrapped into [0, 1).

    Raises
    ------
    ValueError
        See :meth:`CrysTens.encode`.
    """
    images = [right_handed(atoms) for atoms in check_crystals(images)]
    for k, atoms in enumerate(images):
        if len(atoms) > ATOMS:
            formula = atoms.get_chemical_formula()
            raise ValueError(f'an image holds at most {ATOMS} atoms; structure {k} ({formula}) has {len(atoms)}')
    counts = np.array([len(atoms) for atoms in images], int)
    table, cells = np.zeros((len(images), ATOMS, 4)), np.zeros((len(images), 3, 3))
    for k, atoms in enumerate(images):
        cells[k] = atoms.cell
        f = np.linalg.solve(cells[k].T, atoms.positions.T).T
        f -= np.floor(f)
        f[f > 1 - 1e-6] = 0.0
        x, y, z = np.round(f, 5).T  # equal coordinates come in the order of the next axis
        order = np.lexsort((z, y, x, atoms.numbers))
        table[k, : len(atoms), 0], table[k, : len(atoms), 1:] = atoms.numbers[order], f[order]
    lengths, angles = parameters_of_cells(cells)
    groups = np.array([space_group(atoms) for atoms in images], float).reshape(-1, 1)
    return table, np.concatenate([lengths, angles, groups], 1), counts


def sites_of(atoms: np.ndarray, groups: np.ndarray, counts: np.ndarray, slots: int = 1) -> dict[str, torch.Tensor]:
    """Return what symmetry says of sites, the extras of :func:`ase_diffusion.networks.site_symmetry.site_symmetry`.

    Parameters
    ----------
    atoms : (B, 52, 4) array
        Z and fractional coordinates, as in :func:`table_of`; only where symmetry leaves no freedom do they matter.
    groups : (B,) int array
        Space groups of conventional cells; where a crystal does not have the operations, or for 0, nothing is said of it.
    counts : (B,) int array
    slots : int
        Least number of slots; by default as many as the largest crystal has atoms.
    """
    width, size = int(max(slots, *counts)), len(counts)
    eye = torch.einsum('ij,kl->ikjl', torch.eye(width), torch.eye(3))
    found = [eye.repeat(size, 1, 1, 1, 1), torch.zeros(size, width, 3), torch.arange(width).repeat(size, 1)]
    known = torch.zeros(size, dtype=torch.long)
    for k, (number, n) in enumerate(zip(np.asarray(groups, int), counts, strict=True)):
        if number == 0:
            continue
        operations = (torch.as_tensor(x, dtype=torch.float32) for x in operations_of(int(number)))
        f = torch.as_tensor(atoms[k : k + 1, :n, 1:], dtype=torch.float32)
        projection, offset, orbits, right = projections(f, torch.tensor([n]), *operations)
        if bool(right):
            found[0][k, :n, :, :n], found[1][k, :n], found[2][k, :n], known[k] = projection[0], offset[0], orbits[0], int(number)
    return dict(zip(FORMS, (*found, known), strict=True))


def _with_logarithms(cell: np.ndarray) -> np.ndarray:
    cell = np.array(cell, float)
    cell[:, :3] = np.log(cell[:, :3])
    return cell
