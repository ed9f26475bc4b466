"""The network that finds the cell of grids (ZeoDiff: lattice constants from grids; here a metric tensor, for any cell)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .convolution import Convolution

_I, _J = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)  # Voigt order


class LatticeNet(nn.Module):
    """Predict the metric tensor of the cell from grids (B, C, X, Y, Z) of any shape.

    Circular convolutions at three resolutions, the mean over the grid, and two linear layers; translations of the structure by
    multiples of 4 voxels change nothing. The output is the symmetric matrix log G / 2, so that every output is a cell of
    positive volume; it is standardized by ``mean`` and ``std``.

    Parameters
    ----------
    channels : int
        C.
    width : int
        Channels of the first resolution, a multiple of 8; doubled twice.
    orthogonal : bool
        Predict right angles: three numbers only.
    mean, std : 6 floats
        Of the numbers 11, 22, 33, 23, 13, 12 of log G / 2 (lengths in A) over the training data.
    field : str
        Name of the field.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 16,
        orthogonal: bool = False,
        mean: Sequence[float] = (2.4, 2.4, 2.4, 0.0, 0.0, 0.0),
        std: Sequence[float] = (0.35,) * 3 + (0.1,) * 3,
        field: str = 'grids',
    ) -> None:
        super().__init__()
        self.settings = dict(channels=channels, width=width, orthogonal=orthogonal, mean=list(mean), std=list(std), field=field)
        self.field, self.orthogonal = field, orthogonal
        self.register_buffer('scales', torch.tensor([list(mean), list(std)]), persistent=False)
        layers, inputs = [], channels
        for k in range(3):
            outputs = width * 2**k
            layers += [Convolution(3, inputs, outputs, stride=1 if k == 0 else 2), nn.GroupNorm(8, outputs), nn.SiLU()]
            layers += [Convolution(3, outputs, outputs), nn.GroupNorm(8, outputs), nn.SiLU()]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(2 * inputs, 64), nn.SiLU(), nn.Linear(64, 3 if orthogonal else 6))

    def forward(self, grids: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the standardized numbers (B, 6), or (B, 3) of orthogonal cells."""
        h = self.layers(grids).flatten(2)  # (B, 4 width, N)
        return self.head(torch.cat([h.mean(-1), h.square().mean(-1)], -1)).to(grids.dtype)

    def numbers(self, cells: Tensor) -> Tensor:
        """Return the standardized numbers (B, 6) or (B, 3) of cells (B, 3, 3), rows in A: the target of the training."""
        mean, std = self.scales.to(cells)
        values, vectors = torch.linalg.eigh(cells @ cells.transpose(1, 2))
        log = vectors @ torch.diag_embed(0.5 * values.log()) @ vectors.transpose(1, 2)  # (B, 3, 3)
        return ((log[:, _I, _J] - mean) / std)[:, : 3 if self.orthogonal else 6]

    def metric(self, numbers: Tensor) -> Tensor:
        """Return metric tensors G = L L^T (B, 3, 3), A^2, of standardized numbers: the inverse of :meth:`numbers`."""
        mean, std = self.scales.to(numbers)
        count = numbers.shape[1]
        numbers = numbers * std[:count] + mean[:count]
        log = numbers.new_zeros(len(numbers), 3, 3)
        log[:, _I[:count], _J[:count]] = numbers
        log[:, _J[:count], _I[:count]] = numbers
        return torch.linalg.matrix_exp(2 * log)

    def cells(self, grids: Tensor) -> Tensor:
        """Return cells (B, 3, 3) of grids, lower triangular rows in A: a along x, b in the plane of x and y."""
        return torch.linalg.cholesky(self.metric(self(grids).double()))
