"""Random numbers: one stream for training, one per structure for sampling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor


class NoiseSource(Protocol):
    """Source of random numbers, the argument ``rng`` of processes."""

    def normal(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers in shape, type and device of ``like``."""

    def uniform(self, like: Tensor) -> Tensor:
        """Draw numbers uniform in [0, 1) in shape, type and device of ``like``."""


class NoiseStream:
    """Draw everything from one torch generator (training).

    Parameters
    ----------
    generator : torch.Generator or None
        None uses torch's global generator.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def bind(self, rows: Tensor) -> NoiseStream:
        """Return the source for a field with these structure indices (here: itself)."""
        return self

    def normal(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers of the shape of ``like``."""
        return self._draw(torch.randn, like)

    def uniform(self, like: Tensor) -> Tensor:
        """Draw numbers uniform in [0, 1) of the shape of ``like``."""
        return self._draw(torch.rand, like)

    def _draw(self, function, like: Tensor) -> Tensor:
        device = like.device if self.generator is None else self.generator.device
        return function(like.shape, generator=self.generator, dtype=like.dtype, device=device).to(like.device)


class NoisePerStructure:
    """Draw the noise of every structure from its own generator on the CPU.

    The same seed then gives the same numbers on any device and at any batch size.

    Parameters
    ----------
    seeds : sequence of int
        One seed per structure of the batch.
    """

    def __init__(self, seeds: Iterable[int]) -> None:
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def bind(self, rows: Tensor) -> _Bound:
        """Return the source for a field whose row k belongs to structure ``rows[k]`` (sorted)."""
        counts = torch.bincount(rows.cpu(), minlength=len(self.generators)).tolist()
        return _Bound(self.generators, counts)


class _Bound:
    """The generators of :class:`NoisePerStructure` with the number of rows of each structure."""

    def __init__(self, generators, counts):
        self.generators, self.counts = generators, counts

    def normal(self, like: Tensor) -> Tensor:
        return self._draw(torch.randn, like)

    def uniform(self, like: Tensor) -> Tensor:
        return self._draw(torch.rand, like)

    def _draw(self, function, like: Tensor) -> Tensor:
        parts = [
            function((count, *like.shape[1:]), generator=generator, dtype=like.dtype)
            for generator, count in zip(self.generators, self.counts, strict=True)
        ]
        return torch.cat(parts).to(like.device)


Generator = torch.Generator | NoiseStream | NoisePerStructure | None  # what samplers and joint processes take


def as_noise(generator: Generator) -> NoiseStream | NoisePerStructure:
    """Return a noise source from a torch.Generator, from None (the global generator) or from itself."""
    return NoiseStream(generator) if generator is None or isinstance(generator, torch.Generator) else generator
