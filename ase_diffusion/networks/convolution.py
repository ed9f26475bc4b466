"""Convolutions on periodic grids of one to three dimensions, and the blocks made of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def circular_pad(x: Tensor, width: int = 1) -> Tensor:
    """Repeat ``width`` periodic images at both ends of every axis, (B, C, X, ...) -> (B, C, X + 2 width, ...).

    Raises
    ------
    ValueError
        An axis is shorter than ``width``.
    """
    if width == 0:
        return x
    for axis in range(2, x.dim()):
        n = x.shape[axis]
        if n < width:
            raise ValueError(f'an axis holds at least as many points as are padded ({width}); got the shape {tuple(x.shape)}')
        x = torch.cat([x.narrow(axis, n - width, width), x, x.narrow(axis, 0, width)], axis)
    return x


class Convolution(nn.Module):
    """Convolve grids of odd kernel; circular grids keep their periodicity.

    Parameters
    ----------
    dims : int
        1, 2 or 3.
    inputs, outputs : int
        Channels.
    kernel : int
        Odd.
    stride : int
        Must divide every axis.
    circular : bool
        Periodic axes; otherwise the grid is padded with zeros.
    zero : bool
        Start at zero.
    """

    def __init__(
        self, dims: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, circular: bool = True, zero: bool = False
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f'a kernel is odd, so that it has a center; got {kernel}')
        self.pad = kernel // 2 if circular else 0
        self.conv = _CONV[dims](inputs, outputs, kernel, stride, 0 if circular else kernel // 2)
        if zero:
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, X, ...) -> (B, outputs, X / stride, ...)."""
        return self.conv(circular_pad(x, self.pad))


class ResBlock(nn.Module):
    """Two convolutions with a residual connection; scale and shift between them come from the conditions (FiLM).

    Parameters
    ----------
    dims, inputs, outputs, circular
        As for :class:`Convolution`.
    condition : int
        Width of the condition vector; 0: none.
    groups : int
        Of the group normalization.
    dropout : float
        Before the second convolution.
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        condition: int = 0,
        circular: bool = True,
        groups: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inputs), nn.GroupNorm(groups, outputs)
        self.conv1 = Convolution(dims, inputs, outputs, circular=circular)
        self.conv2 = Convolution(dims, outputs, outputs, circular=circular, zero=True)
        self.film = nn.Linear(condition, 2 * outputs) if condition else None
        self.skip = Convolution(dims, inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """x (B, inputs, X, ...), c (B, condition) -> (B, outputs, X, ...)."""
        h = self.conv1(nn.functional.silu(self.norm1(x)))  # (B, outputs, X, ...)
        h = self.norm2(h)
        if self.film is not None:
            scale, shift = self.film(c).reshape(len(c), -1, *[1] * (x.dim() - 2)).chunk(2, 1)
            h = torch.addcmul(shift.to(h.dtype), h, 1 + scale.to(h.dtype))
        return self.skip(x) + self.conv2(self.dropout(nn.functional.silu(h)))


class Attention(nn.Module):
    """Attend between all points of a grid; there is no encoding of positions, so that rolls commute with it.

    Parameters
    ----------
    dims, width : int
        Channels in and out.
    heads, head_width : int
    linear : bool
        Linear attention (Katharopoulos et al., arXiv 2006.16236; Shen et al., arXiv 1812.01243): softmax over channels of q
        and over points of k.
    groups : int
        Of the group normalization.
    """

    def __init__(
        self, dims: int, width: int, heads: int = 4, head_width: int = 32, linear: bool = False, groups: int = 8
    ) -> None:
        super().__init__()
        self.heads, self.linear = heads, linear
        self.norm = nn.GroupNorm(groups, width)
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, X, ...) -> (B, width, X, ...)."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, N, width)
        size, n, _ = tokens.shape
        q, k, v = self.qkv(tokens).view(size, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, heads, N, w)
        mixed = (linear_attention if self.linear else attention)(q, k, v)  # (B, heads, N, w)
        mixed = self.out(mixed.transpose(1, 2).reshape(size, n, -1))  # (B, N, width)
        return x + mixed.transpose(1, 2).reshape(x.shape)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(w)) v, (B, heads, N, w); written out on a CPU, where it is faster, fused on a GPU."""
    if q.is_cuda:
        return nn.functional.scaled_dot_product_attention(q, k, v)
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1).to(v.dtype) @ v


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q) (softmax(k)^T v) / sqrt(w), (B, heads, N, w); softmax of q over channels, of k over points."""
    q = torch.softmax(q, -1).to(v.dtype) * q.shape[-1] ** -0.5
    context = torch.softmax(k, -2).to(v.dtype).transpose(-1, -2) @ v  # (B, heads, w, w)
    return q @ context


def space_to_depth(x: Tensor, patch: int) -> Tensor:
    """Move patches of points into channels, (B, C, X, ...) -> (B, C patch^d, X / patch, ...).

    Raises
    ------
    ValueError
        An axis is no multiple of ``patch``.
    """
    size, channels, *shape = x.shape
    if any(n % patch for n in shape):
        raise ValueError(f'every axis of a grid is a multiple of the patch {patch}; got the shape {tuple(shape)}')
    dims = len(shape)
    x = x.reshape(size, channels, *[m for n in shape for m in (n // patch, patch)])
    x = x.permute(0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2))
    return x.reshape(size, channels * patch**dims, *[n // patch for n in shape])


def depth_to_space(x: Tensor, patch: int) -> Tensor:
    """Invert :func:`space_to_depth`, (B, C patch^d, X, ...) -> (B, C, X patch, ...)."""
    size, channels, *shape = x.shape
    dims = len(shape)
    x = x.reshape(size, channels // patch**dims, *[patch] * dims, *shape)
    order = [axis for k in range(dims) for axis in (2 + dims + k, 2 + k)]
    return x.permute(0, 1, *order).reshape(size, channels // patch**dims, *[n * patch for n in shape])


def head_width(width: int, heads: int) -> int:
    """Return the width of one of ``heads`` heads that share ``width`` channels, at least 16."""
    return max(16, math.ceil(width / heads))
