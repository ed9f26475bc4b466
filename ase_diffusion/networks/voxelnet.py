"""A small denoiser of grids over periodic cells: residual blocks of circular convolutions on patches of voxels.

Patches of voxels become channels, so that the convolutions run on a coarse grid (about 1.9 A per point for patches of 2 at
0.95 A per voxel) and one step costs a fraction of a U-Net on the full grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .conditions import LevelEmbedding, PropertyEmbedding
from .convolution import Attention, Convolution, ResBlock, depth_to_space, head_width, space_to_depth


class VoxelNet(nn.Module):
    """Predict the noise target of grids from noisy grids, cell edges, noise level and conditions.

    The batch (see :class:`ase_diffusion.representations.Voxels`) has one dense field (B, C, X, Y, Z) and the extra ``cells``
    (B, 3, 3), rows in A. The output rolls with the input by any multiple of ``patch`` voxels.

    Parameters
    ----------
    channels : int
        C.
    patch : int
        Voxels per edge of a patch; divides X, Y and Z.
    width : int
        Channels of the coarse grid, a multiple of 8.
    blocks : int
        Residual blocks, two convolutions each.
    attention : int
        Attention layers between all patches, spread evenly over the blocks; 0: none. With one, information crosses any cell.
    heads : int
        Of the attention.
    embedding : int
        Width of the condition vector.
    conditions : dict of str to (shift, scale), optional
        Conditions that the model knows; NaN means "not asked for".
    logarithmic : sequence of str
        Conditions that enter as log(value); their shift and scale are those of the logarithm.
    dropout : float
        In the residual blocks.
    field : str
        Name of the field.
    pitch : float
        A per voxel; the edges of a voxel enter as log(edge / pitch).
    """

    def __init__(
        self,
        channels: int = 3,
        patch: int = 2,
        width: int = 96,
        blocks: int = 5,
        attention: int = 2,
        heads: int = 4,
        embedding: int = 96,
        conditions: dict | None = None,
        logarithmic: Sequence[str] = (),
        dropout: float = 0.0,
        field: str = 'grids',
        pitch: float = 0.95,
    ) -> None:
        super().__init__()
        conditions, logarithmic = dict(conditions or {}), list(logarithmic)
        if unknown := set(logarithmic) - set(conditions):
            raise ValueError(f'logarithmic conditions are among {sorted(conditions)}; got {sorted(unknown)}')
        if width < 8 or width % 8:
            raise ValueError(f'the width of a VoxelNet (features in training) is a multiple of 8; got {width}')
        if not 0 <= attention <= blocks:
            raise ValueError(f'there are between 0 and {blocks} attention layers, one after a block; got {attention}')
        self.settings = dict(
            channels=channels,
            patch=patch,
            width=width,
            blocks=blocks,
            attention=attention,
            heads=heads,
            embedding=embedding,
            conditions=conditions,
            logarithmic=logarithmic,
            dropout=dropout,
            field=field,
            pitch=pitch,
        )
        self.patch, self.field, self.pitch, self.logarithmic = int(patch), field, float(pitch), logarithmic
        numbers = channels * patch**3
        self.level = LevelEmbedding(embedding)
        self.conditions = PropertyEmbedding(conditions, embedding)
        self.cell = nn.Sequential(nn.Linear(6, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.first = Convolution(3, numbers, width)
        self.blocks = nn.ModuleList(ResBlock(3, width, width, embedding, dropout=dropout) for _ in range(blocks))
        places = {round((k + 1) * blocks / attention) - 1 for k in range(attention)} if attention else set()
        self.attention = nn.ModuleDict({str(k): Attention(3, width, heads, head_width(width, heads)) for k in sorted(places)})
        self.norm = nn.GroupNorm(8, width)
        self.last = Convolution(3, width, numbers, zero=True)

    def forward(self, batch: Any, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``{field: (B, C, X, Y, Z)}`` in the dtype of the field."""
        x = batch.fields[self.field]  # (B, C, X, Y, Z)
        lengths = batch.extras['cells'].to(x.dtype).norm(dim=-1)  # (B, 3) A
        return {self.field: self.core(x, self.condition(c_noise.to(x.dtype), lengths, x.shape[2:], conditions)).to(x.dtype)}

    def condition(self, c_noise: Tensor, lengths: Tensor, shape: Sequence[int], conditions: dict[str, Tensor]) -> Tensor:
        """Return the condition vector (B, embedding) of noise level, edges of cell and voxel, and conditions."""
        points = torch.tensor(shape, dtype=lengths.dtype, device=lengths.device)
        edges = torch.cat([torch.log(lengths / 12.0), 4 * torch.log(lengths / points / self.pitch)], -1)  # (B, 6)
        asked = {name: values.to(lengths.dtype) for name, values in conditions.items()}
        for name in self.logarithmic:
            if name in asked:
                asked[name] = torch.log(asked[name].clamp(min=1e-12))  # NaN stays NaN
        c = self.level(c_noise)
        return nn.functional.silu(c + self.cell(edges) + self.conditions(asked, c))

    def core(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, C, X, Y, Z), c (B, embedding) -> (B, C, X, Y, Z); this is the part to compile."""
        h = self.first(space_to_depth(x, self.patch))  # (B, width, X / patch, ...)
        for k, block in enumerate(self.blocks):
            h = block(h, c)
            if str(k) in self.attention:
                h = self.attention[str(k)](h)
        return depth_to_space(self.last(nn.functional.silu(self.norm(h))), self.patch)

    def flops(self, shape: Sequence[int]) -> float:
        """Return the floating-point operations of one forward pass over one grid of ``shape``, multiplications and additions."""
        n, s = math.prod(m // self.patch for m in shape), self.settings
        width, numbers = s['width'], s['channels'] * self.patch**3
        linear = 27 * width * (2 * numbers + 2 * s['blocks'] * width)
        inner = s['heads'] * head_width(width, s['heads'])
        return 2.0 * n * (linear + s['attention'] * (4 * width * inner + 2 * n * inner))
