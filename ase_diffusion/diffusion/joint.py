"""A process over several named fields that share one time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Self

import torch
from torch import Tensor

from .batch import Batch
from .categorical import Categorical
from .domains import Domain
from .noise import Generator, NoiseSource, as_noise
from .preconditioned import EmbeddedCategorical, Preconditioned
from .process import Gaussian, Process
from .schedules import Schedule
from .truncated import TruncatedNormal
from .wrapped import WrappedNormal, WrappedScore


class JointProcess:
    """Noise and denoise the named fields of a :class:`Batch` together.

    Parameters
    ----------
    processes : dict of str to Process
        Field name -> process.
    weights : dict of str to float, optional
        Weight of every field in the loss, 1 by default.
    clock : str, optional
        The field whose schedule gives the noise level that the network sees (:meth:`c_noise`); by default the first one.

    Raises
    ------
    ValueError
        There is no field, or ``weights`` or ``clock`` name others.
    """

    def __init__(self, processes: dict[str, Process], weights: dict[str, float] | None = None, clock: str | None = None) -> None:
        self.processes = dict(processes)
        if not self.processes:
            raise ValueError('a joint process needs at least one field, got none')
        self.weights = {name: 1.0 for name in processes} | (weights or {})
        if unknown := set(self.weights) - set(self.processes):
            raise ValueError(f'weights for unknown fields {sorted(unknown)}; fields: {sorted(self.processes)}')
        self.clock = next(iter(self.processes)) if clock is None else clock
        if self.clock not in self.processes:
            raise ValueError(f'the clock is one of the fields, {sorted(self.processes)}; got {clock!r}')

    @property
    def schedule(self) -> Schedule:
        """The schedule of the field ``clock``."""
        return self.processes[self.clock].schedule

    def c_noise(self, t: Tensor) -> Tensor:
        """Return the noise level (B,) that the network sees at time ``t`` (B,)."""
        return self.schedule.c_noise(t)

    def _map(self, batch: Batch, t: Tensor | None, call: Callable) -> dict:
        """Return ``call(name, process, t of the rows, domain)`` of every field."""
        out = {}
        for name, process in self.processes.items():
            rows = batch.rows[name]
            out[name] = call(name, process, None if t is None else t[rows], batch.domains.get(name))
        return out

    def prior(self, batch: Batch, t: Tensor, generator: Generator) -> Batch:
        """Replace every field by a draw from its prior."""
        rng = as_noise(generator)
        return batch.with_fields(
            **self._map(batch, t, lambda n, p, t, d: p.prior(batch.fields[n], t, rng.bind(batch.rows[n]), d))
        )

    def add_noise(self, batch: Batch, t: Tensor, generator: Generator) -> tuple[Batch, dict[str, Tensor]]:
        """Noise every field; return the noised batch and the targets."""
        rng = as_noise(generator)
        pairs = self._map(batch, t, lambda n, p, t, d: p.add_noise(batch.fields[n], t, rng.bind(batch.rows[n]), d))
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
        """Return the predictions that stand for the estimates ``x0`` of the clean fields; categories are left out."""
        found = self._map(batch, t, lambda n, p, t, d: None if p.discrete else p.from_x0(batch.fields[n], x0[n], t, d))
        return {name: eps for name, eps in found.items() if eps is not None}

    def average_eps(self, batch: Batch, pred: dict, t: Tensor, ahead: Batch, again: dict, s: Tensor) -> dict[str, Tensor]:
        """Return the predictions at ``batch`` whose eps is the mean of those at ``batch`` and ``ahead`` (trapezoidal rule).

        For categories the mean of the logits.
        """

        def mean(name, process, rows_t, domain):
            if process.discrete:
                return (pred[name] + again[name]) / 2
            x, rows_s = batch.fields[name], s[batch.rows[name]]
            eps = process.to_eps(x, pred[name], rows_t) + process.to_eps(ahead.fields[name], again[name], rows_s)
            return process.from_eps(x, eps / 2, rows_t)

        return self._map(batch, t, mean)

    def reverse(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator: Generator, eta: float = 1.0) -> Batch:
        """Step every field from ``t`` to ``s`` (None: to clean data)."""
        return self._step('reverse', batch, pred, t, s, generator, eta)

    def sde_step(self, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator: Generator) -> Batch:
        """Make one Euler-Maruyama step of every field."""
        return self._step('sde_step', batch, pred, t, s, generator)

    def correct(self, batch: Batch, pred: dict, t: Tensor, size: float, generator: Generator) -> Batch:
        """Make one Langevin step of length ``size`` sigma^2 of the fields that take one."""
        rng = as_noise(generator)

        def step(name, process, rows_t, domain):
            x = batch.fields[name]
            if not process.langevin:
                return x
            return process.correct(x, pred[name], rows_t, size, rng.bind(batch.rows[name]), domain)

        return batch.with_fields(**self._map(batch, t, step))

    def renoise(self, batch: Batch, s: Tensor | None, t: Tensor, generator: Generator) -> Batch:
        """Noise every field forward from ``s`` (None: clean data) to the later ``t``."""
        rng = as_noise(generator)

        def step(name, process, rows_t, domain):
            rows = batch.rows[name]
            return process.renoise(batch.fields[name], None if s is None else s[rows], rows_t, rng.bind(rows), domain)

        return batch.with_fields(**self._map(batch, t, step))

    def renoise_x0(self, batch: Batch, pred: dict, t: Tensor, generator: Generator) -> Batch:
        """Noise the estimates of the clean fields to ``t``, the time of the batch; categories stay."""
        rng = as_noise(generator)

        def step(name, process, rows_t, domain):
            x = batch.fields[name]
            if process.discrete:
                return x
            return process.add_noise(process.to_x0(x, pred[name], rows_t), rows_t, rng.bind(batch.rows[name]), domain)[0]

        return batch.with_fields(**self._map(batch, t, step))

    def _step(self, method: str, batch: Batch, pred: dict, t: Tensor, s: Tensor | None, generator, *options) -> Batch:
        rng = as_noise(generator)

        def step(name, process, rows_t, domain):
            rows = batch.rows[name]
            rows_s = None if s is None else s[rows]
            return getattr(process, method)(batch.fields[name], pred[name], rows_t, rows_s, rng.bind(rows), domain, *options)

        return batch.with_fields(**self._map(batch, t, step))

    def confine(self, batch: Batch) -> Batch:
        """Put every field back into its domain."""
        return batch.with_fields(**self._map(batch, None, lambda n, p, t, d: p.confine(batch.fields[n], d)))

    def difference(self, batch: Batch, a: dict, b: dict) -> dict[str, Tensor]:
        """Return the shortest a - b of every field but categories."""
        found = self._map(batch, None, lambda n, p, t, d: None if p.discrete else p.difference(a[n], b[n], d))
        return {name: d for name, d in found.items() if d is not None}

    def todict(self) -> dict:
        """Return fields, processes, weights and clock, fit for JSON."""
        return {'processes': {n: p.todict() for n, p in self.processes.items()}, 'weights': self.weights, 'clock': self.clock}

    @classmethod
    def fromdict(cls, values: dict) -> Self:
        """Rebuild from :meth:`todict`."""
        return cls({n: process_from_dict(p) for n, p in values['processes'].items()}, values.get('weights'), values.get('clock'))


def times(batch: Batch, value: float) -> Tensor:
    """Return ``value`` for every structure of the batch, (B,), in the precision of its first field that is not of integers."""
    fields = list(batch.fields.values())
    like = next((x for x in fields if x.is_floating_point()), None)
    dtype = torch.float64 if like is None else like.dtype
    return torch.full((batch.size,), float(value), dtype=dtype, device=fields[0].device)


class ProductProcess(Process):
    """Let different columns of one field follow different processes (positions: torus in the plane, window along z).

    Parameters
    ----------
    parts : list of (columns, process)
        ``columns`` is a (start, stop) pair of the last axis; together the parts cover it, in order. The field's domain is a tuple
        with one domain per part.
    """

    discrete: ClassVar[bool] = False

    def __init__(self, parts: Iterable[tuple[tuple[int, int], Process]]) -> None:
        self.parts = [((int(start), int(stop)), process) for (start, stop), process in parts]

    @property
    def schedule(self) -> Schedule:
        """The schedule of the first part."""
        return self.parts[0][1].schedule

    @property
    def langevin(self) -> bool:
        """Whether any part takes Langevin steps."""
        return any(process.langevin for _, process in self.parts)

    def _each(self, call: Callable, domain: Domain = None) -> list:
        """Return ``call(columns, process, domain)`` of every part."""
        domains = domain or [None] * len(self.parts)
        return [call(slice(*columns), process, part) for (columns, process), part in zip(self.parts, domains, strict=True)]

    def _cat(self, call: Callable, domain: Domain = None) -> Tensor:
        """Return the columns ``call(columns, process, domain)`` of every part, side by side."""
        return torch.cat(self._each(call, domain), -1)

    def prior(self, like: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw every part from its own prior."""
        return self._cat(lambda c, p, d: p.prior(like[..., c], t, rng, d), domain)

    def add_noise(self, x0: Tensor, t: Tensor, rng: NoiseSource, domain: Domain = None) -> tuple[Tensor, Tensor]:
        """Noise every part; return (x_t, target)."""
        pairs = self._each(lambda c, p, d: p.add_noise(x0[..., c], t, rng, d), domain)
        return torch.cat([x for x, _ in pairs], -1), torch.cat([target for _, target in pairs], -1)

    def renoise(self, xs: Tensor, s: Tensor | None, t: Tensor, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Draw x_t given x_s of every part."""
        return self._cat(lambda c, p, d: p.renoise(xs[..., c], s, t, rng, d), domain)

    def loss(self, pred: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Return the loss of every row, (n,): that of the parts, weighted by their numbers of columns."""
        parts = self._each(lambda c, p, d: (c.stop - c.start) * p.loss(pred[..., c], target[..., c], t))
        return sum(parts) / sum(stop - start for (start, stop), _ in self.parts)

    def to_x0(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of the clean data."""
        return self._cat(lambda c, p, d: p.to_x0(xt[..., c], pred[..., c], t))

    def from_x0(self, xt: Tensor, x0: Tensor, t: Tensor, domain: Domain = None) -> Tensor:
        """Return the prediction that stands for the estimate ``x0``."""
        return self._cat(lambda c, p, d: p.from_x0(xt[..., c], x0[..., c], t, d), domain)

    def to_eps(self, xt: Tensor, pred: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of eps of every part."""
        return self._cat(lambda c, p, d: p.to_eps(xt[..., c], pred[..., c], t))

    def from_eps(self, xt: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return the prediction that stands for the estimate ``eps``."""
        return self._cat(lambda c, p, d: p.from_eps(xt[..., c], eps[..., c], t))

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
        """Step every part from ``t`` to ``s``."""
        return self._cat(lambda c, p, d: p.reverse(xt[..., c], pred[..., c], t, s, rng, d, eta), domain)

    def sde_step(self, xt: Tensor, pred: Tensor, t: Tensor, s: Tensor | None, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Make one Euler-Maruyama step of every part."""
        return self._cat(lambda c, p, d: p.sde_step(xt[..., c], pred[..., c], t, s, rng, d), domain)

    def correct(self, xt: Tensor, pred: Tensor, t: Tensor, size: float, rng: NoiseSource, domain: Domain = None) -> Tensor:
        """Make one Langevin step of the parts that take one."""

        def part(c, p, d):
            return p.correct(xt[..., c], pred[..., c], t, size, rng, d) if p.langevin else xt[..., c]

        return self._cat(part, domain)

    def confine(self, x: Tensor, domain: Domain = None) -> Tensor:
        """Put points back into the domain."""
        return self._cat(lambda c, p, d: p.confine(x[..., c], d), domain)

    def difference(self, a: Tensor, b: Tensor, domain: Domain = None) -> Tensor:
        """Return the shortest a - b that the domain allows."""
        return self._cat(lambda c, p, d: p.difference(a[..., c], b[..., c], d), domain)

    def todict(self) -> dict:
        """Return class name and parameters, fit for JSON."""
        return {'name': 'ProductProcess', 'parts': [[list(c), p.todict()] for c, p in self.parts]}

    @classmethod
    def fromdict(cls, values: dict) -> Self:
        """Rebuild from :meth:`todict`."""
        return cls([(columns, process_from_dict(part)) for columns, part in values['parts']])


PROCESSES: dict[str, type[Process]] = {
    cls.__name__: cls
    for cls in (
        Gaussian,
        WrappedNormal,
        TruncatedNormal,
        WrappedScore,
        Categorical,
        Preconditioned,
        EmbeddedCategorical,
        ProductProcess,
    )
}


def process_from_dict(values: dict) -> Process:
    """Rebuild a process from ``todict()``; only the classes of :data:`PROCESSES` are accepted."""
    name = values.get('name')
    if name not in PROCESSES:
        raise ValueError(f'unknown process {name!r}; known: {sorted(PROCESSES)}')
    return PROCESSES[name].fromdict(values)
