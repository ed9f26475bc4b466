"""In-memory data set of overlayers and an endless stream of random batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from ase import Atoms

from ..diffusion import Batch
from ..representations.slab import (
    Slab,
    check_slab,
    frozen_mask,
    measures,
    neighbor_distance,
    surface_height,
    system_text,
    top_contacts,
)
from .data import NUMBERS, EndlessBatches, usable_structures, validation_mask


@dataclass
class Item:
    """One structure as arrays: mobile and substrate positions (A), numbers, cell, energy (eV), forces (eV/A).

    ``surface_z`` is the height of the substrate, ``spacing`` the distance of neighbors in it (A), ``contacts`` their number in
    the topmost layer.
    """

    positions: np.ndarray
    substrate: np.ndarray
    numbers: np.ndarray
    substrate_numbers: np.ndarray
    cell: np.ndarray
    surface_z: float
    spacing: float
    contacts: int
    group: str
    run: int = -1
    energy: float = float('nan')
    forces: np.ndarray | None = None
    energy_above_best: float = float('nan')
    is_validation: bool = False

    def span(self, spacing: float | None = None) -> tuple[float, float]:
        """Return the lowest and the highest mobile atom above the substrate, A, after scaling."""
        heights = (self.positions[:, 2] - self.surface_z) * Slab(spacing=spacing).scale(self)
        return float(heights.min()), float(heights.max())

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
            surface_z=self.surface_z,
            spacing=self.spacing,
            contacts=self.contacts,
            group=self.group,
            run=self.run,
            energy=self.energy * k,
            energy_above_best=self.energy_above_best,
            forces=None if self.forces is None else np.tile(self.forces, (k, 1)),
        )


def _item(atoms: Atoms, spacings: dict) -> Item:
    """Return a structure as arrays; raise a ValueError where it is no overlayer on a frozen substrate."""
    check_slab(atoms)
    f = frozen_mask(atoms)
    if f.all():
        raise ValueError('the slab has no mobile atoms: every atom is in FixAtoms')
    if not atoms.numbers.all():
        raise ValueError('the slab has atoms X, which are no elements')
    results = getattr(atoms.calc, 'results', {})
    cell = np.asarray(atoms.cell)
    formula = atoms[~f].get_chemical_formula()
    forces = results.get('forces')
    substrate = atoms.positions[f].tobytes() + atoms.numbers[f].tobytes() + cell.tobytes()
    if substrate not in spacings:
        spacings[substrate] = neighbor_distance(atoms, f), top_contacts(atoms, f)
    return Item(
        positions=atoms.positions[~f],
        substrate=atoms.positions[f],
        numbers=atoms.numbers[~f],
        substrate_numbers=atoms.numbers[f],
        cell=cell,
        surface_z=surface_height(atoms),
        spacing=spacings[substrate][0],
        contacts=spacings[substrate][1],
        group=f'{formula}|{atoms[f].get_chemical_formula()}|' + ','.join(f'{x:.2f}' for x in cell[:2, :2].ravel()),
        is_validation=bool(atoms.info.get('key_value_pairs', {}).get('held', False)),
        energy=float(results.get('energy', np.nan)),
        forces=None if forces is None else np.asarray(forces)[~f],
    )


@dataclass
class Overlayers:
    """A data set of overlayers, ready for training.

    ``energy_above_best`` of an item is the energy above the best structure of the same substrate, cell and composition, per
    mobile atom (eV).
    """

    items: list[Item]
    pbc: tuple[bool, bool, bool] = (True, True, False)
    groups: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_atoms(cls, images: Iterable[Atoms]) -> Overlayers:
        """Take images with FixAtoms; energies and forces from their calculators where present.

        Raises
        ------
        ValueError
            There is no overlayer on a frozen substrate; what is none is left out, see
            :func:`~ase_diffusion.training.data.usable_structures`.
        """
        images = list(images)
        found, names = usable_structures(images, partial(_item, spacings={})), {}
        for k, item in found.items():
            pairs = images[k].info.get('key_value_pairs', {})
            run = pairs.get('run', images[k].info.get('run'))
            if isinstance(run, str):
                item.run = names.setdefault(run, -1 - len(images) - len(names))
            else:
                item.run = int(run) if isinstance(run, NUMBERS) and np.isfinite(run) else -1 - k
        return cls(list(found.values()))._compared()

    def _compared(self) -> Overlayers:
        best: dict[str, float] = {}
        for item in self.items:
            if np.isfinite(item.energy):
                best[item.group] = min(best.get(item.group, np.inf), item.energy)
        for item in self.items:
            if item.group in best:
                item.energy_above_best = (item.energy - best[item.group]) / len(item.numbers)
        self.groups = best
        return self

    def select(self, keep: Callable[[Item], bool]) -> Overlayers:
        """Return the items for which ``keep(item)`` holds; energies above the best stay as they are."""
        return Overlayers([item for item in self.items if keep(item)], self.pbc, self.groups)

    def split(self, fraction: float = 0.05, seed: int = 0) -> tuple[Overlayers, Overlayers]:
        """Split whole relaxations (runs) into training and held-out sets; a single run is both.

        Frames that carry the key ``held`` decide it themselves, so that what was held out stays so when data are added and a
        training starts from earlier weights. Otherwise a share of the runs is drawn.
        """
        if any(item.is_validation for item in self.items):
            held = {item.run for item in self.items if item.is_validation}
        else:
            runs = np.array([item.run for item in self.items])
            inside = validation_mask(runs, fraction, seed)
            if inside is None:
                return self, self
            held = set(runs[inside].tolist())
        return self.select(lambda i: i.run not in held), self.select(lambda i: i.run in held)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def conditions(self) -> dict[str, np.ndarray]:
        """``energy`` (n,): eV above the best of its composition, per mobile atom; empty where no energy is known."""
        energies = np.array([item.energy_above_best for item in self.items])
        return {'energy': energies} if np.isfinite(energies).any() else {}

    def describe(self) -> dict:
        """Return what a checkpoint says about its data."""
        mobile, substrate = self.elements()
        return {
            'structures': len(self.items),
            'relaxations': len({item.run for item in self.items}),
            'mobile_elements': mobile,
            'substrate_elements': substrate,
            'systems': self.systems(),
            **self.ranges(),
            'fingerprint': self.fingerprint(),
        }

    def ranges(self) -> dict[str, list[float]]:
        """Return the least and the largest of each of :func:`ase_diffusion.representations.slab.measures`."""
        found = [measures(i.cell, len(i.numbers), i.substrate, i.substrate_numbers, i.spacing) for i in self.items]
        return {name: [round(f(each[name] for each in found), 3) for f in (min, max)] for name in found[0]}

    def systems(self) -> dict[str, int]:
        """Return the relaxations of what is on what, by facet: see :func:`ase_diffusion.representations.slab.system_text`."""
        runs: dict[str, set] = {}
        for item in self.items:
            runs.setdefault(system_text(item.substrate_numbers, item.numbers, item.contacts), set()).add(item.run)
        return {key: len(runs[key]) for key in sorted(runs)}

    def elements(self) -> tuple[list[int], list[int]]:
        """Return the atomic numbers of mobile and of substrate atoms."""
        mobile = sorted({int(z) for item in self.items for z in item.numbers})
        return mobile, sorted({int(z) for item in self.items for z in item.substrate_numbers})

    def window(self, margin: float = 0.25, spacing: float | None = None) -> tuple[float, float]:
        """Return the heights above the substrate that hold all mobile atoms, A, widened by ``margin``.

        With ``spacing`` they are scaled, see :class:`~ase_diffusion.representations.slab.Slab`.
        """
        spans = np.array([item.span(spacing) for item in self.items])
        return float(spans[:, 0].min()) - margin, float(spans[:, 1].max()) + margin

    def fingerprint(self) -> str:
        """Return a hash of the positions and numbers of the mobile atoms."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(np.round(item.positions, 4).astype('<f4').tobytes() + item.numbers.astype('<i2').tobytes())
        return digest.hexdigest()[:16]

    def batch(self, items: list[Item], representation: Slab, **conditions: np.ndarray) -> Batch:
        """Assemble items into a Batch."""
        return representation.assemble(
            np.concatenate([i.positions for i in items]),
            np.concatenate([i.substrate for i in items]),
            np.concatenate([i.numbers for i in items] + [i.substrate_numbers for i in items]),
            np.stack([i.cell for i in items]),
            [i.surface_z for i in items],
            [len(i.numbers) for i in items],
            [len(i.substrate_numbers) for i in items],
            self.pbc,
            conditions,
            [representation.scale(i) for i in items],
        )


