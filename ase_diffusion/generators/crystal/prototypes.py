"""Structures by substitution: crystals of the same anonymous formula, elements exchanged, volume scaled.

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
from ...training.data import usable_structures
from .derived import SLIGHT, derived, merged_formulas, none_right, primitive, scores
from .geometry import BINS, Geometry, geometry, likeness
from .ranking import CANDIDATES, Features, by_difference, features, shipped_ranking
from .ranking import order as placed

FILE = Path(crystals.__file__).with_name('prototypes.npz')
LENGTH, ANGLE, PLACE = 1e-3, 1e-2, 2**16  # units of the file: A, degrees, parts of a cell vector
SAME_TYPE = 0.1  # A, of structure types and space groups
EXACT = 0.02  # A, within which a template is averaged over its symmetry: rounding of the file
KNOWN, WARM = 0.95, 0.01  # probability of a stable crystal of this very formula; eV / atom, by which others count less
RARE = 1e-3  # probability below which templates of other anonymous formulas are left out: the network is more likely right
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
    chance : float
        Probability that its structure is the right one; 0 where that was not asked.
    sites : tuple of int, optional
        New atomic numbers of all atoms of a row of another anonymous formula, in place of ``elements``.
    """

    row: int
    elements: tuple[int, ...]
    difference: float
    chance: float = 0.0
    sites: tuple[int, ...] = ()


