"""Neighbour graphs of periodic structures in batches, on any device.

Small structures are treated by brute force over padded batches and explicit images, which beats neighbour-list
libraries there; large ones go to matscipy's linear-scaling list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BRUTE_FORCE_LIMIT = 6_000_000  # candidate pairs per structure up to which brute force is used
_CHUNK = 20_000_000  # candidate pairs handled at once


@dataclass
class Graph:
    """Edges between the atoms of a batch.

    Attributes
    ----------
    receivers, senders : Tensor
        ``(E,)`` atom indices; the first ``n_active_edges`` edges have active receivers.
    vectors : Tensor
        ``(E, 3)`` from receiver to sender (periodic image included), A.
    n_active_edges : int
        Number of edges into active atoms.
    """

    receivers: Tensor
    senders: Tensor
    vectors: Tensor
    n_active_edges: int


def image_shifts(cell: Tensor, pbc: Sequence[bool], cutoff: float) -> Tensor:
    """Return integer image offsets (K, 3) that a cutoff can reach between atoms inside their cells.

    ``cell`` is (B, 3, 3); the largest number of images over the batch is used. ``pbc`` is a triple of bool.
    """
    volume = torch.linalg.det(cell.double()).abs()
    ranges = []
    for axis in range(3):
        b, c = cell[:, (axis + 1) % 3].double(), cell[:, (axis + 2) % 3].double()
        height = volume / torch.linalg.cross(b, c, dim=-1).norm(dim=-1)
        n = int(torch.ceil(cutoff / height.min() + 1e-9)) if pbc[axis] else 0
        ranges.append(torch.arange(-n, n + 1))
    return torch.cartesian_prod(*ranges).to(cell.device)


def wrap(positions: Tensor, cell: Tensor, pbc: Sequence[bool], inverse: Tensor | None = None) -> Tensor:
    """Wrap positions (n, 3) into cells (n, 3, 3) along periodic directions; ``inverse`` of the cells where it is known."""
    inverse = torch.linalg.inv(cell) if inverse is None else inverse
    f = (positions.unsqueeze(-2) @ inverse).squeeze(-2)
    periodic = torch.tensor([bool(p) for p in pbc], device=f.device)
    f = torch.where(periodic, f - torch.floor(f), f)
    return (f.unsqueeze(-2) @ cell).squeeze(-2)


def build_graph(
    positions: Tensor, rows: Tensor, cell: Tensor, pbc: Sequence[bool], cutoff: float, n_active: int, *, passive_edges: bool
) -> Graph:
    """Connect all atoms closer than ``cutoff``.

    Parameters
    ----------
    positions : Tensor
        ``(n, 3)``, A; the first ``n_active`` rows are active atoms, the others passive (frozen). Gradients flow
        through.
    rows : Tensor
        ``(n,)`` structure index, sorted among the active and among the passive atoms.
    cell : Tensor
        ``(B, 3, 3)``.
    pbc : triple of bool
    cutoff : float
        A.
    n_active : int
        Number of active atoms.
    passive_edges : bool
        Whether edges between two passive atoms are wanted.
    """
    with torch.no_grad():
        receivers, senders, shifts = _pairs(positions.detach(), rows, cell, pbc, cutoff, n_active, passive_edges)
    vectors = positions.index_select(0, senders) - positions.index_select(0, receivers) + shifts
    order = torch.argsort((receivers >= n_active).to(torch.int8), stable=True)
    n_edges = int((receivers < n_active).sum())
    return Graph(receivers[order], senders[order], vectors.index_select(0, order), n_edges)


def neighbor_pairs(
    positions: Tensor, rows: Tensor, cell: Tensor, pbc: Sequence[bool], cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (i, j, shift) of all pairs closer than ``cutoff``, both directions; the vector from i to j is r_j - r_i + shift.

    Shapes as in :func:`build_graph`; ``shift`` is ``(E, 3)``.
    """
    with torch.no_grad():
        return _pairs(positions, rows, cell, pbc, cutoff, len(positions), True)


def _pairs(positions, rows, cell, pbc, cutoff, n_active, passive_edges):
    size = len(cell)
    n = len(positions)
    counts = torch.bincount(rows, minlength=size)
    wrapped = wrap(positions, cell[rows], pbc, torch.linalg.inv(cell)[rows])
    offset = wrapped - positions  # the whole-cell move that wrapping made
    images = image_shifts(cell, pbc, cutoff)
    queries = n if passive_edges else n_active
    widest = int(counts.max())
    if widest * widest * len(images) > _BRUTE_FORCE_LIMIT:
        return _pairs_large(positions, rows, cell, pbc, cutoff, n_active, passive_edges)
    atoms = torch.arange(n, device=positions.device)
    order = torch.argsort(rows, stable=True)
    slot = torch.empty_like(order)
    start = torch.cumsum(counts, 0) - counts
    slot[order] = atoms - start[rows[order]]
    table = torch.full((size, widest), -1, device=positions.device)  # (B, N) atom index or -1
    table[rows, slot] = atoms
    found = []
    per_chunk = max(1, _CHUNK // max(1, widest * len(images)))
    for low in range(0, queries, per_chunk):
        i = atoms[low : min(low + per_chunk, queries)]
        j = table[rows[i]]  # (q, N)
        translation = images.to(positions.dtype) @ cell[rows[i]]  # (q, K, 3)
        difference = wrapped[j.clamp(min=0)] - wrapped[i][:, None]  # (q, N, 3)
        square = torch.zeros((), dtype=positions.dtype, device=positions.device)
        for axis in range(3):  # one axis at a time: no tensor of (q, N, K, 3), no sum over a short last axis
            square = square + (difference[:, :, None, axis] + translation[:, None, :, axis]).square()  # (q, N, K)
        near = (square < cutoff**2) & (j >= 0)[:, :, None]
        home = (images == 0).all(-1)
        near &= ~((j == i[:, None])[:, :, None] & home)
        q, m, k = near.nonzero(as_tuple=True)
        found.append((i[q], j[q, m], translation[q, k]))
    receivers, senders, shift = (torch.cat(part) for part in zip(*found, strict=True))
    shift = shift + offset[senders] - offset[receivers]
    return _mirror(receivers, senders, shift, n_active) if not passive_edges else (receivers, senders, shift)


def _mirror(receivers, senders, shift, n_active):
    """Add the reverse of every active-to-passive edge: passive atoms hear the active ones."""
    passive = senders >= n_active
    return (
        torch.cat([receivers, senders[passive]]),
        torch.cat([senders, receivers[passive]]),
        torch.cat([shift, -shift[passive]]),
    )


def _pairs_large(positions, rows, cell, pbc, cutoff, n_active, passive_edges):
    from matscipy.neighbours import neighbour_list

    parts = []
    for b in range(len(cell)):
        member = (rows == b).nonzero().squeeze(-1)
        box = cell[b].double().cpu().numpy()
        i, j, s = neighbour_list(
            'ijS',
            cutoff=float(cutoff),
            positions=positions[member].double().cpu().numpy(),
            cell=box,
            pbc=np.array([bool(p) for p in pbc]),
        )
        i, j = member[torch.as_tensor(i, dtype=torch.long)], member[torch.as_tensor(j, dtype=torch.long)]
        keep = torch.ones(len(i), dtype=torch.bool) if passive_edges else ((i < n_active) | (j < n_active)).cpu()
        shift = torch.as_tensor(s @ box, dtype=positions.dtype)
        keep = keep.to(i.device)
        parts.append((i[keep], j[keep], shift.to(i.device)[keep]))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))
