"""Wrapped normal noise on a torus (DiffCSP, arXiv 2309.04475; Takahara et al., eq. 5)."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .domains import Domain, UnitTorus
from .noise import NoiseSource
from .process import Gaussian, _column
from .schedules import GeometricVE


class WrappedNormal(Gaussian):
    """Variance-exploding noise on a torus.

    The target is the noise before wrapping: its mean given x_t is -sigma times the score of the wrapped density, also
    where sigma is comparable to the cell (the minimum-image noise is not). Directions of the box that are not periodic
    end in mirrors, which mirror the noise too.
    """

    langevin: ClassVar[bool] = True

    def prior(self, like: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw uniformly over the box."""
        return (domain or self.domain).uniform(like, rng)

    def _target(self, x0: Tensor, xt: Tensor, eps: Tensor, t: Tensor, domain: Domain) -> Tensor:
        """Return the noise before wrapping."""
        return domain.turn(eps, xt)


SIGMA_UNIFORM = 0.8  # of the period; beyond 0.5 the wrapped normal is uniform to 0.7 %, and its score fades like exp(-20 sigma^2)

_WRAPS_FROM = 0.08  # below, images carry less than 1e-9


def wrapped_noise(d: Tensor, sigma: Tensor) -> Tensor:
    """Return -sigma times the score of the wrapped normal at the difference ``d``, for period 1.

    Parameters
    ----------
    d : Tensor
        Differences, any shape.
    sigma : Tensor
        Standard deviation before wrapping, broadcasts against ``d``; up to :data:`SIGMA_UNIFORM`.
    """
    d = d - torch.round(d)
    images = torch.arange(-7, 8, dtype=d.dtype, device=d.device)  # 6.5 sigma at the largest sigma
    y = (d[..., None] + images) / torch.as_tensor(sigma, dtype=d.dtype, device=d.device)[..., None]  # (..., 15)
    return (torch.softmax(-0.5 * y.square(), -1) * y).sum(-1)


@lru_cache(maxsize=1)
def _table() -> tuple[Tensor, Tensor]:
    """Return sigma (G,) and sigma sqrt(E[score^2]) (G,) by quadrature, float64."""
    sigma = torch.linspace(_WRAPS_FROM, SIGMA_UNIFORM, 721, dtype=torch.float64)
    d = torch.linspace(-0.5, 0.5, 401, dtype=torch.float64)[:-1]  # periodic: the sum converges like that of a Gaussian
    noise = wrapped_noise(d[None, :].expand(len(sigma), -1), sigma[:, None])  # (G, D)
    images = torch.arange(-7, 8, dtype=torch.float64)
    log_density = torch.logsumexp(-0.5 * ((d[None, :, None] + images) / sigma[:, None, None]).square(), -1)  # (G, D)
    return sigma, torch.sqrt((torch.softmax(log_density, -1) * noise.square()).sum(-1))


def wrapped_scale(sigma: Tensor) -> Tensor:
    """Return the root mean square of :func:`wrapped_noise` over the wrapped normal: 1 at small sigma, 0.032 at 0.5."""
    grid, values = (x.to(sigma.device) for x in _table())
    place = (sigma.double() - grid[0]) / (grid[1] - grid[0])
    k = place.floor().clamp(0, len(grid) - 2).long()
    part = (place - k).clamp(0, 1)
    log = torch.lerp(values[k].log(), values[k + 1].log(), part)
    return torch.where(place <= 0, torch.ones_like(log), log.exp()).to(sigma.dtype)


class WrappedScore(WrappedNormal):
    """Wrapped normal on the unit torus; networks predict -score / sqrt(E[score^2]), which has unit size at every time.

    The target is the score of the kernel q(x_t | x_0) itself, in place of the noise before wrapping: at large sigma that
    noise is nearly all variance. The squared error of the scaled score is the weighting lambda_t of the paper.

    Parameters
    ----------
    schedule : GeometricVE
        In units of the period.
    """

    domain: ClassVar[Domain] = UnitTorus()

    def __init__(self, schedule: GeometricVE, *, loss: Literal['mse', 'l1', 'huber'] = 'mse', delta: float = 1.0) -> None:
        super().__init__(schedule, loss=loss, delta=delta)
        if schedule.sigma_max > SIGMA_UNIFORM:
            raise ValueError(
                f'sigma is measured in periods of the torus and reaches at most {SIGMA_UNIFORM} (uniform from 0.5 on), got '
                f'{schedule.sigma_max:g}; take sigma_max=0.5'
            )

    def scale(self, t: Tensor, like: Tensor) -> Tensor:
        """Return the factor from prediction to noise as a column for ``like``."""
        return _column(wrapped_scale(self.schedule.sigma(t)), like)

    # prediction type: -score / sqrt(E[score^2])

    def _target(self, x0: Tensor, xt: Tensor, eps: Tensor, t: Tensor, domain: Domain) -> Tensor:
        """Return the scaled score of the kernel q(x_t | x_0)."""
        _, sigma = self.scales(t, x0)
        return wrapped_noise(sigma * eps, sigma) / self.scale(t, x0)

    def _to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return -sigma score; the estimate of the clean data is then x_t + sigma^2 score, not wrapped."""
        return self.scale(t, xt) * pred

    def from_eps(self, xt: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return the prediction for -sigma score: the inverse of :meth:`to_eps`."""
        return eps / self.scale(t, xt)
