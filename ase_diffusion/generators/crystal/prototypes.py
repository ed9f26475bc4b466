"""Structures by substitution: crystals of the same anonymous formula, elements exchanged, volume scaled.

The bank that ships holds the training and validation crystals of the Materials Project set of up to 52 atoms, and no formula of
its test split, of which it keeps hashes only. Its file is an npz:

    cells (n, 6)             uint16: lengths in 0.001 A, angles in 0.01 degrees
    scaled (sum, 3)          uint16: fractional coordinates in 1/65536; atoms sorted by element, in the order of ``elements``
    species (n,)             number of different elements
    elements, counts (sum,)  their atomic numbers and numbers of atoms, by (count, atomic number)
    kind (n,), kinds (m,)    structure type: space group at 0.1 A and Wyckoff letters of the occupied sites
    names (n,)               identifiers of the Materials Project
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
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from scipy.optimize import linear_sum_assignment

from ...data import crystals
from ...representations.cells import cells_of_parameters, parameters_of_cells, structure_type
from ...representations.crystal import check_crystal
from ...representations.reduction import niggli, symmetrize

FILE = Path(crystals.__file__).with_name('prototypes.npz')
LENGTH, ANGLE, PLACE = 1e-3, 1e-2, 2**16  # units of the file: A, degrees, parts of a cell vector
SAME_TYPE = 0.1  # A, of structure types and space groups
EXACT = 0.02  # A, within which a template is averaged over its symmetry: rounding of the file
VOTERS = 20  # nearest templates that vote for their structure type, with weights exp(-difference)
TAKEN = 20  # templates of a composition, by default
PERMUTED = 6  # most elements of equal count whose every order is tried


@dataclass(frozen=True)
class Template:
    """A crystal of the bank and how its elements are exchanged.

    Attributes
    ----------
    row : int
        Of the bank.
    elements : tuple of int
        New atomic numbers, in the order of the elements of the row.
    difference : float
        Sum of the distances between old and new elements; 0 for a crystal of this very formula.
    """

    row: int
    elements: tuple[int, ...]
    difference: float


class Prototypes:
    """A bank of crystals from which structures of other compositions are taken by substitution.

    Parameters
    ----------
    table : dict of str to numpy.ndarray
        See the head of this file; lengths in A, angles in degrees and coordinates as float.
    """

    def __init__(self, table: dict[str, np.ndarray]) -> None:
        self.table = table
        self.natoms = np.add.reduceat(table['counts'].astype(int), _starts(table['species']))

    @classmethod
    def load(cls, path: str | Path = FILE) -> Prototypes:
        """Read a bank that :meth:`save` wrote."""
        with np.load(path) as file:
            table = {name: file[name] for name in file.files}
        units = np.repeat([LENGTH, ANGLE], 3)
        return cls({**table, 'cells': table['cells'] * units, 'scaled': table['scaled'] / PLACE})

    @classmethod
    def from_atoms(cls, images: Iterable[Atoms], names: Iterable[str] | None = None) -> Prototypes:
        """Return a bank of crystals; atomic volumes and descriptors of elements are those of the bank that ships.

        Raises
        ------
        ValueError
            There is none, or one is no crystal.
        """
        table = {key: shipped_prototypes().table[key] for key in ('volumes', 'similarity')}
        return cls({**rows_of(list(images), names), **table})

    def save(self, path: str | Path) -> None:
        """Write the bank as a compact file."""
        units = np.repeat([LENGTH, ANGLE], 3)
        cells = np.round(self.table['cells'] / units).astype(np.uint16)
        scaled = (np.round(self.table['scaled'] * PLACE) % PLACE).astype(np.uint16)
        np.savez_compressed(path, **{**self.table, 'cells': cells, 'scaled': scaled})

    def __len__(self) -> int:
        return len(self.natoms)

    def __add__(self, other: Prototypes) -> Prototypes:
        """Return the bank of both, with the atomic volumes and descriptors of this one."""
        one, two = self.table, other.table
        joined = {name: np.concatenate([one[name], two[name]]) for name in ('cells', 'scaled', 'species', 'elements', 'counts')}
        joined['names'] = np.concatenate([one['names'].astype(str), two['names'].astype(str)])
        kinds, place = np.unique(np.concatenate([one['kinds'], two['kinds']]), return_inverse=True)
        kind = place[np.concatenate([one['kind'], two['kind'].astype(int) + len(one['kinds'])])]
        return Prototypes({**one, **joined, 'kind': kind, 'kinds': kinds})

    @cached_property
    def _first(self) -> tuple[np.ndarray, np.ndarray]:
        """First element and first atom of every row."""
        return _starts(self.table['species']), _starts(self.natoms)

    @cached_property
    def _groups(self) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
        """Rows (m,) and their elements (m, k) for every anonymous formula."""
        counts, elements = self.table['counts'].astype(int), self.table['elements']
        found = defaultdict(list)
        for row, (begin, k) in enumerate(zip(self._first[0].tolist(), self.table['species'].tolist(), strict=True)):
            found[counts[begin : begin + k].tobytes()].append(row)
        groups = defaultdict(list)
        for text, rows in found.items():
            groups[_reduced(np.frombuffer(text, dtype=int))].append(rows)
        out = {}
        for key, parts in groups.items():
            rows = np.sort(np.concatenate(parts))
            out[key] = rows, elements[self._first[0][rows][:, None] + np.arange(len(key))]
        return out

    @cached_property
    def _distances(self) -> np.ndarray:
        """Distances of the elements, (119, 119)."""
        points = self.table['similarity'].astype(float)
        return np.abs(points[:, None] - points[None]).sum(-1)

    def __contains__(self, numbers: list[int]) -> bool:
        return anonymous(numbers)[0] in self._groups

    def sizes(self, numbers: list[int]) -> list[int]:
        """Return the numbers of atoms of the templates of the anonymous formula of ``numbers``, sorted."""
        rows, _ = self._groups.get(anonymous(numbers)[0], ((), ()))
        return sorted(set(self.natoms[rows].tolist())) if len(rows) else []

    def space_group(self, row: int) -> int:
        """Return the number of the space group of a row, at 0.1 A."""
        return int(str(self.table['kinds'][self.table['kind'][row]]).split()[0])

    def find(
        self, numbers: list[int], limit: int = TAKEN, *, space_group: int | None = None, votes: bool = True
    ) -> list[Template]:
        """Return templates for a cell of these atoms, the most likely first.

        Templates of as many atoms come before smaller ones, of which the cell has several copies. The nearest 20 vote for their
        structure types, and one of each structure type comes before the others.

        Parameters
        ----------
        numbers : list of int
            Atomic numbers of the atoms of the cell.
        limit : int
            Most templates.
        space_group : int, optional
            The only one that is wanted.
        votes : bool
            False: the order is that of the differences.
        """
        key, new = anonymous(numbers)
        rows, elements = self._groups.get(key, (np.zeros(0, int), np.zeros((0, len(key)), int)))
        fits = len(numbers) % self.natoms[rows] == 0
        if space_group is not None:
            groups = np.array([int(str(kind).split()[0]) for kind in self.table['kinds']])
            fits &= groups[self.table['kind'][rows]] == space_group
        rows, elements = rows[fits], elements[fits]
        if not len(rows):
            return []
        difference, order = self._assign(key, new, elements)
        ranked = np.lexsort((rows, difference, -self.natoms[rows]))
        ranked = (self._by_votes(ranked, rows, difference) if votes else ranked)[:limit]
        return [Template(int(rows[k]), tuple(new[order[k]].tolist()), float(difference[k])) for k in ranked]

    def _assign(self, key: tuple[int, ...], new: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the least difference (m,) to rows of elements ``old`` (m, k), and which of ``new`` (k,) takes each place."""
        parts = [[k for k, _ in part] for _, part in itertools.groupby(enumerate(key), lambda pair: pair[1])]
        cost = self._distances[new][:, old].transpose(1, 0, 2)  # (m, new, old)
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

    def _by_votes(self, ranked: np.ndarray, rows: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """Return the order of templates: of the nearest by votes for their structure type, different ones first."""
        same = self.natoms[rows[ranked]] == self.natoms[rows[ranked[0]]]
        voters = ranked[same][:VOTERS]
        votes = Counter()
        for k in voters:
            votes[self.table['kind'][rows[k]]] += np.exp(difference[voters[0]] - difference[k])
        seen, first, later = set(), [], []
        for k in sorted(voters, key=lambda k: -votes[self.table['kind'][rows[k]]]):  # stable
            kind = self.table['kind'][rows[k]]
            (later if kind in seen else first).append(k)
            seen.add(kind)
        chosen = np.array(first + sorted(later, key=lambda k: difference[k]), int)
        return np.concatenate([chosen, ranked[~np.isin(ranked, chosen)]])

    def original(self, row: int) -> Atoms:
        """Return a crystal of the bank as it is."""
        begin, atom = self._first[0][row], self._first[1][row]
        kinds = slice(begin, begin + int(self.table['species'][row]))
        cells = self.table['cells'][row : row + 1].astype(float)
        return Atoms(
            np.repeat(self.table['elements'][kinds], self.table['counts'][kinds]),
            scaled_positions=self.table['scaled'][atom : atom + self.natoms[row]],
            cell=cells_of_parameters(cells[:, :3], cells[:, 3:])[0],
            pbc=True,
        )

    def substituted(self, template: Template, natoms: int | None = None) -> Atoms:
        """Return the crystal of a template with its new elements and their volume, in a cell of ``natoms`` atoms.

        The volume is that of the template times the ratio of the sums of the atomic volumes, unchanged for equal elements.
        """
        atoms, volumes = self.original(template.row), self.table['volumes']
        begin = self._first[0][template.row]
        old = self.table['elements'][begin : begin + len(template.elements)]
        new = np.zeros(119, int)
        new[old] = template.elements
        ratio = volumes[new[atoms.numbers]].sum() / volumes[atoms.numbers].sum()
        atoms.numbers = new[atoms.numbers]
        atoms.set_cell(atoms.cell[:] * ratio ** (1 / 3), scale_atoms=True)
        return _repeated(symmetrize(atoms, EXACT), 1 if natoms is None else natoms // len(atoms))

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
    }


def formula_hash(numbers: Iterable[int]) -> int:
    """Return a hash of 32 bits of a reduced formula, the same on every machine."""
    counts = Counter(int(z) for z in numbers)
    divisor = int(np.gcd.reduce(list(counts.values())))
    text = ' '.join(f'{chemical_symbols[z]}{counts[z] // divisor}' for z in sorted(counts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'big')


@lru_cache(maxsize=1)
def shipped_prototypes() -> Prototypes:
    """Return the bank that ships."""
    return Prototypes.load()


def as_prototypes(templates: Any) -> Prototypes:
    """Return the bank that ships and templates of the user: a list of Atoms, or a path that ``read_crystals`` reads."""
    images = crystals.read_crystals(templates) if isinstance(templates, (str, Path)) else list(templates)
    return shipped_prototypes() + Prototypes.from_atoms(images)


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Return where parts of these lengths begin."""
    return np.concatenate([[0], np.cumsum(lengths.astype(int))[:-1]])


def _reduced(counts: np.ndarray) -> tuple[int, ...]:
    return tuple((counts // np.gcd.reduce(counts)).tolist())


def anonymous(numbers: Iterable[int]) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the anonymous formula, counts in rising order, and the elements (k,) in this order."""
    elements, counts = np.unique(np.asarray(list(numbers), int), return_counts=True)
    order = np.lexsort((elements, counts))
    return _reduced(counts[order]), elements[order]


def _repeated(atoms: Atoms, copies: int) -> Atoms:
    """Return a cell of several copies, as compact as repetition makes it."""
    factor = 2
    while copies > 1:
        while copies % factor:
            factor += 1
        repeats = np.where(np.arange(3) == atoms.cell.lengths().argmin(), factor, 1)
        atoms, copies = atoms.repeat(tuple(repeats)), copies // factor
    return atoms
