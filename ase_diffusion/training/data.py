"""In-memory data sets and endless streams of random batches, for every method."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..data.crystals import NO_PROPERTY
from ..diffusion import Batch
from ..representations import Representation
from ..representations.conditions import Condition, or_unknown
from ..representations.crystal import check_crystal
from ..utils.atoms import as_list, neighbors
from ..utils.checks import check_integer, check_number
from ..utils.provenance import notes_of
from ..utils.unread import named, reason_of

log = logging.getLogger(__name__)

NUMBERS = (int, float, np.number, np.bool_)
ENCODED_AT_ONCE = 64
OVERLAP = 0.3  # A; the shortest bond is 0.74 A long
CHUNKS = 4  # batches drawn together and sorted by size, so that little is padded


T = TypeVar('T')


def usable_structures(images: Iterable[Atoms], prepare: Callable[[Atoms], T], what: str = 'the data') -> dict[int, T]:
    """Return what ``prepare`` makes of structures, by their number; those that cannot be used are left out.

    These are the ones that ``prepare`` refuses with a ValueError, and those with atoms closer than 0.3 A. One warning counts and
    names them.

    Raises
    ------
    ValueError
        There are no structures, or none that can be used; the message has the reasons.
    """
    images, found, refused = as_list(images), {}, {}
    if not images:
        raise ValueError('the data set is empty: no structures to train on')
    for k, atoms in enumerate(images):
        try:
            made = prepare(atoms)
            _check_apart(atoms)
            found[k] = made
        except ValueError as error:
            refused.setdefault(reason_of(error), []).append(f'{k} ({atoms.get_chemical_formula() or "empty"})')
    reasons = named([f'structure {named(names, ", ")}: {reason}' for reason, names in refused.items()])
    if not found:
        raise ValueError(f'no structure of {what} can be used: {reasons}')
    if refused:
        count = len(images) - len(found)
        log.warning('%d of %d structures of %s cannot be used and are left out: %s', count, len(images), what, reasons)
    return found


def _check_apart(atoms: Atoms) -> None:
    """Raise a ValueError where two atoms overlap."""
    i, j, d = neighbors(atoms, OVERLAP)
    if len(d):
        raise ValueError(f'atoms closer than {OVERLAP} A overlap, such as {i[0]} and {j[0]}')


class Dataset(Protocol):
    """Structures in memory, as recipes need them.

    Attributes
    ----------
    conditions : dict of str to sequence of length n
        Values per structure; None or NaN where unknown.
    """

    conditions: Mapping[str, Sequence | np.ndarray]

    def __len__(self) -> int: ...

    def split(self, fraction: float = 0.05, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Return training and validation set."""
        ...

    def describe(self) -> dict:
        """Return what a checkpoint says about its data: counts, elements, fingerprint."""
        ...


def drop_conditions(conditions: dict[str, Tensor], rng: np.random.Generator, dropout: float) -> dict[str, Tensor]:
    """Leave out conditions for classifier-free guidance: each for a share of the structures, and all of several for a share.

    Parameters
    ----------
    conditions : dict of str to Tensor
        (B,) or (B, k); NaN means "not asked for". Not changed.
    rng : numpy Generator
    dropout : float
        Both shares.
    """
    if not conditions or not dropout:
        return conditions
    size = len(next(iter(conditions.values())))
    nothing = rng.random(size) < (dropout if len(conditions) > 1 else 0.0)  # (B,)
    out = {}
    for name, values in conditions.items():
        absent = torch.from_numpy(nothing | (rng.random(size) < dropout))
        out |= unknown_where(absent, {name: values})
    return out


