"""What a space group and its occupied sites leave open about the numbers of a crystal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FORMS = ('projection', 'offset', 'orbits', 'space_group')  # extras of a batch
_FIRST = (1, 3, 16, 75, 143, 195)  # space groups of the crystal systems from triclinic on; trigonal ones in hexagonal cells


class SiteSymmetry(NamedTuple):
    """Projections onto crystals of given sites; see :func:`site_symmetry`.

    ``places`` (B, 3 N, 3 N) and ``offset`` (B, N, 3) act on fractional coordinates, ``cell`` (B, 6, 6) and ``constant`` (B, 6) on
    lengths (or their logarithms) and angles in degrees; ``same`` (B, N, N) is 1 for atoms of one orbit; ``group`` (B,) is
    the space group, 0 where the symmetry is not given.
    """

    places: Tensor
    offset: Tensor
    same: Tensor
    cell: Tensor
    constant: Tensor
    group: Tensor

    @property
    def known(self) -> Tensor:
        """1 where the symmetry is given, (B,)."""
        return (self.group > 0).float()

    def sure(self, logits: Tensor) -> Tensor:
        """Return logits (B, 230) of space groups, certain where the symmetry is given."""
        given = torch.nn.functional.one_hot(self.group.long().clamp(min=1) - 1, logits.shape[1])
        return torch.where(self.known[:, None] > 0, 1e4 * (given - 1.0), logits)

    def project(self, places: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Return the nearest places (B, N, 3) that have the symmetry; all of them as (coordinate - shift) / scale."""
        raw = places * scale + shift
        raw = (self.places @ raw.flatten(1)[..., None])[..., 0].view_as(raw) + self.offset
        return (raw - shift) / scale

    def project_cell(self, cell: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Return the nearest cell (B, 6) of the crystal system, as (number - shift) / scale."""
        raw = (self.cell @ (cell * scale + shift)[..., None])[..., 0] + self.constant
        return (raw - shift) / scale

    def mean(self, x: Tensor) -> Tensor:
        """Average numbers of atoms (B, N, K) over orbits."""
        return self.total(x) / self.same.sum(-1, keepdim=True).clamp(min=1)

    def total(self, x: Tensor) -> Tensor:
        """Add numbers of atoms (B, N, K) over orbits."""
        return self.same @ x

    def freedom(self) -> Tensor:
        """Return the variance (B, N, 3) that independent noise of unit variance on all coordinates leaves."""
        return self.places.diagonal(dim1=1, dim2=2).view_as(self.offset).clamp(0.0, 1.0)

    def cell_freedom(self) -> Tensor:
        """Return the same (B, 6) of the cell."""
        return self.cell.diagonal(dim1=1, dim2=2).clamp(0.0, 1.0)

    def features(self) -> Tensor:
        """Return what a token is told of its site, (B, N, 10): projection by its own symmetry and log of the multiplicity."""
        size, n = self.offset.shape[:2]
        many = self.same.sum(-1, keepdim=True).clamp(min=1)  # (B, N, 1)
        own = self.places.view(size, n, 3, n, 3).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).flatten(2)  # (B, N, 9)
        return torch.cat([own * many, many.log()], -1) * self.known[:, None, None]


def site_symmetry(extras: dict, width: int) -> SiteSymmetry | None:
    """Return the projections of a batch whose extras tell the sites; None if they do not.

    Parameters
    ----------
    extras : dict
        ``projection`` (B, N, 3, N, 3) and ``offset`` (B, N, 3) with f = projection f + offset for all fractional coordinates f of
        crystals with these sites, ``orbits`` (B, N), a number for each orbit, ``space_group`` (B,), 0 where nothing is known.
    width : int
        Slots to take, at most N.
    """
    if any(name not in extras for name in FORMS):
        return None
    group, orbits = extras['space_group'], extras['orbits'][:, :width]
    size = len(group)
    places = extras['projection'][:, :width, :, :width].float().reshape(size, 3 * width, 3 * width)
    same = (orbits[:, :, None] == orbits[:, None]) & (group > 0)[:, None, None]
    same = (same | torch.eye(width, dtype=torch.bool, device=same.device)).float()
    cell, constant = (table.to(group.device)[_system(group)] for table in _systems())
    return SiteSymmetry(places, extras['offset'][:, :width].float(), same, cell, constant, group)


def _system(group: Tensor) -> Tensor:
    """Return 0 (no or triclinic symmetry) to 5 (cubic) of space groups (B,)."""
    first = torch.tensor(_FIRST[1:], device=group.device)
    return (group[:, None] >= first).sum(1)


def _systems() -> tuple[Tensor, Tensor]:
    """Return projections (6, 6, 6) and constants (6, 6) of a, b, c, alpha, beta, gamma in the crystal systems."""
    cell, constant = torch.eye(6).repeat(6, 1, 1), torch.zeros(6, 6)
    for k, (equal, angles) in enumerate(
        [((), ()), ((), (3, 5)), ((), (3, 4, 5)), ((0, 1), (3, 4, 5)), ((0, 1), (3, 4, 5)), ((0, 1, 2), (3, 4, 5))]
    ):
        for i in equal:
            for j in equal:
                cell[k, i, j] = 1 / len(equal)
        for i in angles:
            cell[k, i, i], constant[k, i] = 0.0, 120.0 if (k, i) == (4, 5) else 90.0
    return cell, constant


def projections(
    f: Tensor, counts: Tensor, rotations: Tensor, translations: Tensor, tolerance: float = 0.01
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return projections onto crystals with the same sites of one space group.

    An operation g takes atom i to atom j up to a lattice vector n: f_j = R f_i + t + n. The average of R^-1 (f_j - t - n) over
    the group is P f + b, with b = f - P f for the crystal itself.

    Parameters
    ----------
    f : (B, N, 3) Tensor
        Fractional coordinates of conventional cells, float.
    counts : (B,) Tensor
        Numbers of atoms.
    rotations, translations : (G, 3, 3) and (G, 3) Tensor
        All operations, those of centering among them.
    tolerance : float
        Greatest distance of an image from an atom, fractional.

    Returns
    -------
    projection : (B, N, 3, N, 3) Tensor
    offset : (B, N, 3) Tensor
    orbits : (B, N) Tensor
        The first atom of the orbit, int64.
    found : (B,) bool Tensor
        Whether every image is an atom; otherwise the projection leaves everything as it is.
    """
    n, rotations = f.shape[1], rotations.to(f.dtype)
    here = torch.arange(n, device=f.device) < counts[:, None]  # (B, N)
    moved = torch.einsum('gij,bnj->bgni', rotations, f) + translations.to(f.dtype)[:, None]  # (B, G, N, 3)
    d = moved[:, :, :, None] - f[:, None, None]
    d = (d - torch.round(d)).abs().amax(-1).masked_fill(~here[:, None, None], 2.0)  # (B, G, N, N)
    distance, target = d.min(-1)
    found = (distance.masked_fill(~here[:, None], 0.0) < tolerance).flatten(1).all(1)
    one_hot = torch.nn.functional.one_hot(target, n).to(f.dtype) * here[:, None, :, None]  # (B, G, N, N)
    inverse = torch.linalg.inv(rotations)
    projection = torch.einsum('bgij,gkl->bikjl', one_hot, inverse) / len(rotations)
    same = one_hot.amax(1) > 0
    alone = torch.eye(n, device=f.device)
    plain = torch.einsum('ij,kl->ikjl', alone, torch.eye(3, device=f.device)).to(f.dtype)
    projection = torch.where(found[:, None, None, None, None], projection, plain)
    same = torch.where((found[:, None] & here)[..., None], same, alone.bool())
    offset = f - torch.einsum('bikjl,bjl->bik', projection, f)
    return projection, offset, same.int().argmax(-1), found
