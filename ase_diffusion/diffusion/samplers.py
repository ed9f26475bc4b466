"""Samplers: free functions of one signature that lead from noise to data.

``sampler(network, process, batch, *, steps, generator, mask=None, guidance=(), callback=None, start=1.0,
initial=None)``

network : callable ``(batch, c_noise, conditions) -> dict`` of predictions per field.
process : JointProcess.
batch : Batch that gives shapes, domains, conditions and the clean values of masked rows.
steps : int, at least 2; the number of time points from ``start`` to 0, the last one followed by a step to clean data.
generator : torch.Generator or a source of :mod:`ase_diffusion.diffusion.noise`.
mask : dict field -> bool (n,); True rows keep the values of ``batch``: never noised, never moved, seen by the network.
guidance : callables ``(batch, t) -> dict`` of displacements added after each step.
callback : called as ``callback(k, t, batch, x0)`` after step k; x0 are the estimates of the clean fields.
start : time in (0, 1] at which sampling starts.
initial : a Batch that is already noised to ``start``; None draws from the prior.
"""

from __future__ import annotations

import torch

from .batch import Batch
from .joint import JointProcess, times
from .schedules import focused


def _keep(batch: Batch, clean: Batch, mask: dict | None) -> Batch:
    if not mask:
        return batch
    fields = {}
    for name, rows in mask.items():
        x = batch.fields[name]
        fields[name] = torch.where(rows.reshape(-1, *[1] * (x.dim() - 1)), clean.fields[name], x)
    return batch.with_fields(**fields)


def _run(step, network, process, batch, *, steps, generator, mask, guidance, callback, start, initial, focus=None) -> Batch:
    """Carry the shared part of all samplers; ``step(x, k, t, s)`` returns (next x, x0 estimates).

    Time points are equidistant, or dense as ``focus`` says, see :func:`focused`.
    """
    if int(steps) < 2:
        raise ValueError(f'sampling needs at least 2 steps, got {steps}: with fewer the prior itself would come back')
    if not 0 < start <= 1:
        raise ValueError(f'start must lie in (0, 1], got {start}')
    grid = torch.linspace(float(start), 0.0, int(steps), dtype=torch.float64)
    grid = (grid if focus is None else focused(grid / start, *focus, end=float(start))).tolist()
    x = initial if initial is not None else process.prior(batch, times(batch, start), generator)
    x = _keep(x, batch, mask)
    for k, now in enumerate(grid):
        t = times(x, now)
        s = times(x, grid[k + 1]) if k + 1 < len(grid) else None
        before = x
        x, x0 = step(x, k, t, s)
        if guidance and s is not None:
            x = _guide(process, x, before, guidance, now)
        x = _keep(x, batch, mask)
        if callback is not None:
            callback(k, now, x, x0)
    return x


def _guide(process: JointProcess, x: Batch, before: Batch, guidance, now: float) -> Batch:
    fields, moved = dict(x.fields), False
    for guide in guidance:
        for name, shift in guide(before, now).items():
            fields[name], moved = fields[name] + shift, True
    return process.confine(x.with_fields(**fields)) if moved else x


def _predict(network, process, x: Batch, t):
    return network(x, process.c_noise(t), x.conditions)


@torch.inference_mode()
def ancestral(
    network, process, batch, *, steps, generator, mask=None, guidance=(), callback=None, start=1.0, initial=None, eta=1.0
) -> Batch:
    """Sample by the posterior q(x_s | x_t, x_0) (DDPM, arXiv 2006.11239, eq. 7), stochastic."""

    def step(x, k, t, s):
        pred = _predict(network, process, x, t)
        return process.reverse(x, pred, t, s, generator, eta), process.to_x0(x, pred, t)

    return _run(
        step,
        network,
        process,
        batch,
        steps=steps,
        generator=generator,
        mask=mask,
        guidance=guidance,
        callback=callback,
        start=start,
        initial=initial,
    )


@torch.inference_mode()
def ddim(network, process, batch, *, steps, generator, mask=None, guidance=(), callback=None, start=1.0, initial=None):
    """Sample deterministically along the probability-flow ODE, first order (DDIM, arXiv 2010.02502)."""
    return ancestral(
        network,
        process,
        batch,
        steps=steps,
        generator=generator,
        mask=mask,
        guidance=guidance,
        callback=callback,
        start=start,
        initial=initial,
        eta=0.0,
    )


@torch.inference_mode()
def euler_maruyama(
    network, process, batch, *, steps, generator, mask=None, guidance=(), callback=None, start=1.0, initial=None
) -> Batch:
    """Sample the reverse SDE by Euler-Maruyama (Ronne et al. 2024, eq. 2)."""

    def step(x, k, t, s):
        pred = _predict(network, process, x, t)
        return process.sde_step(x, pred, t, s, generator), process.to_x0(x, pred, t)

    return _run(
        step,
        network,
        process,
        batch,
        steps=steps,
        generator=generator,
        mask=mask,
        guidance=guidance,
        callback=callback,
        start=start,
        initial=initial,
    )


