"""Diffusion of categories to the uniform distribution (D3PM, Austin et al., arXiv 2107.03006; Takahara et al., eqs 6 to 8)."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from .domains import Domain
from .noise import NoiseSource
from .process import Process
from .schedules import Schedule, schedule_from_dict

_TINY = 1e-30


class Categorical(Process):
    """D3PM with Q_t = (1 - beta_t) I + beta_t / K 11^T.

    Between the times s < t a category stays with the probability a = abar(t) / abar(s) and is drawn anew, from all K, with
    1 - a; abar = alpha(t)^2 of the schedule, so that the cosine schedule gives the betas of the paper. The network returns
    logits of the x_0 prediction that enters p(x_s | x_t) ~ (x_t Q^T) * (x_0 Qbar_s), as in the paper: that is the distribution
    of x_0 given everything but x_t of this very row, and p(x_0 | x_t) is it times q(x_t | x_0).

    Parameters
    ----------
    schedule : Schedule
        Variance-preserving.
    classes : int
        K, at least 2 (one category does not diffuse).
    steps : int
        Length T of the chain whose Kullback-Leibler term is the loss; sampling may take any steps.
    auxiliary : float
        Weight of -log p(x_0 | x_t) beside the Kullback-Leibler term (Austin et al., eq. 5).
    """

    discrete: ClassVar[bool] = True
    langevin: ClassVar[bool] = False

    def __init__(self, schedule: Schedule, classes: int, steps: int = 1000, auxiliary: float = 0.0) -> None:
        self.schedule, self.classes, self.steps, self.auxiliary = schedule, int(classes), int(steps), float(auxiliary)
        if self.classes < 1 or self.steps < 2:
            raise ValueError(f'need at least one class and two steps, got {classes} and {steps}')

    def keep(self, t: Tensor | None, like: Tensor) -> Tensor:
        """Return abar as a column (n, 1) in float64; None is clean data, as is any t below 0."""
        if t is None:
            return torch.ones(len(like), 1, dtype=torch.float64, device=like.device)
        t = t.double()[:, None]
        return torch.where(t < 0, torch.ones_like(t), self.schedule.alpha(t.clamp(min=0)) ** 2)

    def _mix(self, log_p: Tensor, keep: Tensor) -> Tensor:
        """Return log(keep p + (1 - keep) / K), (n, K)."""
        rest = torch.log(((1 - keep) / self.classes).clamp(min=_TINY)).to(log_p.dtype)
        return torch.logaddexp(log_p + torch.log(keep.clamp(min=_TINY)).to(log_p.dtype), rest)

    def _likelihood(self, xt: Tensor, keep: Tensor, dtype) -> Tensor:
        """Return log q(x_t | x) for every class x, (n, K)."""
        other = (1 - keep) / self.classes  # (n, 1)
        hit = torch.nn.functional.one_hot(xt, self.classes).to(torch.float64)
        return torch.log((keep * hit + other).clamp(min=_TINY)).to(dtype)

    def posterior(self, xt: Tensor, log_x0: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
        """Return log p(x_s | x_t) (n, K) for the x_0 distribution ``log_x0`` (n, K); exact for a one-hot x_0."""
        keep_t, keep_s = self.keep(t, xt), self.keep(s, xt)
        forward = self._likelihood(xt, keep_t / keep_s, log_x0.dtype)  # log q(x_t | x_s)
        return torch.log_softmax(forward + (log_x0 if s is None else self._mix(log_x0, keep_s)), -1)

    def clean(self, xt: Tensor, logits: Tensor, t: Tensor) -> Tensor:
        """Return log p(x_0 | x_t), (n, K)."""
        return self.posterior(xt, torch.log_softmax(logits, -1), t, None)

    def prior(self, like: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw uniformly, (n,) int64."""
        u = rng.uniform(like.to(torch.float64))
        return (u * self.classes).long().clamp(max=self.classes - 1)

    def add_noise(self, x0: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> tuple[Tensor, Tensor]:
        """Draw x_t (n,); the target is x_0 and x_t, (n, 2)."""
        stay = rng.uniform(x0.to(torch.float64)) < self.keep(t, x0)[:, 0]
        xt = torch.where(stay, x0, self.prior(x0, t, rng))
        return xt, torch.stack([x0, xt], -1)

    def loss(self, pred: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Return KL[q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)] of one of ``steps`` steps, in nats, (n,)."""
        x0, xt = target.unbind(-1)
        s = t.double() - 1 / (self.steps - 1)
        exact = torch.log(torch.nn.functional.one_hot(x0, self.classes).to(pred.dtype).clamp(min=_TINY))
        q = self.posterior(xt, exact, t, s)
        p = self.posterior(xt, torch.log_softmax(pred, -1), t, s)
        loss = (q.exp() * (q - p)).sum(-1)
        if self.auxiliary:
            loss = loss - self.auxiliary * self.clean(xt, pred, t).gather(-1, x0[:, None]).squeeze(-1)
        return loss

    def to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the most probable clean category, (n,)."""
        return self.clean(xt, pred, t).argmax(-1)

    def renoise(self, xs: Tensor, s: Tensor | None, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw x_t given x_s, (n,): it stays with the probability abar(t) / abar(s)."""
        stay = rng.uniform(xs.to(torch.float64)) < (self.keep(t, xs) / self.keep(s, xs))[:, 0]
        return torch.where(stay, xs, self.prior(xs, t, rng))

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
        """Draw x_s from p(x_s | x_t); categories have no deterministic path, so ``eta`` changes nothing."""
        p = self.posterior(xt, torch.log_softmax(pred, -1), t, s).double().exp()
        u = rng.uniform(xt.to(torch.float64))[:, None]
        return (p.cumsum(-1) < u * p.sum(-1, keepdim=True)).sum(-1).clamp(max=self.classes - 1)

    def sde_step(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw x_s, as :meth:`reverse` does."""
        return self.reverse(xt, pred, t, s, rng, domain)

    def confine(self, x: Tensor, domain: Domain = None) -> Tensor:
        """Return ``x`` unchanged."""
        return x

    def todict(self) -> dict:
        """Return class name and parameters, fit for JSON."""
        return {
            'name': 'Categorical',
            'schedule': self.schedule.todict(),
            'classes': self.classes,
            'steps': self.steps,
            'auxiliary': self.auxiliary,
        }

    @classmethod
    def fromdict(cls, values: dict) -> Self:
        """Rebuild from :meth:`todict`."""
        return cls(schedule_from_dict(values['schedule']), values['classes'], values['steps'], values['auxiliary'])
