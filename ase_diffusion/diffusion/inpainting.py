"""Inpainting: some rows are given, the others are generated to fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .batch import Batch
from .joint import JointProcess


class Inpainting:
    """Let the given rows of a batch follow their own noised values, so that the others are denoised in their company.

    After every step to time s the given rows are drawn anew from q(x_s | x_0), and at the end they are x_0: a network that was
    trained on structures in which everything is noised alike sees what it knows (rows that stay clean among noisy ones it does
    not). What is generated learns of the given rows late, so every step is taken ``repeats`` times, with noise back up to t in
    between (RePaint: Lugmayr et al., arXiv 2201.09865, algorithm 1). Approximate: the error falls with ``repeats``.

    Parameters
    ----------
    process : JointProcess
        Variance-exploding, with a :class:`GeometricVE` schedule.
    clean : Batch
        With the given rows in place; the others are not read.
    given : dict of str to Tensor
        Field -> bool (n,), True for the given rows.
    network : callable
        The one that is sampled; the repeated steps call it.
    repeats : int
    """

    def __init__(self, process: JointProcess, clean: Batch, given: dict[str, Tensor], network, repeats: int = 5):
        self.process, self.clean, self.given, self.network, self.repeats = process, clean, given, network, int(repeats)

    def __getattr__(self, name):
        return getattr(self.process, name)

    def prior(self, batch: Batch, t: Tensor, generator) -> Batch:
        """Draw from the prior, the given rows from their noised values at ``t``."""
        return self._put(self.process.prior(batch, t, generator), t, generator)

    def reverse(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator, eta: float = 1.0) -> Batch:
        """Step from ``t`` to ``s`` (None: to clean data)."""
        return self._step(self.process.reverse, batch, pred, t, s, generator, eta)

    def sde_step(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator) -> Batch:
        """Make one Euler-Maruyama step."""
        return self._step(self.process.sde_step, batch, pred, t, s, generator)

    def renoise_x0(self, batch: Batch, pred: dict, t: Tensor, generator) -> Batch:
        """Noise the estimates to ``t`` again, the given rows as they are."""
        return self._put(self.process.renoise_x0(batch, pred, t, generator), t, generator)

    def _step(self, step, batch, pred, t, s, generator, *options) -> Batch:
        x = self._put(step(batch, pred, t, s, generator, *options), s, generator)
        for _ in range(0 if s is None else self.repeats - 1):
            x = self._put(self.process.add_noise(x, self._between(s, t), generator)[0], t, generator)
            pred = self.network(x, self.process.c_noise(t), x.conditions)
            x = self._put(step(x, pred, t, s, generator, *options), s, generator)
        return x

    def _between(self, s: Tensor, t: Tensor) -> Tensor:
        """Return the time whose noise leads from ``s`` to ``t``: sigma^2 = sigma_t^2 - sigma_s^2 (before 0 for short steps)."""
        schedule = self.process.schedule
        square = schedule.sigma(t).square() - schedule.sigma(s).square()
        return 0.5 * torch.log(square / schedule.sigma_min**2) / math.log(schedule.sigma_max / schedule.sigma_min)

    def _put(self, batch: Batch, t: Tensor | None, generator) -> Batch:
        source = self.clean if t is None else self.process.add_noise(self.clean, t, generator)[0]
        fields = {}
        for name, rows in self.given.items():
            x = batch.fields[name]
            fields[name] = torch.where(rows.reshape(-1, *[1] * (x.dim() - 1)), source.fields[name], x)
        return batch.with_fields(**fields)
