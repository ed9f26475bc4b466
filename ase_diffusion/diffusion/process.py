"""Noise processes of a single field: how it is noised, where it ends, and how one step leads back.

All have the conditional form x_t = alpha x_0 + sigma eps on their domain; networks predict eps. ``t`` is given per row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .domains import Free
from .schedules import Schedule, schedule_from_dict


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Shape per-row values (n,) so that they broadcast against ``like`` (n, ...)."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


class Gaussian:
    """Gaussian noise in free space.

    Parameters
    ----------
    schedule : Schedule
        alpha(t) and sigma(t).
    limit : float, optional
        Longest vector (last axis) of clean data: longer estimates of it are shortened. Where alpha is nearly 0, estimates are
        (x_t - sigma eps) / alpha and small errors of eps would grow without bound.
    """

    domain = Free()
    discrete = False  # categories: steps draw, and there is no shortest difference
    langevin = False  # whether a predictor-corrector sampler corrects this field

    def __init__(self, schedule: Schedule, limit: float | None = None):
        self.schedule, self.limit = schedule, limit

    def scales(self, t: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma as columns for ``like``; ``t=None`` stands for clean data (1 and 0)."""
        if t is None:
            return torch.ones((), dtype=like.dtype, device=like.device), like.new_zeros(())
        return _column(self.schedule.alpha(t), like), _column(self.schedule.sigma(t), like)

    def prior(self, like: Tensor, t: Tensor, noise, domain=None) -> Tensor:
        """Draw from the distribution that the forward process reaches at ``t``."""
        _, sigma = self.scales(t, like)
        return sigma * noise.normal(like)

    def add_noise(self, x0: Tensor, t: Tensor, noise, domain=None) -> tuple[Tensor, Tensor]:
        """Noise clean data; return (x_t, target) with target = eps."""
        alpha, sigma = self.scales(t, x0)
        eps = noise.normal(x0)
        return alpha * x0 + sigma * eps, eps

    def loss(self, pred: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Return the mean squared error of every row, (n,)."""
        return (pred - target).square().flatten(1).mean(1)

    def to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of the clean data, (x_t - sigma eps) / alpha."""
        alpha, sigma = self.scales(t, xt)
        x0 = (xt - sigma * pred) / alpha
        if self.limit is None:
            return x0
        return x0 * (self.limit / x0.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)

    def from_x0(self, xt: Tensor, x0: Tensor, t: Tensor, domain=None) -> Tensor:
        """Return the noise that leads from ``x0`` to ``xt``: the inverse of :meth:`to_x0`."""
        alpha, sigma = self.scales(t, xt)
        return (xt - alpha * x0) / sigma

    def to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps that belongs to the estimate :meth:`to_x0`."""
        if self.limit is None:
            return pred
        alpha, sigma = self.scales(t, xt)
        return (xt - alpha * self.to_x0(xt, pred, t)) / sigma

    def from_eps(self, xt: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the prediction for an estimate of eps: the inverse of :meth:`to_eps`."""
        return noise

    def reverse(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, noise, domain=None, eta: float = 1.0):
        """Step from ``t`` to the earlier ``s`` (None: to clean data).

        ``eta`` scales the fresh noise as in DDIM (arXiv 2010.02502, eq. 16): 1 is ancestral, 0 deterministic.
        """
        alpha_s, sigma_s = self.scales(s, xt)
        alpha, sigma = self.scales(t, xt)
        ratio = (sigma_s / sigma) * (alpha / alpha_s)  # noise-to-signal at s over that at t, at most 1
        std = eta * sigma_s * torch.sqrt((1 - ratio**2).clamp(min=0))
        mean = alpha_s * self.to_x0(xt, pred, t) + torch.sqrt((sigma_s**2 - std**2).clamp(min=0)) * self.to_eps(xt, pred, t)
        return self._draw(mean, std, noise if eta > 0 and s is not None else None, domain)

    def sde_step(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, noise, domain=None) -> Tensor:
        """Make one Euler-Maruyama step of the reverse SDE in the variable x / alpha (variance-exploding form)."""
        if s is None:
            return self.reverse(xt, pred, t, None, noise, domain, eta=0.0)
        alpha_s, sigma_s = self.scales(s, xt)
        alpha, sigma = self.scales(t, xt)
        change = ((sigma / alpha) ** 2 - (sigma_s / alpha_s) ** 2).clamp(min=0)
        mean = alpha_s * (xt / alpha - change * alpha / sigma * self.to_eps(xt, pred, t))
        return self._draw(mean, alpha_s * torch.sqrt(change), noise, domain)

    def correct(self, xt: Tensor, pred: Tensor, t: Tensor, size: float, noise, domain=None) -> Tensor:
        """Make one Langevin step of length ``size`` sigma^2 at time ``t``: the distribution at ``t`` stays as it is."""
        _, sigma = self.scales(t, xt)
        return self._draw(xt - size * sigma * self.to_eps(xt, pred, t), (2 * size) ** 0.5 * sigma, noise, domain)

    def confine(self, x: Tensor, domain=None) -> Tensor:
        """Put points back into the domain."""
        return (domain or self.domain).confine(x)

    def difference(self, a: Tensor, b: Tensor, domain=None) -> Tensor:
        """Return the shortest a - b that the domain allows."""
        return (domain or self.domain).difference(a, b)

    def _draw(self, mean: Tensor, std: Tensor, noise, domain) -> Tensor:
        domain = domain or self.domain
        return domain.confine(mean) if noise is None else domain.normal(mean, std, noise)

    def todict(self) -> dict:
        """Return class name and parameters, fit for JSON."""
        limit = {} if self.limit is None else {'limit': self.limit}
        return {'name': type(self).__name__, 'schedule': self.schedule.todict(), **limit}

    @classmethod
    def fromdict(cls, values: dict) -> Gaussian:
        """Rebuild from :meth:`todict`."""
        limit = {} if values.get('limit') is None else {'limit': values['limit']}
        return cls(schedule_from_dict(values['schedule']), **limit)
