"""Samplers: from noise to data, all with one signature.

``sampler(network, process, batch, *, steps, generator, mask=None, guidance=(), callback=None, start=1.0, initial=None, **options)
-> Batch``; the keywords are explained in :meth:`Sampler.__call__`.

To add a sampler, write its step below, from time t to the earlier s (None: to clean data), and decorate it with ``@sampler``::

    @sampler(calls=1)
    def my_sampler(run, x, t, s, *, strength=0.5):
        \"\"\"Sample by ... (paper, equation).\"\"\"
        pred = run.predict(x, t)
        return run.process.reverse(x, pred, t, s, run.generator), run.process.to_x0(x, pred, t)

It returns the batch at s and the estimates of the clean fields. Times are tensors (B,). Keyword-only arguments are options of the
sampler, ``calls`` is its number of network calls per step. The decorator adds the loop over times, masks, guidance and callback,
and registers the sampler in :data:`SAMPLERS`, from which generators, checkpoints and command line take their lists.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .batch import Batch, Network
from .joint import JointProcess, times
from .noise import Generator
from .schedules import TimeDensity

Step = tuple[Batch, dict[str, Tensor]]  # what a step returns: the batch at s, the estimates of the clean fields

SAMPLERS: dict[str, Sampler] = {}


@dataclass
class Run:
    """One run of a sampler, passed to each of its steps; ``memory`` is a place for values of earlier steps."""

    network: Network
    process: JointProcess
    batch: Batch
    generator: Generator
    mask: Mapping[str, Tensor] | None = None
    memory: dict = field(default_factory=dict)

    def predict(self, x: Batch, t: Tensor) -> dict[str, Tensor]:
        """Return the prediction of the network for every field."""
        return self.network(x, self.process.c_noise(t), x.conditions)

    def keep(self, x: Batch) -> Batch:
        """Return ``x`` with the masked values of the batch; for states that the network sees within a step."""
        return x.merged(self.batch, self.mask)


class Sampler:
    """A sampler, made from the function of its step; see the head of this file.

    Attributes
    ----------
    name : str
    calls : int
        Network calls per step.
    options : dict
        Names and defaults of its own keywords.
    """

    def __init__(self, step: Callable[..., Step], calls: int, density: TimeDensity | None = None) -> None:
        self.__doc__, self.__name__, self.__module__ = step.__doc__, step.__name__, step.__module__
        own = [p for p in inspect.signature(step).parameters.values() if p.kind is p.KEYWORD_ONLY]
        self.step, self.name, self.calls = step, step.__name__, calls
        self.options = {p.name: p.default for p in own} | ({} if density is None else {'density': density})

    @torch.inference_mode()
    def __call__(
        self,
        network: Network,
        process: JointProcess,
        batch: Batch,
        *,
        steps: int,
        generator: Generator,
        mask: Mapping[str, Tensor] | None = None,
        guidance: Sequence[Callable[[Batch, float], dict[str, Tensor]]] = (),
        callback: Callable[[int, float, Batch, dict[str, Tensor]], object] | None = None,
        start: float = 1.0,
        initial: Batch | None = None,
        **options: Any,
    ) -> Batch:
        """Return the batch with sampled fields.

        Parameters
        ----------
        network : callable ``(batch, c_noise, conditions) -> dict`` of predictions per field
        process : JointProcess
        batch : Batch
            Shapes, domains, conditions, and the clean values under the mask.
        steps : int
            Number of time points from ``start`` to 0, at least 2; the last one is followed by a step to clean data.
        generator : torch.Generator, None or a source of :mod:`ase_diffusion.diffusion.noise`
        mask : dict of str to Tensor, optional
            Field -> bool, for rows, (n,), or elements (see :func:`as_mask`). True keeps the values of ``batch``: never noised,
            never moved, seen by the network.
        guidance : callables ``(batch, t) -> dict`` of displacements that are added after each step
        callback : callable, optional
            ``callback(k, t, batch, x0)`` after step k, with the estimates x0 of the clean fields.
        start : float
            Time in (0, 1] at which sampling starts.
        initial : Batch, optional
            Noised to ``start`` already; None draws from the prior.
        options
            Those of the sampler, see ``options``.

        Raises
        ------
        ValueError
            Too few steps, or ``start`` is not in (0, 1].
        TypeError
            An option that this sampler does not have.
        """
        if int(steps) < 2:
            raise ValueError(f'sampling needs at least 2 steps, got {steps}: with fewer the prior itself would come back')
        if not 0 < start <= 1:
            raise ValueError(f'start must lie in (0, 1], got {start}')
        if unknown := set(options) - set(self.options):
            raise TypeError(f'{self.name} has no option {sorted(unknown)}; its options: {sorted(self.options) or "none"}')
        options = self.options | options
        grid = torch.linspace(float(start), 0.0, int(steps), dtype=torch.float64)
        density = TimeDensity.of(options.pop('density', None))
        grid = (grid if density is None else density.times(grid / start, end=float(start))).tolist()
        run = Run(network, process, batch, generator, mask)
        x = run.keep(process.prior(batch, times(batch, start), generator) if initial is None else initial)
        for k, now in enumerate(grid):
            s = times(x, grid[k + 1]) if k + 1 < len(grid) else None
            before = x
            x, x0 = self.step(run, x, times(x, now), s, **options)
            if guidance and s is not None:
                x = _guide(process, x, before, guidance, now)
            x = run.keep(x)
            if callback is not None:
                callback(k, now, x, x0)
        return x

    def options_in(self, settings: Mapping) -> dict:
        """Return the options of this sampler that are in ``settings``, the 'sampling' table of a checkpoint.

        Raises
        ------
        ValueError
            An option is not of the type of its default.
        """
        settings = {'density' if name == 'focus' else name: value for name, value in settings.items()}  # the name of old files
        found = {name: settings[name] for name in self.options if name in settings}
        for name, value in found.items():
            if name == 'density':
                found[name] = TimeDensity.of(value)
            elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float('inf'):
                raise ValueError(f'{name} of {self.name} is a number from 0 on, got {value!r}')
        return found


def sampler(*, calls: int, density: TimeDensity | None = None) -> Callable[[Callable[..., Step]], Sampler]:
    """Decorate the step of a sampler: make the sampler and register it.

    Parameters
    ----------
    calls : int
        Network calls per step.
    density : TimeDensity, optional
        Default density of the time points, which makes it an option; else they are equidistant.
    """

    def register(step: Callable[..., Step]) -> Sampler:
        SAMPLERS[step.__name__] = Sampler(step, calls, density)
        return SAMPLERS[step.__name__]

    return register


def _guide(process: JointProcess, x: Batch, before: Batch, guidance: Sequence[Callable], now: float) -> Batch:
    fields, moved = dict(x.fields), False
    for guide in guidance:
        for name, shift in guide(before, now).items():
            fields[name], moved = fields[name] + shift, True
    return process.confine(x.with_fields(**fields)) if moved else x


# the samplers


@sampler(calls=2, density=TimeDensity(0.5, 0.15, 0.9))
def renoised_ancestral(run: Run, x: Batch, t: Tensor, s: Tensor | None) -> Step:
    """Sample by ancestral steps, before each of which the estimate of the clean data is noised to the same time again.

    A second estimate at every time: errors of the network are not carried along. Noising a *sample* of p(x_0 | x_t) would keep
    the distribution of the time. The network gives its mean, which keeps the distribution where the data are narrow beside the
    noise, as relaxed crystals are, and else narrows it, by a quarter of the variance at most (a Gaussian as wide as the noise).
    So this finds minima more often than it shows how they are spread: :func:`predictor_corrector` and :func:`ancestral` show
    that. ``density`` makes steps short where atoms find their places.
    """
    pred = run.predict(x, t)
    if s is not None:
        x = run.keep(run.process.renoise_x0(x, pred, t, run.generator))
        pred = run.predict(x, t)
    return run.process.reverse(x, pred, t, s, run.generator, 1.0), run.process.to_x0(x, pred, t)


@sampler(calls=2)
def predictor_corrector(run: Run, x: Batch, t: Tensor, s: Tensor | None, *, corrector: float = 0.04) -> Step:
    """Sample by one Langevin step, then one ancestral step (Song et al., arXiv 2011.13456, alg. 2; DiffCSP, alg. 3).

    Fields on a torus are corrected, two network calls a step; without such a field this is :func:`ancestral`. A Langevin step has
    the length ``corrector`` sigma^2, gamma / sigma_1^2 in DiffCSP: 0.04 Perov-5, 0.4 Carbon-24, 0.2 MP-20.
    """
    if corrector and run.process.langevin and s is not None:
        pred = run.predict(x, t)
        x = run.keep(run.process.correct(x, pred, t, corrector, run.generator))
    pred = run.predict(x, t)
    return run.process.reverse(x, pred, t, s, run.generator, 1.0), run.process.to_x0(x, pred, t)


@sampler(calls=1)
def ancestral(run: Run, x: Batch, t: Tensor, s: Tensor | None, *, eta: float = 1.0) -> Step:
    """Sample by the posterior q(x_s | x_t, x_0) (DDPM, arXiv 2006.11239, eq. 7), stochastic; ``eta`` as in DDIM, eq. 16."""
    pred = run.predict(x, t)
    return run.process.reverse(x, pred, t, s, run.generator, eta), run.process.to_x0(x, pred, t)


@sampler(calls=1)
def euler_maruyama(run: Run, x: Batch, t: Tensor, s: Tensor | None) -> Step:
    """Sample the reverse SDE by Euler-Maruyama (Ronne et al. 2024, eq. 2)."""
    pred = run.predict(x, t)
    return run.process.sde_step(x, pred, t, s, run.generator), run.process.to_x0(x, pred, t)


@sampler(calls=1)
def ddim(run: Run, x: Batch, t: Tensor, s: Tensor | None) -> Step:
    """Sample deterministically along the probability-flow ODE, first order (DDIM, arXiv 2010.02502)."""
    pred = run.predict(x, t)
    return run.process.reverse(x, pred, t, s, run.generator, 0.0), run.process.to_x0(x, pred, t)


@sampler(calls=2)
def heun(run: Run, x: Batch, t: Tensor, s: Tensor | None) -> Step:
    """Sample the probability-flow ODE to second order, two calls a step (Karras et al., arXiv 2206.00364, alg. 1)."""
    pred = run.predict(x, t)
    x0 = run.process.to_x0(x, pred, t)
    ahead = run.keep(run.process.reverse(x, pred, t, s, run.generator, 0.0))
    if s is None:
        return ahead, x0
    mean = run.process.average_eps(x, pred, t, ahead, run.predict(ahead, s), s)
    return run.process.reverse(x, mean, t, s, run.generator, 0.0), x0


@sampler(calls=1)
def dpmpp_2m(run: Run, x: Batch, t: Tensor, s: Tensor | None) -> Step:
    """Sample with DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2): second order at one call a step."""
    pred = run.predict(x, t)
    x0 = run.process.to_x0(x, pred, t)
    use, level, last = pred, run.process.c_noise(t), run.memory  # lambda = log(alpha / sigma) = -4 level
    if last and s is not None:
        factor = ((run.process.c_noise(s) - level) / (level - last['level']) / 2)[:1]  # h / (2 h_last)
        slope = run.process.difference(x, x0, last['x0'])
        ahead = {name: x0[name] + factor.to(x0[name].dtype) * slope[name] for name in slope}
        use = {**pred, **run.process.from_x0(x, {**x0, **ahead}, t)}
    last.update(x0=x0, level=level)
    return run.process.reverse(x, use, t, s, run.generator, 0.0), x0


TWO_CALLS = tuple(name for name, one in SAMPLERS.items() if one.calls == 2)
