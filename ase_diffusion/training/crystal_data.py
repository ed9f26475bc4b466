"""Training data of crystals: arrays once, random batches of similar size for ever."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from ase import Atoms

from ..data.crystals import is_bookkeeping
from ..representations.crystal import Crystal, check_crystal
from ..representations.reduction import niggli
from .surface_data import EndlessBatches

NUMBERS = (int, float, np.number, np.bool_)
CHUNKS = 4  # batches drawn together and sorted by size, so that little is padded


@dataclass
class Crystals:
    """A data set of crystals, ready for training.

    Parameters
    ----------
    fractional, numbers : (sum, 3) and (sum,), all crystals one after the other
    cells : (n, 3, 3), rows in A
    counts : (n,), atoms per crystal
    properties : dict of str to (n,); NaN where unknown
    others : dict of str to (n,)
        Numbers that are no properties unless someone says so: true or false, and what this package notes of how it made them.
    """

    fractional: np.ndarray
    numbers: np.ndarray
    cells: np.ndarray
    counts: np.ndarray
    properties: dict[str, np.ndarray] = field(default_factory=dict)
    others: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        self.ends = np.cumsum(self.counts)

    def __len__(self):
        return len(self.counts)

    @classmethod
    def from_atoms(cls, images: list[Atoms]) -> Crystals:
        """Take crystals, in their Niggli cells; numbers in ``info['key_value_pairs']`` are properties.

        Raises
        ------
        ValueError
            No images, or one that is not a crystal.
        """
        if not images:
            raise ValueError('the data set is empty: no crystals to train on')
        for k, atoms in enumerate(images):
            check_crystal(atoms, f'structure {k} of the data')
        images = [niggli(atoms) for atoms in images]  # one cell for each crystal: which was chosen is nothing to learn
        pairs = [atoms.info.get('key_value_pairs', {}) for atoms in images]
        properties, others = {}, {}
        for name in sorted({name for p in pairs for name, v in p.items() if isinstance(v, NUMBERS)}):
            values = [p[name] if isinstance(p.get(name), NUMBERS) else np.nan for p in pairs]
            other = is_bookkeeping(name) or any(isinstance(v, (bool, np.bool_)) for v in values)
            (others if other else properties)[name] = np.array(values, float)
        return cls(
            np.concatenate([a.get_scaled_positions() for a in images]),
            np.concatenate([a.numbers for a in images]),
            np.stack([np.asarray(a.cell) for a in images]),
            np.array([len(a) for a in images]),
            properties,
            others,
        )

    def select(self, index) -> Crystals:
        """Return the crystals of an index array."""
        index = np.asarray(index, int)
        atoms = self.atoms_of(index)
        return Crystals(
            self.fractional[atoms],
            self.numbers[atoms],
            self.cells[index],
            self.counts[index],
            *({name: values[index] for name, values in table.items()} for table in (self.properties, self.others)),
        )

    def taking(self, names) -> Crystals:
        """Return the crystals with these properties only; what is not finite counts as unknown."""
        known, unknown = {**self.others, **self.properties}, np.full(len(self), np.nan)
        chosen = {name: known.get(name, unknown) for name in names}
        return replace(self, others={}, properties={k: np.where(np.isfinite(v), v, np.nan) for k, v in chosen.items()})

    def atoms_of(self, index) -> np.ndarray:
        """Return the rows of the atoms of some crystals, in their order."""
        return np.concatenate([np.arange(self.ends[k] - self.counts[k], self.ends[k]) for k in index])

    def split(self, fraction: float = 0.05, seed: int = 0) -> tuple[Crystals, Crystals]:
        """Split by composition, so that polymorphs do not leak; a single composition is both."""
        keys = np.array([np.sort(n).tobytes().hex() for n in np.split(self.numbers, self.ends[:-1])])
        kinds = np.unique(keys)
        if len(kinds) < 2:
            return self, self
        held = np.random.default_rng(seed).permutation(kinds)[: max(1, round(fraction * len(kinds)))]
        inside = np.isin(keys, held)
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

    def batch(self, index, representation: Crystal, conditions: dict | None = None):
        """Assemble some crystals into a Batch."""
        atoms = self.atoms_of(index)
        return representation.assemble(
            self.fractional[atoms], self.numbers[atoms], self.cells[index], self.counts[index], conditions
        )


class CrystalData(EndlessBatches):
    """Draw random batches without end; batch k depends on ``(seed, k)`` only, so that a resumed run sees the same ones.

    Half of the crystals are inverted (f -> 1 - f): a crystal and its mirror image are equally good.

    Parameters
    ----------
    data : Crystals
    representation : Crystal
    properties : names of the conditions
    batch_size : int
    dropout : float
        Share of the crystals for which a condition is left out (classifier-free guidance); of several, each alone, and all.
    start : int
        First batch.
    """

    def __init__(self, data: Crystals, representation: Crystal, properties=(), *, batch_size=128, dropout=0.15, seed=0, start=0):
        if not len(data):
            raise ValueError('the data set is empty: no crystals to train on')
        self.data, self.representation, self.properties = data, representation, tuple(properties)
        self.batch_size, self.dropout, self.seed, self.start = int(batch_size), float(dropout), int(seed), int(start)

    def draw(self, k: int):
        """Return batch k."""
        rng = np.random.default_rng((self.seed, k // CHUNKS))
        index = rng.integers(len(self.data), size=CHUNKS * self.batch_size)
        order = np.argsort(self.data.counts[index], kind='stable')
        chunk = rng.permutation(CHUNKS)[k % CHUNKS]
        index = index[order[chunk * self.batch_size : (chunk + 1) * self.batch_size]]
        rng = np.random.default_rng((self.seed, k, 1))
        conditions, nothing = {}, rng.random(len(index)) < (self.dropout if len(self.properties) > 1 else 0.0)
        for name in self.properties:
            values = self.data.properties[name][index].copy()
            values[nothing | (rng.random(len(index)) < self.dropout)] = np.nan
            conditions[name] = values
        batch = self.data.batch(index, self.representation, conditions)
        inverted = torch.as_tensor(rng.random(len(index)) < 0.5)[batch.rows['fractional'], None]
        fractional = batch.fields['fractional']
        return batch.with_fields(fractional=torch.where(inverted, 1 - fractional, fractional))


def split_crystals(images: list[Atoms], train=('train',)) -> tuple[Crystals, Crystals | None]:
    """Return training and validation set by the split that crystals carry; all and None where they carry none.

    ``train`` names the splits to train on; the split 'val' validates if it is not among them.

    Raises
    ------
    ValueError
        No crystal is of one of these splits, though some carry one.
    """
    splits = [atoms.info.get('key_value_pairs', {}).get('split') for atoms in images]
    present = sorted({split for split in splits if split is not None})
    if not present:
        return Crystals.from_atoms(images), None
    if missing := set(train) - set(present):
        raise ValueError(
            f'the data has no split {sorted(missing)}; it has {present}. Name those to train on, or take the key split away'
        )
    held = [atoms for atoms, split in zip(images, splits, strict=True) if split == 'val' and 'val' not in train]
    training = [atoms for atoms, split in zip(images, splits, strict=True) if split in train]
    return Crystals.from_atoms(training), Crystals.from_atoms(held) if held else None
