"""What a network is trained for: removing noise, or energies and forces."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion import JointProcess, NoiseStream


class Denoising:
    """Denoising score matching: the network predicts the noise at a random time.

    Parameters
    ----------
    process : JointProcess
    """

    def __init__(self, process: JointProcess):
        self.process = process

    def __call__(self, network, batch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Return ``{'loss': ...}`` averaged over the batch; times are stratified over the batch."""
        like = next(iter(batch.fields.values()))
        offset = torch.rand((), generator=generator)
        order = torch.randperm(batch.size, generator=generator)
        t = ((order + offset) / batch.size).to(like.device, like.dtype)
        noisy, target = self.process.noise(batch, t, NoiseStream(generator))
        pred = network(noisy, self.process.level(t), batch.conditions)
        return {'loss': self.process.loss(noisy, pred, target, t).mean()}


class EnergyAndForces:
    """Squared energy error per mobile atom plus Huber loss of the force components on mobile atoms.

    Parameters
    ----------
    energy_weight, force_weight : float
        Weights of (eV/atom)^2 and eV/A terms.
    delta : float
        Force error (eV/A) from which the loss grows linearly.
    """

    def __init__(self, energy_weight: float = 20.0, force_weight: float = 1.0, delta: float = 0.5):
        self.energy_weight, self.force_weight, self.delta = energy_weight, force_weight, delta

    def __call__(self, network, batch, generator=None) -> dict[str, Tensor]:
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
