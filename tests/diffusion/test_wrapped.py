"""The wrapped normal on fractional coordinates: its score, the scale of its target, and sampling with the exact score."""

import math

import exact_denoisers as exact
import pytest
import torch

from ase_diffusion.diffusion import (
    SAMPLERS,
    Batch,
    CosineVP,
    Gaussian,
    GeometricVE,
    JointProcess,
    NoiseStream,
    UnitTorus,
    WrappedNormal,
    WrappedScore,
)
from ase_diffusion.diffusion.wrapped import wrapped_noise, wrapped_scale

SCHEDULE = GeometricVE(0.005, 0.5)
SCORE_TOL = 1e-5
CENTRE, SPREAD = torch.tensor([0.02, 0.6], dtype=torch.float64), 0.1


def log_density(d, sigma):
    """Logarithm of the explicit sum over 41 images, without its normaliser."""
    images = torch.arange(-20, 21, dtype=torch.float64)
    return torch.logsumexp(-0.5 * ((d[..., None] + images) / sigma) ** 2, -1)


@pytest.mark.parametrize('sigma', [0.005, 0.05, 0.2, 0.5, 0.8])
def test_the_score_is_that_of_the_explicit_sum(sigma):
    d = torch.linspace(-1.3, 1.7, 101, dtype=torch.float64).requires_grad_()
    (score,) = torch.autograd.grad(log_density(d, sigma).sum(), d)
    assert torch.allclose(wrapped_noise(d, torch.full_like(d, sigma)), -sigma * score, atol=SCORE_TOL, rtol=SCORE_TOL)


@pytest.mark.parametrize('sigma', [0.01, 0.085, 0.2, 0.37, 0.5, 0.7])
def test_the_scale_is_the_size_of_the_score(sigma):
    n = 200_000
    shift = sigma * torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    size = wrapped_noise(shift, torch.full_like(shift, sigma)).square().mean().sqrt()
    assert float(wrapped_scale(torch.tensor(sigma, dtype=torch.float64))) == pytest.approx(float(size), rel=0.01)


def test_the_score_is_small_at_large_sigma():
    d = torch.linspace(0, 1, 101, dtype=torch.float64)
    sizes = [float(wrapped_noise(d, torch.full_like(d, sigma)).abs().max()) for sigma in (0.1, 0.3, 0.5, 0.8)]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < 0.05 and sizes[3] < 1e-4


@pytest.mark.parametrize('t', [0.0, 0.6, 1.0])
def test_targets_have_unit_size_and_the_mean_of_the_score(t):
    n = 40_000
    process = WrappedScore(SCHEDULE)
    times = torch.full((n,), t, dtype=torch.float64)
    x0 = CENTRE.expand(n, 2)
    xt, target = process.add_noise(x0, times, NoiseStream(torch.Generator().manual_seed(0)))
    assert (xt >= 0).all() and (xt < 1).all()
    assert float(target.square().mean()) == pytest.approx(1.0, abs=0.02)
    sigma = SCHEDULE.sigma(times)[:, None]
    assert torch.allclose(target, wrapped_noise(xt - x0, sigma) / wrapped_scale(sigma), atol=1e-7)
    inside = t == 0.0  # no wrapping at small sigma: x_0 comes back from x_t and the target
    if inside:
        assert UnitTorus().difference(process.to_x0(xt, target, times), x0).abs().max() < 1e-12
        assert torch.allclose(process.from_x0(xt, process.to_x0(xt, target, times), times), target, atol=1e-6)


def wrapped_data(batch, level, conditions):
    """The exact prediction for data that is a wrapped normal of width SPREAD around CENTRE."""
    sigma = torch.exp(4 * level.double())[:, None]
    total = torch.sqrt(sigma**2 + SPREAD**2)
    noise = wrapped_noise(batch.fields[exact.FIELD] - CENTRE, total.expand(-1, 2)) * sigma / total
    return {exact.FIELD: noise / wrapped_scale(sigma)}


@pytest.mark.parametrize('sampler', exact.EXACT_SAMPLERS)
def test_every_sampler_returns_the_data_distribution(sampler):
    n = 2000
    batch = Batch({exact.FIELD: torch.zeros(n, 2, dtype=torch.float64)}, {exact.FIELD: torch.arange(n)}, n)
    seen = []
    out = SAMPLERS[sampler](
        wrapped_data,
        exact.single(WrappedScore(SCHEDULE)),
        batch,
        steps=60,
        generator=torch.Generator().manual_seed(0),
        callback=lambda k, t, state, x0: seen.append(state.fields[exact.FIELD]),
    )
    assert all(((x >= 0) & (x < 1)).all() for x in seen)
    d = UnitTorus().difference(out.fields[exact.FIELD], CENTRE.expand(n, 2))
    assert d.mean(0).abs().max() < 0.012  # Monte Carlo: 0.0022 to three standard deviations 0.007
    assert d.std(0).tolist() == pytest.approx([SPREAD] * 2, rel=0.08)


def test_langevin_steps_keep_the_distribution_of_their_time():
    """From x_t of the right distribution many corrector steps lead to the same one, from a wrong one towards it."""
    n, t = 4000, 0.5
    process = WrappedScore(SCHEDULE)
    joint, times = exact.single(process), torch.full((n,), t, dtype=torch.float64)
    total = math.hypot(float(SCHEDULE.sigma(torch.tensor(t, dtype=torch.float64))), SPREAD)
    rows, generator = torch.arange(n), torch.Generator().manual_seed(0)
    for width in (total, 0.3 * total):
        start = CENTRE + width * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        batch = Batch({exact.FIELD: start % 1}, {exact.FIELD: rows}, n)
        for _ in range(120):
            batch = joint.correct(batch, wrapped_data(batch, joint.c_noise(times), {}), times, 0.2, generator)
        d = UnitTorus().difference(batch.fields[exact.FIELD], CENTRE.expand(n, 2))
        assert d.std(0).tolist() == pytest.approx([total] * 2, rel=0.06)


def test_only_fields_on_a_torus_are_corrected():
    joint = JointProcess({'a': Gaussian(CosineVP()), 'b': WrappedScore(SCHEDULE)})
    batch = Batch({k: torch.rand(3, 2) for k in 'ab'}, {k: torch.arange(3) for k in 'ab'}, 3)
    out = joint.correct(batch, {k: torch.zeros(3, 2) for k in 'ab'}, torch.full((3,), 0.5), 0.1, torch.Generator())
    assert torch.equal(out.fields['a'], batch.fields['a'])
    assert (out.fields['b'] != batch.fields['b']).all()
    assert joint.langevin and not exact.single(Gaussian(CosineVP())).langevin
    assert WrappedNormal(GeometricVE()).langevin


def test_a_sigma_without_score_is_refused():
    with pytest.raises(ValueError, match='at most 0.8'):
        WrappedScore(GeometricVE(0.01, 8.0))
