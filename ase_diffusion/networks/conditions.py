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


def _key(name: str) -> str:
    """Return the key under which torch keeps the weights of a property: its name, or a safe one where torch forbids that."""
    taken = hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name)  # such as type, keys, pop
    if name and '.' not in name and not taken:
        return name
    return 'property ' + name.replace('%', '%25').replace('.', '%2E')


class _Vectors(nn.ParameterDict):
    """Parameters that are found by the names of properties."""

    def __getitem__(self, name):
        return super().__getitem__(_key(name))


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
            {_key(name): nn.Sequential(nn.Linear(9, width), nn.SiLU(), nn.Linear(width, width)) for name in scales}
        )
        self.absent = _Vectors({_key(name): nn.Parameter(torch.zeros(width)) for name in scales})

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
            embedded = self.nets[_key(name)](torch.stack([value, *waves], -1))  # (B, width)
            total = total + torch.where(given[:, None], embedded, self.absent[name])
        return total
