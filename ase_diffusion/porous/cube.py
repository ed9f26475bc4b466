"""Energy grids as Gaussian cube files, which molecular viewers read."""

import os

import numpy as np
from ase.io.cube import write_cube as ase_write_cube

__all__ = ['write_cube']


def write_cube(path, grid, atoms, *, clip=1e6):
    """Write a grid over the cell of a structure to a cube file.

    Parameters
    ----------
    path : str or Path
    grid : array_like
        ``(nx, ny, nz)``, written as it is (energies in K); the file has lengths in Bohr, as ASE writes them.
    atoms : Atoms
        The framework.
    clip : float or None
        Larger values are cut to it: viewers read five digits and short exponents.

    Notes
    -----
    The file appears when it is complete. ``ase.io.cube.read_cube_data(path)`` reads it.
    """
    grid = np.asarray(grid, float)
    if grid.ndim != 3:
        raise ValueError(f'a cube file holds one grid (nx, ny, nz); got an array of shape {grid.shape}')
    part = f'{path}.part'
    with open(part, 'w', encoding='ascii') as file:
        ase_write_cube(file, atoms, grid if clip is None else np.minimum(grid, clip), comment='E / kB in K, ase_diffusion')
    os.replace(part, path)
