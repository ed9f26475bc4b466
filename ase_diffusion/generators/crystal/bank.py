"""A table of crystals by anonymous formula, and how near their elements are to others.

The bank that ships holds the training and validation crystals of the Materials Project set of up to 52 atoms, and no formula of
its test split, of which it keeps hashes only. Its file is an npz:

    cells (n, 6)             uint16: lengths in 0.001 A, angles in 0.01 degrees
    scaled (sum, 3)          uint16: fractional coordinates in 1/65536; atoms sorted by element, in the order of ``elements``
    species (n,)             number of different elements
    elements, counts (sum,)  their atomic numbers and numbers of atoms, by (count, atomic number)
    kind (n,), kinds (m,)    structure type: space group at 0.1 A and Wyckoff letters of the occupied sites
    names (n,)               identifiers of the Materials Project
    hull (n,)                energy above the hull of the Materials Project in meV / atom; 0 where it is not known
    volumes (119,)           atomic volumes by least squares, A^3
    similarity (119, k)      points of the elements; their distance is the sum of absolute differences. They were fitted to the
                             training split: exp(-distance) is how much a crystal votes for its structure type
    held_out (t,)            uint32 hashes of the formulas of the test split
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from scipy.optimize import linear_sum_assignment

from ...data import crystals
from ...representations.cells import cells_of_parameters, parameters_of_cells, structure_type
from ...representations.crystal import check_crystal
from ...representations.reduction import niggli
from .geometry import Geometry, geometry

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FILE = Path(crystals.__file__).with_name('prototypes.npz')
LENGTH, ANGLE, PLACE = 1e-3, 1e-2, 2**16  # units of the file: A, degrees, parts of a cell vector
SAME_TYPE = 0.1  # A, of structure types and space groups
KEPT = (-0.01, 0.29)  # log of the packing of a crystal with an element more, from that of the row; scripts/prototypes.py packing
PERMUTED = 6  # most elements of equal count whose every order is tried


class CrystalBank:
    """Crystals with their elements in the order of their counts, by anonymous formula.

    Parameters
    ----------
    table : dict of str to numpy.ndarray
        See the head of this file; lengths in A, angles in degrees and coordinates as float.
    shipped : int
        Rows, the first ones, of the bank that ships, with which the ranking was fitted.
    """

    def __init__(self, table: dict[str, np.ndarray], shipped: int = 0) -> None:
        self.table, self.shipped = table, shipped
        self.natoms = np.add.reduceat(table['counts'].astype(int), _starts(table['species']))
        self._geometries: dict[int, Geometry] = {}

    @classmethod
    def load(cls, path: str | Path = FILE) -> Self:
        """Read a bank that :meth:`save` wrote."""
        with np.load(path) as file:
            table = {name: file[name] for name in file.files}
        units = np.repeat([LENGTH, ANGLE], 3)
        shipped = len(table['kind']) if path == FILE else 0
        return cls({**table, 'cells': table['cells'] * units, 'scaled': table['scaled'] / PLACE}, shipped)

    def save(self, path: str | Path) -> None:
        """Write the bank as a compact file."""
        units = np.repeat([LENGTH, ANGLE], 3)
        cells = np.round(self.table['cells'] / units).astype(np.uint16)
        scaled = (np.round(self.table['scaled'] * PLACE) % PLACE).astype(np.uint16)
        np.savez_compressed(path, **{**self.table, 'cells': cells, 'scaled': scaled})

    def __len__(self) -> int:
        return len(self.natoms)

    def __add__(self, other: CrystalBank) -> Self:
        """Return the bank of both, with the atomic volumes and descriptors of this one."""
        one, two = self.table, other.table
        joined = {
            name: np.concatenate([one[name], two[name]]) for name in ('cells', 'scaled', 'species', 'elements', 'counts', 'hull')
        }
        joined['names'] = np.concatenate([one['names'].astype(str), two['names'].astype(str)])
        kinds, place = np.unique(np.concatenate([one['kinds'], two['kinds']]), return_inverse=True)
        kind = place[np.concatenate([one['kind'], two['kind'].astype(int) + len(one['kinds'])])]
        return type(self)({**one, **joined, 'kind': kind, 'kinds': kinds}, self.shipped)

    @cached_property
    def _first(self) -> tuple[np.ndarray, np.ndarray]:
        """First element and first atom of every row."""
        return _starts(self.table['species']), _starts(self.natoms)

    @cached_property
    def formulas(self) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
        """Rows (m,) and their elements (m, k) for every anonymous formula."""
        counts, elements = self.table['counts'].astype(int), self.table['elements']
        found = defaultdict(list)
        for row, (begin, k) in enumerate(zip(self._first[0].tolist(), self.table['species'].tolist(), strict=True)):
            found[counts[begin : begin + k].tobytes()].append(row)
        groups = defaultdict(list)
        for text, rows in found.items():
            groups[reduced(np.frombuffer(text, dtype=int))].append(rows)
        out = {}
        for key, parts in groups.items():
            rows = np.sort(np.concatenate(parts))
            out[key] = rows, elements[self._first[0][rows][:, None] + np.arange(len(key))]
        return out

    @cached_property
    def orbits(self) -> np.ndarray:
        """How many inequivalent sites the rows (n,) have, at 0.1 A."""
        return np.array([len(str(kind).split()) - 1 for kind in self.table['kinds']])[self.table['kind']]

    @property
    def several(self) -> np.ndarray:
        """Whether the rows (n,) have an element on inequivalent sites, at 0.1 A."""
        return self.orbits > self.table['species']

    @cached_property
    def distances(self) -> np.ndarray:
        """Distances of the elements, (119, 119)."""
        points = self.table['similarity'].astype(float)
        return np.abs(points[:, None] - points[None]).sum(-1)

    def sizes(self, numbers: list[int]) -> list[int]:
        """Return the numbers of atoms of the templates of the anonymous formula of ``numbers``, sorted."""
        rows, _ = self.formulas.get(anonymous(numbers)[0], ((), ()))
        return sorted(set(self.natoms[rows].tolist())) if len(rows) else []

    @cached_property
    def groups(self) -> np.ndarray:
        """Numbers of the space groups of the rows (n,), at 0.1 A."""
        numbers = np.array([int(str(kind).split()[0]) for kind in self.table['kinds']])
        return numbers[self.table['kind']]

    def geometry(self, row: int) -> Geometry:
        """Return the geometry of a row, kinds of sites in the order of its elements."""
        if row not in self._geometries:
            kinds = np.repeat(np.arange(int(self.table['species'][row])), self.row_counts(row))
            self._geometries[row] = geometry(self.scaled(row), self.cells([row])[0], kinds)
        return self._geometries[row]

    @cached_property
    def common(self) -> np.ndarray:
        """How many crystals have each structure type."""
        return np.bincount(self.table['kind'], minlength=len(self.table['kinds']))

    def cells(self, rows: ArrayLike) -> np.ndarray:
        """Return the cells of rows, (m, 3, 3)."""
        cells = self.table['cells'][rows].astype(float)
        return cells_of_parameters(cells[:, :3], cells[:, 3:])

    def assign(self, key: tuple[int, ...], new: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the least difference (m,) to rows of elements ``old`` (m, k), and which of ``new`` (k,) takes each place."""
        parts = [[k for k, _ in part] for _, part in itertools.groupby(enumerate(key), lambda pair: pair[1])]
        cost = self.distances[new][:, old].transpose(1, 0, 2)  # (m, new, old)
        order = np.zeros(old.shape, int)
        for part in parts:
            begin, end = part[0], part[-1] + 1
            block = cost[:, begin:end, begin:end]
            if len(part) > PERMUTED:
                order[:, begin:end] = begin + np.array([linear_sum_assignment(each.T)[1] for each in block])
                continue
            orders = np.array(list(itertools.permutations(range(len(part)))))  # (p, k)
            sums = block[:, orders, np.arange(len(part))].sum(-1)  # (m, p)
            order[:, begin:end] = begin + orders[sums.argmin(1)]
        return np.take_along_axis(cost, order[:, None], 1)[:, 0].sum(-1), order

    def original(self, row: int) -> Atoms:
        """Return a crystal of the bank as it is."""
        begin = self._first[0][row]
        numbers = np.repeat(self.table['elements'][begin : begin + int(self.table['species'][row])], self.row_counts(row))
        return Atoms(numbers, scaled_positions=self.scaled(row), cell=self.cells([row])[0], pbc=True)

    def packing(self, row: int) -> float:
        """Return the volume of a row over the sum of its atomic volumes."""
        begin, counts = self._first[0][row], self.row_counts(row)
        atomic = self.table['volumes'][self.table['elements'][begin : begin + len(counts)]]
        return float(abs(np.linalg.det(self.cells([row])[0])) / (atomic.astype(float) @ counts))

    def volume(self, row: int, sites: np.ndarray) -> float:
        """Return the volume of a row with other elements, A^3.

        The sum of the atomic volumes, packed as the row is; where an element became two, little of its packing is kept: what sets
        the volume of an element on several kinds of sites is mostly this element.

        Parameters
        ----------
        sites : (n,) array
            New atomic numbers of its atoms.
        """
        packing = self.packing(row)
        if len(set(sites)) > self.table['species'][row]:
            packing = np.exp(KEPT[0]) * packing ** KEPT[1]
        return float(packing * self.table['volumes'][sites].astype(float).sum())

    def row_counts(self, row: int) -> np.ndarray:
        """Return the numbers of atoms of the elements of a row."""
        begin = self._first[0][row]
        return self.table['counts'][begin : begin + int(self.table['species'][row])]

    def scaled(self, row: int) -> np.ndarray:
        """Return the fractional coordinates of a row."""
        atom = self._first[1][row]
        return self.table['scaled'][atom : atom + self.natoms[row]].astype(float)

    def name(self, row: int) -> str:
        """Return the identifier of a crystal of the bank."""
        return str(self.table['names'][row])

    def formula(self, row: int) -> str:
        """Return the formula of a crystal of the bank."""
        return self.original(row).symbols.formula.reduce()[0].format('metal')


