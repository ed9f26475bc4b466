"""Structures by substitution: crystals of the same anonymous formula, elements exchanged, volume scaled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ...data import crystals
from ...representations.crystal import check_crystal
from ...representations.reduction import symmetrize
from ...training.data import usable_structures
from .bank import CrystalBank, anonymous, rows_of
from .derived import SLIGHT, derived, none_right, primitive, scores
from .geometry import BINS, likeness
from .ranking import CANDIDATES, Features, by_difference, features, shipped_ranking
from .ranking import order as placed

EXACT = 0.02  # A, within which a template is averaged over its symmetry: rounding of the file
KNOWN, WARM = 0.95, 0.01  # probability of a stable crystal of this very formula; eV / atom, by which others count less
RARE = 1e-3  # probability below which templates of other anonymous formulas are left out: the network is more likely right
TAKEN = 20  # templates of a composition, by default


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


class Prototypes(CrystalBank):
    """A bank of crystals from which structures of other compositions are taken by substitution."""

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
        rows, difference, order, new = self.near(numbers, space_group)
        nearest = [
            Template(int(row), tuple(new[each].tolist()), float(d)) for row, each, d in zip(rows, order, difference, strict=True)
        ]
        if not ranked:
            return nearest[:limit]
        first = self._rank(numbers, rows, difference, order, new, space_group)
        taken = {template.row for template in first if not template.sites}
        return [*first, *(template for template in nearest if template.row not in taken)][:limit]

    def near(self, numbers: list[int], space_group: int | None = None, but: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """Return rows (m,) by difference, the differences, which of the new elements takes each place (m, k), and these (k,).

        ``but``: rows that are left out, a mask.
        """
        key, new = anonymous(numbers)
        rows, elements = self.formulas.get(key, (np.zeros(0, int), np.zeros((0, len(key)), int)))
        fits = len(numbers) % self.natoms[rows] == 0
        if space_group is not None:
            fits &= self.groups[rows] == space_group
        if but is not None:
            fits &= ~but[rows]
        rows, elements = rows[fits], elements[fits]
        if not len(rows):
            return rows, np.zeros(0), elements, new
        difference, order = self.assign(key, new, elements)
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
            common=self.common[kind],
            volumes=np.abs(np.linalg.det(self.cells(rows))),
            atomic=table['volumes'].astype(float),
            hull=1e-3 * table['hull'][rows].astype(float),
            shapes=[self.geometry(int(row)).of(each) for row, each in zip(rows, place, strict=True)],
        )

    def substituted(self, template: Template, natoms: int | None = None) -> Atoms:
        """Return the crystal of a template with its new elements and their volume, in a cell of ``natoms`` atoms.

        The volume is unchanged for equal elements, else :meth:`.CrystalBank.volume`.
        """
        atoms = self.original(template.row)
        sites = np.array(template.sites or np.repeat(template.elements, self.row_counts(template.row)))
        ratio = self.volume(template.row, sites) / atoms.cell.volume
        atoms.numbers = sites
        if template.sites:
            atoms = primitive(atoms)
        atoms.set_cell(atoms.cell[:] * ratio ** (1 / 3), scale_atoms=True)
        return _repeated(symmetrize(atoms, EXACT), 1 if natoms is None else natoms // len(atoms))


@lru_cache(maxsize=1)
def shipped_prototypes() -> Prototypes:
    """Return the bank that ships."""
    return Prototypes.load()


def given_prototypes(name: str, law: str, given: Any) -> tuple[Prototypes, str | dict]:
    """Return the bank of crystals of the user, and what the provenance says of them.

    Parameters
    ----------
    name, law : str
        Of the argument, and what it is, for messages.
    given : list of Atoms, or a path that ``read_crystals`` reads
        Those that cannot be used are left out.

    Raises
    ------
    TypeError, ValueError
        It is something else; there is none that can be used.
    """
    path = isinstance(given, (str, Path))
    if isinstance(given, Atoms) or not (path or hasattr(given, '__iter__')):
        raise TypeError(f'{name} is {law}; got {type(given).__name__}')
    images = crystals.read_crystals(given) if path else list(given)
    kept = usable_structures(images, check_crystal, f'the {name}') if images else ()
    bank = Prototypes.from_atoms([images[k] for k in kept], [f'template {k}' for k in kept])
    return bank, str(given) if path else {'given': len(images), 'digest': _digest(images)}


def _digest(images: list[Atoms]) -> str:
    parts = [np.ascontiguousarray(a).tobytes() for atoms in images for a in (atoms.numbers, atoms.positions, atoms.cell[:])]
    return hashlib.sha256(b''.join(parts)).hexdigest()[:10]


def _repeated(atoms: Atoms, copies: int) -> Atoms:
    """Return a cell of several copies, as compact as repetition makes it."""
    factor = 2
    while copies > 1:
        while copies % factor:
            factor += 1
        repeats = np.where(np.arange(3) == atoms.cell.lengths().argmin(), factor, 1)
        atoms, copies = atoms.repeat(tuple(repeats)), copies // factor
    return atoms
