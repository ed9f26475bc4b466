"""Domains of fields: free space, a torus, an interval.

A domain draws normal (wrapped, truncated) and uniform numbers, confines points and takes shortest differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .noise import NoiseSource


def _ndtr(x: Tensor) -> Tensor:
    """Return the normal distribution function; torch.special.ndtr loses precision below about -8."""
    return 0.5 * torch.special.erfc(-x / math.sqrt(2.0))


@dataclass
class Free:
    """All of R^d: nothing is confined."""

    def normal(self, mean: Tensor, std: Tensor, rng: NoiseSource) -> Tensor:
        """Draw from N(mean, std^2)."""
        return mean + std * rng.normal(mean)

    def confine(self, x: Tensor) -> Tensor:
        """Return ``x`` unchanged."""
        return x

    def difference(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a - b."""
        return a - b


@dataclass
class Torus:
    """A periodic box; directions that are not periodic end in mirrors.

    Parameters
    ----------
    cell : Tensor
        ``(n, d, d)``, one box per row of the field, lattice vectors as rows, in the units of the field.
    periodic : tuple of bool
        Which lattice directions are periodic.
    """

    cell: Tensor
    periodic: tuple[bool, ...] = (True, True)

    def __post_init__(self) -> None:
        self.inverse = torch.linalg.inv(self.cell)

    def to(self, device: str | torch.device | None) -> Torus:
        """Return the domain on another device."""
        return Torus(self.cell.to(device), self.periodic)

    def _fractional(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-2) @ self.inverse.to(x.dtype)).squeeze(-2)  # (n, d)

    def _cartesian(self, f: Tensor) -> Tensor:
        return (f.unsqueeze(-2) @ self.cell.to(f.dtype)).squeeze(-2)  # (n, d)

    def confine(self, x: Tensor) -> Tensor:
        """Wrap into the box along periodic directions, reflect along the others."""
        f = self._fractional(x)
        columns = []
        for axis, periodic in enumerate(self.periodic):
            column = f[..., axis]
            if periodic:
                column = column - torch.floor(column)
            else:
                column = torch.remainder(column, 2.0)
                column = torch.where(column > 1.0, 2.0 - column, column)
            columns.append(column)
        return self._cartesian(torch.stack(columns, -1))

    def turn(self, eps: Tensor, x: Tensor) -> Tensor:
        """Mirror the noise ``eps`` (n, d) as :meth:`confine` mirrors ``x``; minus its mean is then sigma times the score."""
        if all(self.periodic):
            return eps
        odd = torch.remainder(self._fractional(x), 2.0) > 1.0  # (n, d)
        odd = odd & ~torch.tensor(self.periodic, device=x.device)
        cell = self.cell.to(x.dtype)
        along = (cell @ eps.unsqueeze(-1)).squeeze(-1)  # (n, d) components along the lattice vectors
        along = torch.where(odd, -along, along)
        return (self.inverse.to(x.dtype) @ along.unsqueeze(-1)).squeeze(-1)

    def uniform(self, like: Tensor, rng: NoiseSource) -> Tensor:
        """Draw uniformly over the box, same shape as ``like`` (n, d)."""
        return self._cartesian(rng.uniform(like))

    def normal(self, mean: Tensor, std: Tensor, rng: NoiseSource) -> Tensor:
        """Draw from the wrapped (or reflected) normal distribution."""
        return self.confine(mean + std * rng.normal(mean))

    def difference(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a - b reduced to the nearest image in fractional coordinates."""
        f = self._fractional(a - b)
        whole = torch.stack(
            [torch.round(f[..., k]) if p else torch.zeros_like(f[..., k]) for k, p in enumerate(self.periodic)], -1
        )
        return self._cartesian(f - whole)


@dataclass
class UnitTorus:
    """Fractional coordinates: [0, 1) in every direction, whatever the cell is."""

    def confine(self, x: Tensor) -> Tensor:
        """Wrap into [0, 1)."""
        return x - torch.floor(x)

    def uniform(self, like: Tensor, rng: NoiseSource) -> Tensor:
        """Draw uniformly, same shape as ``like``."""
        return rng.uniform(like)

    def normal(self, mean: Tensor, std: Tensor, rng: NoiseSource) -> Tensor:
        """Draw from the wrapped normal distribution."""
        return self.confine(mean + std * rng.normal(mean))

    def difference(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a - b reduced to the nearest image, in [-1/2, 1/2]."""
        d = a - b
        return d - torch.round(d)


@dataclass
class Interval:
    """A window [low, high] for every row, each ``(n, 1)``."""

    low: Tensor
    high: Tensor

    def to(self, device: str | torch.device | None) -> Interval:
        """Return the domain on another device."""
        return Interval(self.low.to(device), self.high.to(device))

    def confine(self, x: Tensor) -> Tensor:
        """Clip into the window."""
        return torch.minimum(torch.maximum(x, self.low.to(x.dtype)), self.high.to(x.dtype))

    def uniform(self, like: Tensor, rng: NoiseSource) -> Tensor:
        """Draw uniformly over the window."""
        return self.confine(self.low + (self.high - self.low) * rng.uniform(like)).to(like.dtype)

    def normal(self, mean: Tensor, std: Tensor, rng: NoiseSource) -> Tensor:
        """Draw from N(mean, std^2) truncated to the window, by inversion of the distribution function in float64.

        Where the window lies entirely in the upper tail the mirrored problem is solved, to keep precision.
        """
        std64 = torch.as_tensor(std, dtype=torch.float64, device=mean.device).clamp(min=1e-12)
        a = (self.low.double() - mean.double()) / std64
        b = (self.high.double() - mean.double()) / std64
        flip = (a + b) > 0
        a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
        u = rng.uniform(mean).double()
        low, high = _ndtr(a), _ndtr(b)
        z = torch.special.ndtri(low + u * (high - low))
        z = torch.where(torch.isfinite(z), z, b)  # the weight of a window far out underflows: take its nearest end
        z = torch.where(flip, -z, z)
        return self.confine((mean.double() + std64 * z).to(mean.dtype))

    def transport(self, x: Tensor, mean: Tensor, std: Tensor, new_std: Tensor) -> Tensor:
        """Move ``x`` from its quantile in the truncated N(mean, std^2) to the same quantile in that of ``new_std``.

        Far from the ends this is mean + (x - mean) new_std / std, which takes over where the quantile underflows.
        """
        x64, mean64 = x.double(), mean.double()
        low, high = self.low.double() - mean64, self.high.double() - mean64
        up = x64 > mean64  # mirrored: the quantile is counted from the nearer tail
        low, high = torch.where(up, -high, low), torch.where(up, -low, high)
        d = -(x64 - mean64).abs()
        old, new = std.double(), new_std.double().clamp(min=1e-12)
        a, b = _ndtr(low / old), _ndtr(high / old)
        u = ((_ndtr(d / old) - a) / (b - a)).clamp(0.0, 1.0)
        a, b = _ndtr(low / new), _ndtr(high / new)
        z = torch.special.ndtri(a + u * (b - a)) * new
        z = torch.where(torch.isfinite(z), z, d * new / old)
        return self.confine((mean64 + torch.where(up, -z, z)).to(x.dtype))

    def difference(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a - b."""
        return a - b


# of a field: None is free space, a tuple has one for each part of a `ProductProcess`
Domain = Free | Torus | UnitTorus | Interval | tuple | None
