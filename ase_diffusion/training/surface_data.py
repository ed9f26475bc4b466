"""Training data of overlayers: arrays once, random batches for ever."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from ase import Atoms
from torch.utils.data import IterableDataset

from ..representations.slab import Slab, check_same_pbc, check_slab, frozen_mask, surface_height


@dataclass
class Item:
    """One structure as arrays: mobile and substrate positions (A), numbers, cell, energy (eV), forces (eV/A)."""

    positions: np.ndarray
    substrate: np.ndarray
    numbers: np.ndarray
    substrate_numbers: np.ndarray
    cell: np.ndarray
    top: float
    group: str
    run: int
    energy: float = float('nan')
    forces: np.ndarray | None = None
    relative: float = float('nan')
    held: bool = False

    def repeat(self, m: int, n: int) -> Item:
        """Return the structure repeated m x n times in the plane; built from the original, never compounded."""
        shifts = [i * self.cell[0] + j * self.cell[1] for i in range(m) for j in range(n)]
        k = m * n
        return Item(
            positions=np.concatenate([self.positions + s for s in shifts]),
            substrate=np.concatenate([self.substrate + s for s in shifts]),
            numbers=np.tile(self.numbers, k),
            substrate_numbers=np.tile(self.substrate_numbers, k),
            cell=self.cell * np.array([[m], [n], [1]]),
            top=self.top,
            group=self.group,
            run=self.run,
            energy=self.energy * k,
            relative=self.relative,
            forces=None if self.forces is None else np.tile(self.forces, (k, 1)),
        )


@dataclass
class Overlayers:
    """A data set of overlayers, ready for training.

    ``relative`` of an item is the energy above the best structure of the same substrate, cell and composition, per
    mobile atom (eV).
    """

    items: list[Item]
    pbc: tuple[bool, bool, bool] = (True, True, False)
    groups: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_atoms(cls, images: list[Atoms]) -> Overlayers:
        """Take images with FixAtoms; energies and forces from their calculators where present.

        Raises
        ------
        ValueError
            No images, or one that is not an overlayer on a frozen substrate.
        """
        if not images:
            raise ValueError('the data set is empty: no structures to train on')
        check_same_pbc(images)
        items = []
        for k, atoms in enumerate(images):
            try:
                check_slab(atoms)
            except ValueError as error:
                raise ValueError(f'structure {k} of the data: {error}') from error
            f = frozen_mask(atoms)
            if f.all():
                raise ValueError(f'structure {k} of the data has no mobile atoms: every atom is in FixAtoms')
            results = getattr(atoms.calc, 'results', {}) if atoms.calc is not None else {}
            cell = np.asarray(atoms.cell)
            formula = atoms[~f].get_chemical_formula()
            group = f'{formula}|{f.sum()}|' + ','.join(f'{x:.2f}' for x in cell[:2, :2].ravel())
            forces = results.get('forces')
            pairs = atoms.info.get('key_value_pairs', {})
            run = pairs.get('run', atoms.info.get('run', -1 - k))
            items.append(
                Item(
                    positions=atoms.positions[~f],
                    substrate=atoms.positions[f],
                    numbers=atoms.numbers[~f],
                    substrate_numbers=atoms.numbers[f],
                    cell=cell,
                    top=surface_height(atoms),
                    group=group,
                    run=int(run),
                    held=bool(pairs.get('held', False)),
                    energy=float(results.get('energy', np.nan)),
                    forces=None if forces is None else np.asarray(forces)[~f],
                )
            )
        return cls(items, tuple(bool(p) for p in images[0].pbc))._relative()

    def _relative(self) -> Overlayers:
        best: dict[str, float] = {}
        for item in self.items:
            if np.isfinite(item.energy):
                best[item.group] = min(best.get(item.group, np.inf), item.energy)
        for item in self.items:
            if item.group in best:
                item.relative = (item.energy - best[item.group]) / len(item.numbers)
        self.groups = best
        return self

    def select(self, keep) -> Overlayers:
        """Return the items for which ``keep(item)`` holds; relative energies stay as they are."""
        return Overlayers([item for item in self.items if keep(item)], self.pbc, self.groups)

    def split(self, fraction: float = 0.05, seed: int = 0) -> tuple[Overlayers, Overlayers]:
        """Split whole relaxations (runs) into training and held-out sets; a single run is both.

        Frames that carry the key ``held`` decide it themselves, so that what was held out stays so when data are added and a
        training starts from earlier weights. Otherwise a share of the runs is drawn.
        """
        if any(item.held for item in self.items):
            held = {item.run for item in self.items if item.held}
            return self.select(lambda i: i.run not in held), self.select(lambda i: i.run in held)
        runs = np.unique([item.run for item in self.items])
        if len(runs) < 2:
            return self, self
        held = set(np.random.default_rng(seed).permutation(runs)[: max(1, round(fraction * len(runs)))].tolist())
        return self.select(lambda i: i.run not in held), self.select(lambda i: i.run in held)

    def elements(self) -> tuple[list[int], list[int]]:
        """Return the atomic numbers of mobile and of substrate atoms."""
        mobile = sorted({int(z) for item in self.items for z in item.numbers})
        return mobile, sorted({int(z) for item in self.items for z in item.substrate_numbers})

    def window(self, margin: float = 0.25) -> tuple[float, float]:
        """Return the heights above the substrate that hold all mobile atoms, A, widened by ``margin``."""
        low = min(float((item.positions[:, 2] - item.top).min()) for item in self.items)
        high = max(float((item.positions[:, 2] - item.top).max()) for item in self.items)
        return low - margin, high + margin

    def fingerprint(self) -> str:
        """Return a hash of the positions and numbers of the mobile atoms."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(np.round(item.positions, 4).astype('<f4').tobytes() + item.numbers.astype('<i2').tobytes())
        return digest.hexdigest()[:16]

    def batch(self, items: list[Item], representation: Slab, **conditions):
        """Assemble items into a Batch."""
        return representation.assemble(
            np.concatenate([i.positions for i in items]),
            np.concatenate([i.substrate for i in items]),
            np.concatenate([i.numbers for i in items] + [i.substrate_numbers for i in items]),
            np.stack([i.cell for i in items]),
            [i.top for i in items],
            [len(i.numbers) for i in items],
            [len(i.substrate_numbers) for i in items],
            self.pbc,
            conditions,
        )