class Prototypes:
    """A bank of crystals from which structures of other compositions are taken by substitution.

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
    def load(cls, path: str | Path = FILE) -> Prototypes:
        """Read a bank that :meth:`save` wrote."""
        with np.load(path) as file:
            table = {name: file[name] for name in file.files}
        units = np.repeat([LENGTH, ANGLE], 3)
        shipped = len(table['kind']) if path == FILE else 0
        return cls({**table, 'cells': table['cells'] * units, 'scaled': table['scaled'] / PLACE}, shipped)

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
        joined = {
            name: np.concatenate([one[name], two[name]]) for name in ('cells', 'scaled', 'species', 'elements', 'counts', 'hull')
        }
        joined['names'] = np.concatenate([one['names'].astype(str), two['names'].astype(str)])
        kinds, place = np.unique(np.concatenate([one['kinds'], two['kinds']]), return_inverse=True)
        kind = place[np.concatenate([one['kind'], two['kind'].astype(int) + len(one['kinds'])])]
        return Prototypes({**one, **joined, 'kind': kind, 'kinds': kinds}, self.shipped)

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
    def merging(self) -> dict[tuple[int, ...], list]:
        """From which anonymous formulas others come where two elements become one (:func:`.derived.merged_formulas`)."""
        return merged_formulas(list(self._groups))

    @cached_property
    def several(self) -> np.ndarray:
        """Whether the rows (n,) have an element on inequivalent sites, at 0.1 A."""
        orbits = np.array([len(str(kind).split()) - 1 for kind in self.table['kinds']])
        return orbits[self.table['kind']] > self.table['species']

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

    @cached_property
    def groups(self) -> np.ndarray:
        """Numbers of the space groups of the rows (n,), at 0.1 A."""
        numbers = np.array([int(str(kind).split()[0]) for kind in self.table['kinds']])
        return numbers[self.table['kind']]

    def space_group(self, row: int) -> int:
        """Return the number of the space group of a row, at 0.1 A."""
        return int(self.groups[row])

    def find(
        self, numbers: list[int], limit: int = TAKEN, *, space_group: int | None = None, ranked: bool = True
    ) -> list[Template]:
        """Return templates for a cell of these atoms, the most likely first.

        Templates of as many atoms come before smaller ones, of which the cell has several copies. Of the nearest 24 networks
        say how likely each is right (:mod:`.ranking`), and different structures come first. Where none of them is likely,
        crystals of other anonymous formulas are among them (:mod:`.derived`).

        Parameters
        ----------
        numbers : list of int
            Atomic numbers of the atoms of the cell.
        limit : int
            Most templates.
        space_group : int, optional
            The only one that is wanted.
        ranked : bool
            False: the order is that of the differences.
        """
        rows, difference, order, new = self._near(numbers, space_group)
        nearest = [
            Template(int(row), tuple(new[each].tolist()), float(d)) for row, each, d in zip(rows, order, difference, strict=True)
        ]
        if not ranked:
            return nearest[:limit]
        first = self._rank(numbers, rows, difference, order, new, space_group)
        taken = {template.row for template in first if not template.sites}
        return [*first, *(template for template in nearest if template.row not in taken)][:limit]

    def _near(self, numbers: list[int], space_group: int | None = None, but: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """Return rows (m,) by difference, the differences, which of the new elements takes each place (m, k), and these (k,).

        ``but``: rows that are left out, a mask.
        """
        key, new = anonymous(numbers)
        rows, elements = self._groups.get(key, (np.zeros(0, int), np.zeros((0, len(key)), int)))
        fits = len(numbers) % self.natoms[rows] == 0
        if space_group is not None:
            fits &= self.groups[rows] == space_group
        if but is not None:
            fits &= ~but[rows]
        rows, elements = rows[fits], elements[fits]
        if not len(rows):
            return rows, np.zeros(0), elements, new
        difference, order = self._assign(key, new, elements)
        ranked = np.lexsort((rows, difference, -self.natoms[rows]))
        return rows[ranked], difference[ranked], order[ranked], new

    def _rank(
        self,
        numbers: list[int],
        rows: np.ndarray,
        difference: np.ndarray,
        order: np.ndarray,
        new: np.ndarray,
        space_group: int | None,
    ) -> list[Template]:
        """Return the nearest 24 templates and those of other anonymous formulas with their probabilities.

        The ranking judges crystals of other formulas; where most candidates are crystals that a user added, their differences
        alone decide, added up over alike ones. One of this very formula is as likely as it is stable: KNOWN times
        exp(-energy above the hull / WARM), with the sum of all of them at most KNOWN.
        """
        own, others = np.flatnonzero(difference == 0), np.flatnonzero(difference > 0)[:CANDIDATES]
        weights = np.exp(-1e-3 * self.table['hull'][rows[own]].astype(float) / WARM)
        weights *= KNOWN / max(1, weights.sum())
        found = [Template(int(rows[k]), tuple(new[order[k]].tolist()), 0.0, float(w)) for k, w in zip(own, weights, strict=True)]
        logs, spectra = np.zeros(0), np.zeros((0, len(new), len(new), BINS))
        if len(others):
            seen = self.features(rows[others], difference[others], order[others], new, len(numbers))
            added = (rows[others] >= self.shipped).mean() > 0.5  # by a user; the networks never saw such
            logs = by_difference(seen, self.natoms[rows[others]] < len(numbers)) if added else shipped_ranking()(seen)
            spectra = seen.spectra
        none, more = none_right(difference[others], self.natoms[rows[others]] == len(numbers)), []
        if (1 - weights.sum()) / (1 + np.exp(-none) * len(others[:1])) > SLIGHT:
            more = derived(self, numbers, anonymous(numbers)[0], new, space_group)
            logs = np.concatenate([logs, none + scores(more)])
            spectra = np.concatenate([spectra, *([each.shape.spectrum[None] for each in more])])
        if not len(logs):
            return found
        logs = logs - np.logaddexp.reduce([*logs, none])
        places, chances = placed(logs, likeness(spectra, spectra))
        for k, chance in zip(places, (1 - weights.sum()) * chances, strict=True):
            if k < len(others):
                at = others[k]
                found.append(Template(int(rows[at]), tuple(new[order[at]].tolist()), float(difference[at]), float(chance)))
            elif chance > RARE:
                each = more[k - len(others)]
                found.append(Template(each.row, (), each.difference, float(chance), each.sites))
        return sorted(found, key=lambda template: -template.chance) if len(own) else found

    def features(self, rows: np.ndarray, difference: np.ndarray, order: np.ndarray, new: np.ndarray, natoms: int) -> Features:
        """Return what the ranking sees of candidates, in the order of their differences (:func:`.ranking.features`)."""
        table, place = self.table, np.argsort(order, 1)  # of the new elements in the template
        k = np.arange(len(new))
        old = table['elements'][self._first[0][rows][:, None] + k]
        counts = table['counts'][self._first[0][rows[0]] + k].astype(int) * (natoms // self.natoms[rows[0]])
        kind = table['kind'][rows]
        return features(
            difference=difference,
            new=new,
            old=np.take_along_axis(old, place, 1),
            counts=counts,
            natoms=natoms,
            sizes=self.natoms[rows],
            kind=kind,
            common=self._common[kind],
            volumes=np.abs(np.linalg.det(self._cells(rows))),
            atomic=table['volumes'].astype(float),
            hull=1e-3 * table['hull'][rows].astype(float),
            shapes=[self.geometry(int(row)).of(each) for row, each in zip(rows, place, strict=True)],
        )

    def geometry(self, row: int) -> Geometry:
        """Return the geometry of a row, kinds of sites in the order of its elements."""
        if row not in self._geometries:
            kinds = np.repeat(np.arange(int(self.table['species'][row])), self.row_counts(row))
            self._geometries[row] = geometry(self.scaled(row), self._cells([row])[0], kinds)
        return self._geometries[row]

    @cached_property
    def _common(self) -> np.ndarray:
        """How many crystals have each structure type."""
        return np.bincount(self.table['kind'], minlength=len(self.table['kinds']))

    def _cells(self, rows: Any) -> np.ndarray:
        """Return the cells of rows, (m, 3, 3)."""
        cells = self.table['cells'][rows].astype(float)
        return cells_of_parameters(cells[:, :3], cells[:, 3:])

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

    def original(self, row: int) -> Atoms:
        """Return a crystal of the bank as it is."""
        begin = self._first[0][row]
        numbers = np.repeat(self.table['elements'][begin : begin + int(self.table['species'][row])], self.row_counts(row))
        return Atoms(numbers, scaled_positions=self.scaled(row), cell=self._cells([row])[0], pbc=True)

    def substituted(self, template: Template, natoms: int | None = None) -> Atoms:
        """Return the crystal of a template with its new elements and their volume, in a cell of ``natoms`` atoms.

        The volume is that of the template times the ratio of the sums of the atomic volumes, unchanged for equal elements.
        """
        atoms, volumes = self.original(template.row), self.table['volumes']
        sites = np.array(template.sites or np.repeat(template.elements, self.row_counts(template.row)))
        ratio = volumes[sites].sum() / volumes[atoms.numbers].sum()
        atoms.numbers = sites
        if template.sites:
            atoms = primitive(atoms)
        atoms.set_cell(atoms.cell[:] * ratio ** (1 / 3), scale_atoms=True)
        return _repeated(symmetrize(atoms, EXACT), 1 if natoms is None else natoms // len(atoms))

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


@lru_cache(maxsize=1)
def shipped_prototypes() -> Prototypes:
    """Return the bank that ships."""
    return Prototypes.load()


def as_prototypes(templates: Any) -> Prototypes:
    """Return the bank that ships and templates of the user: a list of Atoms, or a path that ``read_crystals`` reads."""
    images = crystals.read_crystals(templates) if isinstance(templates, (str, Path)) else list(templates)
    kept = usable_structures(images, check_crystal, 'the templates') if images else ()
    return shipped_prototypes() + Prototypes.from_atoms([images[k] for k in kept], [f'template {k}' for k in kept])


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