@torch.inference_mode()
def heun(network, process, batch, *, steps, generator, mask=None, guidance=(), callback=None, start=1.0, initial=None):
    """Sample the probability-flow ODE to second order, two calls a step (Karras et al., arXiv 2206.00364, alg. 1)."""

    def step(x, k, t, s):
        pred = _predict(network, process, x, t)
        x0 = process.to_x0(x, pred, t)
        ahead = _keep(process.reverse(x, pred, t, s, generator, 0.0), batch, mask)
        if s is None:
            return ahead, x0
        again = _predict(network, process, ahead, s)
        mean = process.average_eps(x, pred, t, ahead, again, s)
        return process.reverse(x, mean, t, s, generator, 0.0), x0

    return _run(
        step,
        network,
        process,
        batch,
        steps=steps,
        generator=generator,
        mask=mask,
        guidance=guidance,
        callback=callback,
        start=start,
        initial=initial,
    )


@torch.inference_mode()
def dpmpp_2m(
    network, process, batch, *, steps, generator, mask=None, guidance=(), callback=None, start=1.0, initial=None
) -> Batch:
    """Sample with DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2): second order at one call a step."""
    last: dict = {}

    def step(x, k, t, s):
        pred = _predict(network, process, x, t)
        x0 = process.to_x0(x, pred, t)
        use, level = pred, process.c_noise(t)  # lambda = log(alpha / sigma) = -4 level
        if last and s is not None:
            factor = ((process.c_noise(s) - level) / (level - last['level']) / 2)[:1]  # h / (2 h_last)
            slope = process.difference(x, x0, last['x0'])
            ahead = {name: x0[name] + factor.to(x0[name].dtype) * slope[name] for name in slope}
            use = {**pred, **process.from_x0(x, {**x0, **ahead}, t)}
        last.update(x0=x0, level=level)
        return process.reverse(x, use, t, s, generator, 0.0), x0

    return _run(
        step,
        network,
        process,
        batch,
        steps=steps,
        generator=generator,
        mask=mask,
        guidance=guidance,
        callback=callback,
        start=start,
        initial=initial,
    )


@torch.inference_mode()
def predictor_corrector(
    network, process, batch, *, steps, generator, mask=None, guidance=(), callback=None, start=1.0, initial=None, corrector=0.04
) -> Batch:
    """Sample by one Langevin step, then one ancestral step (Song et al., arXiv 2011.13456, alg. 2; DiffCSP, alg. 3).

    Fields on a torus are corrected, two network calls a step; where there is none this is :func:`ancestral`. A Langevin step
    has the length ``corrector`` sigma^2, gamma / sigma_1^2 in DiffCSP: 0.04 Perov-5, 0.4 Carbon-24, 0.2 MP-20.
    """

    def step(x, k, t, s):
        if corrector and process.langevin and s is not None:
            pred = _predict(network, process, x, t)
            x = _keep(process.correct(x, pred, t, corrector, generator), batch, mask)
        pred = _predict(network, process, x, t)
        return process.reverse(x, pred, t, s, generator, 1.0), process.to_x0(x, pred, t)

    return _run(
        step,
        network,
        process,
        batch,
        steps=steps,
        generator=generator,
        mask=mask,
        guidance=guidance,
        callback=callback,
        start=start,
        initial=initial,
    )


@torch.inference_mode()
def renoised_ancestral(
    network,
    process,
    batch,
    *,
    steps,
    generator,
    mask=None,
    guidance=(),
    callback=None,
    start=1.0,
    initial=None,
    focus=(0.5, 0.15, 0.9),
) -> Batch:
    """Sample by ancestral steps, before each of which the estimate of the clean data is noised to the same time again.

    A second opinion at every time: what the network got wrong is not carried along, at two calls a step. Noising a *sample* of
    p(x_0 | x_t) would keep the distribution of the time; its mean, which the network gives, keeps it where the data are narrow
    beside the noise, as relaxed crystals are, and else narrows it, by a quarter of the variance at the most (a Gaussian as wide
    as the noise). So this finds the minima more often than it shows how they are spread: :func:`predictor_corrector` and
    :func:`ancestral` show that. ``focus`` makes the time points dense, see :func:`focused`, where atoms find their places.
    """

    def step(x, k, t, s):
        pred = _predict(network, process, x, t)
        if s is not None:
            x = _keep(process.renoise_x0(x, pred, t, generator), batch, mask)
            pred = _predict(network, process, x, t)
        return process.reverse(x, pred, t, s, generator, 1.0), process.to_x0(x, pred, t)

    return _run(
        step,
        network,
        process,
        batch,
        steps=steps,
        generator=generator,
        mask=mask,
        guidance=guidance,
        callback=callback,
        start=start,
        initial=initial,
        focus=focus,
    )


SAMPLERS = {
    'renoised_ancestral': renoised_ancestral,
    'predictor_corrector': predictor_corrector,
    'ancestral': ancestral,
    'euler_maruyama': euler_maruyama,
    'ddim': ddim,
    'heun': heun,
    'dpmpp_2m': dpmpp_2m,
}
TWO_CALLS = ('renoised_ancestral', 'predictor_corrector', 'heun')  # network calls a step, others one
