"""Self-attention that knows about pairs of atoms, modulated by the noise level: the blocks of :class:`RowTransformer`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .precision import full_precision
from .transformer import around, nearest_distances


class PairTerms(nn.Module):
    """Tell attention about pairs of atoms: differences of their fractional coordinates and distances in A.

    Parameters
    ----------
    features : int
        Width of the vector of noise level and conditions.
    hidden, width : int
        Of the two layers of the trunk, which all blocks share.
    rows : int
        Attention maps of the network, blocks times heads.
    waves, shells : int
        Fourier waves per direction, and Gaussians of the distance to the nearest image up to 8 A.
    """

    def __init__(self, features: int, hidden: int, width: int, rows: int, waves: int, shells: int) -> None:
        super().__init__()
        self.register_buffer('waves', 2 * math.pi * torch.arange(1, waves + 1), persistent=False)
        self.register_buffer('shells', torch.linspace(0.5, 8.0, shells), persistent=False)
        self.register_buffer('images', around(), persistent=False)
        self.first = nn.Linear(6 * waves + shells + 5 + 8, hidden)
        self.level = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, width)
        self.alpha = nn.Linear(width, rows)

    def forward(self, f: Tensor, metric: Tensor, block: Tensor, equal: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return biases of attention (B, rows, N, N) and the pair terms h (B, N, N, width).

        f (B, N, 3), metric (B, 3, 3) in A^2, block (B, 5, N, N) of the image and of symmetry, c (B, d); equal (B, N, 4): x, y, z
        and Z in units of their noise, whose differences say which atoms share a coordinate or an element.
        """
        x = self.geometry(f, metric, block, equal)  # (B, N, N, inputs)
        x = nn.functional.silu(self.first(x) + self.level(c)[:, None, None])  # (B, N, N, hidden)
        h = nn.functional.silu(self.second(x))  # (B, N, N, width)
        return self.alpha(h).permute(0, 3, 1, 2), h

    @full_precision
    def geometry(self, f: Tensor, metric: Tensor, block: Tensor, equal: Tensor) -> Tensor:
        """Return the inputs of the trunk, (B, N, N, inputs)."""
        phase = (f[..., None] * self.waves).flatten(-2)  # (B, N, 3 M)
        sin, cos = torch.sin(phase), torch.cos(phase)
        si, sj, ci, cj = sin[:, :, None], sin[:, None], cos[:, :, None], cos[:, None]
        r = nearest_distances(f, metric, self.images)  # (B, N, N, 1) A
        shells = torch.exp(-0.5 * ((r - self.shells) / (self.shells[1] - self.shells[0])) ** 2)
        e = equal[:, :, None] - equal[:, None]  # (B, N, N, 4)
        same = [torch.tanh(e), torch.exp(-0.5 * e**2)]
        return torch.cat([si * cj - ci * sj, ci * cj + si * sj, shells, block.permute(0, 2, 3, 1), *same], -1)


class Block(nn.Module):
    """Self-attention with pair terms and a feed-forward network, modulated by noise level and conditions (adaLN-Zero, DiT).

    Parameters
    ----------
    features, heads, hidden : int
        Width of tokens, number of heads, width inside the feed-forward network.
    pair_width : int
        Of the pair terms h.
    dropout : float
        Of what both parts add.
    """

    def __init__(self, features: int, heads: int, hidden: int, pair_width: int, dropout: float) -> None:
        if features % heads:
            raise ValueError(f'features must be a multiple of heads, got {features} and {heads}')
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(features, elementwise_affine=False) for _ in range(2))
        self.qkv = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)
        self.pair_out = nn.Linear(heads * pair_width, features, bias=False)
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, features))
        self.modulation = nn.Linear(features, 6 * features)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, c: Tensor, bias: Tensor, h: Tensor) -> Tensor:
        """x (B, T, d), c (B, d), bias (B, H, T, T), h (B, N, N, P) of the last N tokens -> (B, T, d)."""
        size, tokens, width = x.shape
        atoms = h.shape[1]
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, -1)  # each (B, 1, d)
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).view(size, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, w)
        weight = torch.softmax(q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5 + bias, -1)  # (B, H, T, T)
        y = self.out((weight.to(v.dtype) @ v).transpose(1, 2).reshape(size, tokens, width))
        near = weight[:, :, tokens - atoms :, tokens - atoms :].transpose(1, 2).to(h.dtype) @ h  # (B, N, H, P)
        y = y + nn.functional.pad(self.pair_out(near.flatten(2)), (0, 0, tokens - atoms, 0))
        x = x + gate1 * self.dropout(y)
        y = self.mlp(self.norm2(x) * (1 + scale2) + shift2)
        return x + gate2 * self.dropout(y)
