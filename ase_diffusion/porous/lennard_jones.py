"""Lennard-Jones energies of a probe, and atom densities, on grids over periodic cells."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from numpy.typing import DTypeLike

from ..utils.atoms import as_list, partial_sites
from .parameters import FrameworkLike, ProbeLike, pair_parameters, unlisted, unlisted_text

if TYPE_CHECKING:
    import torch


__all__ = ['density_grid', 'energy_grid', 'interaction', 'iter_energy_grids']

BACKENDS = ('numba', 'torch', 'triton')
CHUNK = {'cpu': 2**27, 'cuda': 2**30}  # bytes of grids per batch of the torch and triton back ends
DENSITY_CUTOFF = 4.0  # A
MOST_IMAGES = 2e7  # of atoms within the cutoff of a cell
logger = logging.getLogger(__name__)


def energy_grid(
    atoms: Atoms | Iterable[Atoms],
    shape: int | Sequence[int] = (32, 32, 32),
    *,
    probe: ProbeLike = 'CH4',
    cutoff: float = 12.0,
    framework: FrameworkLike = 'silica',
    shifted: bool = False,
    device: str | torch.device | None = None,
    dtype: DTypeLike = np.float32,
    backend: str | None = None,
) -> np.ndarray:
    """Compute the Lennard-Jones energy of a probe at the points of a periodic grid.

    ``4 eps ((sigma / r)^12 - (sigma / r)^6)`` summed over framework atoms and all their images with r < cutoff; truncated,
    no tail correction. Distances are at least 0.1 A, so that points on atoms have large finite values.

    Parameters
    ----------
    atoms : Atoms or sequence of Atoms
        Periodic in three directions, with any cell. Positions may lie outside the cell.
    shape : int or (int, int, int)
        Points along the cell vectors, one number for all; point i lies at fractional coordinates i / n.
    probe : str, Probe or (epsilon, sigma)
        Name in `ase_diffusion.porous.PROBES` (CH4, Ar, Kr, Xe, N2, CO2), or K and A.
    cutoff : float
        Cutoff in A.
    framework : str or dict
        Parameters of the framework atoms: 'silica' (its O and Si; UFF for other elements), 'uff', or a dict symbol ->
        (epsilon in K, sigma in A) laid over 'silica'. See `pair_parameters`. Elements that take UFF beside the O of silica
        are named in a warning.
    shifted : bool
        Subtract the energy of each pair at the cutoff, so that it ends at 0, as force fields that were fitted so require.
    device : str or torch.device, optional
        By default a CUDA device if available, otherwise the CPU.
    dtype : numpy dtype
        float32 (within 0.05 K of the exact sum for energies up to 5000 K, typically within 0.01 K) or float64 (exact to
        rounding; the torch back end, slower).
    backend : {None, 'numba', 'torch', 'triton'}
        None selects numba on the CPU (torch without numba) and triton on an NVIDIA GPU (torch without triton).

    Returns
    -------
    numpy.ndarray
        ``(nx, ny, nz)`` or, for a sequence, ``(n, nx, ny, nz)``: E / kB in K, indexed [ix, iy, iz]. Multiply by
        `ase_diffusion.porous.KELVIN_TO_KJ_MOL` for kJ/mol.

    Raises
    ------
    ValueError
        The cell is not periodic or has no volume, positions are not finite, an element has no parameters, the probe is unknown,
        the shape is not three positive integers, the cutoff is not positive, or the grids exceed the memory.
    MissingDependency
        The requested back end is not installed.

    Notes
    -----
    The defaults (methane in silica, 12 A) are those of the ZeoDiff and ZeoGAN papers (J. Mater. Chem. A 12, 6507, 2024).
    """
    images = as_list(atoms)
    shape, dtype = check_shape(shape), check_dtype(dtype)
    check_memory(len(images), shape, dtype)
    options = {'probe': probe, 'cutoff': cutoff, 'framework': framework, 'shifted': shifted}
    options |= {'device': device, 'dtype': dtype, 'backend': backend}
    grids = np.empty((len(images), *shape), dtype)
    for k, grid in enumerate(iter_energy_grids(images, shape, **options)):
        grids[k] = grid
    return grids[0] if isinstance(atoms, Atoms) else grids


def iter_energy_grids(
    images: Iterable[Atoms],
    shape: int | Sequence[int] = (32, 32, 32),
    *,
    probe: ProbeLike = 'CH4',
    cutoff: float = 12.0,
    framework: FrameworkLike = 'silica',
    shifted: bool = False,
    device: str | torch.device | None = None,
    dtype: DTypeLike = np.float32,
    backend: str | None = None,
) -> Iterator[np.ndarray]:
    """Yield the energy grids of structures one by one, in order, with constant memory.

    Parameters and errors are those of `energy_grid`; `images` may be a generator.
    """
    shape, cutoff, dtype = check_shape(shape), check_cutoff(cutoff), check_dtype(dtype)
    check_memory(1, shape, dtype)
    backend, device = choose_backend(backend, device, dtype)
    systems = _told([images] if isinstance(images, Atoms) else images, probe, framework, cutoff, shape)
    if shifted and backend == 'triton':  # its kernel has no shift
        backend = 'torch'
    if backend == 'numba':
        from .numba_backend import cpu_grids

        yield from cpu_grids(systems, shape, cutoff, shifted=shifted)
        return
    kind = 'cpu' if device.type == 'cpu' else 'cuda'
    for chunk in _chunks(systems, max(1, CHUNK[kind] // (int(np.prod(shape)) * dtype.itemsize))):
        if backend == 'triton':
            from .triton_backend import triton_grids

            yield from triton_grids(chunk, shape, cutoff, device).cpu().numpy()
        else:
            yield from _torch_grids(chunk, shape, cutoff, device, dtype, shifted_pair(cutoff) if shifted else None)


def _told(images, probe, framework, cutoff, shape):
    """Yield the systems of structures; elements that silica does not list are named in one warning each."""
    told = set()
    for atoms in images:
        system = _system(atoms, probe, framework)
        _check_cost(system, cutoff, shape)
        if partial := partial_sites(atoms):
            logger.warning('%s: %s, and counts as full: take an ordered structure', atoms.get_chemical_formula(), partial)
        others = unlisted(atoms.symbols, framework) - told
        if others:
            told |= others
            logger.warning(unlisted_text(others))
        yield system


def shifted_pair(cutoff: float) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the pair function of torch_grid that is 0 at the cutoff."""
    from .torch_backend import lennard_jones

    def pair(square, a, b):
        sixth = cutoff**-6
        return lennard_jones(square, a, b) - sixth * (a * sixth - b)

    return pair


