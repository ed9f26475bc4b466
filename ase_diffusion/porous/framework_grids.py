"""Grids of silica frameworks as networks see them: scales, shapes, and endless augmented batches for training.

Pure torch, without ASE, on any device: a whole data set stays on the device, and a batch costs a few kernels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .grid_symmetry import orbit_representatives

ENERGY_LIMITS = (-4000.0, 5000.0)  # K; 15 kB T = 4470 K at 298 K lies inside, so that void fractions survive
TEMPERATURE = 298.0  # K, of the Boltzmann channel
METHANE = (115.0, 3.47)  # K and A, CH4 with O of silica
CHANNELS = ('energy', 'Si', 'O', 'boltzmann')
_BOLTZMANN = math.log1p(math.exp(-ENERGY_LIMITS[0] / TEMPERATURE))


def scale_energy(energy: Tensor) -> Tensor:
    """Map E / kB in K, clipped to [-4000, 5000], to [-1, 1]."""
    low, high = ENERGY_LIMITS
    return (energy.clamp(low, high) - low) * (2 / (high - low)) - 1


def unscale_energy(x: Tensor) -> Tensor:
    """Invert :func:`scale_energy` inside the limits; numbers beyond [-1, 1] are clipped."""
    low, high = ENERGY_LIMITS
    return (x.clamp(-1, 1) + 1) * ((high - low) / 2) + low


def scale_boltzmann(energy: Tensor) -> Tensor:
    """Map b = exp(-E / kB T) of energies in K to [-1, 1]: log(1 + b), which is 0 in walls and -E / kB T in deep pores."""
    return torch.nn.functional.softplus(-energy.clamp(*ENERGY_LIMITS) / TEMPERATURE) * (2 / _BOLTZMANN) - 1


def unscale_boltzmann(x: Tensor) -> Tensor:
    """Invert :func:`scale_boltzmann`: return b = exp(-E / kB T)."""
    return torch.expm1((x.clamp(-1, 1) + 1) * (_BOLTZMANN / 2))


def grid_shape(lengths: np.ndarray, pitch: float = 0.95, multiple: int = 4) -> tuple[int, int, int]:
    """Return the numbers of voxels along cell edges at about ``pitch``.

    Multiples of ``multiple``, and below twice that any even number from 4 on: 4, 6, 8, 12, 16, ... for 4. The one whose pitch
    is nearest on a logarithmic scale counts, so that the edges of voxels stay within 0.78 and 1.23 of the pitch.

    Parameters
    ----------
    lengths : (3,) array_like
        A.
    pitch : float
        A per voxel.
    multiple : int
        Even. Translations by 1 / multiple of a cell edge are exact on a grid of such a size.
    """
    if multiple % 2 or multiple < 2:
        raise ValueError(f'sizes of grids are multiples of an even number; got multiple={multiple}')
    shape = []
    for length in lengths:
        most = max(4, 2 * math.ceil(float(length) / pitch) + 2 * multiple)
        sizes = [n for n in range(4, most, 2) if n % multiple == 0 or n < 2 * multiple]
        shape.append(min(sizes, key=lambda n: abs(math.log(float(length) / n / pitch))))
    return tuple(shape)


def separable_density(fractional: Tensor, weights: Tensor, lengths: Tensor, shape: Sequence[int], width: float = 1.0) -> Tensor:
    """Sum Gaussians exp(-r^2 / width^2) over atoms and all their images on grids over orthogonal cells.

    A Gaussian is a product of three functions of one coordinate, so that the sum is a product of matrices. Equal to
    :func:`ase_diffusion.porous.density_grid` up to its cutoff, 1e-7 per atom.

    Parameters
    ----------
    fractional : Tensor
        ``(B, N, 3)``, anywhere.
    weights : Tensor
        ``(B, N)``, 1, or 0 for padding.
    lengths : Tensor
        ``(B, 3)``, A, at least 2.7 (for ``width`` 1).
    shape : (int, int, int)
    width : float
        A.

    Returns
    -------
    Tensor
        ``(B, X, Y, Z)``; points at fractional coordinates i / n.
    """
    parts = []
    for axis, n in enumerate(shape):
        points = torch.arange(n, device=fractional.device, dtype=fractional.dtype) / n
        d = fractional[:, :, axis, None] - points  # (B, N, n)
        d = (d - torch.round(d)).unsqueeze(-1) + torch.arange(-1, 2, device=d.device, dtype=d.dtype)  # (B, N, n, 3)
        parts.append(torch.exp(-((d * lengths[:, None, axis, None, None] / width) ** 2)).sum(-1))
    x, y, z = parts
    lines = (x * weights[..., None])[..., None] * y[:, :, None]  # (B, N, X, Y)
    return (lines.flatten(2).transpose(1, 2) @ z).unflatten(1, shape[:2])  # (B, X Y, N) @ (B, N, Z)


def oxygen_energies(
    fractional: list[np.ndarray],
    lengths: np.ndarray,
    shape: Sequence[int],
    device: str | torch.device = 'cpu',
    pair: tuple[float, float] = METHANE,
    cutoff: float = 12.0,
) -> Tensor:
    """Sum the Lennard-Jones energy of a probe with O on grids over orthogonal cells, as :func:`energy_grid` does.

    Parameters
    ----------
    fractional : list of (n, 3) arrays
        In [0, 1).
    lengths : (B, 3) array
        A.
    shape : (int, int, int)
    device : str or torch.device
        On a CPU numba sums, where it is installed.
    pair : (float, float)
        Epsilon in K and sigma in A.
    cutoff : float
        A.

    Returns
    -------
    Tensor
        ``(B, X, Y, Z)`` float32, K, on the device.
    """
    a, b = 4 * pair[0] * pair[1] ** 12, 4 * pair[0] * pair[1] ** 6
    device = torch.device(device)
    if device.type == 'cpu' and find_spec('numba') is not None:
        from .numba_backend import sum_grid

        out = np.zeros((len(lengths), *shape), np.float32)
        for grid, sites, edges in zip(out, fractional, lengths, strict=True):
            ones = np.ones(len(sites))
            sum_grid(grid, np.asarray(sites, float), a * ones, b * ones, np.diag(np.asarray(edges, float)), cutoff)
        return torch.from_numpy(out)
    parts, points = [], math.prod(shape)
    most = max(len(sites) for sites in fractional)
    chunk = max(1, (2**27 if device.type == 'cuda' else 2**22) // (most * points))
    for begin in range(0, len(lengths), chunk):
        sites, mask = (x.to(device) for x in _padded(fractional[begin : begin + chunk]))
        edges = torch.as_tensor(np.asarray(lengths[begin : begin + chunk], np.float32), device=device)
        parts.append(_orthogonal_sums(sites, mask, edges, shape, a, b, cutoff))
    return torch.cat(parts)


def _orthogonal_sums(sites: Tensor, mask: Tensor, lengths: Tensor, shape, a: float, b: float, cutoff: float) -> Tensor:
    """Sum a / r^12 - b / r^6 over sites (B, N, 3) and images on grids over orthogonal cells; all pairs, few large kernels."""
    reach = [int((cutoff + length / 2) / length) for length in lengths.amin(0).tolist()]
    squares = []
    for axis, n in enumerate(shape):
        points = torch.arange(n, device=sites.device) / n
        d = sites[:, :, axis, None] - points  # (B, N, n)
        images = torch.arange(-reach[axis], reach[axis] + 1, device=sites.device)
        d = (d - torch.round(d)).unsqueeze(2) + images[:, None]  # (B, N, K, n)
        squares.append((d * lengths[:, None, axis, None, None]).square())
    total = sites.new_zeros(len(sites), *shape)
    for i, j, k in itertools.product(*[range(2 * r + 1) for r in reach]):
        x, y, z = squares[0][:, :, i], squares[1][:, :, j], squares[2][:, :, k]
        r2 = x[..., None, None] + y[..., None, :, None] + z[..., None, None, :]  # (B, N, X, Y, Z)
        inside = (r2 < cutoff**2) & (mask[..., None, None, None] > 0)
        sixth = r2.clamp_(min=0.01).reciprocal_().pow_(3)  # no pair is nearer than 0.1 A
        total += torch.where(inside, sixth * (a * sixth - b), 0.0).sum(1)
    return total


def _padded(sites: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return (B, N, 3) float32 and weights (B, N) of lists of sites."""
    most = max(len(s) for s in sites)
    out, mask = np.zeros((len(sites), most, 3), np.float32), np.zeros((len(sites), most), np.float32)
    for k, s in enumerate(sites):
        out[k, : len(s)], mask[k, : len(s)] = s, 1.0
    return torch.from_numpy(out), torch.from_numpy(mask)