class EndlessBatches(IterableDataset):
    """Yield ``draw(k)`` for k = ``start``, ``start + 1``, ... for ever; several processes share the numbers."""

    def __iter__(self):
        rank, world = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        k = self.start
        while True:
            yield self.draw(k * world + rank)
            k += 1


class OverlayerData(EndlessBatches):
    """Draw random batches without end; batch k depends on ``(seed, k)`` only, so that a resumed run sees the same ones.

    Parameters
    ----------
    data : Overlayers
    representation : Slab
    batch_size : int
    repeat : float
        Share of the structures that are repeated in the plane (2 x 1, 1 x 2, 2 x 2), along periodic directions only.
    max_atoms : int
        A structure is not repeated beyond this many atoms.
    start : int
        First batch.
    """

    def __init__(
        self, data: Overlayers, representation: Slab, *, batch_size=16, repeat=0.25, max_atoms=120, seed=0, start=0, dropout=0.15
    ):
        if not data.items:
            raise ValueError('the data set is empty after selection: widen the energy window or add data')
        self.data, self.representation = data, representation
        self.batch_size, self.repeat, self.max_atoms = int(batch_size), float(repeat), int(max_atoms)
        self.seed, self.start, self.dropout = int(seed), int(start), float(dropout)
        a, b, _ = data.pbc
        self.repeats = [(m, n) for m, n in ((2, 1), (1, 2), (2, 2)) if (a or m == 1) and (b or n == 1)]

    def draw(self, k: int):
        """Return batch k, with the targets ``energy`` (B,) and ``forces`` (n, 3) in ``extras`` where there are any."""
        rng = np.random.default_rng((self.seed, k))
        items = []
        for index in rng.integers(len(self.data.items), size=self.batch_size):
            item = self.data.items[index]
            if rng.random() < self.repeat and self.repeats:
                m, n = self.repeats[rng.integers(len(self.repeats))]
                if (len(item.numbers) + len(item.substrate_numbers)) * m * n <= self.max_atoms:
                    item = item.repeat(m, n)
            items.append(item)
        return self.assemble(items, rng)

    def assemble(self, items, rng=None):
        """Turn items into a batch with the condition ``energy`` (dropped at random if ``rng`` is given)."""
        relative = np.array([item.relative for item in items])
        if rng is not None:
            relative[rng.random(len(items)) < self.dropout] = np.nan
        batch = self.data.batch(items, self.representation, energy=relative)
        batch.extras['energy'] = torch.tensor([item.energy for item in items], dtype=torch.float64)
        if all(item.forces is not None for item in items):
            forces = np.concatenate([item.forces for item in items])
            batch.extras['forces'] = torch.as_tensor(forces, dtype=self.representation.dtype)
        return batch
