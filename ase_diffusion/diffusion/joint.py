"""A process over several named fields that share one time."""

from __future__ import annotations

import torch
from torch import Tensor

from .batch import Batch
from .noise import as_noise
from .processes import process_from_dict


class JointProcess:
    """Noise and denoise the named fields of a :class:`Batch` together.

    Parameters
    ----------
    processes : dict of str to process
        Field name -> process. The first one's schedule tells the network the noise level.
    weights : dict of str to float, optional
        Weight of every field in the loss, 1 by default.
    """

    def __init__(self, processes: dict, weights: dict[str, float] | None = None):
        self.processes = dict(processes)
        self.weights = {name: 1.0 for name in processes} | (weights or {})
        if unknown := set(self.weights) - set(self.processes):
            raise ValueError(f'weights for unknown fields {sorted(unknown)}; fields: {sorted(self.processes)}')

    @property
    def schedule(self):
        """The schedule that sets the noise level told to the network."""
        return next(iter(self.processes.values())).schedule

    def level(self, t: Tensor) -> Tensor:
        """Return the noise level (B,) that the network is told at time ``t`` (B,)."""
        return self.schedule.level(t)

    def _map(self, batch: Batch, t: Tensor | None, call) -> dict:
        out = {}
        for name, process in self.processes.items():
            rows = batch.rows[name]
            out[name] = call(name, process, None if t is None else t[rows], batch.domains.get(name))
        return out

    def prior(self, batch: Batch, t: Tensor, generator) -> Batch:
        """Replace every field by a draw from its prior."""
        noise = as_noise(generator)
        return batch.with_fields(
            **self._map(batch, t, lambda n, p, t, d: p.prior(batch.fields[n], t, noise.bind(batch.rows[n]), d))
        )

    def noise(self, batch: Batch, t: Tensor, generator) -> tuple[Batch, dict[str, Tensor]]:
        """Noise every field; return the noised batch and the targets."""
        noise = as_noise(generator)
        pairs = self._map(batch, t, lambda n, p, t, d: p.noise(batch.fields[n], t, noise.bind(batch.rows[n]), d))
        return batch.with_fields(**{n: x for n, (x, _) in pairs.items()}), {n: y for n, (_, y) in pairs.items()}

    def loss(self, batch: Batch, pred: dict, target: dict, t: Tensor) -> Tensor:
        """Return the weighted loss of every structure, (B,)."""
        return sum(self.weights[name] * values for name, values in self.losses(batch, pred, target, t).items())

    def losses(self, batch: Batch, pred: dict, target: dict, t: Tensor) -> dict[str, Tensor]:
        """Return the loss of every field and structure, (B,), without weights."""
        rows = self._map(batch, t, lambda n, p, t, d: p.loss(pred[n], target[n], t))
        return {name: batch.mean_over_rows(name, values) for name, values in rows.items()}

    @property
    def discrete(self) -> set[str]:
        """Names of the fields that are categories."""
        return {name for name, process in self.processes.items() if process.discrete}

    @property
    def langevin(self) -> bool:
        """Whether any field takes Langevin steps."""
        return any(process.langevin for process in self.processes.values())

    def x0(self, batch: Batch, pred: dict, t: Tensor) -> dict[str, Tensor]:
        """Return the estimate of the clean fields."""
        return self._map(batch, t, lambda n, p, t, d: p.x0(batch.fields[n], pred[n], t))

    def eps(self, batch: Batch, x0: dict, t: Tensor) -> dict[str, Tensor]:
        """Return the predictions that correspond to estimates ``x0`` of the clean fields; categories are left out."""
        found = self._map(batch, t, lambda n, p, t, d: None if p.discrete else p.eps(batch.fields[n], x0[n], t, d))
        return {name: eps for name, eps in found.items() if eps is not None}

    def mean_slope(self, batch: Batch, pred: dict, t: Tensor, ahead: Batch, again: dict, s: Tensor) -> dict[str, Tensor]:
        """Return the predictions at ``batch`` whose noise is the mean of those at ``batch`` and ``ahead`` (trapezoidal rule).

        Logits of categories are averaged themselves.
        """

        def mean(name, process, rows_t, domain):
            if process.discrete:
                return (pred[name] + again[name]) / 2
            x, rows_s = batch.fields[name], s[batch.rows[name]]
            noise = process.noise_of(x, pred[name], rows_t) + process.noise_of(ahead.fields[name], again[name], rows_s)
            return process.pred_of(x, noise / 2, rows_t)

        return self._map(batch, t, mean)

    def reverse(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator, eta: float = 1.0) -> Batch:
        """Step every field from ``t`` to ``s`` (None: to clean data)."""
        return self._step('reverse', batch, pred, t, s, generator, eta)

    def diffuse(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator) -> Batch:
        """Make one Euler-Maruyama step of every field."""
        return self._step('diffuse', batch, pred, t, s, generator)

    def correct(self, batch: Batch, pred: dict, t: Tensor, size: float, generator) -> Batch:
        """Make one Langevin step of length ``size`` sigma^2 of the fields that take one."""
        noise = as_noise(generator)

        def step(name, process, rows_t, domain):
            x = batch.fields[name]
            if not process.langevin:
                return x
            return process.correct(x, pred[name], rows_t, size, noise.bind(batch.rows[name]), domain)

        return batch.with_fields(**self._map(batch, t, step))

    def renoise(self, batch: Batch, pred: dict, t: Tensor, generator) -> Batch:
        """Noise the estimates of the clean fields to ``t``, where the batch is; categories stay."""
        noise = as_noise(generator)

        def step(name, process, rows_t, domain):
            x = batch.fields[name]
            if process.discrete:
                return x
            return process.noise(process.x0(x, pred[name], rows_t), rows_t, noise.bind(batch.rows[name]), domain)[0]

        return batch.with_fields(**self._map(batch, t, step))

    def _step(self, method: str, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator, *options) -> Batch:
        noise = as_noise(generator)

        def step(name, process, rows_t, domain):
            rows = batch.rows[name]
            rows_s = None if s is None else s[rows]
            return getattr(process, method)(batch.fields[name], pred[name], rows_t, rows_s, noise.bind(rows), domain, *options)

        return batch.with_fields(**self._map(batch, t, step))

    def confine(self, batch: Batch) -> Batch:
        """Put every field back into its domain."""
        return batch.with_fields(**self._map(batch, None, lambda n, p, t, d: p.confine(batch.fields[n], d)))

    def difference(self, batch: Batch, a: dict, b: dict) -> dict[str, Tensor]:
        """Return the shortest a - b of every field that is not one of categories."""
        found = self._map(batch, None, lambda n, p, t, d: None if p.discrete else p.difference(a[n], b[n], d))
        return {name: d for name, d in found.items() if d is not None}

    def todict(self) -> dict:
        """Return fields, processes and weights, fit for JSON."""
        return {'processes': {n: p.todict() for n, p in self.processes.items()}, 'weights': self.weights}

    @classmethod
    def fromdict(cls, values: dict) -> JointProcess:
        """Rebuild from :meth:`todict`."""
        return cls({n: process_from_dict(p) for n, p in values['processes'].items()}, values.get('weights'))


def times(batch: Batch, value: float) -> Tensor:
    """Return ``value`` for every structure of the batch, (B,), in the precision of its fields."""
    like = next(iter(batch.fields.values()))
    return torch.full((batch.size,), float(value), dtype=like.dtype, device=like.device)
