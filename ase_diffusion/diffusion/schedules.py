"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with t from 0 (data) to 1 (noise)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

_T_MIN = 1e-3  # variance-preserving schedules start here, so that sigma(0) > 0


class Schedule:
    """alpha and sigma as functions of t in [0, 1]; a subclass writes these two.

    ``sigma_min``, ``sigma_max`` and :meth:`time` are in terms of the noise-to-signal ratio sigma / alpha, the standard
    deviation of the noise in units of the clean data. It is sigma itself where alpha = 1 (:class:`GeometricVE`).
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Return the signal scale, same shape as ``t``."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise scale, same shape as ``t``."""
        raise NotImplementedError

    def c_noise(self, t: Tensor) -> Tensor:
        """Return the noise level that networks see: log(sigma / alpha) / 4 (Karras et al., arXiv 2206.00364)."""
        return torch.log(self.sigma(t) / self.alpha(t)) / 4

    def _ratio(self, t: float) -> float:
        t = torch.tensor(t, dtype=torch.float64)
        return float(self.sigma(t) / self.alpha(t))

    @property
    def sigma_min(self) -> float:
        """Least noise-to-signal ratio, that of t = 0."""
        return self._ratio(0.0)

    @property
    def sigma_max(self) -> float:
        """Largest noise-to-signal ratio, that of t = 1."""
        return self._ratio(1.0)

    def time(self, sigma: float) -> float:
        """Return the t at which the noise-to-signal ratio is ``sigma``, clipped to [0, 1]."""
        low, high = 0.0, 1.0
        if sigma <= self._ratio(low):
            return low
        if sigma >= self._ratio(high):
            return high
        for _ in range(52):  # bisection to the last digit: the ratio rises with t
            middle = (low + high) / 2
            low, high = (middle, high) if self._ratio(middle) < sigma else (low, middle)
        return (low + high) / 2

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

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f'need 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}')

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, sigma: float) -> float:
        """Return the t at which the noise-to-signal ratio is ``sigma``, clipped to [0, 1]."""
        if sigma <= self.sigma_min:
            return 0.0
        return min(math.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min), 1.0)


@dataclass
class GeometricVP(GeometricVE):
    """:class:`GeometricVE` at unit variance: x_t / sqrt(1 + sigma^2), with sigma the noise-to-signal ratio.

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


@dataclass(frozen=True)
class TimeDensity:
    """Density of times on [0, 1]: weight N(mean, std^2), cut off at the ends, plus (1 - weight) uniform.

    In training it says at which times the loss is taken, in sampling where steps are short. With a geometric schedule t is linear
    in log sigma, so that mean and std are P_mean and P_std of Karras et al. (arXiv 2206.00364, section 5) in units of
    log(sigma_max / sigma_min).

    Parameters
    ----------
    mean, std : float
        Of the normal distribution, in units of t; std > 0.
    weight : float
        Share of the normal distribution, 0 to 1.
    """

    mean: float
    std: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, (bool, str)) or not math.isfinite(value):
                raise ValueError(f'a time density is mean, std and weight, three finite numbers; {name} is {value!r}')
        if not (self.std > 0 and 0 <= self.weight <= 1):
            raise ValueError(f'a time density needs std > 0 and a weight in [0, 1], got {(self.mean, self.std, self.weight)}')

    @classmethod
    def of(cls, value: TimeDensity | Mapping[str, float] | Sequence[float] | None) -> TimeDensity | None:
        """Return a density from itself, from (mean, std, weight) or from :meth:`todict`; None stays None."""
        if value is None or isinstance(value, cls):
            return value
        try:
            mean, std, weight = (value[k] for k in ('mean', 'std', 'weight')) if isinstance(value, Mapping) else value
            return cls(mean, std, weight)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f'a time density is (mean, std, weight) or TimeDensity(...), got {value!r} ({error})') from error

    def times(self, u: Tensor, end: float = 1.0) -> Tensor:
        """Return times in [0, ``end``], float64, for numbers ``u`` in [0, 1]: uniform u become times of this density.

        The inverse of the cumulative distribution; monotonic, 0 at 0, ``end`` at 1.

        Parameters
        ----------
        u : Tensor
            ``(n,)``
        end : float
            Upper end of the times, at most 1.
        """
        t = torch.linspace(0.0, end, 4001, dtype=torch.float64)  # (G,)
        part = self.weight * self._cumulative(t) + (1 - self.weight) * t / end  # (G,)
        u = u.double()
        k = torch.searchsorted(part, u.contiguous()).clamp(1, len(t) - 1)
        rest = (u - part[k - 1]) / (part[k] - part[k - 1]).clamp(min=1e-300)
        return (t[k - 1] + rest.clamp(0.0, 1.0) * (t[k] - t[k - 1])).clamp(0.0, end)

    def _cumulative(self, t: Tensor) -> Tensor:
        """Return the cumulative distribution of the normal part, cut off at the ends of ``t`` (G,)."""
        total = torch.special.ndtr((t - self.mean) / self.std)
        mass = total[-1] - total[0]
        return (total - total[0]) / mass if mass > 1e-9 else t / t[-1]  # far from the mean: uniform

    def todict(self) -> dict[str, float]:
        """Return mean, std and weight, fit for JSON."""
        return asdict(self)
