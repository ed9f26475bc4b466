"""Molecules that keep their geometry while overlayers are generated."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.build.molecule import extra
from ase.collections import g2

from ...diffusion import Batch, JointProcess
from ...diffusion.rigid import RigidBodies, RigidProcess
from ...utils.atoms import VALID_RATIO, min_distance_ratio
from ..text import formula_text


class Molecules:
    """The molecules of an overlayer, its last atoms, one molecule after another.

    Parameters
    ----------
    given : sequence of str or Atoms
        Names that :func:`ase.build.molecule` knows, or molecules.

    Attributes
    ----------
    numbers : list of int
        Atomic numbers of all.
    names : list of str
        A name or formula of each, for people.
    """

    def __init__(self, given: Sequence[str | Atoms] = ()) -> None:
        given = [given] if isinstance(given, (str, Atoms)) else given
        if not isinstance(given, Iterable) or isinstance(given, Mapping):
            raise TypeError(f"molecules is a list of names and Atoms, such as molecules=['CO', 'H2O']; got {given!r}")
        self.given = list(given)
        self.each = [checked(one) for one in self.given]
        self.numbers = [int(number) for one in self.each for number in one.numbers]
        self.names = [one if isinstance(one, str) else formula_text(str(one.symbols), one.numbers.tolist()) for one in self.given]
        self.bonds = [joined(one.positions) for one in self.each]

    def check_whole(self, indices: Sequence[int], total: int) -> None:
        """Raise a ValueError where of a molecule some atoms are to be generated anew and others kept."""
        first, chosen = total - len(self.numbers), set(indices)
        for one in self.each:
            part, first = range(first, first + len(one)), first + len(one)
            if chosen & set(part) and (missing := sorted(set(part) - chosen)):
                raise ValueError(
                    f'a molecule is generated as a whole or kept; of {one.symbols} {sorted(chosen & set(part))} are to be '
                    f'generated and {missing} kept: add these'
                )

    def bodies(self, batch: Batch, scale: float, kept: torch.Tensor | None = None) -> RigidBodies:
        """Return the molecules of a batch, lengths times ``scale``, as rigid bodies; not those in rows ``kept``, bool (n,)."""
        count = len(batch.fields['positions']) // batch.size
        begins = torch.arange(batch.size, device=batch.extras['cell'].device) * count
        cell = batch.extras['cell'][:, :2, :2].double()
        found, first = [], count - len(self.numbers)
        for one, bonds in zip(self.each, self.bonds, strict=True):
            if kept is None or not kept[first]:
                rows = begins[:, None] + torch.arange(first, first + len(one), device=begins.device)  # (B, k)
                shape = torch.as_tensor(one.positions * scale, device=begins.device).expand(batch.size, -1, -1)  # (B, k, 3)
                found.append((rows, shape, cell, bonds))
            first += len(one)
        return RigidBodies(*zip(*found, strict=True)) if found else RigidBodies([], [], [], [])

    def todict(self) -> list[str | dict]:
        """Return names, and numbers and positions of molecules of the user, fit for JSON; :meth:`fromdict` reads it."""
        return [
            given if isinstance(given, str) else {'numbers': one.numbers.tolist(), 'positions': one.positions.tolist()}
            for given, one in zip(self.given, self.each, strict=True)
        ]

    @staticmethod
    def fromdict(values: list[str | dict]) -> list[str | Atoms]:
        """Return what ``given`` was."""
        return [one if isinstance(one, str) else Atoms(**one) for one in values]


def rigid_process(process: JointProcess, bodies: RigidBodies) -> JointProcess:
    """Return the process in which the bodies are rigid."""
    if not bodies.rows:
        return process
    own = RigidProcess(process.processes['positions'], bodies.poses)
    return JointProcess({**process.processes, 'positions': own}, process.weights, process.clock)


def whole(batch: Batch, bodies: RigidBodies) -> Batch:
    """Return a finished batch with each body in one piece, in float64: the exact geometry."""
    x = batch.fields['positions']
    return batch.with_fields(positions=bodies.poses(x.double(), whole=True)) if bodies.rows else batch


def checked(given: str | Atoms) -> Atoms:
    """Return numbers and positions of a molecule, given by its name or itself.

    Raises
    ------
    TypeError, ValueError
        It is neither a name nor Atoms; the name is unknown; there are no atoms, or not at finite positions, or too close.
    """
    law = 'a molecule is a name that ase.build.molecule knows, or Atoms'
    if isinstance(given, str):
        if given not in (names := [*g2.names, *extra]):
            near = [name for name in names if sorted(name) == sorted(given)] or difflib.get_close_matches(given, names, 4, 0.5)
            raise ValueError(f'{law}; got {given!r}' + (f' (there are {", ".join(near)})' if near else ''))
        given = molecule(given)
    if not isinstance(given, Atoms):
        raise TypeError(f'{law}; got {given!r}')
    new = Atoms(given.numbers, given.positions)
    if not len(new) or not (new.numbers > 0).all() or not np.isfinite(new.positions).all():
        raise ValueError(f'a molecule has atoms of elements at finite positions; got {given}')
    if (ratio := min_distance_ratio(new)) < VALID_RATIO:
        raise ValueError(
            f'atoms of a molecule are at least {VALID_RATIO} of the sum of their covalent radii apart, as all atoms of what is '
            f'generated; in {new.symbols} it is {ratio:.2f}; are the positions in A?'
        )
    return new


def joined(positions: np.ndarray) -> list[tuple[int, int]]:
    """Return the shortest tree of points (k, 3) as pairs (new, old), from the first point on."""
    d, inside, bonds = np.linalg.norm(positions[:, None] - positions, axis=-1), [0], []
    while len(inside) < len(d):
        outside = [k for k in range(len(d)) if k not in inside]
        new, old = min(((new, old) for new in outside for old in inside), key=lambda pair: d[pair])
        bonds.append((new, old))
        inside.append(new)
    return bonds
