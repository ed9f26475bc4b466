"""Overlayers on a frozen substrate: FixAtoms is the mask, everything else is mobile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from ..diffusion import Batch, GeometricVE, Interval, JointProcess, ProductProcess, Torus, TruncatedNormal, WrappedNormal
from ..utils.atoms import frozen_mask

FIX_HINT = (
    'mark the substrate with a constraint, e.g.\n'
    '    from ase.constraints import FixAtoms\n'
    '    slab.set_constraint(FixAtoms(indices=[atom.index for atom in slab if atom.tag >= 1]))'
)


def check_slab(slab: Atoms) -> None:
    """Raise a ValueError if ``slab`` cannot carry an overlayer.

    Needed: at least one atom, finite positions, a cell whose a and b lie in the xy plane and whose c rises out of it,
    periodic in the plane only, at least one atom held by FixAtoms.
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
    if np.abs(cell[:2, 2]).max() > 1e-6:
        raise ValueError(
            f'the first two cell vectors must lie in the xy plane (the surface normal is z), got '
            f'{cell[:2].tolist()}; slab.rotate(slab.cell[2], "z", rotate_cell=True) turns a slab whose '
            'third vector is the normal'
        )
    if not frozen_mask(slab).any():
        raise ValueError(f'the slab has no FixAtoms, so nothing says which atoms are the substrate; {FIX_HINT}')


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


@dataclass
class Slab:
    """Encode overlayers as the field ``positions`` (n_mobile, 3) on a frozen substrate.

    Parameters
    ----------
    height : (low, high)
        Window of the mobile atoms in A above the topmost frozen atom.
    dtype : torch.dtype
        Precision of networks and sampling; the frozen atoms stay float64 in the template and come back bit-identical.
    """

    height: tuple[float, float] = (0.0, 4.5)
    dtype: torch.dtype = torch.float32

    def encode(self, images: list[Atoms], conditions: dict | None = None) -> Batch:
        """Return a batch of ``images``; ``conditions``: name -> B numbers.

        Raises
        ------
        ValueError
            The images differ in pbc.
        """
        check_same_pbc(images)
        frozen = [frozen_mask(atoms) for atoms in images]
        mobile_counts = [int((~f).sum()) for f in frozen]
        frozen_counts = [int(f.sum()) for f in frozen]
        positions = np.concatenate([a.positions[~f] for a, f in zip(images, frozen, strict=True)])
        substrate = np.concatenate([a.positions[f] for a, f in zip(images, frozen, strict=True)])
        numbers = np.concatenate(
            [a.numbers[~f] for a, f in zip(images, frozen, strict=True)]
            + [a.numbers[f] for a, f in zip(images, frozen, strict=True)]
        )
        cell = np.stack([np.asarray(a.cell) for a in images])
        top = np.array([surface_height(a) for a in images])
        return self.assemble(
            positions,
            substrate,
            numbers,
            cell,
            top,
            mobile_counts,
            frozen_counts,
            tuple(bool(p) for p in images[0].pbc),
            conditions,
        )

    def assemble(self, positions, substrate, numbers, cell, top, mobile_counts, frozen_counts, pbc, conditions=None):
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
        given = {k: torch.as_tensor(v, dtype=self.dtype).reshape(size) for k, v in (conditions or {}).items()}
        return Batch(
            fields={'positions': torch.as_tensor(positions, dtype=self.dtype)},
            rows={'positions': rows},
            size=size,
            domains={'positions': (plane, Interval(low, high))},
            conditions=given,
            extras=extras,
        )

    def decode(self, batch: Batch, templates: list[Atoms]) -> list[Atoms]:
        """Return copies of ``templates`` with the mobile positions of ``batch``; frozen atoms keep their bits."""
        x = batch.fields['positions'].detach().double().cpu().numpy()
        rows = batch.rows['positions'].cpu().numpy()
        images = []
        for k, template in enumerate(templates):
            atoms = template.copy()
            positions = template.positions.copy()
            positions[~frozen_mask(template)] = x[rows == k]
            atoms.set_positions(positions, apply_constraint=False)
            images.append(atoms)
        return images

    def todict(self) -> dict:
        """Return the parameters, fit for JSON."""
        return {'name': 'Slab', 'height': list(self.height)}


def slab_process(sigma_min: float = 0.02, sigma_max: float = 8.0) -> JointProcess:
    """Return the process of overlayers: wrapped normal in the plane, truncated normal along z, one schedule."""
    schedule = GeometricVE(sigma_min, sigma_max)
    return JointProcess({'positions': ProductProcess([((0, 2), WrappedNormal(schedule)), ((2, 3), TruncatedNormal(schedule))])})
