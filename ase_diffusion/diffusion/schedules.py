"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with t from 0 (data) to 1 (noise)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_T_MIN = 1e-3  # variance-preserving schedules start here, so that sigma(0) > 0


class Schedule:
    """Give alpha and sigma as functions of t in [0, 1]."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return the signal scale, same shape as ``t``."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise scale, same shape as ``t``."""
        raise NotImplementedError

    def c_noise(self, t: Tensor) -> Tensor:
        """Return what a network is told about the noise: log(sigma / alpha) / 4 (Karras et al., arXiv 2206.00364)."""
        return torch.log(self.sigma(t) / self.alpha(t)) / 4

    def todict(self) -> dict:
        """Return class name and parameters, fit for JSON."""
        return {'name': type(self).__name__, **vars(self)}


@dataclass
class GeometricVE(Schedule):
    """Variance-exploding, log-spaced: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t.

    Parameters
    ----------
    sigma_min, sigma_max : float
        In the units of the field (A for positions). For a periodic length L the wrapped normal is uniform to 1 % from
        sigma >= 0.48 L.
    """

    sigma_min: float = 0.02
    sigma_max: float = 8.0

    def __post_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f'need 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}')

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, sigma: float) -> float:
        """Return the t at which the noise is ``sigma``, clipped to [0, 1]."""
        t = math.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)
        return min(max(t, 0.0), 1.0)


@dataclass
class GeometricVP(GeometricVE):
    """:class:`GeometricVE` at unit variance: x_t / sqrt(1 + sigma^2), sigma being the noise over the signal.

    Parameters
    ----------
    sigma_min, sigma_max : float
        In units of the standard deviation of the data.
    """

    def alpha(self, t: Tensor) -> Tensor:
        return 1 / torch.sqrt(1 + super().sigma(t) ** 2)

    def sigma(self, t: Tensor) -> Tensor:
        return super().sigma(t) * self.alpha(t)


@dataclass
class LinearVP(Schedule):
    """Variance-preserving, beta linear in t (Song et al., arXiv 2011.13456; beta 0.01 -> 3 in Ronne et al. 2024)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def alpha(self, t: Tensor) -> Tensor:
        t = _T_MIN + (1 - _T_MIN) * t
        return torch.exp(-0.5 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2))

    def sigma(self, t: Tensor) -> Tensor:
        t = _T_MIN + (1 - _T_MIN) * t
        exponent = self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2
        return torch.sqrt(-torch.expm1(-exponent))


@dataclass
class CosineVP(Schedule):
    """Variance-preserving, alpha^2 = f(t) / f(0), f = cos^2((t + s) / (1 + s) pi / 2) (Nichol and Dhariwal 2021)."""

    s: float = 0.008

    def _square(self, t: Tensor) -> Tensor:
        t = _T_MIN + (0.999 - _T_MIN) * t
        start = math.cos(self.s / (1 + self.s) * math.pi / 2) ** 2
        return torch.cos((t + self.s) / (1 + self.s) * math.pi / 2) ** 2 / start

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sqrt(self._square(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(1 - self._square(t))


def schedule_from_dict(values: dict) -> Schedule:
    """Rebuild a schedule from :meth:`Schedule.todict`; only the classes of this file are accepted."""
    known = {cls.__name__: cls for cls in (GeometricVE, GeometricVP, LinearVP, CosineVP)}
    values = dict(values)
    name = values.pop('name', None)
    if name not in known:
        raise ValueError(f'unknown schedule {name!r}; known: {sorted(known)}')
    return known[name](**values)


def focused(u: Tensor, mean: float, std: float, share: float, end: float = 1.0) -> Tensor:
    """Return times for numbers ``u`` (n,) in [0, 1]: uniform u become times that are dense around ``mean``.

    The inverse of the cumulative distribution of a mixture on [0, ``end``]: with weight ``share`` a normal distribution, cut off
    at the ends (Karras et al., arXiv 2206.00364, section 5: a normal distribution of log sigma), else uniform. Monotonic, 0 at
    0, ``end`` at 1.
    """
    if not (std > 0 and 0 <= share <= 1):
        raise ValueError(f'a focus is (mean, std > 0, share in [0, 1]), got {(mean, std, share)}')
    t = torch.linspace(0.0, end, 4001, dtype=torch.float64)
    part = share * _primitive(t, mean, std) + (1 - share) * t / end
    u = u.double()
    k = torch.searchsorted(part, u.contiguous()).clamp(1, len(t) - 1)
    rest = (u - part[k - 1]) / (part[k] - part[k - 1]).clamp(min=1e-300)
    return (t[k - 1] + rest.clamp(0.0, 1.0) * (t[k] - t[k - 1])).clamp(0.0, end)


def _primitive(t: Tensor, mean: float, std: float) -> Tensor:
    """Return the cumulative distribution of a normal distribution that is cut off at the ends of ``t``."""
    total = torch.special.ndtr((t - mean) / std)
    mass = total[-1] - total[0]
    return (total - total[0]) / mass if mass > 1e-9 else t / t[-1]  # far from the mean it is as good as uniform
