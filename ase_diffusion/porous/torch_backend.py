"""Pair potentials summed on grids with plain torch: any device, batches of structures, differentiable.

Same arithmetic as in `numba_backend`: the cutoff is evaluated in float64 for each line of grid points and atom, pairs are summed
in the dtype of the result. Blocks of lines share a list of atoms; chunks of blocks and lists bound the memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SMALLEST = 0.01  # A^2, smallest squared distance
TILE, SEGMENT = 1.6, 16.0  # A, size of a block across and along the lines
ELEMENTS = {'cpu': 1 << 16, 'cuda': 1 << 26}  # pairs per chunk
TESTS = 1 << 24  # candidate pairs of blocks and atoms per chunk


def lennard_jones(square: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return a / r^12 - b / r^6 of squared distances, evaluated as q (a q - b) with q = r^-6 to avoid overflow."""
    if torch.is_grad_enabled():
        sixth = square.clamp(min=SMALLEST).reciprocal().pow(3)
        return sixth * (a * sixth - b)
    sixth = square.clamp_(min=SMALLEST).reciprocal_()  # no new memory
    sixth = (sixth * sixth).mul_(sixth)
    return (sixth * a).sub_(b).mul_(sixth)


def gaussian(square: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return a exp(-b r^2) of squared distances."""
    return a * torch.exp(-b * square)


def torch_grid(
    positions: Tensor,
    cell: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    shape: tuple[int, int, int] = (32, 32, 32),
    cutoff: float = 12.0,
    pair: Callable[[Tensor, Tensor, Tensor], Tensor] = lennard_jones,
    dtype: torch.dtype = torch.float32,
    elements: int | None = None,
) -> Tensor:
    """Sum a pair potential over atoms and their images on periodic grids; gradients flow to positions, cell, a and b.

    Parameters
    ----------
    positions : Tensor
        ``(B, N, 3)`` or ``(N, 3)`` in A, inside or outside the cell; converted to float64.
    cell : Tensor
        ``(B, 3, 3)`` or ``(3, 3)``, rows, A.
    a, b : Tensor
        ``(B, N)`` or ``(N,)``: K A^12 and K A^6 for `lennard_jones`. Rows are padded with atoms of a = b = 0.
    shape : (int, int, int)
    cutoff : float
        Cutoff in A; pairs with r < cutoff contribute.
    pair : callable
        ``pair(square, a, b)`` of squared distances, elementwise.
    dtype : torch.dtype
        Precision of sums and result.
    elements : int, optional
        Pairs per chunk, which bounds the memory; by default 2^16 on a CPU (cache size) and 2^26 elsewhere.

    Returns
    -------
    Tensor
        ``(B, nx, ny, nz)`` or ``(nx, ny, nz)``; points at fractional coordinates i / n.
    """
    if positions.ndim == 2:
        batch = [x[None] for x in (positions, cell, a, b)]
        return torch_grid(*batch, shape=shape, cutoff=cutoff, pair=pair, dtype=dtype, elements=elements)[0]
    elements = elements or ELEMENTS.get(positions.device.type, ELEMENTS['cuda'])
    cell = cell.double()
    box = cell @ _frames(cell).transpose(1, 2)  # (B, 3, 3), third row (0, 0, c)
    scaled = positions.double() @ torch.linalg.inv(cell)
    inside = (scaled - scaled.detach().floor()) @ box  # (B, N, 3)
    blocks = _Blocks(box.detach(), shape)
    atoms = inside.detach(), _images(box.detach(), cutoff)  # (B, N, 3), (K, 3)
    parts = []
    for part in blocks.chunks(len(atoms[1]) * positions.shape[1]):
        for rows, index in _candidates(*atoms, box.detach(), a, b, blocks, part, cutoff, elements):
            parts.append(_sum_rows(inside, box, a, b, atoms[1], blocks, rows, index, cutoff, pair, dtype))
    return blocks.assemble(torch.cat(parts))


def _frames(cell):
    """Return orthonormal rows (B, 3, 3), the third along the third cell vector."""
    along = cell[:, 2] / cell[:, 2].norm(dim=-1, keepdim=True)
    across = cell[:, 0] - (cell[:, 0] * along).sum(-1, keepdim=True) * along
    across = across / across.norm(dim=-1, keepdim=True)
    return torch.stack([across, torch.linalg.cross(along, across), along], 1)


def _images(box, cutoff):
    """Return integer shifts (K, 3) of all images within reach of the cells, the same for the batch."""
    heights = torch.linalg.inv(box).norm(dim=1).reciprocal().amin(0)  # (3,) between opposite faces
    ranges = [range(-n, n + 1) for n in torch.ceil(cutoff / heights + 1e-9).int().tolist()]
    return torch.tensor(list(itertools.product(*ranges)), dtype=torch.float64, device=box.device)


class _Blocks:
    """Division of grids (B, nx, ny, nz) into blocks of X x Y lines of Z points; the last blocks extend beyond the grid."""

    def __init__(self, box, shape):
        steps = box.norm(dim=-1).mean(0).tolist()
        edges = [round(edge * n / step) for edge, n, step in zip((TILE, TILE, SEGMENT), shape, steps, strict=True)]
        most = (8, 8, 64)
        self.size = [min(max(edge, 1), n, m) for edge, n, m in zip(edges, shape, most, strict=True)]
        self.counts = [-(-n // size) for n, size in zip(shape, self.size, strict=True)]
        self.shape, self.box, self.number = shape, box, len(box)
        self.total = self.number * math.prod(self.counts)  # rows

    def chunks(self, atoms):
        """Yield ranges of rows that bound the number of tests with all `atoms` images."""
        each = max(1, TESTS // max(1, atoms))
        for first in range(0, self.total, each):
            yield torch.arange(first, min(first + each, self.total), device=self.box.device)

    def split(self, rows):
        """Return structure (r,) and the indices of the first point (r, 3) of rows."""
        x, y, z = self.counts
        corner = torch.stack([rows // (y * z) % x, rows // z % y, rows % z], -1)
        return rows // (x * y * z), corner * torch.tensor(self.size, device=rows.device)

    def lines(self, rows, box):
        """Return the places (r, X Y, 3) of the first points of the lines of rows."""
        structure, corner = self.split(rows)
        x, y = (torch.arange(n, device=rows.device) for n in self.size[:2])
        grid = torch.stack([*torch.meshgrid(x, y, indexing='ij')], -1).reshape(1, -1, 2) + corner[:, None, :2]
        grid = torch.cat([grid, corner[:, None, 2:].expand(-1, grid.shape[1], 1)], -1)
        return (grid.double() / torch.tensor(self.shape, device=rows.device)) @ box[structure]

    def assemble(self, rows):
        """Return the grids (B, nx, ny, nz) of values (rows, X Y, Z)."""
        (cx, cy, cz), (x, y, z), (nx, ny, nz) = self.counts, self.size, self.shape
        grid = rows.view(self.number, cx, cy, cz, x, y, z).permute(0, 1, 4, 2, 5, 3, 6)
        return grid.reshape(self.number, cx * x, cy * y, cz * z)[:, :nx, :ny, :nz].contiguous()


def _candidates(inside, images, box, a, b, blocks, rows, cutoff, elements):
    """Yield (rows, table (r, m)) of the images within reach of blocks of points, padded with -1."""
    structure, _ = blocks.split(rows)
    lines = blocks.lines(rows, box)
    center = lines.mean(1)  # (r, 3)
    apart = lines - center[:, None]
    radius, spread = apart[..., :2].norm(dim=-1).amax(1), apart[..., 2].abs().amax(1)  # (r,)
    depth = box[structure, 2, 2] * (blocks.size[2] - 1) / blocks.shape[2]
    active = (a != 0) | (b != 0)
    places = inside[:, :, None] + (images @ box)[:, None]  # (B, N, K, 3)
    away = places.flatten(1, 2)[structure] - center[:, None]  # (r, N K, 3)
    lateral = (away[..., :2].norm(dim=-1) - radius[:, None]).clamp(min=0)
    half = (cutoff**2 - lateral.square()).clamp(min=0).sqrt() + spread[:, None]
    near = (lateral < cutoff) & (away[..., 2] > -half) & (away[..., 2] < depth[:, None] + half)
    near &= active.repeat_interleave(len(images), 1)[structure]
    counts = near.sum(1)
    row, image = near.nonzero(as_tuple=True)
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    table = torch.full((len(rows), max(1, int(counts.max()))), -1, device=row.device)
    table[row, slot] = image
    each = max(1, elements // (table.shape[1] * math.prod(blocks.size)))
    for first in range(0, len(rows), each):
        part = table[first : first + each]
        yield rows[first : first + each], part[:, : max(1, int((part >= 0).sum(1).max()))]


def _sum_rows(inside, box, a, b, images, blocks, rows, index, cutoff, pair, dtype):
    """Return the sums (r, X Y, Z) for rows of blocks and the images in their tables."""
    structure, corner = blocks.split(rows)
    atom, image = index.clamp(min=0) // len(images), index.clamp(min=0) % len(images)  # (r, m)
    places = inside[structure[:, None], atom] + images[image] @ box[structure]  # (r, m, 3)
    away = places[:, None] - blocks.lines(rows, box)[:, :, None]  # (r, X Y, m, 3)
    step = (box[structure, 2, 2] / blocks.shape[2])[:, None, None]  # (r, 1, 1)
    across = away[..., :2].square().sum(-1)  # (r, X Y, m)
    with torch.no_grad():  # index range of the points inside the cutoff, extended by half a step
        half = (cutoff**2 - across).clamp(min=0).sqrt()
        low = torch.floor((away[..., 2] - half) / step) + 0.5
        high = torch.ceil((away[..., 2] + half) / step) - 0.5
        high = torch.where((index >= 0)[:, None] & (half > 0), high, low)
        middle, width = ((low + high) / 2).to(dtype), ((high - low) / 2).to(dtype)
    shift = blocks.size[2] // 2  # coordinates along the line from the middle of the block
    inputs = (
        across.to(dtype),
        (away[..., 2] - shift * step).to(dtype),
        step.to(dtype),
        middle - shift,
        width,
        *(x[structure[:, None], atom].to(dtype)[:, None] for x in (a, b)),
    )
    points = torch.arange(blocks.size[2], device=rows.device, dtype=dtype) - shift

    def add(across, along, step, middle, width, a, b):
        lines = (points * step)[..., None]  # (r, 1, Z, 1)
        along = lines - along[:, :, None]  # (r, X Y, Z, m)
        square = across[:, :, None] + along * along
        inside = (points[:, None] - middle[:, :, None]).abs() < width[:, :, None]
        return (pair(square, a[:, :, None], b[:, :, None]) * inside).sum(-1)

    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return checkpoint(add, *inputs, use_reentrant=False)  # recomputes a chunk in the backward pass
    return add(*inputs)