def density_grid(
    atoms: Atoms | Iterable[Atoms],
    symbol: str,
    *,
    shape: int | Sequence[int] = (32, 32, 32),
    cutoff: float = DENSITY_CUTOFF,
    width: float = 1.0,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Compute the density of an element: a sum of Gaussians exp(-r^2 / width^2), not normalized.

    Parameters
    ----------
    atoms : Atoms or sequence of Atoms
        As for `energy_grid`.
    symbol : str
        Element, such as 'Si'; the grid is zero without such atoms.
    shape : (int, int, int)
    cutoff : float
        Cutoff in A; atoms and images with r < cutoff contribute.
    width : float
        Width in A; the variance is width^2 / 2.
    device : str or torch.device, optional

    Returns
    -------
    numpy.ndarray
        ``(nx, ny, nz)`` or ``(n, nx, ny, nz)`` float32, indexed [ix, iy, iz]; 1 on a lone atom.
    """
    from ase.data import atomic_numbers

    from .torch_backend import gaussian

    if symbol not in atomic_numbers:
        raise ValueError(f"the density is that of an element, such as 'Si'; got {symbol!r}")
    if not (np.isfinite(width) and width > 0):
        raise ValueError(f'the width of the Gaussians is positive, in A; got {width!r}')
    images = as_list(atoms)
    shape, cutoff, dtype = check_shape(shape), check_cutoff(cutoff), np.dtype(np.float32)
    check_memory(len(images), shape, dtype)
    device = choose_backend('torch', device, dtype)[1]
    grids = np.zeros((len(images), *shape), dtype)
    for k, one in enumerate(images):
        scaled, cell = _checked(one)
        scaled = scaled[one.numbers == atomic_numbers[symbol]]
        ones = np.ones(len(scaled))
        system = (scaled, ones, ones / width**2, cell)
        _check_cost(system, cutoff, shape)
        grids[k] = next(_torch_grids([system], shape, cutoff, device, dtype, gaussian))
    return grids[0] if isinstance(atoms, Atoms) else grids


def interaction(atoms: Atoms, probe: ProbeLike = 'CH4', framework: FrameworkLike = 'silica') -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients of a probe with each atom, for `torch_grid`.

    Returns
    -------
    a, b : numpy.ndarray
        ``(n,)`` float64, 4 eps sigma^12 in K A^12 and 4 eps sigma^6 in K A^6; 0 for atoms without interaction.
    """
    symbols = np.array(atoms.get_chemical_symbols())
    parameters = pair_parameters(sorted(set(symbols.tolist())), probe, framework)
    pairs = np.array([parameters[symbol] for symbol in symbols]).reshape(-1, 2)
    b = 4 * pairs[:, 0] * pairs[:, 1] ** 6
    return b * pairs[:, 1] ** 6, b


def choose_backend(backend: str | None, device: str | torch.device | None, dtype: np.dtype) -> tuple[str, torch.device | None]:
    """Return the back end and the device (None for numba, which needs no torch)."""
    if backend not in (None, *BACKENDS):
        raise ValueError(f'a back end is None or one of {", ".join(BACKENDS)}; got {backend!r}')
    if backend == 'numba' and (str(device or 'cpu') != 'cpu' or dtype != np.float32):
        raise ValueError(
            f"the back end 'numba' computes in float32 on the CPU; got device={device!r} and dtype={dtype}; "
            "take backend='torch' or None"
        )
    if backend == 'triton' and dtype != np.float32:
        raise ValueError(f"the back end 'triton' computes in float32; got dtype={dtype}; take backend='torch' or None")
    if backend in ('numba', 'triton') and find_spec(backend) is None:
        from ..errors import MissingDependency

        raise MissingDependency(backend)
    if backend == 'numba' or (backend is None and str(device) == 'cpu' and _takes_numba(dtype)):
        return 'numba', None
    from ..utils.device import pick_device

    device = pick_device(device)
    if backend is not None:
        if backend == 'triton' and device.type != 'cuda' and os.environ.get('TRITON_INTERPRET') != '1':
            raise ValueError(f"the back end 'triton' needs an NVIDIA GPU (or TRITON_INTERPRET=1, slow, for tests); got {device}")
        return backend, device
    if device.type == 'cpu' and _takes_numba(dtype):
        return 'numba', None
    import torch

    fused = device.type == 'cuda' and dtype == np.float32 and not torch.version.hip and find_spec('triton') is not None
    return ('triton' if fused else 'torch'), device


def _takes_numba(dtype):
    """Return whether numba is installed and supports the dtype."""
    if dtype != np.float32:
        return False
    if find_spec('numba') is None:
        logger.warning('numba is not installed; the torch back end is some tens of times slower on a CPU: pip install numba')
        return False
    return True


def check_shape(shape: int | Sequence[int]) -> tuple[int, int, int]:
    """Return a shape as three positive integers, from one or three, or raise a ValueError."""
    if np.ndim(shape) == 0 and not isinstance(shape, (bool, str)):
        shape = (shape,) * 3
    try:
        values = tuple(int(n) for n in shape)
        good = len(values) == 3 and all(n >= 1 and n == m for n, m in zip(values, shape, strict=True))
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise ValueError(f'a shape is one integer or three integers of at least 1, such as (32, 32, 32); got {shape!r}')
    return values


def check_cutoff(cutoff: float) -> float:
    """Return a positive finite float, or raise a ValueError."""
    try:
        good = np.isfinite(float(cutoff)) and float(cutoff) > 0
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f'a cutoff is a positive distance in A, such as 12.0; got {cutoff!r}')
    return float(cutoff)


