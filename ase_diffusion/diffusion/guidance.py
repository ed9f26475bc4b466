"""Guidance: classifier-free guidance by conditions, and displacement along forces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .batch import Batch, Network


class ClassifierFree:
    """Wrap a conditional network for classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

    The prediction is u + scale (c - u), with c the conditional and u the unconditional one (conditions NaN); scale 1 is
    the plain conditional network (one call), 0 the unconditional one.

    Parameters
    ----------
    network : callable
    scale : float
    given : sequence of str
        Conditions that both predictions know: they are no matter of the scale.
    """

    def __init__(self, network: Network, scale: float = 1.0, given: Sequence[str] = ()) -> None:
        self.network, self.scale, self.given = network, float(scale), frozenset(given)

    def __call__(self, batch: Batch, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        asked = {name: value for name, value in conditions.items() if name not in self.given}
        absent = conditions | {name: torch.full_like(value, float('nan')) for name, value in asked.items()}
        if self.scale == 0 or not any(bool(torch.isfinite(value).any()) for value in asked.values()):
            return self.network(batch, c_noise, absent)
        with_condition = self.network(batch, c_noise, conditions)
        if self.scale == 1:
            return with_condition
        without = self.network(batch, c_noise, absent)
        return {name: without[name] + self.scale * (with_condition[name] - without[name]) for name in without}


@dataclass
class ForceGuidance:
    """Displace a field along forces after each step: tau(t) f dt with tau = eta (1 - t)^power (Ronne et al., eq. 3).

    Parameters
    ----------
    forces : callable
        ``forces(batch) -> (n, d)`` of the field, eV/A for positions; a structure with any that is not finite is not
        displaced (and counted in ``failures``).
    field_name : str
        The field that is displaced.
    strength : float
        eta dt in A^2/eV, the displacement per unit force and step (0.001 in the paper).
    power : float
        Power of (1 - t).
    below : float
        Guidance acts only at times t < below.
    every : int
        Act at every k-th call only (with k times the strength).
    cap : float
        Largest displacement of any atom of a structure, A; the whole structure is scaled, so the direction is kept.
    kept : Tensor, optional
        Rows that are not displaced, bool (n,).
    """

    forces: Callable[[Batch], Tensor]
    field_name: str = 'positions'
    strength: float = 0.001
    power: float = 1.0
    below: float = 1.0
    every: int = 1
    cap: float = 0.1
    kept: Tensor | None = None
    calls: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    _count: int = field(default=0, init=False, repr=False)

    def __call__(self, batch: Batch, t: float) -> dict[str, Tensor]:
        self._count += 1
        if t >= self.below or self.strength == 0 or self._count % self.every:
            return {}
        force = self.forces(batch)
        self.calls += batch.size
        rows = batch.rows[self.field_name]
        bad_rows = (~torch.isfinite(force).all(-1)).to(force.dtype)
        bad = torch.zeros(batch.size, dtype=force.dtype, device=force.device).index_add(0, rows, bad_rows) > 0
        self.failures += int(bad.sum())
        force = torch.where(bad[rows, None], torch.zeros_like(force), force)
        if self.kept is not None:
            force = torch.where(self.kept[:, None], torch.zeros_like(force), force)
        shift = self.strength * self.every * (1 - t) ** self.power * force
        return {self.field_name: limited(shift, rows, batch.size, self.cap)}


def limited(shift: Tensor, rows: Tensor, size: int, cap: float) -> Tensor:
    """Scale displacements (n, d) of whole structures so that no atom moves by more than ``cap``."""
    longest = shift.new_zeros(size).scatter_reduce(0, rows, shift.norm(dim=-1), 'amax')
    return shift * (cap / longest.clamp(min=1e-12)).clamp(max=1.0)[rows, None]
