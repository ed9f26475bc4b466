"""Losses: of denoisers, and of energies and forces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..diffusion import Batch, JointProcess, NoiseStream, TimeDensity

# objective(network, batch, generator) -> 'loss' and what else is to be logged
Objective = Callable[[torch.nn.Module, Batch, torch.Generator | None], dict[str, Tensor]]


class DenoisingLoss:
    """Denoising score matching: the network predicts the noise at a random time.

    Parameters
    ----------
    process : JointProcess
    given : dict of str to float, optional
        Share of the structures in which a field is given: not noised, not learned, and told to the network as
        ``extras['given_FIELD']`` (B,). With given species it learns to predict crystal structures (CSP).
    density : TimeDensity or (mean, std, weight), optional
        Density of the times; uniform by default.
    """

    def __init__(
        self,
        process: JointProcess,
        given: dict[str, float] | None = None,
        density: TimeDensity | tuple[float, float, float] | None = None,
    ) -> None:
        self.process, self.given = process, dict(given or {})
        self.density = TimeDensity.of(density)

    def __call__(self, network: torch.nn.Module, batch: Batch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Return ``{'loss': ...}`` averaged over the batch; times are stratified over the batch."""
        like = next(iter(batch.fields.values()))
        offset = torch.rand((), generator=generator)
        order = torch.randperm(batch.size, generator=generator)
        t = self.times((order + offset) / batch.size).to(like.device, like.dtype)
        noisy, target = self.process.add_noise(batch, t, NoiseStream(generator))
        if self.given:
            return self._partly_given(network, batch, noisy, target, t, generator)
        pred = network(noisy, self.process.c_noise(t), batch.conditions)
        return {'loss': self.process.loss(noisy, pred, target, t).mean()}

    def times(self, u: Tensor) -> Tensor:
        """Return times for numbers ``u`` that are uniform in (0, 1)."""
        return u if self.density is None else self.density.times(u)

    def _partly_given(self, network, batch, noisy, target, t, generator) -> dict[str, Tensor]:
        """Return the loss and its parts where some structures have fields that are given."""
        masks = {}
        for name, share in self.given.items():
            masks[name] = (torch.rand(batch.size, generator=generator) < share).to(t.device)  # (B,)
            noisy = condition_on_clean(noisy, batch, name, masks[name])
        pred = network(noisy, self.process.c_noise(t), batch.conditions)
        losses = self.process.losses(noisy, pred, target, t)
        parts = {name: (value * ~masks[name] if name in masks else value).mean() for name, value in losses.items()}
        total = sum(self.process.weights[name] * value for name, value in parts.items())
        return {'loss': total, **{name: value.detach() for name, value in parts.items()}}


def condition_on_clean(noisy: Batch, clean: Batch, name: str, which: Tensor) -> Batch:
    """Return ``noisy`` with a field of the structures ``which`` (B,) as in ``clean``, and ``extras['given_NAME']``."""
    field = noisy.fields[name]
    rows = which[noisy.rows[name]].reshape(-1, *[1] * (field.dim() - 1))
    noisy = noisy.with_fields(**{name: torch.where(rows, clean.fields[name], field)})
    return replace(noisy, extras={**noisy.extras, f'given_{name}': which})


class EnergyAndForces:
    """Squared energy error per mobile atom plus Huber loss of the force components on mobile atoms.

    Parameters
    ----------
    energy_weight, force_weight : float
        Weights of (eV/atom)^2 and eV/A terms.
    delta : float
        Force error (eV/A) from which the loss grows linearly.
    """

    def __init__(self, energy_weight: float = 20.0, force_weight: float = 1.0, delta: float = 0.5) -> None:
        self.energy_weight, self.force_weight, self.delta = energy_weight, force_weight, delta

    def __call__(self, network: torch.nn.Module, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return loss and the mean absolute errors ``energy_mae`` (eV/mobile atom) and ``force_mae`` (eV/A)."""
        energy, forces = network(batch)
        rows = batch.rows['positions']
        count = torch.bincount(rows, minlength=batch.size)
        target = (batch.extras['energy'] - network.reference_energy(batch)).to(energy.dtype)
        energy_error = (energy - target) / count
        force_error = forces - batch.extras['forces']
        huber = torch.nn.functional.huber_loss(force_error, torch.zeros_like(force_error), delta=self.delta)
        energy_loss = torch.nn.functional.huber_loss(energy_error, torch.zeros_like(energy_error), delta=0.1)
        return {
            'loss': self.energy_weight * energy_loss + self.force_weight * huber,
            'energy_mae': energy_error.detach().abs().mean(),
            'force_mae': force_error.detach().abs().mean(),
        }
