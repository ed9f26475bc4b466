"""What a composition tells of properties: a network whose gradient guides the species of point clouds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

ELEMENTS = 119


class CompositionNet(nn.Module):
    """Predict classes and numbers of crystals from the fractions of their elements.

    Parameters
    ----------
    conditions : dict
        Name -> ``[shift, scale]`` of a number, or ``{'classes': k}``; see
        :class:`ase_diffusion.networks.conditions.ConditionEmbedding`.
    hidden : int
    descriptors : int
        Numbers that describe an element, the columns of the buffer ``descriptors`` (119, K) that whoever trains the network
        fills.
    dropout : float
    """

    def __init__(self, conditions: dict, hidden: int = 160, descriptors: int = 56, dropout: float = 0.2) -> None:
        super().__init__()
        conditions = {name: dict(spec) if isinstance(spec, dict) else list(spec) for name, spec in conditions.items()}
        self.settings = dict(conditions=conditions, hidden=hidden, descriptors=descriptors, dropout=dropout)
        self.widths = [int(spec['classes']) if isinstance(spec, dict) else 1 for spec in conditions.values()]
        self.register_buffer('descriptors', torch.zeros(ELEMENTS, descriptors))
        layers: list = [nn.Linear(4 * descriptors, hidden), nn.SiLU(), nn.Dropout(dropout)]
        layers += [nn.Linear(hidden, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, sum(self.widths))]
        self.net = nn.Sequential(*layers)
        self.log_error = nn.Parameter(torch.zeros(len(conditions)))  # of the scaled numbers

    def forward(self, fractions: Tensor, slots: Tensor) -> dict[str, Tensor]:
        """Return logits (B, k) of classes and scaled numbers (B, 1) of fractions (B, 3) of the elements of slots (B, 3)."""
        x, f = self.descriptors[slots], fractions[..., None]  # (B, 3, K), (B, 3, 1)
        mean = (f * x).sum(1)
        spread = ((f * (x - mean[:, None]) ** 2).sum(1) + 1e-4).sqrt()
        out = self.net(torch.cat([mean, spread, x.amin(1), x.amax(1)], -1)).split(self.widths, -1)
        return dict(zip(self.settings['conditions'], out, strict=True))

    def number(self, name: str, fractions: Tensor, slots: Tensor) -> Tensor:
        """Return the predicted number (B,) of a condition, in its own unit."""
        shift, scale = self.settings['conditions'][name]
        return self(fractions, slots)[name][:, 0] * scale + shift

    def log_likelihood(self, fractions: Tensor, slots: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return the log-likelihood (B,) of conditions, each (B,); NaN counts as not asked for."""
        total = torch.zeros_like(fractions[:, 0])
        out = self(fractions, slots)
        for k, (name, spec) in enumerate(self.settings['conditions'].items()):
            if name not in conditions:
                continue
            value = conditions[name].to(total.dtype)
            known = torch.isfinite(value)
            value = torch.where(known, value, 0.0)
            if isinstance(spec, dict):
                term = log_softmax(out[name], -1).gather(1, value.long()[:, None])[:, 0]
            else:
                away = (value - spec[0]) / spec[1] - out[name][:, 0]
                term = -0.5 * (away * torch.exp(-self.log_error[k])) ** 2 - self.log_error[k] - 0.5 * math.log(2 * math.pi)
            total = total + torch.where(known, term, 0.0)
        return total


class CompositionGuided:
    """Wrap a network of point clouds so that its species follow what is asked for.

    The estimate D of the clean species moves by 16 * scale * cov * grad log p(asked | fractions of D), with the variance
    s^2 / (1 + s^2) of an atom at noise over signal s for cov, and by at most 1: classifier guidance (Dhariwal and Nichol, arXiv
    2105.05233) on the estimate of the clean data. The network itself is asked for nothing but the elements; it undoes most of a
    move in the next step, hence the factor, which was chosen so that scales from 1 on show.

    Parameters
    ----------
    network : callable
    property : CompositionNet
    scale : float
        0 asks for nothing.
    species : (mean, std)
        Scale of the species of the cloud.
    """

    SHARP: ClassVar[float] = 4.0  # softmax of the estimated one-hot numbers
    STRENGTH: ClassVar[float] = 16.0

    def __init__(
        self, network: Callable[..., dict[str, Tensor]], property: CompositionNet, scale: float, species: tuple[float, float]
    ) -> None:
        self.network, self.property, self.scale, self.species = network, property, float(scale), species

    def __call__(self, batch: Any, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        asked = {name: value for name, value in conditions.items() if name != 'elements'}
        absent = conditions | {name: torch.full_like(value, math.nan) for name, value in asked.items()}
        pred = self.network(batch, c_noise, absent)
        if self.scale == 0 or not any(bool(torch.isfinite(value).any()) for value in asked.values()):
            return pred
        x, out = batch.fields['cloud'].float(), pred['cloud'].clone()
        s = torch.exp(4 * c_noise.to(x.dtype))[:, None, None]  # (B, 1, 1)
        clean = (x[:, 1] + s * out[:, 1]) / torch.sqrt(1 + s**2)  # (B, 128, 3)
        copies = (clean.shape[1] // batch.extras['counts']).to(x.dtype)[:, None, None]
        variance = s**2 / (copies + s**2)  # of an atom
        shift = self.STRENGTH * self.scale * variance * copies * self.gradient(clean, batch.extras['elements'], asked)
        out[:, 1] += torch.sqrt(1 + s**2) / s * shift.clamp(-1.0, 1.0)
        return {**pred, 'cloud': out}

    def gradient(self, clean: Tensor, slots: Tensor, asked: dict[str, Tensor]) -> Tensor:
        """Return the gradient (B, 128, 3) of the log-likelihood with respect to the species of the rows."""
        with torch.inference_mode(False), torch.enable_grad():
            clean = clean.clone().requires_grad_(True)
            numbers = clean * self.species[1] + self.species[0]
            fractions = torch.softmax(self.SHARP * numbers, -1).mean(1)  # (B, 3)
            given = {name: value.clone() for name, value in asked.items()}
            total = self.property.log_likelihood(fractions, slots.clone(), given).sum()
            return torch.autograd.grad(total, clean)[0]
