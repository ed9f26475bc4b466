"""Preconditioned Gaussian noise (Karras et al., arXiv 2206.00364, table 1), and categories as points in space."""

from __future__ import annotations

import torch
from torch import Tensor

from .process import Gaussian
from .schedules import Schedule, schedule_from_dict


class Preconditioned(Gaussian):
    """Gaussian noise on data of unit variance; networks predict F and D = c_skip x + c_out F is the estimate of the clean data.

    x_t is kept at unit variance, alpha^2 + sigma^2 = 1, so that c_in is in it already; then c_skip x = alpha x_t and
    c_out = sigma. Unit weight of (F - target)^2 is the weight lambda(sigma) of the paper.

    Parameters
    ----------
    schedule : Schedule
        Variance-preserving, see :class:`GeometricVP`.
    """

    def __init__(self, schedule: Schedule):
        super().__init__(schedule)

    def prior(self, like: Tensor, t: Tensor, noise, domain=None) -> Tensor:
        """Draw standard normal numbers."""
        return noise.normal(like)

    def add_noise(self, x0: Tensor, t: Tensor, noise, domain=None) -> tuple[Tensor, Tensor]:
        """Noise clean data; return (x_t, target of F)."""
        xt, eps = super().add_noise(x0, t, noise)
        alpha, sigma = self.scales(t, x0)
        return xt, sigma * x0 - alpha * eps

    def to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return D, the estimate of the clean data."""
        alpha, sigma = self.scales(t, xt)
        return alpha * xt + sigma * pred

    def from_x0(self, xt: Tensor, x0: Tensor, t: Tensor, domain=None) -> Tensor:
        """Return the prediction that leads from ``x0`` to ``xt``: the inverse of :meth:`to_x0`."""
        alpha, sigma = self.scales(t, xt)
        return (x0 - alpha * xt) / sigma

    def to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps that belongs to the estimate :meth:`to_x0`."""
        alpha, sigma = self.scales(t, xt)
        return sigma * xt - alpha * pred

    def from_eps(self, xt: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the prediction for an estimate of eps: the inverse of :meth:`to_eps`."""
        alpha, sigma = self.scales(t, xt)
        return (sigma * xt - noise) / alpha


class EmbeddedCategorical(Preconditioned):
    """Categories as points of a table, with Gaussian noise; networks predict logits of the clean category.

    The estimate of the clean point is the mean of the table over softmax(logits), which cross-entropy makes exact (score
    interpolation, Dieleman et al., arXiv 2211.15089, section 3.1). The last step returns the point of the likeliest category.

    Parameters
    ----------
    schedule : Schedule
        Variance-preserving.
    table : (K, D) nested list or Tensor
        The point of every category; unit variance by column.
    """

    discrete = True

    def __init__(self, schedule: Schedule, table):
        super().__init__(schedule)
        self.table = torch.as_tensor(table, dtype=torch.float64)
        if self.table.dim() != 2 or len(torch.unique(self.table, dim=0)) != len(self.table):
            raise ValueError(f'the table has one row for each category, all different; got the shape {tuple(self.table.shape)}')

    def _points(self, like: Tensor) -> Tensor:
        return self.table.to(like.device, like.dtype)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the category whose point is nearest, (n, D) -> (n,)."""
        return nearest_point(x, self._points(x))

    def add_noise(self, x0: Tensor, t: Tensor, noise, domain=None) -> tuple[Tensor, Tensor]:
        """Noise points of the table; the target is their category, (n,)."""
        return Gaussian.add_noise(self, x0, t, noise)[0], self.nearest(x0)

    def loss(self, pred: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Return the cross-entropy in nats, (n,)."""
        return torch.nn.functional.cross_entropy(pred, target, reduction='none')

    def to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the mean point, (n, D)."""
        return torch.softmax(pred, -1) @ self._points(xt)

    def to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps that belongs to the mean point."""
        alpha, sigma = self.scales(t, xt)
        return (xt - alpha * self.to_x0(xt, pred, t)) / sigma

    def reverse(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, noise, domain=None, eta: float = 1.0) -> Tensor:
        """Step from ``t`` to ``s``; the last step ends at a point of the table."""
        if s is None:
            return self._points(xt)[pred.argmax(-1)]
        return super().reverse(xt, pred, t, s, noise, domain, eta)

    def sde_step(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, noise, domain=None) -> Tensor:
        """Make one Euler-Maruyama step."""
        return self.reverse(xt, pred, t, None, None) if s is None else super().sde_step(xt, pred, t, s, noise, domain)

    def todict(self) -> dict:
        """Return class name and parameters, fit for JSON."""
        return {'name': 'EmbeddedCategorical', 'schedule': self.schedule.todict(), 'table': self.table.tolist()}

    @classmethod
    def fromdict(cls, values: dict) -> EmbeddedCategorical:
        """Rebuild from :meth:`todict`."""
        return cls(schedule_from_dict(values['schedule']), values['table'])


def nearest_point(x: Tensor, points: Tensor) -> Tensor:
    """Return which of the points (K, D) is nearest, (n, D) -> (n,)."""
    return (x @ points.T - points.square().sum(-1) / 2).argmax(-1)