def check_dtype(dtype: DTypeLike) -> np.dtype:
    """Return float32 or float64, or raise a ValueError."""
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f'a grid is of float32 or float64; got dtype={dtype!r}')
    return kind


def check_memory(number: int, shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Raise a ValueError if grids exceed the free memory."""
    need = number * float(np.prod(np.array(shape, float))) * dtype.itemsize
    try:
        with open('/proc/meminfo', encoding='ascii') as file:
            free = next(1024.0 * int(line.split()[1]) for line in file if line.startswith('MemAvailable'))
    except (OSError, StopIteration):  # not Linux
        free = 2.0**40
    if need > free:
        points = ' x '.join(map(str, shape))
        raise ValueError(
            f'{number} grid(s) of {points} points in {dtype} need {need / 1e9:.1f} GB of memory, and '
            f'{free / 1e9:.1f} GB are free; take a coarser shape, or iter_energy_grids for many structures'
        )


def _checked(atoms):
    """Return fractional positions (n, 3) in [0, 1) and the cell (3, 3); raise an error for structures without a valid cell."""
    if not isinstance(atoms, Atoms):
        raise TypeError(f'structures are ase.Atoms; got {type(atoms).__name__}')
    if not atoms.pbc.all():
        raise ValueError(
            f'a grid spans a cell that is periodic along all three vectors; got pbc = {atoms.pbc.tolist()}; '
            'set atoms.pbc = True where the cell is meant to be periodic'
        )
    cell = np.array(atoms.cell.array, float)
    lengths = np.linalg.norm(cell, axis=1)
    if not np.isfinite(cell).all() or not abs(np.linalg.det(cell)) > 1e-9 * max(np.prod(lengths), 1e-9):
        raise ValueError(f'a grid needs a cell with a volume; got the cell vectors {cell.tolist()}')
    if not np.isfinite(atoms.positions).all():
        bad = np.flatnonzero(~np.isfinite(atoms.positions).all(1)).tolist()
        raise ValueError(f'positions are finite numbers; those of the atoms {bad[:10]} are not')
    scaled = atoms.positions @ np.linalg.inv(cell)
    scaled = scaled - np.floor(scaled)
    return np.where(scaled < 1.0, scaled, 0.0), cell


def _check_cost(system, cutoff, shape):
    """Raise a ValueError where a flat or skewed cell has more images within the cutoff than can be summed."""
    scaled, *_, cell = system
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    images = np.prod(2 * np.ceil(cutoff / heights) + 1) * max(len(scaled), 1)
    if not images <= MOST_IMAGES:
        raise ValueError(
            f'the planes of the cell are {heights.min():.3g} A apart: {images:.2g} images of atoms lie within the cutoff of '
            f'{cutoff:g} A; reduce the cell (ase.geometry.minkowski_reduce), or correct it'
        )


def _system(atoms, probe, framework):
    """Return (scaled, a, b, cell) of the atoms that interact with the probe."""
    scaled, cell = _checked(atoms)
    a, b = interaction(atoms, probe, framework)
    acts = b > 0
    return scaled[acts], a[acts], b[acts], cell


def _chunks(items, size):
    """Yield lists of at most `size` items."""
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _torch_grids(systems, shape, cutoff, device, dtype, pair=None):
    """Yield the grids of systems with the torch back end: on a GPU in batches of similar size, on a CPU one by one."""
    import torch

    from .torch_backend import lennard_jones, torch_grid

    def send(arrays, pad):
        arrays = [np.concatenate([x, np.zeros((pad - len(x), *x.shape[1:]))]) for x in arrays]
        return torch.as_tensor(np.stack(arrays), device=device)

    order = sorted(range(len(systems)), key=lambda k: len(systems[k][0]))
    grids = [None] * len(systems)
    for group in _chunks(order, 1 if device.type == 'cpu' else 64):
        scaled, a, b, cell = zip(*(systems[k] for k in group), strict=True)
        pad = max(1, max(len(x) for x in scaled))
        cell, scaled, a, b = send(cell, 3), send(scaled, pad), send(a, pad), send(b, pad)
        with torch.no_grad():
            made = (
                torch_grid(
                    scaled @ cell,
                    cell,
                    a,
                    b,
                    shape=shape,
                    cutoff=cutoff,
                    pair=pair or lennard_jones,
                    dtype=getattr(torch, dtype.name),
                )
                .cpu()
                .numpy()
            )
        for k, grid in zip(group, made, strict=True):
            grids[k] = grid
    yield from grids