class Drawn(NamedTuple):
    """An augmented batch of :class:`FrameworkGrids`.

    ``grids`` (B, C, X, Y, Z) float32, standardized; ``cells`` (B, 3, 3), A; ``conditions``, name -> (B,); ``orbits``
    (B, X, Y, Z) int64, equal for voxels that share their noise (all different without symmetry), or None.
    """

    grids: Tensor
    cells: Tensor
    conditions: dict[str, Tensor]
    orbits: Tensor | None


def orbit_noise(orbits: Tensor, channels: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw standard normal numbers (B, C, X, Y, Z) that are the same within an orbit: noise averaged over a space group."""
    size, shape = len(orbits), orbits.shape[1:]
    noise = torch.randn(size, channels, math.prod(shape), generator=generator, device=orbits.device)
    return noise.gather(2, orbits.flatten(1)[:, None].expand(-1, channels, -1)).unflatten(2, shape)


class _Group:
    """Frameworks whose grids have one shape, axes in ascending order of their sizes, on the device."""

    def __init__(self, shape, index, fractional, numbers, lengths, energy, operations):
        self.shape, self.index = shape, index
        self.orbits = self._find_orbits(operations, energy.device) if operations else None  # (g, X, Y, Z)
        self.sites = {}
        device = energy.device
        for symbol, number in (('Si', 14), ('O', 8)):
            sites, mask = _padded([f[z == number] for f, z in zip(fractional, numbers, strict=True)])
            self.sites[symbol] = (sites.to(device), mask.to(device))
        self.lengths = torch.as_tensor(np.asarray(lengths), dtype=torch.float32, device=device)  # (g, 3) A
        self.energy = energy  # (g, 2 X, 2 Y, 2 Z) float16, scaled

    def _find_orbits(self, operations, device) -> Tensor:
        parts = []
        for mine in operations:
            alone = torch.arange(math.prod(self.shape), device=device)
            parts.append(alone if mine is None else orbit_representatives(*mine, self.shape, device))
        return torch.stack(parts).int().unflatten(1, self.shape)


class FrameworkGrids:
    """Hold orthogonal silica frameworks on a device and draw random augmented batches of their grids.

    A batch has one shape. Every structure in it has its own random translation, by half voxels, and reflections; the order of
    the axes is random for each batch. Si and O are summed anew from the sites; the energy is looked up in a grid of half the
    pitch, exact to the rounding of float16. Structures are drawn equally often; every voxel counts equally where a batch's loss
    is a mean over voxels.

    Parameters
    ----------
    scaled_positions : (sum, 3) array
        Of all structures, one after the other.
    numbers : (sum,) array of int
    natoms : (n,) array of int
    cells : (n, 3, 3) array
        Rows in A, orthogonal and along x, y, z.
    conditions : dict of str to (n,) array, optional
        NaN: not known.
    shape : (int, int, int) or (n, 3) array of int, optional
        One shape for all, or one for each; None: by :func:`grid_shape`.
    operations : sequence of (rotations, translations) or None, optional
        The space group of each structure, see :func:`ase_diffusion.porous.grid_symmetry.orbit_representatives`; None: none. With
        it batches have ``orbits`` and the condition ``multiplicity``, the number of voxels over the number of orbits.
    pitch, multiple
        See :func:`grid_shape`.
    width : float
        A, of the Gaussians.
    channels : int
        3, or 4 with the Boltzmann channel.
    mean, std : sequences of float, optional
        Of the scaled channels; fields are (scaled - mean) / std. None: measured.
    device : str or torch.device

    Raises
    ------
    ValueError
        A cell is not orthogonal along x, y, z.
    """

    def __init__(
        self,
        scaled_positions: np.ndarray,
        numbers: np.ndarray,
        natoms: np.ndarray,
        cells: np.ndarray,
        conditions: Mapping[str, np.ndarray] | None = None,
        *,
        shape: Sequence[int] | np.ndarray | None = None,
        operations: Sequence[tuple[np.ndarray, np.ndarray] | None] | None = None,
        pitch: float = 0.95,
        multiple: int = 4,
        width: float = 1.0,
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: str | torch.device = 'cpu',
    ) -> None:
        cells = np.asarray(cells, float)
        lengths = np.einsum('nii->ni', cells)
        off = np.abs(cells - lengths[:, :, None] * np.eye(3)).max((1, 2)) if len(cells) else np.zeros(0)
        if (bad := np.flatnonzero((off > 1e-3) | (lengths.min(1) <= 0))).size:
            raise ValueError(
                f'cells are orthogonal, with edges along x, y and z; those of the structures {bad[:10].tolist()} are not'
            )
        self.size, self.width, self.channels, self.device = len(cells), float(width), int(channels), torch.device(device)
        self.conditions = {
            name: torch.as_tensor(np.asarray(values, np.float32), device=self.device)
            for name, values in (conditions or {}).items()
        }
        ends = np.cumsum(natoms)
        sites = np.split(np.asarray(scaled_positions, float) % 1.0 % 1.0, ends[:-1])
        kinds = np.split(np.asarray(numbers), ends[:-1])
        shapes = [grid_shape(edges, pitch, multiple) for edges in lengths] if shape is None else shape
        shapes = np.broadcast_to(np.asarray(shapes, int), (self.size, 3))
        self.groups = self._build(sites, kinds, lengths, shapes, operations)
        self.mean = self.std = None
        if mean is None or std is None:
            mean, std = self._measure()
        self.mean, self.std = (torch.as_tensor(list(v), dtype=torch.float32, device=self.device) for v in (mean, std))

    def _build(self, sites, kinds, lengths, shapes, operations):
        members, order = {}, []
        for k, (mine, edges) in enumerate(zip(shapes.tolist(), lengths, strict=True)):
            order.append(np.lexsort((edges, mine)))
            members.setdefault(tuple(mine[axis] for axis in order[-1]), []).append(k)
        groups = []
        for mine, index in sorted(members.items()):
            f = [sites[k][:, order[k]] for k in index]
            z, edges = [kinds[k] for k in index], np.stack([lengths[k][order[k]] for k in index])
            fine = tuple(2 * n for n in mine)
            energy = oxygen_energies([a[b == 8] for a, b in zip(f, z, strict=True)], edges, fine, self.device)
            group = [_permuted(operations[k], order[k]) for k in index] if operations else None
            index = torch.tensor(index, device=self.device)
            groups.append(_Group(mine, index, f, z, edges, scale_energy(energy).half(), group))
        return groups

    def _measure(self):
        """Return mean and standard deviation of every channel, all voxels counting equally."""
        total, square, count = 0.0, 0.0, 0
        generator = torch.Generator().manual_seed(0)
        for group in self.groups:
            for picks in torch.arange(len(group.index)).split(64):
                x = self._grids(group, picks, generator, torch.zeros(len(picks), dtype=torch.bool))[0].double()
                total, square = total + x.sum((0, 2, 3, 4)), square + x.square().sum((0, 2, 3, 4))
                count += x[:, 0].numel()
        mean = total / count
        return mean.tolist(), (square / count - mean**2).sqrt().tolist()

    def probabilities(self, voxels: int, largest: int) -> Tensor:
        """Return how often each group is drawn, (groups,), so that all structures are drawn equally often."""
        shares = [len(g.index) / self.batch_size(g.shape, voxels, largest) for g in self.groups]
        return torch.tensor(shares, dtype=torch.float64) / sum(shares)

    @staticmethod
    def batch_size(shape: Sequence[int], voxels: int, largest: int) -> int:
        """Return how many grids of a shape make a batch of about ``voxels`` voxels, from 1 to ``largest``."""
        return min(max(round(voxels / math.prod(shape)), 1), largest)

    def draw(
        self,
        generator: torch.Generator,
        voxels: int = 65536,
        largest: int = 512,
        group: int | None = None,
        symmetric: float = 0.0,
    ) -> Drawn:
        """Draw a random batch.

        Parameters
        ----------
        generator : torch.Generator
            On the CPU: the same seed gives the same batches on any device, and the device never waits.
        voxels, largest : int
            See :meth:`batch_size`.
        group : int, optional
            Index of the group; None draws one.
        symmetric : float
            Share of structures whose ``orbits`` are those of their space group; they are translated by whole voxels only.
        """
        if group is None:
            group = int(torch.multinomial(self.probabilities(voxels, largest), 1, generator=generator))
        chosen = self.groups[group]
        size = self.batch_size(chosen.shape, voxels, largest)
        picks = torch.randint(len(chosen.index), (size,), generator=generator)
        return self.make(chosen, picks, generator, symmetric)

    def make(self, group: _Group, picks: Tensor, generator: torch.Generator, symmetric: float = 0.0) -> Drawn:
        """Return an augmented batch of the members ``picks`` of a group; see :meth:`draw`."""
        whole = torch.rand(len(picks), generator=generator) < symmetric  # (B,)
        x, lengths, orbits = self._grids(group, picks, generator, whole)
        x = (x - self.mean[:, None, None, None]) / self.std[:, None, None, None]
        orders = list(itertools.permutations(range(3)))
        order = orders[int(torch.randint(6, (), generator=generator))]
        x, lengths = x.permute(0, 1, *(2 + axis for axis in order)).contiguous(), lengths[:, order]
        index = group.index[picks.to(self.device)]
        conditions = {name: values[index] for name, values in self.conditions.items()}
        if orbits is not None:
            orbits = orbits.permute(0, *(1 + axis for axis in order)).contiguous()
            ranked = orbits.flatten(1).sort(1).values
            conditions['multiplicity'] = ranked.shape[1] / (1 + (ranked.diff(dim=1) > 0).sum(1)).float()
        return Drawn(x, torch.diag_embed(lengths), conditions, orbits)

    def _grids(self, group: _Group, picks: Tensor, generator: torch.Generator, whole: Tensor):
        """Return moved scaled grids (B, C, X, Y, Z), cell edges (B, 3), orbits; ``whole`` (B,): moved by whole voxels."""
        size, device = len(picks), self.device
        fine = torch.tensor([2 * n for n in group.shape])
        shift = (torch.rand(size, 3, generator=generator) * fine).long().clamp(max=fine - 1)  # (B, 3), half voxels
        shift = torch.where(whole[:, None], shift // 2 * 2, shift)
        sign = 2 * torch.randint(2, (size, 3), generator=generator) - 1  # (B, 3)
        move = torch.cat([picks[:, None], shift, sign, fine.expand(size, 3), whole[:, None].long()], 1)  # (B, 11)
        move = move.pin_memory().to(device, non_blocking=True) if device.type == 'cuda' else move
        picks, shift, sign, fine = move[:, 0], move[:, 1:4], move[:, 4:7], move[:, 7:10]
        whole = move[:, 10].bool()
        index = [
            (2 * torch.arange(n, device=device) * sign[:, a, None] + shift[:, a, None]) % (2 * n)
            for a, n in enumerate(group.shape)
        ]
        energy = _look_up(group.energy, picks, index).float()  # (B, X, Y, Z)
        lengths, parts = group.lengths[picks], [energy]
        for symbol in ('Si', 'O'):
            sites, mask = (values[picks] for values in group.sites[symbol])
            moved = sign[:, None] * (sites - (shift / fine)[:, None])  # (B, N, 3)
            parts.append(2 * separable_density(moved, mask, lengths, group.shape, self.width) - 1)
        if self.channels == 4:
            parts.append(scale_boltzmann(unscale_energy(energy)))
        orbits = None
        if group.orbits is not None:
            orbits = _look_up(group.orbits, picks, [i // 2 for i in index]).long()
            alone = torch.arange(math.prod(group.shape), device=device).view(group.shape)
            orbits = torch.where(whole[:, None, None, None], orbits, alone)
        return torch.stack(parts, 1), lengths, orbits


def _look_up(grids: Tensor, rows: Tensor, index: list[Tensor]) -> Tensor:
    """Return grids (B, X, Y, Z) of rows (B,) at the points index[axis] (B, n)."""
    x, y, z = index
    return grids[rows[:, None, None, None], x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]]


def _permuted(operations, order):
    """Return operations (rotations, translations) in another order of the axes; None stays None."""
    if operations is None:
        return None
    rotations, translations = np.asarray(operations[0]), np.asarray(operations[1], float)
    return rotations[:, order][:, :, order], translations[:, order]
