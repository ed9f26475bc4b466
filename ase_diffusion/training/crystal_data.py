"""In-memory data set of crystals and an endless stream of random batches of similar size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase import Atoms

from ..diffusion import Batch
from ..representations.crystal import Crystal, check_crystal
from ..representations.reduction import niggli
from ..representations.substitution import Substitution
from .data import EndlessBatches, numbers_of, pick_alike, split_images, usable_structures, validation_mask


def reduced(atoms: Atoms) -> Atoms:
    """Return a crystal in its Niggli cell: which cell was chosen is nothing to learn; ValueError where it is no crystal."""
    check_crystal(atoms)
    return niggli(atoms)


@dataclass
class Crystals:
    """A data set of crystals, ready for training.

    Parameters
    ----------
    fractional, numbers : (sum, 3) and (sum,), all crystals one after the other
    cells : (n, 3, 3), rows in A
    counts : (n,), atoms per crystal
    conditions : dict of str to (n,); NaN where unknown
    others : dict of str to (n,)
        Numbers that are conditions only where they are named: true or false, and provenance written by this package.
    """

    fractional: np.ndarray
    numbers: np.ndarray
    cells: np.ndarray
    counts: np.ndarray
    conditions: dict[str, np.ndarray] = field(default_factory=dict)
    others: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ends = np.cumsum(self.counts)

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def from_atoms(cls, images: Iterable[Atoms]) -> Crystals:
        """Take crystals, in their Niggli cells; numbers in ``info['key_value_pairs']`` are conditions.

        Raises
        ------
        ValueError
            There is no crystal; what is none is left out, see :func:`~ase_diffusion.training.data.usable_structures`.
        """
        images = list(usable_structures(images, reduced).values())
        return cls(
            np.concatenate([a.get_scaled_positions() for a in images]),
            np.concatenate([a.numbers for a in images]),
            np.stack([np.asarray(a.cell) for a in images]),
            np.array([len(a) for a in images]),
            *numbers_of(images),
        )

    def select(self, index: np.ndarray) -> Crystals:
        """Return the crystals of an index array."""
        index = np.asarray(index, int)
        atoms = self.atoms_of(index)
        return Crystals(
            self.fractional[atoms],
            self.numbers[atoms],
            self.cells[index],
            self.counts[index],
            *({name: values[index] for name, values in table.items()} for table in (self.conditions, self.others)),
        )

    def taking(self, names: Iterable[str]) -> Crystals:
        """Return the crystals with these conditions only; what is not finite counts as unknown."""
        known, unknown = {**self.others, **self.conditions}, np.full(len(self), np.nan)
        chosen = {name: known.get(name, unknown) for name in names}
        return replace(self, others={}, conditions={k: np.where(np.isfinite(v), v, np.nan) for k, v in chosen.items()})

    def atoms_of(self, index: np.ndarray) -> np.ndarray:
        """Return the rows of the atoms of some crystals, in their order."""
        return np.concatenate([np.arange(self.ends[k] - self.counts[k], self.ends[k]) for k in index])

    def split(self, fraction: float = 0.05, seed: int = 0) -> tuple[Crystals, Crystals]:
        """Split by composition, so that polymorphs do not leak; a single composition is both."""
        keys = [np.sort(n).tobytes().hex() for n in np.split(self.numbers, self.ends[:-1])]
        inside = validation_mask(keys, fraction, seed)
        if inside is None:
            return self, self
        return self.select(np.nonzero(~inside)[0]), self.select(np.nonzero(inside)[0])

    def elements(self) -> list[int]:
        """Return the atomic numbers that occur."""
        return sorted({int(z) for z in self.numbers})

    def fingerprint(self) -> str:
        """Return a hash of coordinates, cells and numbers."""
        digest = hashlib.sha256()
        for values, kind in ((self.fractional, '<f4'), (self.cells, '<f4'), (self.numbers, '<i2'), (self.counts, '<i2')):
            digest.update(np.round(values, 4).astype(kind).tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> dict:
        """Return what a checkpoint says about its data."""
        return {'structures': len(self), 'elements': self.elements(), 'fingerprint': self.fingerprint()}

    def batch(self, index: np.ndarray, representation: Crystal, conditions: dict | None = None) -> Batch:
        """Assemble some crystals into a Batch."""
        atoms = self.atoms_of(index)
        return representation.assemble(
            self.fractional[atoms], self.numbers[atoms], self.cells[index], self.counts[index], conditions
        )


class CrystalData(EndlessBatches):
    """Draw random batches without end, each of crystals of similar size.

    Parameters
    ----------
    data : Crystals
    representation : Crystal
    names : sequence of str
        Conditions.
    substitute : float
        Share of the crystals whose elements are exchanged for similar ones whenever they are drawn; their conditions are not
        known. See :class:`~ase_diffusion.representations.substitution.Substitution`.
    options
        See :class:`~ase_diffusion.training.data.EndlessBatches`.
    """

    def __init__(
        self,
        data: Crystals,
        representation: Crystal,
        names: Sequence[str] = (),
        *,
        batch_size: int = 128,
        substitute: float = 0.0,
        **options: Any,
    ) -> None:
        if not len(data):
            raise ValueError('the data set is empty: no crystals to train on')
        super().__init__(representation, len(data), batch_size=batch_size, **options)
        self.data, self.names, self.sizes = data, tuple(names), data.counts
        self.substitution = Substitution(representation.elements, substitute) if substitute else None

    def pick(self, k: int, rng: np.random.Generator) -> np.ndarray:
        """Return the crystals of batch k, of similar sizes."""
        return pick_alike(self, k)

    def batch_of(self, index: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        """Return a batch of some crystals with all their conditions."""
        data = self.data
        if self.substitution is not None and rng is not None:
            data, index = self._substituted(index, rng), np.arange(len(index))
        return data.batch(index, self.representation, {name: data.conditions[name][index] for name in self.names})

    def _substituted(self, index: np.ndarray, rng: np.random.Generator) -> Crystals:
        """Return some crystals, a share of them with other elements."""
        data = self.data.select(index)  # copies
        crystals = np.split(data.numbers, data.ends[:-1])  # views
        for k, old, new, factor in self.substitution.exchanges(crystals, rng):
            crystals[k][:] = new[np.searchsorted(old, crystals[k])]
            data.cells[k] *= factor
            for values in data.conditions.values():
                values[k] = np.nan
        return data


def split_crystals(images: Iterable[Atoms], train: Sequence[str] = ('train',)) -> tuple[Crystals, Crystals | None]:
    """Return training and validation set by the split that crystals carry, see :func:`split_images`."""
    training, held = split_images(images, train)
    return Crystals.from_atoms(training), Crystals.from_atoms(held) if held else None
