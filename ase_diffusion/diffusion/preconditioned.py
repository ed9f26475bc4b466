"""Preconditioned Gaussian noise (Karras et al., arXiv 2206.00364, table 1), and categories as points in space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from .domains import Domain
from .noise import NoiseSource
from .process import Gaussian
from .schedules import Schedule, schedule_from_dict

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Preconditioned(Gaussian):
    """v-prediction on data of unit variance, F = -v with v = alpha eps - sigma x_0 (Salimans and Ho, arXiv 2202.00512).

    This is the preconditioning of EDM in variance-preserving form, alpha^2 + sigma^2 = 1: x_t = (x_0 + s eps) / sqrt(1 + s^2),
    with s = sigma / alpha the sigma of the paper, so that c_in is in x_t already. D = alpha x_t + sigma F estimates the clean
    data (c_skip and c_out), and unit weight of (F - target)^2 is the weight lambda(sigma) of the paper.

    Parameters
    ----------
    schedule : Schedule
        Variance-preserving, such as :class:`GeometricVP`.
    clip_norm, clip_sample, loss, delta
        See :class:`Gaussian`.

    Raises
    ------
    ValueError
        The schedule is not variance-preserving.
    """

    def __init__(self, schedule: Schedule, clip_norm: float | None = None, **options: Any) -> None:
        super().__init__(schedule, clip_norm, **options)
        t = torch.linspace(0, 1, 5, dtype=torch.float64)
        total = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
        if not torch.allclose(total, torch.ones_like(t), atol=1e-6):
            raise ValueError(
                f'preconditioning needs a variance-preserving schedule, alpha^2 + sigma^2 = 1, got {type(schedule).__name__} '
                f'with up to {float(total.max()):.4g}; take GeometricVP with the same sigma_min and sigma_max'
            )

    def prior(self, like: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw x_t from N(0, 1): data of unit variance keep it."""
        return rng.normal(like)

    # prediction type: F = -v

    def _target(self, x0: Tensor, xt: Tensor, eps: Tensor, t: Tensor, domain: Domain) -> Tensor:
        """Return -v = sigma x_0 - alpha eps."""
        alpha, sigma = self.scales(t, x0)
        return sigma * x0 - alpha * eps

    def _to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps, sigma x_t - alpha F."""
        alpha, sigma = self.scales(t, xt)
        return sigma * xt - alpha * pred

    def from_eps(self, xt: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return F for an estimate of eps: the inverse of :meth:`to_eps`."""
        alpha, sigma = self.scales(t, xt)
        return (sigma * xt - eps) / alpha

    def _to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return D = alpha x_t + sigma F, the estimate of the clean data; exact also where alpha is nearly 0."""
        alpha, sigma = self.scales(t, xt)
        return alpha * xt + sigma * pred

    def from_x0(self, xt: Tensor, x0: Tensor, t: Tensor, domain: Domain = None) -> Tensor:
        """Return F for an estimate of the clean data: the inverse of :meth:`to_x0`."""
        alpha, sigma = self.scales(t, xt)
        return (x0 - alpha * xt) / sigma


class EmbeddedCategorical(Preconditioned):
    """Categories as points of a table, with Gaussian noise; networks predict logits of the clean category.

    The estimate of the clean point is the mean of the table over softmax(logits), which cross-entropy makes exact (score
    interpolation, Dieleman et al., arXiv 2211.15089, section 3.1). The last step returns the point of the likeliest category.

    Parameters
    ----------
    schedule : Schedule
        Variance-preserving.
    table : (K, D) nested list, array or Tensor
        The point of every category; unit variance by column.
    """

    discrete: ClassVar[bool] = True

    def __init__(self, schedule: Schedule, table: ArrayLike | Tensor) -> None:
        super().__init__(schedule)
        self.table = torch.as_tensor(table, dtype=torch.float64)
        if self.table.dim() != 2 or len(torch.unique(self.table, dim=0)) != len(self.table):
            raise ValueError(
                f'the table has one row for each category, all different, got the shape {tuple(self.table.shape)} or equal rows'
            )

    def _points(self, like: Tensor) -> Tensor:
        return self.table.to(like.device, like.dtype)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the category whose point is nearest, (n, D) -> (n,)."""
        return nearest_point(x, self._points(x))

    def loss(self, pred: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Return the cross-entropy in nats, (n,)."""
        return torch.nn.functional.cross_entropy(pred, target, reduction='none')

    # prediction type: logits (n, K)

    def _target(self, x0: Tensor, xt: Tensor, eps: Tensor, t: Tensor, domain: Domain) -> Tensor:
        """Return the clean category, (n,)."""
        return self.nearest(x0)

    def _to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the mean point, (n, D)."""
        return torch.softmax(pred, -1) @ self._points(xt)

    def _to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps that belongs to the mean point, (n, D)."""
        alpha, sigma = self.scales(t, xt)
        return (xt - alpha * self._to_x0(xt, pred, t)) / sigma

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
        """Step from ``t`` to ``s``; the last step ends at a point of the table."""
        if s is None:
            return self._points(xt)[pred.argmax(-1)]
        return super().reverse(xt, pred, t, s, rng, domain, eta)

    def sde_step(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Make one Euler-Maruyama step."""
        return self.reverse(xt, pred, t, None, rng) if s is None else super().sde_step(xt, pred, t, s, rng, domain)

    def todict(self) -> dict:
        """Return class name and parameters, fit for JSON."""
        return {'name': 'EmbeddedCategorical', 'schedule': self.schedule.todict(), 'table': self.table.tolist()}

    @classmethod
    def fromdict(cls, values: dict) -> Self:
        """Rebuild from :meth:`todict`."""
        return cls(schedule_from_dict(values['schedule']), values['table'])


def nearest_point(x: Tensor, points: Tensor) -> Tensor:
    """Return which of the points (K, D) is nearest, (n, D) -> (n,)."""
    return (x @ points.T - points.square().sum(-1) / 2).argmax(-1)