def rows_of(images: list[Atoms], names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Return the table of crystals in their Niggli cells, without what is said of elements.

    Raises
    ------
    ValueError
        There is none, or one is no crystal.
    """
    if not images:
        raise ValueError('templates are crystals, one or more; got none')
    table, kinds = defaultdict(list), []
    for k, atoms in enumerate(images):
        check_crystal(atoms, f'template {k}')
        numbers, counts = np.unique(atoms.numbers, return_counts=True)
        order = np.lexsort((numbers, counts))
        place = np.zeros(119, int)
        place[numbers[order]] = np.arange(len(order))
        plain = niggli(Atoms(atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions(), pbc=True))
        plain = plain[np.argsort(place[plain.numbers], kind='stable')]
        kinds.append(structure_type(plain, SAME_TYPE))
        table['cells'].append(np.concatenate(parameters_of_cells(plain.cell[:][None]), 1)[0])
        table['scaled'].append(plain.get_scaled_positions())
        table['elements'].append(numbers[order].astype(np.uint8))
        table['counts'].append(counts[order].astype(np.uint16))
    names = [f'template {k}' for k in range(len(images))] if names is None else list(names)
    out = {name: np.concatenate(table[name]) for name in ('scaled', 'elements', 'counts')}
    unique, kind = np.unique(kinds, return_inverse=True)
    return {
        **out,
        'cells': np.array(table['cells']),
        'species': np.array([len(part) for part in table['elements']], np.uint8),
        'kind': kind.astype(np.uint16),
        'kinds': unique,
        'names': np.array(names),
        'hull': np.zeros(len(names), np.uint16),
    }


def formula_hash(numbers: Iterable[int]) -> int:
    """Return a hash of 32 bits of a reduced formula, the same on every machine."""
    counts = Counter(int(z) for z in numbers)
    divisor = int(np.gcd.reduce(list(counts.values())))
    text = ' '.join(f'{chemical_symbols[z]}{counts[z] // divisor}' for z in sorted(counts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'big')


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Return where parts of these lengths begin."""
    return np.concatenate([[0], np.cumsum(lengths.astype(int))[:-1]])


def reduced(counts: ArrayLike) -> tuple[int, ...]:
    """Return counts without their common divisor."""
    counts = np.asarray(counts, int)
    return tuple((counts // np.gcd.reduce(counts)).tolist())


def anonymous(numbers: Iterable[int]) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the anonymous formula, counts in rising order, and the elements (k,) in this order."""
    elements, counts = np.unique(np.asarray(list(numbers), int), return_counts=True)
    order = np.lexsort((elements, counts))
    return reduced(counts[order]), elements[order]
