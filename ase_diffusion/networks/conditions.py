"""Embeddings of the noise level and of asked-for properties into one vector per structure."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LevelEmbedding(nn.Module):
    """Embed a scalar noise level by random-free Fourier features and a small network.

    Parameters
    ----------
    width : int
        Output width.
    n_frequencies : int
        Frequencies from 1 to 32 (log-spaced), sine and cosine of each.
    """

    def __init__(self, width: int, n_frequencies: int = 16):
        super().__init__()
        self.register_buffer('frequencies', torch.logspace(0, math.log2(32), n_frequencies, base=2.0))
        self.net = nn.Sequential(nn.Linear(2 * n_frequencies + 1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        """(B,) -> (B, width)."""
        x = level[:, None] * self.frequencies  # (B, n)
        return self.net(torch.cat([level[:, None], torch.sin(x), torch.cos(x)], -1))


class PropertyEmbedding(nn.Module):
    """Embed named scalar properties; NaN means "not asked for" and has a learned vector of its own.

    Parameters
    ----------
    scales : dict of str to (shift, scale)
        Values enter the network as (value - shift) / scale.
    width : int
        Output width.
    """

    def __init__(self, scales: dict, width: int):
        super().__init__()
        self.scales = {name: (float(a), float(b)) for name, (a, b) in scales.items()}
        self.nets = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(9, width), nn.SiLU(), nn.Linear(width, width)) for name in scales}
        )
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in scales})

    def forward(self, conditions: dict[str, Tensor], like: Tensor) -> Tensor:
        """Return the sum of all embeddings, shaped like ``like`` (B, width)."""
        total = torch.zeros_like(like)
        for name, (shift, scale) in self.scales.items():
            if name not in conditions:
                total = total + self.absent[name]
                continue
            value = (conditions[name].to(like.dtype) - shift) / scale
            given = torch.isfinite(value)
            value = torch.where(given, value, torch.zeros_like(value)).clamp(-4.0, 4.0)
            waves = [torch.sin(value * k) for k in (1, 2, 4, 8)] + [torch.cos(value * k) for k in (1, 2, 4, 8)]
            embedded = self.nets[name](torch.stack([value, *waves], -1))  # (B, width)
            total = total + torch.where(given[:, None], embedded, self.absent[name])
        return total
