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
        A field enters as (value - shift) / scale; the shift of dx, dy, dz is 0.
    absent : float
        Pixels without an atom; those of channels 1 to 3 of the pair block are 0.
    """
    size, width, _ = atoms.shape
    here = is_present(counts, width)  # (B, N)
    fields = torch.cat([atoms, cell[:, None].expand(-1, width, -1)], -1)  # (B, N, 11)
    fields = (fields - shift[:PRESENT]) / scale[:PRESENT]
    fields = torch.where(here[..., None], fields, absent)
    sign = here.to(fields.dtype)[..., None] * 2 - 1
    strip = torch.cat([fields, (sign - shift[PRESENT]) / scale[PRESENT]], -1)  # (B, N, 12)
    image = strip.new_full((size, 4, HEADER + width, HEADER + width), absent)
    image[:, :, HEADER:, :HEADER] = strip[:, None]
    image[:, :, :HEADER, HEADER:] = strip.transpose(1, 2)[:, None]
    f = atoms[..., 1:]
    d = (f[:, :, None] - f[:, None]).permute(0, 3, 1, 2)  # (B, 3, N, N)
    pair = is_pair(here)  # (B, N, N)
    length = (d.square().sum(1).sqrt() - shift[LENGTH]) / scale[LENGTH]
    image[:, 0, HEADER:, HEADER:] = torch.where(pair, length, absent)
    image[:, 1:, HEADER:, HEADER:] = torch.where(pair[:, None], d / scale[DIRECTIONS, None, None], 0.0)
    return image


def is_pair(here: Tensor) -> Tensor:
    """Return which pairs are two different atoms, bool (B, N) -> (B, N, N)."""
    other = ~torch.eye(here.shape[1], dtype=torch.bool, device=here.device)
    return here[:, :, None] & here[:, None] & other


def strips(image: Tensor) -> Tensor:
    """Return the copies of all numbers of the header, (B, 4, S, S) -> (B, 4, 2, 12, N): channel, row or column, field, atom."""
    return torch.stack([image[:, :, :HEADER, HEADER:], image[:, :, HEADER:, :HEADER].transpose(2, 3)], 2)


def pair_block(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return channel 0 of the pair block, symmetrised (B, N, N), and channels 1 to 3, antisymmetrised (B, 3, N, N)."""
    block = image[:, :, HEADER:, HEADER:]
    turned = block.transpose(2, 3)
    return (block[:, 0] + turned[:, 0]) / 2, (block[:, 1:] - turned[:, 1:]) / 2
