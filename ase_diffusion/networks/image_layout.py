"""The layout of a CrysTens image (Alverson et al., Digital Discovery 3, 62, 2024, section 3.1): 4 channels of 64 x 64 numbers.

Row and column 0 is Z, 1 to 3 the fractional x, y, z, 4 to 6 the lengths, 7 to 9 the angles, 10 the space group, 11 says whether
there is an atom (a padding of zeros in the paper), 12 to 63 are atoms. Row ``field`` and column ``field`` hold the same numbers
in all channels. The pair block ``[12:, 12:]`` has the length of f_i - f_j in channel 0 and its parts in channels 1 to 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

HEADER, ATOMS, SIZE = 12, 52, 64
# the first twelve are rows and columns, the last four channels of the pair block
FIELDS = ('Z', 'x', 'y', 'z', 'a', 'b', 'c', 'alpha', 'beta', 'gamma', 'space_group', 'present', 'length', 'dx', 'dy', 'dz')
PRESENT, LENGTH, DIRECTIONS = 11, 12, slice(13, 16)
CELL = slice(4, 11)


def is_present(counts: Tensor, width: int = ATOMS) -> Tensor:
    """Return which of ``width`` slots hold an atom, (B,) -> bool (B, width); atoms come first."""
    return torch.arange(width, device=counts.device) < counts[:, None]


def build_image(atoms: Tensor, cell: Tensor, counts: Tensor, shift: Tensor, scale: Tensor, absent: float = 0.0) -> Tensor:
    """Return images (B, 4, 12 + N, 12 + N) of crystals in N slots, 52 for the published size.

    Parameters
    ----------
    atoms : (B, N, 4) Tensor
        Z and fractional coordinates in [0, 1); slots behind the last atom are ignored.
    cell : (B, 7) Tensor
        The fields a to space_group.
    counts : (B,) Tensor
        Numbers of atoms.
    shift, scale : (16,) Tensor
        A field enters as (value - shift) / scale; the shift of dx, dy, dz is 0. Field 11 is 1 or -1.
    absent : float
        Pixels without an atom; those of channels 1 to 3 of the pair block are 0.
    """
    here = is_present(counts, atoms.shape[1])  # (B, N)
    fields = torch.cat([atoms, cell[:, None].expand(-1, atoms.shape[1], -1)], -1)  # (B, N, 11)
    fields = (fields - shift[:PRESENT]) / scale[:PRESENT]
    f = atoms[..., 1:]
    d = (f[:, :, None] - f[:, None]).permute(0, 3, 1, 2)  # (B, 3, N, N)
    length = (d.square().sum(1).sqrt() - shift[LENGTH]) / scale[LENGTH]
    return compose_image(fields, length, d / scale[DIRECTIONS, None, None], here, absent)


def compose_image(fields: Tensor, length: Tensor, directions: Tensor, here: Tensor, absent: float = 0.0) -> Tensor:
    """Return images of numbers that are scaled already.

    Parameters
    ----------
    fields : (B, N, 11) Tensor
        The fields Z to space_group of every atom.
    length : (B, N, N) Tensor
    directions : (B, 3, N, N) Tensor
    here : (B, N) bool Tensor
    absent : float
    """
    size, width, _ = fields.shape
    fields = torch.where(here[..., None], fields, absent)
    sign = here.to(fields.dtype)[..., None] * 2 - 1
    strip = torch.cat([fields, sign], -1)[:, None].expand(-1, 4, -1, -1)  # (B, 4, N, 12)
    pair = is_pair(here)[:, None]  # (B, 1, N, N)
    block = torch.cat([torch.where(pair, length[:, None], absent), torch.where(pair, directions, 0.0)], 1)  # (B, 4, N, N)
    corner = strip.new_full((size, 4, HEADER, HEADER), absent)
    return torch.cat([torch.cat([corner, strip.transpose(2, 3)], 3), torch.cat([strip, block], 3)], 2)


def is_pair(here: Tensor) -> Tensor:
    """Return which pairs are two different atoms, bool (B, N) -> (B, N, N)."""
    other = ~torch.eye(here.shape[1], dtype=torch.bool, device=here.device)
    return here[:, :, None] & here[:, None] & other


def is_generated(counts: Tensor) -> Tensor:
    """Return which pixels the number of atoms leaves open, bool (B, 1, 64, 64); the others are known."""
    here = is_present(counts)
    corner = torch.zeros(len(counts), HEADER, HEADER, dtype=torch.bool, device=counts.device)
    strip = here[:, :, None] & (torch.arange(HEADER, device=counts.device) < PRESENT)  # (B, 52, 12)
    top = torch.cat([corner, strip.transpose(1, 2)], 2)
    return torch.cat([top, torch.cat([strip, is_pair(here)], 2)], 1)[:, None]


def symmetric_image(fields: Tensor, length: Tensor, directions: Tensor, here: Tensor) -> Tensor:
    """Return images as a network sees them: 0 without an atom, row 11 is 1 or 0, rows are columns, channels may differ.

    fields (B, 4, 11 or more, N), length (B, N, N), directions (B, 3, N, N), here (B, N) -> (B, 4, 12 + N, 12 + N).
    """
    fields = torch.where(here[:, None, None], fields[:, :, :PRESENT], 0.0)
    fields = torch.cat([fields, here.to(fields)[:, None, None].expand(-1, 4, -1, -1)], 2)
    pair = is_pair(here)[:, None]
    block = torch.cat([torch.where(pair, length[:, None], 0.0), torch.where(pair, directions, 0.0)], 1)
    corner = fields.new_zeros(len(fields), 4, HEADER, HEADER)
    return torch.cat([torch.cat([corner, fields], 3), torch.cat([fields.transpose(2, 3), block], 3)], 2)


def strips(image: Tensor) -> Tensor:
    """Return the copies of all numbers of the header, (B, 4, S, S) -> (B, 4, 2, 12, N): channel, row or column, field, atom."""
    return torch.stack([image[:, :, :HEADER, HEADER:], image[:, :, HEADER:, :HEADER].transpose(2, 3)], 2)


def pair_block(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return channel 0 of the pair block, symmetrised (B, N, N), and channels 1 to 3, antisymmetrised (B, 3, N, N)."""
    block = image[:, :, HEADER:, HEADER:]
    turned = block.transpose(2, 3)
    return (block[:, 0] + turned[:, 0]) / 2, (block[:, 1:] - turned[:, 1:]) / 2
