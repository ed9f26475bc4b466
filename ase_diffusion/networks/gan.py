"""Generator and critic of generative adversarial networks for dense fields (Alverson et al., Digital Discovery 3, 62, 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SMALLEST = 4  # points of the shortest axis on the coarsest level
NORMS = ('batch', 'layer')


class ConvGenerator(nn.Module):
    """Make fields of one shape from latent vectors: a dense layer, then transposed convolutions that double every axis.

    Parameters
    ----------
    shape : sequence of int
        (C, X, ...) of a field, with one to three axes of 4 x 2^k points, such as (4, 64, 64) or (3, 32, 32, 32).
    latent : int
        Length of the latent vector, 128 in the paper.
    width : int
        Channels of the finest level but the output; every coarser one has twice as many.
    slope : float
        Of the leaky ReLU below 0; 0 is the ReLU of the paper's GAN.
    norm : 'batch' or 'layer'
        Normalization between the layers.
    field : str
        Name of the field.

    Raises
    ------
    ValueError
        The shape is no such shape, or the normalization is unknown.
    """

    def __init__(
        self,
        shape: Sequence[int] = (4, 64, 64),
        latent: int = 128,
        width: int = 32,
        slope: float = 0.0,
        norm: str = 'batch',
        field: str = 'image',
    ) -> None:
        super().__init__()
        self.settings = dict(shape=list(shape), latent=latent, width=width, slope=slope, norm=norm, field=field)
        self.field, self.latent = field, int(latent)
        widths, self.coarse = _levels(shape, width)
        self.first = nn.Linear(self.latent, widths[0] * torch.Size(self.coarse).numel())
        layers: list[nn.Module] = [_norm(norm, len(self.coarse), widths[0]), nn.LeakyReLU(slope)]
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [_TRANSPOSED[len(self.coarse)](inputs, outputs, 4, 2, 1), _norm(norm, len(self.coarse), outputs)]
            layers.append(nn.LeakyReLU(slope))
        layers += [_TRANSPOSED[len(self.coarse)](widths[-1], int(shape[0]), 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B, C, X, ...) in [-1, 1]."""
        return self.layers(self.first(z).view(len(z), -1, *self.coarse))

    def noise(self, like: Tensor, size: int, rng: Any) -> Tensor:
        """Return latent vectors (size, latent) of standard normal numbers, drawn structure by structure."""
        rows = torch.arange(size)
        return rng.bind(rows).normal(torch.empty(size, self.latent, dtype=like.dtype)).to(like.device)

    def generate(self, batch: Any, rng: Any, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``{field: ...}`` of new samples, one for each structure of a batch."""
        return {self.field: self(self.noise(batch.fields[self.field], batch.size, rng))}


class ConvCritic(nn.Module):
    """Score fields: convolutions that halve every axis, then a dense layer; the mirror of :class:`ConvGenerator`.

    Parameters
    ----------
    shape, width, norm, field
        As for the generator. A critic with a gradient penalty is not normalized over the batch: take 'layer'.
    slope : float
        Of the leaky ReLU, 0.2 in the paper.
    """

    def __init__(
        self,
        shape: Sequence[int] = (4, 64, 64),
        width: int = 32,
        slope: float = 0.2,
        norm: str = 'layer',
        field: str = 'image',
    ) -> None:
        super().__init__()
        self.settings = dict(shape=list(shape), width=width, slope=slope, norm=norm, field=field)
        self.field = field
        widths, coarse = _levels(shape, width)
        dims, layers, inputs = len(coarse), [], int(shape[0])
        for k, outputs in enumerate(reversed(widths)):
            layers.append(_CONV[dims](inputs, outputs, 4, 2, 1))
            layers += [] if k == 0 else [_norm(norm, dims, outputs)]
            layers.append(nn.LeakyReLU(slope))
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(inputs * torch.Size(coarse).numel(), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, ...) -> scores (B,), large for real fields; log odds for a GAN with cross-entropy."""
        return self.last(self.layers(x).flatten(1))[:, 0]


def _levels(shape: Sequence[int], width: int) -> tuple[list[int], tuple[int, ...]]:
    """Return the channels behind every level, the coarsest first, and the axes of the coarsest one."""
    axes = tuple(int(n) for n in shape[1:])
    levels = (min(axes, default=0) // SMALLEST).bit_length() - 1
    if not 1 <= len(axes) <= 3 or levels < 1 or any(n % 2**levels for n in axes):
        raise ValueError(
            f'fields have the shape (C, X, ...) with one to three axes of {SMALLEST} x 2^k points; got {tuple(shape)}'
        )
    return [int(width) * 2**k for k in reversed(range(levels))], tuple(n // 2**levels for n in axes)


def _norm(name: str, dims: int, width: int) -> nn.Module:
    if name not in NORMS:
        raise ValueError(f'norm is one of {", ".join(NORMS)}; got {name!r}')
    batch = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    return nn.GroupNorm(1, width) if name == 'layer' else batch[dims](width)
