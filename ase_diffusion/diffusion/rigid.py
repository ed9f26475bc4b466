"""Rigid bodies: rows of a field whose estimates of the clean data are the nearest pose of a given shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .domains import Domain
from .joint import ProductProcess
from .noise import NoiseSource

ROUNDS = 3  # of fitting a pose and taking the images of the points nearest to it
IMAGES = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 2)  # (9, 2)


def shortest(d: Tensor, cell: Tensor) -> Tensor:
    """Return differences (b, k, 3) reduced to the shortest of their images; cells (b, 2, 2) in the plane, z is not periodic."""
    f = d[..., :2] @ torch.linalg.inv(cell)
    plane = (f - f.round()) @ cell  # (b, k, 2)
    images = plane[..., None, :] + (IMAGES.to(cell) @ cell)[:, None]  # (b, k, 9, 2), for oblique cells
    best = images.square().sum(-1).argmin(-1)
    return torch.cat([images.gather(2, best[..., None, None].expand(*best.shape, 1, 2))[:, :, 0], d[..., 2:]], -1)


def superposed(shape: Tensor, points: Tensor) -> Tensor:
    """Return shapes (b, k, 3) rotated and moved, never mirrored, onto points (b, k, 3) (Kabsch, Acta Cryst. A32, 922, 1976)."""
    center, mean = points.mean(1, keepdim=True), shape.mean(1, keepdim=True)
    u, _, v = torch.linalg.svd(torch.nan_to_num((shape - mean).mT @ (points - center)))  # (b, 3, 3)
    u[..., -1] *= torch.linalg.det(u @ v).sign()[:, None]
    return (shape - mean) @ (u @ v) + center


@dataclass
class RigidBodies:
    """Bodies in a periodic plane: rows of a field (n, 3), and the shape that each of them keeps.

    Parameters
    ----------
    rows : list of Tensor
        For each kind of body the rows of its points, (b, k), of b bodies.
    shapes : list of Tensor
        Positions of the points, (b, k, 3) float64, in the units of the field; where the body is does not matter.
    cells : list of Tensor
        Vectors of the plane of each body, (b, 2, 2) float64.
    bonds : list of list of (int, int)
        Points in the order in which they are joined, each with an earlier one that is near: images are found along these.
    """

    rows: Sequence[Tensor]
    shapes: Sequence[Tensor]
    cells: Sequence[Tensor]
    bonds: Sequence[Sequence[tuple[int, int]]]

    def poses(self, x: Tensor, whole: bool = False) -> Tensor:
        """Return ``x`` with the nearest pose of every body, each point in the image nearest to where it was.

        ``whole``: each body in one piece instead, also across the border of the cell.
        """
        x = x.clone()
        for rows, shape, cell, bonds in zip(self.rows, self.shapes, self.cells, self.bonds, strict=True):
            points = x[rows].double()
            joined = points.clone()
            for new, old in bonds:
                joined[:, new] = joined[:, old] + shortest(points[:, [new]] - joined[:, [old]], cell)[:, 0]
            for _ in range(ROUNDS):
                pose = superposed(shape, joined)
                joined = pose + shortest(points - pose, cell)
            pose = superposed(shape, joined)
            x[rows] = (pose if whole else points + shortest(pose - points, cell)).to(x.dtype)
        return x


class RigidProcess(ProductProcess):
    """A process whose estimates of the clean data are poses of rigid bodies, so that noise is that of rigid data at every time.

    Parameters
    ----------
    process : ProductProcess
    poses : callable
        ``poses(x0) -> x0``, such as :meth:`RigidBodies.poses`.
    """

    def __init__(self, process: ProductProcess, poses: Callable[[Tensor], Tensor]) -> None:
        super().__init__(process.parts)
        self.poses = poses

    def _posed(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the prediction that stands for the poses."""
        return self.from_x0(xt, self.to_x0(xt, pred, t), t)

    def to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of the clean data: poses."""
        return self.poses(super().to_x0(xt, pred, t))

    def to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps that belongs to the poses."""
        return super().to_eps(xt, self._posed(xt, pred, t), t)

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
        """Step from ``t`` to ``s`` by the poses."""
        return super().reverse(xt, self._posed(xt, pred, t), t, s, rng, domain, eta)

    def sde_step(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Make one Euler-Maruyama step by the poses."""
        return super().sde_step(xt, self._posed(xt, pred, t), t, s, rng, domain)

    def correct(self, xt: Tensor, pred: Tensor, t: Tensor, size: float, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Make one Langevin step by the poses."""
        return super().correct(xt, self._posed(xt, pred, t), t, size, rng, domain)