def unknown_where(rows: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return conditions, (B,) or (B, k), that are not known (NaN) for ``rows`` (B,) bool."""
    return {name: v.masked_fill(rows.reshape(-1, *[1] * (v.dim() - 1)), float('nan')) for name, v in conditions.items()}


def validation_mask(groups: Sequence | np.ndarray, fraction: float = 0.05, seed: int = 0) -> np.ndarray | None:
    """Return which structures validate, (n,) bool: whole groups, a share of them, at least one; None where there is one group.

    Where they would be more than half of the structures, they are trained on, and the others validate.

    Parameters
    ----------
    groups : sequence of n labels
        Structures of one group, such as one relaxation or one composition, stay together.
    """
    groups, seed = np.asarray(groups), check_integer('seed', seed, 0)
    kinds = np.unique(groups)
    if len(kinds) < 2:
        return None
    chosen = np.random.default_rng(seed).permutation(kinds)[: max(1, round(fraction * len(kinds)))]
    inside = np.isin(groups, chosen)
    return ~inside if inside.mean() > 0.5 >= fraction else inside


class EndlessBatches(IterableDataset):
    """Draw random batches without end; batch k depends on ``(seed, k)`` only, so that a resumed run sees the same ones.

    A subclass writes :meth:`batch_of` and, where structures are not drawn evenly, :meth:`pick`. Several processes, and
    several workers of a loader, share the numbers. (There is no ``__len__``: loaders would take it for the number of batches.)

    Parameters
    ----------
    representation : Representation
        Its ``augment`` is applied to every batch.
    count : int
        Number of structures.
    batch_size : int
    dropout : float
        See :func:`drop_conditions`.
    seed : int
    start : int
        Number of the first batch.
    """

    sizes: np.ndarray | None = None  # (n,), where batches of similar size save work

    def __init__(
        self,
        representation: Representation,
        count: int,
        *,
        batch_size: int = 32,
        dropout: float = 0.15,
        seed: int = 0,
        start: int = 0,
    ) -> None:
        self.representation, self.count = representation, int(count)
        self.batch_size, self.seed = check_integer('batch_size', batch_size, 1), check_integer('seed', seed, 0)
        self.start = int(start)
        self.dropout = check_number('dropout', dropout, 'the share of conditions that are left out, 0 to 1', strict=False)
        if self.dropout > 1:
            raise ValueError(f'dropout is the share of conditions that are left out, 0 to 1; got {dropout!r}')

    def batch_of(self, index: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        """Return a batch of some structures with all their conditions; ``rng`` is for random changes, None for none."""
        raise NotImplementedError

    def pick(self, k: int, rng: np.random.Generator) -> np.ndarray:
        """Return the indices of the structures of batch k."""
        return rng.integers(self.count, size=self.batch_size)

    def draw(self, k: int) -> Batch:
        """Return batch k."""
        rng = np.random.default_rng((self.seed, k))
        batch = self.batch_of(self.pick(k, rng), rng)
        batch.conditions = drop_conditions(batch.conditions, rng, self.dropout)
        return self.representation.augment(batch, torch.Generator().manual_seed(int(rng.integers(2**62))))

    def __iter__(self) -> Iterator[Batch]:
        rank, world = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        worker = get_worker_info()
        k, step = (self.start, 1) if worker is None else (self.start + worker.id, worker.num_workers)  # loaders take turns
        while True:
            yield self.draw(k * world + rank)
            k += step


def pick_alike(source: EndlessBatches, k: int) -> np.ndarray:
    """Return the structures of batch k: those of some batches are drawn together and sorted by size."""
    rng = np.random.default_rng((source.seed, k // CHUNKS))
    index = rng.integers(source.count, size=CHUNKS * source.batch_size)
    order = np.argsort(source.sizes[index], kind='stable')
    chunk = rng.permutation(CHUNKS)[k % CHUNKS]
    return index[order[chunk * source.batch_size : (chunk + 1) * source.batch_size]]


def fixed_batches(source: EndlessBatches, limit: int = 512, size: int = 128) -> list[Batch]:
    """Return validation batches: up to ``limit`` structures, evenly taken, sorted by size, unchanged, all conditions known."""
    index = np.arange(0, source.count, max(1, source.count // limit))[:limit]
    if source.sizes is not None:
        index = index[np.argsort(source.sizes[index], kind='stable')]
    return [source.batch_of(part) for part in np.split(index, range(size, len(index), size)) if len(part)]


def as_names(conditions: str | Iterable[str]) -> list[str]:
    """Return the names of conditions as a list, one or more; raise a TypeError for values, which stand in key-value pairs."""
    if isinstance(conditions, Mapping):
        raise TypeError(
            f'conditions are names of key-value pairs here, such as {list(conditions)}; the values stand in '
            "atoms.info['key_value_pairs'] of each structure"
        )
    return [conditions] if isinstance(conditions, str) else list(conditions)


def pairs_of(atoms: Atoms) -> dict:
    """Return the key-value pairs of a structure."""
    return atoms.info.get('key_value_pairs', {})


def split_images(
    images: Iterable[Atoms], train: Sequence[str] = ('train',), check: Callable[[Atoms], None] = check_crystal
) -> tuple[list[Atoms], list[Atoms] | None]:
    """Return training and validation images by the split that structures carry; all and None where they carry none.

    ``train`` names the splits to train on; the split 'val' validates if it is not among them. What ``check`` refuses is left out,
    see :func:`usable_structures`.

    Raises
    ------
    ValueError
        No structure can be used; none is of one of these splits, though some carry one.
    """
    images = list(images)
    images = [images[k] for k in usable_structures(images, check)]
    splits = [pairs_of(atoms).get('split') for atoms in images]
    present = sorted({split for split in splits if split is not None})
    if not present:
        if tuple(train) != ('train',):
            log.warning('the data has no splits: all of it is taken, not %s', ', '.join(train))
        return images, None
    if missing := set(train) - set(present):
        raise ValueError(
            f'the data has no split {sorted(missing)}; it has {present}; name those to train on, or take the key split away'
        )
    held = [atoms for atoms, split in zip(images, splits, strict=True) if split == 'val' and 'val' not in train]
    return [atoms for atoms, split in zip(images, splits, strict=True) if split in train], held or None


def numbers_of(images: list[Atoms]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return numbers in the key-value pairs, each (n,) and NaN where unknown: conditions, and those that are none unless named.

    The others are true or false, or provenance written by this package.
    """
    conditions, others = {}, {}
    pairs, noted = [pairs_of(atoms) for atoms in images], {name for atoms in images for name in notes_of(atoms)}
    for name in sorted({name for p in pairs for name, v in p.items() if isinstance(v, NUMBERS)}):
        values = [p[name] if isinstance(p.get(name), NUMBERS) else np.nan for p in pairs]
        other = name in noted or name in NO_PROPERTY or any(isinstance(v, (bool, np.bool_)) for v in values)
        (others if other else conditions)[name] = np.array(values, float)
    return conditions, others


@dataclass
class Structures:
    """A data set of any structures, as :class:`ase.Atoms`, with values of conditions.

    Parameters
    ----------
    images : list of Atoms
    conditions : dict of str to list of n values
        Numbers, words, sets of symbols or vectors; None where unknown.
    """

    images: list[Atoms]
    conditions: dict[str, Sequence | np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError('the data set is empty: no structures to train on')
        for name, values in self.conditions.items():
            if len(values) != len(self.images):
                raise ValueError(f'a condition has one value per structure, {len(self.images)}; {name} has {len(values)}')

    @classmethod
    def from_atoms(cls, images: list[Atoms], conditions: Sequence[str] | dict | None = None) -> Structures:
        """Take structures, with conditions from their key-value pairs.

        Parameters
        ----------
        conditions : list of str or dict, optional
            Names of key-value pairs, or name -> n values; default: all numbers that are no bookkeeping.

        Raises
        ------
        ValueError
            No structures; a name that none of them has.
        """
        images = list(images)
        if conditions is None:
            conditions = numbers_of(images)[0]
        elif not isinstance(conditions, dict):
            conditions = {name: [pairs_of(atoms).get(name) for atoms in images] for name in as_names(conditions)}
            if missing := [name for name, values in conditions.items() if all(v is None for v in values)]:
                raise ValueError(f'no structure has a key-value pair {missing}; leave it out of conditions, or write it')
        return cls(images, dict(conditions))

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: np.ndarray) -> Structures:
        """Return the structures of an index array."""
        return Structures([self.images[k] for k in index], {n: [v[k] for k in index] for n, v in self.conditions.items()})

    def split(self, fraction: float = 0.05, seed: int = 0) -> tuple[Structures, Structures]:
        """Split by composition, so that polymorphs do not leak, or by structure where there is one; a single one is both."""
        formulas = [atoms.get_chemical_formula() for atoms in self.images]
        groups = formulas if len(set(formulas)) > 1 else np.arange(len(self))
        inside = validation_mask(groups, fraction, seed)
        if inside is None:
            return self, self
        return self.select(np.nonzero(~inside)[0]), self.select(np.nonzero(inside)[0])

    def elements(self) -> list[int]:
        """Return the atomic numbers that occur."""
        return sorted({int(z) for atoms in self.images for z in atoms.numbers})

    def fingerprint(self) -> str:
        """Return a hash of positions, cells and numbers."""
        digest = hashlib.sha256()
        for atoms in self.images:
            for values, kind in ((atoms.positions, '<f4'), (atoms.cell[:], '<f4'), (atoms.numbers, '<i2')):
                digest.update(np.round(values, 4).astype(kind).tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> dict:
        """Return what a checkpoint says about its data."""
        return {'structures': len(self), 'elements': self.elements(), 'fingerprint': self.fingerprint()}


class RandomBatches(EndlessBatches):
    """Draw structures of any representation; dense fields are encoded once, others batch by batch.

    Parameters
    ----------
    data : Structures
    representation : Representation
    forms : dict of str to Condition
        Of the conditions of the data.
    options
        See :class:`EndlessBatches`.
    """

    def __init__(self, data: Structures, representation: Representation, forms: dict[str, Condition], **options: Any) -> None:
        super().__init__(representation, len(data), **options)
        self.data = data
        known = {name: or_unknown(form, known_values(data.conditions[name])) for name, form in forms.items()}
        self.conditions = {name: form.tensor(known[name]) for name, form in forms.items()}  # (n, ...)
        several = [atoms for atoms in data.images if len(atoms) > 1][:1]  # with one atom a field of atoms looks dense
        self._dense = self._encoded() if several and is_dense(representation.encode(several)) else None

    def _encoded(self) -> Batch:
        images, step = self.data.images, ENCODED_AT_ONCE
        parts = [self.representation.encode(images[k : k + step]) for k in range(0, len(images), step)]
        fields, extras = (_joined([getattr(part, name) for part in parts], parts) for name in ('fields', 'extras'))
        rows = dict.fromkeys(fields, torch.arange(len(images)))
        return Batch(fields, rows, len(images), extras=extras)

    def batch_of(self, index: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        """Return a batch of some structures with their conditions."""
        index = np.asarray(index)
        conditions = {name: values[torch.from_numpy(index)] for name, values in self.conditions.items()}
        if self._dense is None:
            return self.representation.encode([self.data.images[k] for k in index], conditions)
        batch = take(self._dense, index)
        return Batch(batch.fields, batch.rows, batch.size, conditions=conditions, extras=batch.extras)


def known_values(values: Iterable) -> list:
    """Return values with None for numbers that are not finite."""
    return [None if isinstance(v, NUMBERS) and not np.isfinite(v) else v for v in values]


def is_dense(batch: Batch) -> bool:
    """Tell whether every field has one row per structure, in free space."""
    return not batch.domains and all(
        len(rows) == batch.size and bool((rows == torch.arange(len(rows))).all()) for rows in batch.rows.values()
    )


def take(batch: Batch, index: np.ndarray) -> Batch:
    """Return some structures of a dense batch; extras of length B are taken as well."""
    index = torch.as_tensor(np.asarray(index))
    rows = torch.arange(len(index))

    def chosen(table: dict) -> dict:
        return {name: _at(value, index, batch.size) for name, value in table.items()}

    fields, conditions, extras = (chosen(table) for table in (batch.fields, batch.conditions, batch.extras))
    return Batch(fields, dict.fromkeys(fields, rows), len(index), conditions=conditions, extras=extras)


def _at(value, index: Tensor, size: int):
    """Return the entries of a tensor or list that has one per structure; anything else as it is."""
    if isinstance(value, Tensor):
        return value[index] if value.dim() and len(value) == size else value
    return [value[k] for k in index.tolist()] if isinstance(value, list) and len(value) == size else value


def _joined(tables: list[dict], parts: list[Batch]) -> dict:
    """Join tables of tensors or lists with one entry per structure; anything else is that of the first."""
    out = {}
    for name, first in tables[0].items():
        values = [table[name] for table in tables]
        per_structure = all(hasattr(v, '__len__') and len(v) == part.size for v, part in zip(values, parts, strict=True))
        if isinstance(first, Tensor) and first.dim() and per_structure:
            out[name] = torch.cat(values)
        elif isinstance(first, list) and per_structure:
            out[name] = [item for value in values for item in value]
        else:
            out[name] = first
    return out
