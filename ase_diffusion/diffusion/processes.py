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

    def noise(self, x0: Tensor, t: Tensor, noise, domain=None) -> tuple[Tensor, Tensor]:
        """Noise clean data; return (x_t, target) with target = eps."""
        alpha, sigma = self.scales(t, x0)
        eps = noise.normal(x0)
        return alpha * x0 + sigma * eps, eps

    def loss(self, pred: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Return the mean squared error of every row, (n,)."""
        return (pred - target).square().flatten(1).mean(1)

    def x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of the clean data, (x_t - sigma eps) / alpha."""
        alpha, sigma = self.scales(t, xt)
        x0 = (xt - sigma * pred) / alpha
        if self.limit is None:
            return x0
        return x0 * (self.limit / x0.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)

    def eps(self, xt: Tensor, x0: Tensor, t: Tensor, domain=None) -> Tensor:
        """Return the noise that leads from ``x0`` to ``xt``: the inverse of :meth:`x0`."""
        alpha, sigma = self.scales(t, xt)
        return (xt - alpha * x0) / sigma

    def noise_of(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps that belongs to the estimate :meth:`x0`."""
        if self.limit is None:
            return pred
        alpha, sigma = self.scales(t, xt)
        return (xt - alpha * self.x0(xt, pred, t)) / sigma

    def pred_of(self, xt: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the prediction for an estimate of eps: the inverse of :meth:`noise_of`."""
        return noise

    def reverse(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, noise, domain=None, eta: float = 1.0):
        """Step from ``t`` to the earlier ``s`` (None: to clean data).

        ``eta`` scales the fresh noise as in DDIM (arXiv 2010.02502, eq. 16): 1 is ancestral, 0 deterministic.
        """
        alpha_s, sigma_s = self.scales(s, xt)
        alpha, sigma = self.scales(t, xt)
        ratio = (sigma_s / sigma) * (alpha / alpha_s)  # noise-to-signal at s over that at t, at most 1
        std = eta * sigma_s * torch.sqrt((1 - ratio**2).clamp(min=0))
        mean = alpha_s * self.x0(xt, pred, t) + torch.sqrt((sigma_s**2 - std**2).clamp(min=0)) * self.noise_of(xt, pred, t)
        return self._draw(mean, std, noise if eta > 0 and s is not None else None, domain)

    def diffuse(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, noise, domain=None) -> Tensor:
        """Make one Euler-Maruyama step of the reverse SDE in the variable x / alpha (variance-exploding form)."""
        if s is None:
            return self.reverse(xt, pred, t, None, noise, domain, eta=0.0)
        alpha_s, sigma_s = self.scales(s, xt)
        alpha, sigma = self.scales(t, xt)
        change = ((sigma / alpha) ** 2 - (sigma_s / alpha_s) ** 2).clamp(min=0)
        mean = alpha_s * (xt / alpha - change * alpha / sigma * self.noise_of(xt, pred, t))
        return self._draw(mean, alpha_s * torch.sqrt(change), noise, domain)

    def correct(self, xt: Tensor, pred: Tensor, t: Tensor, size: float, noise, domain=None) -> Tensor:
        """Make one Langevin step of length ``size`` sigma^2 at time ``t``: the distribution at ``t`` stays as it is."""
        _, sigma = self.scales(t, xt)
        return self._draw(xt - size * sigma * self.noise_of(xt, pred, t), (2 * size) ** 0.5 * sigma, noise, domain)

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


class WrappedNormal(Gaussian):
    """Variance-exploding noise on a torus.

    The target is the noise before wrapping: its mean given x_t is -sigma times the score of the wrapped density, also
    where sigma is comparable to the cell (the minimum-image noise is not). Directions of the box that are not periodic
    end in mirrors, which mirror the noise too.
    """

    langevin = True

    def prior(self, like: Tensor, t: Tensor, noise, domain=None) -> Tensor:
        """Draw uniformly over the box."""
        return domain.uniform(like, noise)

    def noise(self, x0: Tensor, t: Tensor, noise, domain=None) -> tuple[Tensor, Tensor]:
        """Noise and wrap; the target is the noise before wrapping."""
        xt, eps = super().noise(x0, t, noise)
        return domain.confine(xt), domain.turn(eps, xt)


class TruncatedNormal(Gaussian):
    """Variance-exploding noise that never leaves a window.

    The normaliser of the truncated kernel depends on x_0 only, so the score of the kernel stays -(x_t - x_0) / sigma^2
    and the target (x_t - x_0) / sigma is exact.
    """

    def prior(self, like: Tensor, t: Tensor, noise, domain=None) -> Tensor:
        """Draw uniformly over the window."""
        return domain.uniform(like, noise)

    def noise(self, x0: Tensor, t: Tensor, noise, domain=None) -> tuple[Tensor, Tensor]:
        """Draw x_t from the truncated normal around x_0; target = (x_t - x_0) / sigma."""
        _, sigma = self.scales(t, x0)
        xt = domain.normal(x0, sigma, noise)
        return xt, (xt - x0) / sigma

    def reverse(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, noise, domain=None, eta: float = 1.0):
        """Step from ``t`` to ``s``; without fresh noise the quantile in the truncated kernel around x_0 is kept.

        Keeping (x_t - x_0) / sigma instead, as in free space, would draw all points together: where sigma exceeds the
        window, x_t is spread over the window and not over sigma.
        """
        if eta > 0 or s is None:
            return super().reverse(xt, pred, t, s, noise, domain, eta)
        (_, sigma_s), (_, sigma) = self.scales(s, xt), self.scales(t, xt)
        return domain.transport(xt, self.x0(xt, pred, t), sigma, sigma_s)


class Components:
    """Let different columns of one field follow different processes (positions: torus in the plane, window along z).

    Parameters
    ----------
    parts : list of (columns, process)
        ``columns`` is a (start, stop) pair of the last axis; the field's domain is a tuple with one domain per part.
    """

    def __init__(self, parts):
        self.parts = [((int(start), int(stop)), process) for (start, stop), process in parts]

    discrete = False

    @property
    def schedule(self) -> Schedule:
        """The schedule of the first part."""
        return self.parts[0][1].schedule

    @property
    def langevin(self) -> bool:
        """Whether any part takes Langevin steps."""
        return any(process.langevin for _, process in self.parts)

    def _each(self, call, domain) -> list:
        domains = domain or [None] * len(self.parts)
        return [call(slice(*columns), process, part) for (columns, process), part in zip(self.parts, domains, strict=True)]

    def prior(self, like, t, noise, domain=None):
        """Draw every part from its own prior."""
        return torch.cat(self._each(lambda c, p, d: p.prior(like[..., c], t, noise, d), domain), -1)

    def noise(self, x0, t, noise, domain=None):
        """Noise every part; return (x_t, target)."""
        pairs = self._each(lambda c, p, d: p.noise(x0[..., c], t, noise, d), domain)
        return torch.cat([x for x, _ in pairs], -1), torch.cat([target for _, target in pairs], -1)

    def loss(self, pred, target, t):
        """Return the mean squared error of every row, (n,)."""
        return (pred - target).square().flatten(1).mean(1)

    def x0(self, xt, pred, t):
        """Return the estimate of the clean data."""
        return torch.cat(self._each(lambda c, p, d: p.x0(xt[..., c], pred[..., c], t), None), -1)

    def eps(self, xt, x0, t, domain=None):
        """Return the noise that leads from ``x0`` to ``xt``."""
        return torch.cat(self._each(lambda c, p, d: p.eps(xt[..., c], x0[..., c], t), None), -1)

    def noise_of(self, xt, pred, t):
        """Return the estimate of eps of every part."""
        return torch.cat(self._each(lambda c, p, d: p.noise_of(xt[..., c], pred[..., c], t), None), -1)

    def pred_of(self, xt, noise, t):
        """Return the prediction for an estimate of eps."""
        return torch.cat(self._each(lambda c, p, d: p.pred_of(xt[..., c], noise[..., c], t), None), -1)

    def reverse(self, xt, pred, t, s, noise, domain=None, eta=1.0):
        """Step every part from ``t`` to ``s``."""
        return torch.cat(self._each(lambda c, p, d: p.reverse(xt[..., c], pred[..., c], t, s, noise, d, eta), domain), -1)

    def diffuse(self, xt, pred, t, s, noise, domain=None):
        """Make one Euler-Maruyama step of every part."""
        return torch.cat(self._each(lambda c, p, d: p.diffuse(xt[..., c], pred[..., c], t, s, noise, d), domain), -1)

    def correct(self, xt, pred, t, size, noise, domain=None):
        """Make one Langevin step of the parts that take one."""

        def part(c, p, d):
            return p.correct(xt[..., c], pred[..., c], t, size, noise, d) if p.langevin else xt[..., c]

        return torch.cat(self._each(part, domain), -1)

    def confine(self, x, domain=None):
        """Put points back into the domain."""
        return torch.cat(self._each(lambda c, p, d: p.confine(x[..., c], d), domain), -1)

    def difference(self, a, b, domain=None):
        """Return the shortest a - b that the domain allows."""
        return torch.cat(self._each(lambda c, p, d: p.difference(a[..., c], b[..., c], d), domain), -1)

    def todict(self) -> dict:
        """Return class name and parameters, fit for JSON."""
        return {'name': 'Components', 'parts': [[list(c), p.todict()] for c, p in self.parts]}


def process_from_dict(values: dict):
    """Rebuild a process from ``todict()``; only the classes of this folder are accepted."""
    from .categorical import Categorical
    from .fractional import WrappedScore
    from .preconditioned import Embedded, Preconditioned

    classes = (Gaussian, WrappedNormal, TruncatedNormal, WrappedScore, Categorical, Preconditioned, Embedded)
    known = {cls.__name__: cls for cls in classes}
    name = values.get('name')
    if name == 'Components':
        return Components([(columns, process_from_dict(part)) for columns, part in values['parts']])
    if name not in known:
        raise ValueError(f'unknown process {name!r}; known: {sorted([*known, "Components"])}')
    return known[name].fromdict(values)
