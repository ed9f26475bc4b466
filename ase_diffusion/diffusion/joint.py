"""A process over several named fields that share one time."""

from __future__ import annotations

import torch
from torch import Tensor

from .batch import Batch
from .categorical import Categorical
from .noise import as_noise
from .preconditioned import EmbeddedCategorical, Preconditioned
from .process import Gaussian
from .schedules import Schedule
from .truncated import TruncatedNormal
from .wrapped import WrappedNormal, WrappedScore


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

    def c_noise(self, t: Tensor) -> Tensor:
        """Return the noise level (B,) that the network is told at time ``t`` (B,)."""
        return self.schedule.c_noise(t)

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

    def add_noise(self, batch: Batch, t: Tensor, generator) -> tuple[Batch, dict[str, Tensor]]:
        """Noise every field; return the noised batch and the targets."""
        noise = as_noise(generator)
        pairs = self._map(batch, t, lambda n, p, t, d: p.add_noise(batch.fields[n], t, noise.bind(batch.rows[n]), d))
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

    def to_x0(self, batch: Batch, pred: dict, t: Tensor) -> dict[str, Tensor]:
        """Return the estimate of the clean fields."""
        return self._map(batch, t, lambda n, p, t, d: p.to_x0(batch.fields[n], pred[n], t))

    def from_x0(self, batch: Batch, x0: dict, t: Tensor) -> dict[str, Tensor]:
        """Return the predictions that correspond to estimates ``x0`` of the clean fields; categories are left out."""
        found = self._map(batch, t, lambda n, p, t, d: None if p.discrete else p.from_x0(batch.fields[n], x0[n], t, d))
        return {name: eps for name, eps in found.items() if eps is not None}

    def average_eps(self, batch: Batch, pred: dict, t: Tensor, ahead: Batch, again: dict, s: Tensor) -> dict[str, Tensor]:
        """Return the predictions at ``batch`` whose noise is the mean of those at ``batch`` and ``ahead`` (trapezoidal rule).

        Logits of categories are averaged themselves.
        """

        def mean(name, process, rows_t, domain):
            if process.discrete:
                return (pred[name] + again[name]) / 2
            x, rows_s = batch.fields[name], s[batch.rows[name]]
            noise = process.to_eps(x, pred[name], rows_t) + process.to_eps(ahead.fields[name], again[name], rows_s)
            return process.from_eps(x, noise / 2, rows_t)

        return self._map(batch, t, mean)

    def reverse(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator, eta: float = 1.0) -> Batch:
        """Step every field from ``t`` to ``s`` (None: to clean data)."""
        return self._step('reverse', batch, pred, t, s, generator, eta)

    def sde_step(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator) -> Batch:
        """Make one Euler-Maruyama step of every field."""
        return self._step('sde_step', batch, pred, t, s, generator)

    def correct(self, batch: Batch, pred: dict, t: Tensor, size: float, generator) -> Batch:
        """Make one Langevin step of length ``size`` sigma^2 of the fields that take one."""
        noise = as_noise(generator)

        def step(name, process, rows_t, domain):
            x = batch.fields[name]
            if not process.langevin:
                return x
            return process.correct(x, pred[name], rows_t, size, noise.bind(batch.rows[name]), domain)

        return batch.with_fields(**self._map(batch, t, step))

    def renoise_x0(self, batch: Batch, pred: dict, t: Tensor, generator) -> Batch:
        """Noise the estimates of the clean fields to ``t``, where the batch is; categories stay."""
        noise = as_noise(generator)

        def step(name, process, rows_t, domain):
            x = batch.fields[name]
            if process.discrete:
                return x
            return process.add_noise(process.to_x0(x, pred[name], rows_t), rows_t, noise.bind(batch.rows[name]), domain)[0]

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


class ProductProcess:
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

    def add_noise(self, x0, t, noise, domain=None):
        """Noise every part; return (x_t, target)."""
        pairs = self._each(lambda c, p, d: p.add_noise(x0[..., c], t, noise, d), domain)
        return torch.cat([x for x, _ in pairs], -1), torch.cat([target for _, target in pairs], -1)

    def loss(self, pred, target, t):
        """Return the mean squared error of every row, (n,)."""
        return (pred - target).square().flatten(1).mean(1)

    def to_x0(self, xt, pred, t):
        """Return the estimate of the clean data."""
        return torch.cat(self._each(lambda c, p, d: p.to_x0(xt[..., c], pred[..., c], t), None), -1)

    def from_x0(self, xt, x0, t, domain=None):
        """Return the noise that leads from ``x0`` to ``xt``."""
        return torch.cat(self._each(lambda c, p, d: p.from_x0(xt[..., c], x0[..., c], t), None), -1)

    def to_eps(self, xt, pred, t):
        """Return the estimate of eps of every part."""
        return torch.cat(self._each(lambda c, p, d: p.to_eps(xt[..., c], pred[..., c], t), None), -1)

    def from_eps(self, xt, noise, t):
        """Return the prediction for an estimate of eps."""
        return torch.cat(self._each(lambda c, p, d: p.from_eps(xt[..., c], noise[..., c], t), None), -1)

    def reverse(self, xt, pred, t, s, noise, domain=None, eta=1.0):
        """Step every part from ``t`` to ``s``."""
        return torch.cat(self._each(lambda c, p, d: p.reverse(xt[..., c], pred[..., c], t, s, noise, d, eta), domain), -1)

    def sde_step(self, xt, pred, t, s, noise, domain=None):
        """Make one Euler-Maruyama step of every part."""
        return torch.cat(self._each(lambda c, p, d: p.sde_step(xt[..., c], pred[..., c], t, s, noise, d), domain), -1)

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
        return {'name': 'ProductProcess', 'parts': [[list(c), p.todict()] for c, p in self.parts]}


def process_from_dict(values: dict):
    """Rebuild a process from ``todict()``; only the classes of this folder are accepted."""

    classes = (Gaussian, WrappedNormal, TruncatedNormal, WrappedScore, Categorical, Preconditioned, EmbeddedCategorical)
    known = {cls.__name__: cls for cls in classes}
    name = values.get('name')
    if name == 'ProductProcess':
        return ProductProcess([(columns, process_from_dict(part)) for columns, part in values['parts']])
    if name not in known:
        raise ValueError(f'unknown process {name!r}; known: {sorted([*known, "ProductProcess"])}')
    return known[name].fromdict(values)
