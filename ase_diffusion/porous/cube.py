"""Energy grids as Gaussian cube files for molecular viewers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.io.cube import write_cube as ase_write_cube
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from ase import Atoms


__all__ = ['write_cube']


def write_cube(path: str | Path, grid: ArrayLike, atoms: Atoms, *, clip: float | None = 1e6) -> None:
    """Write a grid over the cell of a structure to a cube file.

    Parameters
    ----------
    path : str or Path
    grid : array_like
        ``(nx, ny, nz)``, written unchanged (energies in K); lengths in the file are in Bohr.
    atoms : Atoms
        The framework.
    clip : float or None
        Upper limit of the values: viewers read five digits and short exponents.

    Notes
    -----
    The file is renamed into place when it is complete. ``ase.io.cube.read_cube_data(path)`` reads it.
    """
    grid = np.asarray(grid, float)
    if grid.ndim != 3:
        raise ValueError(f'a cube file holds one grid (nx, ny, nz); got an array of shape {grid.shape}')
    part = f'{path}.part'
    with open(part, 'w', encoding='ascii') as file:
        ase_write_cube(file, atoms, grid if clip is None else np.minimum(grid, clip), comment='E / kB in K, ase_diffusion')
    os.replace(part, path)
