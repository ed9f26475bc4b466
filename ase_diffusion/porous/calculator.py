"""ASE calculator of a probe from an energy grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.units import kB
from numpy.typing import ArrayLike
from scipy import ndimage

if TYPE_CHECKING:
    from ase import Atoms


__all__ = ['GridCalculator']

SCALE = 2000.0  # K; the interpolation is nearly linear below and logarithmic far above
SPACING = 0.2  # A


class GridCalculator(Calculator):
    """Compute the energy of probe atoms in a rigid framework, and the forces on them, from an energy grid.

    Each atom is one probe, without interactions between probes. Cell and species of the atoms are ignored; positions are taken
    modulo the cell of the framework. Forces are exact derivatives of the interpolated energy, which is twice continuously
    differentiable.

    Parameters
    ----------
    grid : array_like
        ``(nx, ny, nz)``: E / kB in K, from `energy_grid`; at least 4 points along each vector.
    cell : Atoms, Cell or array_like
        Cell of the framework, (3, 3) rows in A.

    Notes
    -----
    Periodic cubic splines of asinh(E / 2000 K): nearly linear in wells and logarithmic at r^-12 walls, which avoids ringing. A
    spacing of about 0.2 A is recommended (`from_framework`).

    Examples
    --------
    >>> from ase import Atoms
    >>> from ase.build import bulk
    >>> probe = Atoms('C', [[1.0, 1.0, 1.0]])
    >>> probe.calc = GridCalculator.from_framework(bulk('Si', 'diamond', 9.0), probe='Ar', framework='uff')
    >>> bool(probe.get_potential_energy() < 0)
    True
    """

    implemented_properties = ['energy', 'free_energy', 'energies', 'forces']  # noqa: RUF012  ASE's own form

    def __init__(self, grid: ArrayLike, cell: Atoms | ArrayLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        values = np.asarray(grid, float)
        if values.ndim != 3 or min(values.shape) < 4 or not np.isfinite(values).all():
            raise ValueError(
                'a calculator needs a grid (nx, ny, nz) of finite energies in K with at least 4 points along '
                f'each vector; got an array of shape {values.shape}'
            )
        self.cell = np.array(getattr(cell, 'cell', cell), float)
        if self.cell.shape != (3, 3) or not np.linalg.det(self.cell):
            raise ValueError(f'the cell of a framework is (3, 3) in A and has a volume; got {self.cell.tolist()}')
        self.spline = ndimage.spline_filter(np.arcsinh(values / SCALE), order=3, mode='grid-wrap')

    @classmethod
    def from_framework(cls, atoms: Atoms, *, spacing: float = SPACING, **options: Any) -> Self:
        """Compute the grid of a framework with a spacing of at most `spacing` A; options are those of `energy_grid`."""
        from .lennard_jones import energy_grid

        if not (np.isfinite(spacing) and spacing > 0):
            raise ValueError(f'a spacing is positive, in A; got {spacing!r}')
        shape = np.maximum(np.ceil(atoms.cell.lengths() / spacing - 1e-9), 4).astype(int)
        return cls(energy_grid(atoms, tuple(shape.tolist()), **options), atoms.cell)

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ('energy',), system_changes: Sequence[str] = all_changes
    ) -> None:
        """Compute energies (eV) and forces (eV/A)."""
        super().calculate(atoms, list(properties), system_changes)
        energies, forces = self.evaluate(self.atoms.positions)
        energies, forces = energies * kB, forces * kB
        self.results = {
            'energy': float(energies.sum()),
            'free_energy': float(energies.sum()),
            'energies': energies,
            'forces': forces,
        }

    def evaluate(self, positions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return the energies (n,) in K and forces (n, 3) in K/A at positions (n, 3) in A."""
        positions = np.asarray(positions, float).reshape(-1, 3)
        if not np.isfinite(positions).all():
            raise ValueError('positions are finite numbers; some are not')
        shape = np.array(self.spline.shape)
        inverse = np.linalg.inv(self.cell)
        place = (positions @ inverse % 1.0) * shape  # (n, 3) in grid points
        node = np.floor(place).astype(int)
        weights, slopes = _cubic(place - node)  # (4, n, 3)
        index = (node + np.arange(-1, 3)[:, None, None]) % shape  # (4, n, 3)
        values = self.spline[index[:, None, None, :, 0], index[None, :, None, :, 1], index[None, None, :, :, 2]]  # (4, 4, 4, n)
        sums = []
        for axis in (None, 0, 1, 2):
            x, y, z = (slopes if k == axis else weights for k in range(3))
            sums.append(np.einsum('ijkn,in,jn,kn->n', values, x[..., 0], y[..., 1], z[..., 2]))
        u, gradient = sums[0], np.stack(sums[1:], -1) * shape  # per fractional coordinate
        return SCALE * np.sinh(u), -(SCALE * np.cosh(u))[:, None] * (gradient @ inverse.T)


def _cubic(t):
    """Return the weights (4, ...) of the four neighbors in a cubic B-spline at t in [0, 1), and their derivatives."""
    s = 1.0 - t
    weights = np.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3]) / 6
    slopes = np.stack([-(s**2), 3 * t**2 - 4 * t, -3 * s**2 + 4 * s, t**2]) / 2
    return weights, slopes
