"""Normal noise that never leaves a window."""

from __future__ import annotations

from torch import Tensor

from .domains import Domain
from .noise import NoiseSource
from .process import Gaussian


class TruncatedNormal(Gaussian):
    """Variance-exploding noise that never leaves a window.

    The normaliser of the truncated kernel depends on x_0 only, so the score of the kernel stays -(x_t - x_0) / sigma^2
    and the target (x_t - x_0) / sigma is exact.
    """

    def prior(self, like: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw uniformly over the window."""
        return domain.uniform(like, rng)

    def add_noise(self, x0: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> tuple[Tensor, Tensor]:
        """Draw x_t from the truncated normal around x_0; target = (x_t - x_0) / sigma."""
        _, sigma = self.scales(t, x0)
        xt = domain.normal(x0, sigma, rng)
        return xt, (xt - x0) / sigma

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
        """Step from ``t`` to ``s``; without fresh noise the quantile in the truncated kernel around x_0 is kept.

        Keeping (x_t - x_0) / sigma instead, as in free space, would draw all points together: where sigma exceeds the
        window, x_t is spread over the window and not over sigma.
        """
        if eta > 0 or s is None:
            return super().reverse(xt, pred, t, s, rng, domain, eta)
        (_, sigma_s), (_, sigma) = self.scales(s, xt), self.scales(t, xt)
        return domain.transport(xt, self.to_x0(xt, pred, t), sigma, sigma_s)
