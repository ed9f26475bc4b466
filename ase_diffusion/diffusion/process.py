"""Noise processes of a single field: the forward noise, its prior, and one step back.

All have the conditional form x_t = alpha x_0 + sigma eps on their domain. :class:`Process` is the contract, :class:`Gaussian` the
process in free space and the parent of most others. Times ``t`` are given per row, (n,).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from .domains import Domain, Free
from .noise import NoiseSource
from .schedules import Schedule, schedule_from_dict

LOSSES = ('mse', 'l1', 'huber')


@runtime_checkable
class Process(Protocol):
    """Noise process of one field: the contract.

    ``x`` is a field (n, ...), ``pred`` the prediction of a network for it; ``t`` and ``s`` < ``t`` are times (n,), None stands
    for clean data; ``rng`` is a noise source bound to the rows of the field (:mod:`ase_diffusion.diffusion.noise`); ``domain``
    is the domain of the field, None for free space. Processes of categories (``discrete``) predict logits; they have no eps:
    ``from_x0``, ``to_eps``, ``from_eps``, ``correct`` and ``difference`` are never called for them.
    """

    schedule: Schedule
    discrete: bool  # the field is one of categories: steps draw, and there is no shortest difference
    langevin: bool  # a predictor-corrector sampler corrects the field

    @abstractmethod
    def prior(self, like: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw x_t from the distribution that the forward process reaches at ``t``, in the shape of ``like``."""

    @abstractmethod
    def add_noise(self, x0: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> tuple[Tensor, Tensor]:
        """Noise clean data; return (x_t, target of the network)."""

    @abstractmethod
    def renoise(self, xs: Tensor, s: Tensor | None, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw x_t given x_s, forward from ``s`` to the later ``t``."""

    @abstractmethod
    def loss(self, pred: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Return the loss of every row, (n,)."""

    @abstractmethod
    def reverse(
        self,
        xt: Tensor,
        pred: Tensor,
        t: Tensor,
        s: Tensor | None,
        rng: NoiseSource,
        domain: Domain = None,
        eta: float = 1.0,
    ) -> Tensor:
        """Step from ``t`` to ``s``: ancestral with ``eta`` 1, deterministic with 0."""

    @abstractmethod
    def sde_step(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Make one Euler-Maruyama step of the reverse SDE from ``t`` to ``s``."""

    def correct(self, xt: Tensor, pred: Tensor, t: Tensor, size: float, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Make one Langevin step of length ``size`` sigma^2 at time ``t``."""
        raise NotImplementedError(f'{type(self).__name__} is a process of categories, which have no eps and no difference')

    @abstractmethod
    def to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of the clean data that ``pred`` stands for."""

    def from_x0(self, xt: Tensor, x0: Tensor, t: Tensor, domain: Domain = None) -> Tensor:
        """Return the prediction that stands for the estimate ``x0``."""
        raise NotImplementedError(f'{type(self).__name__} is a process of categories, which have no eps and no difference')

    def to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps that ``pred`` stands for."""
        raise NotImplementedError(f'{type(self).__name__} is a process of categories, which have no eps and no difference')

    def from_eps(self, xt: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return the prediction that stands for the estimate ``eps``."""
        raise NotImplementedError(f'{type(self).__name__} is a process of categories, which have no eps and no difference')

    @abstractmethod
    def confine(self, x: Tensor, domain: Domain = None) -> Tensor:
        """Put points back into the domain."""

    def difference(self, a: Tensor, b: Tensor, domain: Domain = None) -> Tensor:
        """Return the shortest a - b that the domain allows."""
        raise NotImplementedError(f'{type(self).__name__} is a process of categories, which have no eps and no difference')

    @abstractmethod
    def todict(self) -> dict:
        """Return class name and parameters, fit for JSON."""

    @classmethod
    @abstractmethod
    def fromdict(cls, values: dict) -> Self:
        """Rebuild from :meth:`todict`."""


class Gaussian(Process):
    """Gaussian noise in free space; networks predict eps.

    A subclass with another prediction type overrides the five methods of the section "prediction type" and nothing else.

    Parameters
    ----------
    schedule : Schedule
        alpha(t) and sigma(t).
    clip_norm : float, optional
        Longest vector (last axis) of clean data: longer estimates of it are shortened. Where alpha is nearly 0, estimates are
        (x_t - sigma eps) / alpha, and small errors of eps would grow without bound.
    clip_sample : float, optional
        Largest absolute value of an element of clean data, for images: estimates are clipped to [-clip_sample, clip_sample].
    loss : {'mse', 'l1', 'huber'}
        Squared error, absolute error, or smooth L1: quadratic, e^2 / (2 delta), below ``delta`` and |e| - delta / 2 above.
    delta : float
        Error at which 'huber' turns linear, in units of the target.

    Raises
    ------
    ValueError
        A bound or ``delta`` is not positive, both bounds are given, or the loss is unknown.
    """

    domain: ClassVar[Domain] = Free()
    discrete: ClassVar[bool] = False
    langevin: ClassVar[bool] = False

    def __init__(
        self,
        schedule: Schedule,
        clip_norm: float | None = None,
        *,
        clip_sample: float | None = None,
        loss: Literal['mse', 'l1', 'huber'] = 'mse',
        delta: float = 1.0,
    ) -> None:
        if clip_norm is not None and clip_sample is not None:
            raise ValueError(
                f'clean data is bounded by clip_norm (vectors) or clip_sample (elements), got both, {clip_norm:g} and '
                f'{clip_sample:g}; leave one out'
            )
        for name, value in (('clip_norm', clip_norm), ('clip_sample', clip_sample), ('delta', delta)):
            if value is not None and not value > 0:
                raise ValueError(f'{name} must be positive, got {value}')
        if loss not in LOSSES:
            raise ValueError(f'the loss is one of {", ".join(LOSSES)}, got {loss!r}')
        self.schedule, self.clip_norm, self.clip_sample = schedule, clip_norm, clip_sample
        self.loss_name, self.delta = loss, float(delta)

    # the forward process

    def scales(self, t: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma as columns for ``like``; ``t=None`` stands for clean data (1 and 0)."""
        if t is None:
            return torch.ones((), dtype=like.dtype, device=like.device), like.new_zeros(())
        return _column(self.schedule.alpha(t), like), _column(self.schedule.sigma(t), like)

    def prior(self, like: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw x_t from N(0, sigma^2)."""
        _, sigma = self.scales(t, like)
        return sigma * rng.normal(like)

    def add_noise(self, x0: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> tuple[Tensor, Tensor]:
        """Noise clean data; return (x_t, target)."""
        alpha, sigma = self.scales(t, x0)
        eps = rng.normal(x0)
        xt = alpha * x0 + sigma * eps
        return self.confine(xt, domain), self._target(x0, xt, eps, t, domain)

    def renoise(self, xs: Tensor, s: Tensor | None, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw x_t given x_s at an earlier ``s``: x_t = r x_s + sqrt(sigma_t^2 - r^2 sigma_s^2) eps, r = alpha_t / alpha_s."""
        alpha_s, sigma_s = self.scales(s, xs)
        alpha, sigma = self.scales(t, xs)
        ratio = alpha / alpha_s
        return self._draw(ratio * xs, torch.sqrt((sigma**2 - (ratio * sigma_s) ** 2).clamp(min=0)), rng, domain)

    def loss(self, pred: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Return the loss of every row, (n,): the mean over its elements."""
        error = pred - target  # (n, ...)
        if self.loss_name == 'mse':
            error = error.square()
        elif self.loss_name == 'l1':
            error = error.abs()
        else:
            error = torch.nn.functional.smooth_l1_loss(pred, target, reduction='none', beta=self.delta)
        return error.flatten(1).mean(1)

    # prediction type: eps

    def _target(self, x0: Tensor, xt: Tensor, eps: Tensor, t: Tensor, domain: Domain) -> Tensor:
        """Return the target of the network; ``xt`` is alpha x_0 + sigma eps, before it is confined."""
        return eps

    def _to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps."""
        return pred

    def from_eps(self, xt: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return the prediction that stands for the estimate ``eps``: the inverse of :meth:`to_eps`."""
        return eps

    def _to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of the clean data, (x_t - sigma eps) / alpha, not clipped."""
        alpha, sigma = self.scales(t, xt)
        return (xt - sigma * self._to_eps(xt, pred, t)) / alpha

    def from_x0(self, xt: Tensor, x0: Tensor, t: Tensor, domain: Domain = None) -> Tensor:
        """Return the prediction that stands for the estimate ``x0``: the inverse of :meth:`to_x0`."""
        alpha, sigma = self.scales(t, xt)
        return self.from_eps(xt, (xt - alpha * x0) / sigma, t)

    # estimates, clipped

    def to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of the clean data, clipped."""
        x0 = self._to_x0(xt, pred, t)
        if self.clip_sample is not None:
            return x0.clamp(-self.clip_sample, self.clip_sample)
        if self.clip_norm is not None:
            return x0 * (self.clip_norm / x0.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
        return x0

    def to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps that belongs to the clipped estimate :meth:`to_x0`."""
        if self.clip_norm is None and self.clip_sample is None:
            return self._to_eps(xt, pred, t)
        alpha, sigma = self.scales(t, xt)
        return (xt - alpha * self.to_x0(xt, pred, t)) / sigma

    # steps

    def reverse(
        self,
        xt: Tensor,
        pred: Tensor,
        t: Tensor,
        s: Tensor | None,
        rng: NoiseSource,
        domain: Domain = None,
        eta: float = 1.0,
    ) -> Tensor:
        """Step from ``t`` to the earlier ``s`` (None: to clean data).

        ``eta`` scales the fresh noise as in DDIM (arXiv 2010.02502, eq. 16): 1 is ancestral, 0 deterministic.
        """
        alpha_s, sigma_s = self.scales(s, xt)
        alpha, sigma = self.scales(t, xt)
        ratio = (sigma_s / sigma) * (alpha / alpha_s)  # noise-to-signal at s over that at t, at most 1
        std = eta * sigma_s * torch.sqrt((1 - ratio**2).clamp(min=0))
        mean = alpha_s * self.to_x0(xt, pred, t) + torch.sqrt((sigma_s**2 - std**2).clamp(min=0)) * self.to_eps(xt, pred, t)
        return self._draw(mean, std, rng if eta > 0 and s is not None else None, domain)

    def sde_step(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Make one Euler-Maruyama step of the reverse SDE in the variable x / alpha (variance-exploding form)."""
        if s is None:
            return self.reverse(xt, pred, t, None, rng, domain, eta=0.0)
        alpha_s, sigma_s = self.scales(s, xt)
        alpha, sigma = self.scales(t, xt)
        change = ((sigma / alpha) ** 2 - (sigma_s / alpha_s) ** 2).clamp(min=0)
        mean = alpha_s * (xt / alpha - change * alpha / sigma * self.to_eps(xt, pred, t))
        return self._draw(mean, alpha_s * torch.sqrt(change), rng, domain)

    def correct(self, xt: Tensor, pred: Tensor, t: Tensor, size: float, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Make one Langevin step of length ``size`` sigma^2 at time ``t``, which keeps the distribution of ``t``."""
        _, sigma = self.scales(t, xt)
        return self._draw(xt - size * sigma * self.to_eps(xt, pred, t), (2 * size) ** 0.5 * sigma, rng, domain)

    # the domain

    def confine(self, x: Tensor, domain: Domain = None) -> Tensor:
        """Put points back into the domain."""
        return (domain or self.domain).confine(x)

    def difference(self, a: Tensor, b: Tensor, domain: Domain = None) -> Tensor:
        """Return the shortest a - b that the domain allows."""
        return (domain or self.domain).difference(a, b)

    def _draw(self, mean: Tensor, std: Tensor, rng: NoiseSource | None, domain: Domain) -> Tensor:
        """Draw from the normal distribution of the domain; without ``rng`` return its mean, confined."""
        domain = domain or self.domain
        return domain.confine(mean) if rng is None else domain.normal(mean, std, rng)

    # JSON

    def todict(self) -> dict:
        """Return class name and parameters, fit for JSON; what has its default is left out."""
        options: dict = {}
        for name in ('clip_norm', 'clip_sample'):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        if self.loss_name != 'mse':
            options['loss'] = self.loss_name
        if self.loss_name == 'huber':
            options['delta'] = self.delta
        return {'name': type(self).__name__, 'schedule': self.schedule.todict(), **options}

    @classmethod
    def fromdict(cls, values: dict) -> Self:
        """Rebuild from :meth:`todict`, also of the first version ('limit' for 'clip_norm')."""
        options = {'clip_norm': values.get('limit')} | {k: v for k, v in values.items() if k not in ('name', 'schedule', 'limit')}
        return cls(schedule_from_dict(values['schedule']), **{k: v for k, v in options.items() if v is not None})


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Return values (n,) in a shape that broadcasts against ``like`` (n, ...)."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))
