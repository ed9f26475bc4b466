"""Overlayers on a frozen substrate: FixAtoms is the mask, everything else is mobile."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from ..diffusion import Batch, GeometricVE, Interval, JointProcess, ProductProcess, Torus, TruncatedNormal, WrappedNormal
from ..utils.atoms import check_one_piece, copy_atoms, frozen_mask, rotation_hint
from .base import PlainRepresentation, require

BELOW = 1.0  # A; mobile atoms of a slab may lie that far below the window
FIX_HINT = (
    'mark the substrate with a constraint, e.g.\n'
    '    from ase.constraints import FixAtoms\n'
    '    slab.set_constraint(FixAtoms(indices=[atom.index for atom in slab if atom.tag >= 1]))'
)


def check_slab(slab: Atoms) -> None:
    """Raise a ValueError if ``slab`` cannot carry an overlayer.

    Needed: at least one atom, finite positions, a cell whose a and b lie in the xy plane and whose c rises out of it,
    periodic in the plane only, at least one atom held by FixAtoms, and those in one piece along z.
    """
    if not isinstance(slab, Atoms):
        raise TypeError(f'slab must be an ase.Atoms, got {type(slab).__name__}')
    if len(slab) == 0:
        raise ValueError('the slab has no atoms; build one, e.g. with ase.build.fcc111')
    if not np.isfinite(slab.positions).all():
        bad = np.nonzero(~np.isfinite(slab.positions).all(1))[0].tolist()
        raise ValueError(f'positions must be finite; atoms {bad[:10]} of the slab are NaN or infinite')
    cell = np.asarray(slab.cell)
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-3:
        raise ValueError(
            f'the slab needs a cell with three independent vectors, got {cell.tolist()}; '
            'slab.center(vacuum=10, axis=2) makes one along z'
        )
    if slab.pbc[2]:
        raise ValueError(f'a slab must not be periodic along z, got pbc={slab.pbc.tolist()}; set slab.pbc = (True, True, False)')
    if not slab.pbc[:2].all():
        raise ValueError(f'a slab is periodic in the plane, got pbc={slab.pbc.tolist()}; set slab.pbc = (True, True, False)')
    if np.abs(cell[:2, 2]).max() > 1e-6:
        raise ValueError(
            f'the first two cell vectors must lie in the xy plane (the surface normal is z), got '
            f'{cell[:2].tolist()}; {rotation_hint(slab)}'
        )
    frozen = frozen_mask(slab)
    if not frozen.any():
        raise ValueError(f'the slab has no FixAtoms, so nothing says which atoms are the substrate; {FIX_HINT}')
    check_one_piece(slab, frozen)


def check_mobile_atoms(slab: Atoms, low: float) -> None:
    """Raise a ValueError if atoms of the slab that no FixAtoms holds lie below the window, so that they would come on top.

    Parameters
    ----------
    slab : Atoms
    low : float
        Lower end of the window, A above the topmost frozen atom.
    """
    bottom = surface_height(slab) + low - BELOW
    below = np.flatnonzero(~frozen_mask(slab) & (slab.positions[:, 2] < bottom))
    if len(below):
        raise ValueError(
            f'atoms that FixAtoms does not hold are generated, in the window that begins {low:g} A above the topmost fixed atom; '
            f'atoms {below[:10].tolist()} of the slab lie below it and would be moved on top: hold them as well, e.g. '
            'slab.set_constraint(FixAtoms(indices=range(len(slab)))), lower the window with height=(low, high), or turn the slab '
            'over where its surface is the lower side: slab.rotate(180, "x", rotate_cell=True)'
        )


def check_same_pbc(images: list[Atoms]) -> None:
    """Raise a ValueError if the images differ in pbc: a batch has one."""
    for k, atoms in enumerate(images):
        if (atoms.pbc != images[0].pbc).any():
            raise ValueError(
                f'structures that share a batch need the same pbc; structure {k} has '
                f'{atoms.pbc.tolist()}, structure 0 has {images[0].pbc.tolist()}. Treat them apart, or '
                'set atoms.pbc = (True, True, False) on all slabs'
            )


def surface_height(slab: Atoms) -> float:
    """Return the z of the topmost frozen atom, A; windows are measured from it (from 0 where no atom is frozen)."""
    frozen = frozen_mask(slab)
    return float(slab.positions[frozen, 2].max()) if frozen.any() else 0.0


def mobile_layer_height(slab: Atoms) -> float:
    """Return how far atoms of the slab that no FixAtoms holds reach above the topmost frozen one, A."""
    return max(0.0, float(slab.positions[:, 2].max()) - surface_height(slab))


class SlabTemplate:
    """A slab with its mobile atoms, and what is read off it once: frozen mask, surface height, elements.

    Parameters
    ----------
    atoms : Atoms
        See :func:`check_slab`; not copied, not changed.

    Attributes
    ----------
    frozen : bool array (n,)
        Atoms held by FixAtoms.
    surface_z : float
        z of the topmost frozen atom, A; windows are measured from it (0 where no atom is frozen).
    """

    def __init__(self, atoms: Atoms) -> None:
        self.atoms, self.frozen = atoms, frozen_mask(atoms)
        self.surface_z = float(atoms.positions[self.frozen, 2].max()) if self.frozen.any() else 0.0

    @classmethod
    def of(cls, atoms: Atoms | SlabTemplate) -> SlabTemplate:
        """Return the template of a structure; a template passes through."""
        return atoms if isinstance(atoms, cls) else cls(atoms)

    @cached_property
    def elements(self) -> dict[str, set[int]]:
        """Atomic numbers by role, ``'mobile'`` and ``'substrate'``."""
        numbers = self.atoms.numbers
        return {'mobile': set(numbers[~self.frozen].tolist()), 'substrate': set(numbers[self.frozen].tolist())}

    def check_known(self, data: dict, who: str, hint: str = '') -> None:
        """Raise a ValueError where a model never saw an element in its role.

        Parameters
        ----------
        data : dict
            The entry ``data`` of a header: ``mobile_elements`` and ``substrate_elements``, atomic numbers; no entry, no check.
        who, hint : str
            Beginning and end of the message.
        """
        for role, numbers in self.elements.items():
            known = set(data.get(f'{role}_elements', []))
            if known and (unknown := sorted(chemical_symbols[z] for z in numbers - known)):
                names = ', '.join(chemical_symbols[z] for z in sorted(known))
                raise ValueError(f'{who} never saw {", ".join(unknown)} as {role} atoms; it knows {names}{hint}')

    def with_mobile(self, positions: np.ndarray) -> Atoms:
        """Return a copy with new positions (n_mobile, 3) of the mobile atoms; frozen atoms keep their bits."""
        atoms, new = copy_atoms(self.atoms), self.atoms.positions.copy()
        new[~self.frozen] = positions
        atoms.set_positions(new, apply_constraint=False)
        return atoms


@dataclass
class Slab(PlainRepresentation):
    """Encode overlayers as the field ``positions`` (n_mobile, 3) on a frozen substrate.

    Parameters
    ----------
    height : (low, high)
        Window of the mobile atoms in A above the topmost frozen atom.
    dtype : torch.dtype
        Precision of networks and sampling; the frozen atoms stay float64 in the template and come back bit-identical.
    """

    kinds: ClassVar[tuple[str, ...]] = ('surface', 'forcefield')
    fields: ClassVar[frozenset[str]] = frozenset({'positions'})

    height: tuple[float, float] = (0.0, 4.5)
    dtype: torch.dtype = torch.float32

    def encode(self, images: list[Atoms | SlabTemplate], conditions: dict | None = None) -> Batch:
        """Return a batch of structures or templates; ``conditions``: name -> B numbers.

        Raises
        ------
        ValueError
            The structures differ in pbc.
        """
        templates = [SlabTemplate.of(each) for each in images]
        check_same_pbc([each.atoms for each in templates])
        batch = self.assemble(
            np.concatenate([each.atoms.positions[~each.frozen] for each in templates]),
            np.concatenate([each.atoms.positions[each.frozen] for each in templates]),
            np.concatenate(
                [each.atoms.numbers[~each.frozen] for each in templates] + [each.atoms.numbers[each.frozen] for each in templates]
            ),
            np.stack([each.atoms.cell.complete()[:] for each in templates]),
            np.array([each.surface_z for each in templates]),
            [int((~each.frozen).sum()) for each in templates],
            [int(each.frozen.sum()) for each in templates],
            tuple(bool(p) for p in templates[0].atoms.pbc),
            conditions,
        )
        batch.extras['templates'] = templates
        return batch

    def assemble(
        self,
        positions: np.ndarray,
        substrate: np.ndarray,
        numbers: np.ndarray,
        cell: np.ndarray,
        top: np.ndarray,
        mobile_counts: np.ndarray,
        frozen_counts: np.ndarray,
        pbc: Any,
        conditions: Any = None,
    ) -> Batch:
        """Build a batch from flat arrays (positions (n, 3), substrate (m, 3), numbers (n + m,), cell (B, 3, 3))."""
        size = len(mobile_counts)
        rows = torch.repeat_interleave(torch.arange(size), torch.tensor(mobile_counts))
        frozen_rows = torch.repeat_interleave(torch.arange(size), torch.tensor(frozen_counts))
        cell_t = torch.as_tensor(cell, dtype=self.dtype)
        low = torch.as_tensor(np.asarray(top) + self.height[0], dtype=self.dtype)[rows, None]
        high = torch.as_tensor(np.asarray(top) + self.height[1], dtype=self.dtype)[rows, None]
        plane = Torus(cell_t[rows][:, :2, :2], (bool(pbc[0]), bool(pbc[1])))
        roles = torch.cat([torch.zeros(len(rows), dtype=torch.long), torch.ones(len(frozen_rows), dtype=torch.long)])
        extras = {
            'numbers': torch.as_tensor(numbers, dtype=torch.long),
            'roles': roles,
            'rows': torch.cat([rows, frozen_rows]),
            'frozen': torch.as_tensor(substrate, dtype=self.dtype),
            'cell': cell_t,
            'pbc': tuple(bool(p) for p in pbc),
        }
        given = {k: torch.as_tensor(v, dtype=self.dtype) for k, v in (conditions or {}).items()}  # (B, ...)
        return Batch(
            fields={'positions': torch.as_tensor(positions, dtype=self.dtype)},
            rows={'positions': rows},
            size=size,
            domains={'positions': (plane, Interval(low, high))},
            conditions=given,
            extras=extras,
        )

    def decode(self, batch: Batch) -> list[Atoms]:
        """Return copies of the encoded structures with the mobile positions of ``batch``; frozen atoms keep their bits.

        Raises
        ------
        ValueError
            The batch was assembled from arrays: there are no structures to copy.
        """
        if 'templates' not in batch.extras:
            raise ValueError('a batch of Slab.encode can be decoded; this one was assembled from arrays, without templates')
        x = batch.fields['positions'].detach().double().cpu().numpy()
        rows = batch.rows['positions'].cpu().numpy()
        return [each.with_mobile(x[rows == k]) for k, each in enumerate(batch.extras['templates'])]

    def process(self, sigma_min: float = 0.02, sigma_max: float = 8.0) -> JointProcess:
        """Return wrapped normal noise in the plane and truncated normal noise along z, one schedule, A."""
        schedule = GeometricVE(sigma_min, sigma_max)
        parts = [((0, 2), WrappedNormal(schedule)), ((2, 3), TruncatedNormal(schedule))]
        return JointProcess({'positions': ProductProcess(parts)})

    def check_header(self, header: dict, networks: dict[str, torch.nn.Module]) -> None:
        """Raise a ValueError where the window has no lower and upper end, or a diffusion model no process."""
        low, high = self.height
        require(low < high, 'the window has a lower and an upper end', self.height)
        require('process' in header or header['kind'] == 'forcefield', 'a surface model has a process', None)

    def todict(self) -> dict:
        """Return class name and parameters, JSON-serialisable."""
        return {'name': 'Slab', 'height': list(self.height)}

    @classmethod
    def fromdict(cls, values: dict) -> Slab:
        """Rebuild from :meth:`todict`."""
        low, high = (float(x) for x in values['height'])
        return cls(height=(low, high))