class OverlayerData(EndlessBatches):
    """Draw random batches without end, with the condition ``energy`` (B,), eV per mobile atom above the best.

    Parameters
    ----------
    data : Overlayers
    representation : Slab
    repeat : float
        Share of the structures that are repeated in the plane (2 x 1, 1 x 2, 2 x 2), along periodic directions only.
    max_atoms : int
        A structure is not repeated beyond this many atoms.
    options
        See :class:`~ase_diffusion.training.data.EndlessBatches`.
    """

    def __init__(
        self,
        data: Overlayers,
        representation: Slab,
        *,
        batch_size: int = 16,
        repeat: float = 0.25,
        max_atoms: int = 120,
        **options: Any,
    ) -> None:
        if not data.items:
            raise ValueError('the data set is empty after selection: widen the energy window or add data')
        super().__init__(representation, len(data), batch_size=batch_size, **options)
        self.data, self.repeat, self.max_atoms = data, float(repeat), int(max_atoms)
        a, b, _ = data.pbc
        self.repeats = [(m, n) for m, n in ((2, 1), (1, 2), (2, 2)) if (a or m == 1) and (b or n == 1)]

    def batch_of(self, index: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        """Return a batch with the targets ``energy`` (B,) and ``forces`` (n, 3) in ``extras`` where there are any.

        With ``rng`` some of the structures are repeated.
        """
        items = [self.data.items[k] for k in index]
        if rng is not None:
            items = [self._repeated(item, rng) for item in items]
        batch = self.data.batch(items, self.representation, energy=np.array([item.energy_above_best for item in items]))
        batch.extras['energy'] = torch.tensor([item.energy for item in items], dtype=torch.float64)
        if all(item.forces is not None for item in items):
            forces = np.concatenate([item.forces for item in items])
            batch.extras['forces'] = torch.as_tensor(forces, dtype=self.representation.dtype)
        return batch

    def _repeated(self, item: Item, rng: np.random.Generator) -> Item:
        if rng.random() < self.repeat and self.repeats:
            m, n = self.repeats[rng.integers(len(self.repeats))]
            if (len(item.numbers) + len(item.substrate_numbers)) * m * n <= self.max_atoms:
                return item.repeat(m, n)
        return item
