"""Inpainting: some rows or elements are given, the others are generated to fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .batch import Batch, Network
from .joint import JointProcess
from .noise import Generator


class Inpainting(JointProcess):
    """A joint process in which the given part of a batch follows its own noised values.

    After every step to time s the given part is drawn anew from q(x_s | x_0), and at the end it is x_0: the network sees given
    and generated parts at the same noise level, as in training. What is generated learns of the given part late, so every step is
    taken ``repeats`` times, with noise back up to t in between (RePaint: Lugmayr et al., arXiv 2201.09865, algorithm 1).
    Approximate: the error falls with ``repeats``.

    Parameters
    ----------
    process : JointProcess
        With any schedules.
    clean : Batch
        With the given values in place; the others are not read.
    given : dict of str to Tensor
        Field -> bool mask, True where it is given: ``(n,)`` for rows, or broadcasting against the field for elements.
    network : callable
        The one that is sampled; the repeated steps call it.
    repeats : int
        How often every step is taken.
    """

    def __init__(
        self, process: JointProcess, clean: Batch, given: Mapping[str, Tensor], network: Network, repeats: int = 5
    ) -> None:
        super().__init__(process.processes, process.weights, process.clock)
        self.clean, self.given, self.network, self.repeats = clean, given, network, int(repeats)

    def prior(self, batch: Batch, t: Tensor, generator: Generator) -> Batch:
        """Draw from the prior, the given part from its noised values at ``t``."""
        return self._put(super().prior(batch, t, generator), t, generator)

    def reverse(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator: Generator, eta: float = 1.0) -> Batch:
        """Step from ``t`` to ``s`` (None: to clean data), ``repeats`` times."""
        return self._repeat(super().reverse, batch, pred, t, s, generator, eta)

    def sde_step(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator: Generator) -> Batch:
        """Make one Euler-Maruyama step, ``repeats`` times."""
        return self._repeat(super().sde_step, batch, pred, t, s, generator)

    def correct(self, batch: Batch, pred: dict, t: Tensor, size: float, generator: Generator) -> Batch:
        """Make one Langevin step; the given part stays where it is."""
        return super().correct(batch, pred, t, size, generator).merged(batch, self.given)

    def renoise_x0(self, batch: Batch, pred: dict, t: Tensor, generator: Generator) -> Batch:
        """Noise the estimates of the clean fields to ``t``, the given part from its clean values."""
        return self._put(super().renoise_x0(batch, pred, t, generator), t, generator)

    def _repeat(self, step, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator, *options) -> Batch:
        x = self._put(step(batch, pred, t, s, generator, *options), s, generator)
        for _ in range(0 if s is None else self.repeats - 1):
            x = self._put(self.renoise(x, s, t, generator), t, generator)
            pred = self.network(x, self.c_noise(t), x.conditions)
            x = self._put(step(x, pred, t, s, generator, *options), s, generator)
        return x

    def _put(self, batch: Batch, t: Tensor | None, generator) -> Batch:
        """Return ``batch`` with the given part noised to ``t``."""
        return batch.merged(self.clean if t is None else self.add_noise(self.clean, t, generator)[0], self.given)
