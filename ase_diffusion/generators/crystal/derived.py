"""Templates of other anonymous formulas: two elements become one (AlAsO4 -> SiO2), or one on several kinds of sites two."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import spglib
from ase import Atoms
from ase.data import covalent_radii

from ...representations.cells import of_spglib, space_group_of
from ...representations.reduction import niggli
from .bank import CrystalBank, reduced
from .geometry import Geometry, geometry

TAKEN, PATTERNS = 8, 4  # of merged and of split crystals each; ways to split one crystal
MERGED, SPLIT = 400, 24  # nearest crystals that are looked at: merged ones must fit, of split ones orbits are found
MERGED_OF_GROUP = 80  # where a space group is asked for, which must be found
SAME = 0.1  # A, within which sites are equivalent
NONE, GIVEN = (-10.87, 4.52), (3.32, -2.23, -0.82)  # scripts/prototypes.py derived
CLOSEST = 0.65  # of the sum of covalent radii; no crystal of 1,200 known ones has less
SMALLER = 5.0  # difference that fewer atoms than the cell are worth
SLIGHT = 0.02  # probability that none of the nearest templates is right, below which these are not looked for

Key = tuple[int, ...]


@dataclass(frozen=True)
class Derived:
    """A crystal of the bank whose sites are occupied otherwise.

    Attributes
    ----------
    row : int
        Of the bank.
    sites : tuple of int
        New atomic numbers of its atoms.
    difference : float
        Sum of the distances between new and old elements, of every pair that stands on one site.
    split : bool
        One element became two.
    shape : Geometry
        Kinds of sites in the order of the elements of the composition.
    """

    row: int
    sites: tuple[int, ...]
    difference: float
    split: bool
    shape: Geometry


def none_right(difference: np.ndarray, same: np.ndarray, weights: tuple[float, float] = NONE) -> float:
    """Return the log-odds that none of the nearest templates is right; 0 where there is none.

    Parameters
    ----------
    difference : (m,) array
        Of the nearest templates.
    same : (m,) array of bool
        Whether they have as many atoms as the cell.
    """
    return float(np.dot(weights, (1, np.sqrt(difference.min() + SMALLER * (not same.any()))))) if len(difference) else 0.0


def scores(found: list[Derived], weights: tuple[float, float, float] = GIVEN) -> np.ndarray:
    """Return log-odds of (m,) templates that each is right, against that none of all templates is."""
    return np.array([np.dot(weights, (1, each.split, each.difference)) for each in found])


@lru_cache(maxsize=8)
def merged_formulas(keys: tuple[Key, ...]) -> dict[Key, list[tuple[Key, int, int]]]:
    """Return for anonymous formulas from which others they come by merging, and which two elements are merged."""
    found = defaultdict(list)
    for key in keys:
        for i, j in itertools.combinations(range(len(key)), 2):
            found[reduced(sorted([*_others(key, i, j), key[i] + key[j]]))].append((key, i, j))
    return found


def _others(values, *places: int) -> list:
    return [value for k, value in enumerate(values) if k not in places]


def _exchanges(rich: Key, poor: Key, i: int, j: int) -> Iterator[int]:
    """Return the places of a formula that take two, ``i`` and ``j``, of a formula with one element more."""
    total = reduced([*_others(rich, i, j), rich[i] + rich[j]])
    for place in range(len(poor)):
        if (*_others(poor, place), poor[place]) == total:
            yield place


def _merged(bank: CrystalBank, key: Key, new: np.ndarray) -> Iterator[tuple]:
    """Yield rows (m,), their differences and the new elements in the order of theirs (m, k + 1)."""
    for group, i, j in merged_formulas(tuple(bank.formulas)).get(key, ()):
        rows, old = bank.formulas[group]
        rest = _others(range(len(group)), i, j)
        for place in _exchanges(group, key, i, j):
            others = _others(range(len(key)), place)
            difference, order = bank.assign(tuple(key[k] for k in others), new[others], old[:, rest])
            elements = np.full(old.shape, new[place])
            elements[:, rest] = new[others][order]
            yield rows, difference + bank.distances[new[place], old[:, [i, j]]].sum(1), elements


def _split(bank: CrystalBank, key: Key, new: np.ndarray) -> Iterator[tuple]:
    """Yield rows (m,), their differences, the new elements (m, k - 1) with 0 for the one that is split, and the two for it."""
    for i, j in itertools.combinations(range(len(key)), 2):
        group = reduced(sorted([*_others(key, i, j), key[i] + key[j]]))
        if group not in bank.formulas:
            continue
        rows, old = bank.formulas[group]
        rest = _others(range(len(key)), i, j)
        for place in _exchanges(key, group, i, j):
            others = _others(range(len(group)), place)
            difference, order = bank.assign(tuple(group[k] for k in others), new[rest], old[:, others])
            elements = np.zeros(old.shape, int)
            elements[:, others] = new[rest][order]
            yield rows, difference + bank.distances[new[[i, j]]][:, old[:, place]].sum(0), elements, (i, j)


def derived(
    bank: CrystalBank,
    numbers: list[int],
    key: Key,
    new: np.ndarray,
    space_group: int | None = None,
    but: np.ndarray | None = None,
) -> list[Derived]:
    """Return the nearest eight merged and the nearest eight split crystals that fit into a cell of these atoms.

    Those with atoms closer than 0.65 of the sum of their covalent radii are left out.

    Parameters
    ----------
    bank : CrystalBank
    numbers : list of int
        Atomic numbers of the atoms of the cell.
    key : tuple of int
        Their anonymous formula, counts in rising order.
    new : (k,) array of int
        Its elements.
    space_group : int, optional
        The only one that is wanted.
    but : (n,) mask, optional
        Rows that are left out.
    """
    count, found, kind = len(numbers), [], np.zeros(119, int)
    kind[new] = np.arange(len(new))
    allowed = np.ones(len(bank), bool) if but is None else ~but
    may_split = allowed & (count % bank.natoms == 0) & bank.several
    if space_group is not None:  # splitting by orbits keeps it
        may_split &= bank.groups == space_group
    merged = _nearest(_merged(bank, key, new), allowed & (bank.natoms > 1), MERGED if space_group is None else MERGED_OF_GROUP)
    for nearest in (merged, _nearest(_split(bank, key, new), may_split, SPLIT)):
        taken, cells = 0, bank.cells([row for _, row, *_ in nearest])
        for (difference, row, elements, *pair), cell in zip(nearest, cells, strict=True):
            scaled, sites = bank.scaled(row), np.repeat(elements, bank.row_counts(row))
            if count % len(sites) and count % _size(scaled, cell, sites):
                continue
            ways = _patterns(scaled, cell, sites, [(key[k], int(new[k])) for k in pair[0]]) if pair else [sites]
            for way in ways:
                crystal = {'scaled_positions': scaled, 'cell': cell, 'pbc': True}
                if space_group is None or space_group_of(Atoms(way, **crystal), SAME) == space_group:
                    shape = geometry(scaled, cell, kind[way])
                    if _contact(shape, new, bank.volume(row, way) / len(way)) < CLOSEST:
                        continue
                    found.append(Derived(row, tuple(way.tolist()), difference, bool(pair), shape))
                    taken += 1
            if taken >= TAKEN:
                break
    return found


def _nearest(parts: Iterator[tuple], fits: np.ndarray, most: int) -> list[tuple]:
    """Return the nearest (difference, row, elements, ...) among the rows that fit, a mask (n,)."""
    nearest = []
    for rows, difference, elements, *pair in parts:
        there = np.flatnonzero(fits[rows])
        there = there[np.argsort(difference[there], kind='stable')[:most]]
        nearest += [(float(difference[k]), int(rows[k]), tuple(elements[k].tolist()), *pair) for k in there]
    return sorted(nearest)[:most]


def _patterns(scaled: np.ndarray, cell: np.ndarray, sites: np.ndarray, pair: list[tuple[int, int]]) -> list[np.ndarray]:
    """Return up to four ways to give the atoms with number 0 to two elements, (count, number) each, by orbits."""
    symmetry = of_spglib(spglib.get_symmetry_dataset, (cell, scaled, sites), SAME)
    at = np.flatnonzero(sites == 0)
    (one, first), (two, second) = pair
    wanted, rest = divmod(len(at) * one, one + two)
    orbits, of, sizes = np.unique(
        (np.arange(len(sites)) if symmetry is None else symmetry.equivalent_atoms)[at], return_inverse=True, return_counts=True
    )
    found: list[np.ndarray] = []
    if rest or not 1 < len(orbits) <= 8:
        return found
    for pick in itertools.product((False, True), repeat=len(orbits)):
        if sizes[list(pick)].sum() == wanted and len(found) < PATTERNS:
            found.append(sites.copy())
            found[-1][at] = np.where(np.array(pick)[of], first, second)
    return found


def _contact(shape: Geometry, elements: np.ndarray, volume: float) -> float:
    """Return the shortest distance over the sum of covalent radii, for kinds of these elements and a volume per atom in A^3."""
    radii = covalent_radii[elements]
    return float((shape.least * volume ** (1 / 3) / (radii[:, None] + radii)).min())


def _size(scaled: np.ndarray, cell: np.ndarray, sites: np.ndarray) -> int:
    """Return the number of atoms of the primitive cell."""
    if translations(scaled, cell, sites) == 1:  # quick, and mostly so
        return len(sites)
    return len(primitive(Atoms(sites, scaled_positions=scaled, cell=cell, pbc=True)))


def translations(scaled: np.ndarray, cell: np.ndarray, kinds: np.ndarray) -> int:
    """Return how many translations within a cell map a crystal onto itself within 0.1 A, that of length 0 among them."""
    values, counts = np.unique(kinds, return_counts=True)
    rare = np.flatnonzero(kinds == values[counts.argmin()])
    if len(rare) == 1:
        return 1
    gap = scaled[None, :, None] + (scaled[rare] - scaled[rare[0]])[:, None, None] - scaled  # (t, n, n, 3)
    gap -= np.round(gap)
    distance = np.linalg.norm(gap @ cell, axis=-1) + 1e3 * (kinds[:, None] != kinds)
    return int((distance.min(2) < SAME).all(1).sum())


def primitive(atoms: Atoms) -> Atoms:
    """Return the Niggli cell of the smallest period of a crystal, averaged over the symmetry that spglib finds within 0.1 A."""
    given = (np.asarray(atoms.cell), atoms.get_scaled_positions(), atoms.numbers)
    found = of_spglib(spglib.standardize_cell, given, to_primitive=True, symprec=SAME)
    if found is None:
        return atoms
    cell, scaled, numbers = found
    return niggli(Atoms(numbers, scaled_positions=scaled, cell=cell, pbc=True))
