"""With the exact score in place of a network every sampler returns the data distribution, at its order."""

import math

import exact_denoisers as exact
import pytest
import torch

from ase_diffusion.diffusion import (
    SAMPLERS,
    Batch,
    Categorical,
    CosineVP,
    Gaussian,
    GeometricVE,
    GeometricVP,
    JointProcess,
    LinearVP,
    NoiseStream,
    Preconditioned,
    TimeDensity,
    TruncatedNormal,
    WrappedNormal,
)

SCHEDULES = {'geometric': GeometricVE(0.02, 8.0), 'linear': LinearVP(), 'cosine': CosineVP()}
FREE = {  # process in free space, exact network
    **{name: (Gaussian(schedule), exact.GaussianNoise(schedule)) for name, schedule in SCHEDULES.items()},
    'geometric vp': (Gaussian(GeometricVP(0.01, 20.0)), exact.GaussianNoise(GeometricVP(0.01, 20.0))),
    **{
        f'v, {name}': (Preconditioned(schedule), exact.GaussianVelocity(schedule))
        for name, schedule in (('geometric', GeometricVP(0.01, 20.0)), ('linear', LinearVP()), ('cosine', CosineVP()))
    },
}
SAMPLES = 4000
MEAN_TOL, STD_TOL = 0.03, 0.06  # Monte Carlo noise is 0.008 and 1.1 %; the rest is the finite number of steps
DETERMINISTIC = {'ddim': 1, 'heun': 2, 'dpmpp_2m': 2}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('case', SCHEDULES)
@pytest.mark.parametrize('sampler', exact.EXACT_SAMPLERS)
def test_moments_of_a_gaussian(sampler, case):
    process, network = FREE[case]
    out = SAMPLERS[sampler](network, exact.single(process), exact.free_batch(SAMPLES), steps=200, generator=generator())
    x = out.fields[exact.FIELD]
    # deterministic samplers start from N(0, sigma_max^2), not from N(mean, ...): that moves the mean by little
    assert x.mean(0).tolist() == pytest.approx([exact.MEAN] * 2, abs=0.1)
    assert x.std(0).tolist() == pytest.approx([exact.WIDTH] * 2, rel=STD_TOL)


@pytest.mark.parametrize('case', FREE)
@pytest.mark.parametrize('sampler', exact.EXACT_SAMPLERS)
def test_moments_of_a_gaussian_on_a_dense_field(sampler, case):
    """Every element of an image (2, 4, 4) on its own, and no correlation between elements."""
    process, network = FREE[case]
    batch = exact.free_batch(300, shape=exact.DENSE)
    x = SAMPLERS[sampler](network, exact.single(process), batch, steps=150, generator=generator()).fields[exact.FIELD]
    assert x.shape == (300, *exact.DENSE)
    x = x.flatten(1)
    assert float(x.mean()) == pytest.approx(exact.MEAN, abs=0.1) and float(x.std()) == pytest.approx(exact.WIDTH, rel=0.06)
    assert float((x.mean(0) - x.mean()).abs().max()) < 0.12  # Monte Carlo: 0.03 for each of 32
    assert x.std(0).tolist() == pytest.approx([float(x.std())] * 32, rel=0.18)  # 0.04
    others = torch.corrcoef(x.T) - torch.eye(32, dtype=torch.float64)
    assert float(others.abs().max()) < 0.25  # 0.06


@pytest.mark.parametrize('case', FREE)
@pytest.mark.parametrize('sampler', ['ancestral', 'dpmpp_2m'])
def test_data_noised_partly_and_denoised_keep_their_distribution(sampler, case):
    """From the time at which the noise is 0.8 of the signal, by any schedule; every image stays near its own beginning."""
    process, network = FREE[case]
    joint, start = exact.single(process), process.schedule.time(0.8)
    clean = exact.MEAN + exact.WIDTH * torch.randn(400, *exact.DENSE, dtype=torch.float64, generator=generator(1))
    batch = Batch.dense(exact.FIELD, clean)
    noised, _ = joint.add_noise(batch, torch.full((400,), start, dtype=torch.float64), generator(2))
    out = SAMPLERS[sampler](network, joint, batch, steps=60, generator=generator(), start=start, initial=noised)
    x = out.fields[exact.FIELD]
    assert float(x.mean()) == pytest.approx(exact.MEAN, abs=0.02) and float(x.std()) == pytest.approx(exact.WIDTH, rel=0.06)
    share = exact.WIDTH**2 / (exact.WIDTH**2 + 0.8**2)  # of the variance of x_t / alpha
    expected = {'ancestral': share, 'dpmpp_2m': share**0.5}[sampler]  # fresh noise on the way or none
    assert float(torch.corrcoef(torch.stack([x.flatten(), clean.flatten()]))[0, 1]) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize('sampler', exact.EXACT_SAMPLERS)
def test_moments_of_a_wrapped_normal(sampler):
    process = exact.single(WrappedNormal(GeometricVE(0.02, 4.0)))
    batch = exact.torus_batch(1000)
    out = SAMPLERS[sampler](exact.torus_noise, process, batch, steps=60, generator=generator())
    domain, x = batch.domains[exact.FIELD], out.fields[exact.FIELD]
    fractional = domain._fractional(x)
    assert fractional.min() >= 0 and fractional.max() <= 1
    d = domain.difference(x, exact.CENTRE)
    assert d.mean(0).abs().max() < 0.06  # Monte Carlo: 0.013 to three standard deviations 0.04
    assert d.std(0).tolist() == pytest.approx([exact.SPREAD] * 2, rel=0.1)


@pytest.mark.parametrize('start', [(2.7, 0.35), (0.9, 0.25)], ids=['middle', 'at the lower end'])
@pytest.mark.parametrize('sampler', exact.EXACT_SAMPLERS)
def test_moments_in_a_window(sampler, start):
    """Also where sigma_max is much wider than the window: nothing may draw the atoms together or push them out.

    Close to an end the stochastic samplers keep 0.04 A of distance, with any number of steps: the truncated kernel is
    not that of a diffusion, so that its reverse is not exact while sigma is comparable to the window.
    """
    network = exact.WindowNoise(*start)
    process = exact.single(TruncatedNormal(GeometricVE(0.02, 8.0)))
    seen = []
    out = SAMPLERS[sampler](
        network,
        process,
        exact.window_batch(1000),
        steps=60,
        generator=generator(),
        callback=lambda k, t, batch, x0: seen.append(batch.fields[exact.FIELD]),
    )
    z = out.fields[exact.FIELD]
    assert len(seen) == 60
    assert all(((x >= exact.LOW) & (x <= exact.HIGH)).all() for x in seen)
    assert float(z.mean()) == pytest.approx(network.mean, abs=0.07)
    assert float(z.std()) == pytest.approx(network.std, rel=0.12)


@pytest.mark.parametrize('sampler', DETERMINISTIC)
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_deterministic_samplers_converge_at_their_order(sampler, schedule):
    """The probability-flow ODE of a Gaussian scales x - alpha MEAN with the width of the marginal."""
    schedule = SCHEDULES[schedule]
    ends = torch.tensor([0.0, 0.7], dtype=torch.float64)
    (alpha0, alpha), (sigma0, sigma) = schedule.alpha(ends), schedule.sigma(ends)
    batch = exact.free_batch(1)
    initial = batch.with_fields(**{exact.FIELD: torch.tensor([[3.0, -1.0]], dtype=torch.float64)})
    width0, width = (torch.sqrt(s**2 + (a * exact.WIDTH) ** 2) for s, a in ((sigma0, alpha0), (sigma, alpha)))
    last = alpha0 * exact.MEAN + (initial.fields[exact.FIELD] - alpha * exact.MEAN) * width0 / width
    clean = exact.MEAN + alpha0 * exact.WIDTH**2 / width0**2 * (last - alpha0 * exact.MEAN)  # the step to clean data
    network, process = exact.GaussianNoise(schedule), exact.single(Gaussian(schedule))
    errors = []
    for steps in (81, 161):
        out = SAMPLERS[sampler](network, process, batch, steps=steps, generator=None, start=0.7, initial=initial)
        errors.append(float((out.fields[exact.FIELD] - clean).abs().max()))
    order = math.log2(errors[0] / errors[1])
    assert order > DETERMINISTIC[sampler] - 0.25
    assert errors[1] < (0.05 if DETERMINISTIC[sampler] == 1 else 0.01)


@pytest.mark.parametrize('sampler', DETERMINISTIC)
def test_deterministic_samplers_draw_no_noise(sampler):
    batch = exact.torus_batch(5)
    start = batch.with_fields(**{exact.FIELD: torch.rand(5, 2, dtype=torch.float64, generator=generator())})
    process = exact.single(WrappedNormal(GeometricVE(0.02, 4.0)))
    source = generator(3)
    before = source.get_state()
    SAMPLERS[sampler](exact.torus_noise, process, batch, steps=4, generator=source, initial=start)
    assert torch.equal(source.get_state(), before)


def mirror_noise(box, data):
    """Mean noise given x_t for one point in a box (a, b) that is periodic along a and ends in mirrors along b."""
    doubled = torch.diag(torch.tensor([box[0], 2 * box[1]], dtype=torch.float64))
    centres = [data, data * torch.tensor([1.0, -1.0])]

    def network(state, level, conditions):
        sigma, x = float(torch.exp(4 * level[0])), state.fields[exact.FIELD]
        logs = torch.stack([exact.log_wrapped(x, c, sigma, doubled) for c in centres], -1)  # (n, 2)
        noises = torch.stack([exact.wrapped_noise(x, c, sigma, doubled) for c in centres], -1)  # (n, 2, 2)
        return {exact.FIELD: (noises * torch.softmax(logs, -1)[:, None]).sum(-1)}

    return network


def test_a_direction_that_is_not_periodic_ends_in_mirrors():
    """Deterministic sampling arrives at the data, and the targets of training have the mean that the score demands."""
    n, data = 4000, torch.tensor([1.0, 0.2], dtype=torch.float64)  # close to the mirror at 0
    batch = exact.torus_batch(n, (True, False), torch.diag(torch.tensor([4.0, 3.0], dtype=torch.float64)))
    domain, network = batch.domains[exact.FIELD], mirror_noise((4.0, 3.0), data)
    process = WrappedNormal(GeometricVE(0.02, 4.0))
    few = exact.torus_batch(200, (True, False), domain.cell[0])
    out = SAMPLERS['heun'](network, exact.single(process), few, steps=60, generator=generator())
    assert few.domains[exact.FIELD].difference(out.fields[exact.FIELD], data).abs().max() < 0.05

    sigma = 1.5
    t = torch.full((n,), process.schedule.time(sigma), dtype=torch.float64)
    xt, target = process.add_noise(data.expand(n, 2), t, NoiseStream(generator()), domain)
    state = batch.with_fields(**{exact.FIELD: xt})
    expected = network(state, torch.full((1,), math.log(sigma) / 4, dtype=torch.float64), {})[exact.FIELD]
    for k in (1, 2):
        wave = torch.cos(xt[:, 1] * k * math.pi / 3.0)
        assert abs(float(((target - expected)[:, 1] * wave).mean())) < 4 / math.sqrt(n)
        assert abs(float(((target - expected)[:, 1] * torch.sin(wave)).mean())) < 4 / math.sqrt(n)


# renoised_ancestral


@pytest.mark.parametrize('ratio', [0.01, 1.0, 3.0])
def test_noising_the_estimate_again_narrows_a_gaussian_by_the_formula(ratio):
    """From variance v + s^2 to v^2 / (v + s^2) + s^2, s = sigma / alpha: unchanged for points, 3/4 of it where v = s^2."""
    schedule, n, t = GeometricVE(0.02, 8.0), 40_000, torch.full((40_000,), 0.5, dtype=torch.float64)
    sigma = float(schedule.sigma(t[0]))
    v = (ratio * sigma) ** 2
    process, batch = exact.single(Gaussian(schedule)), exact.free_batch(n)
    x = math.sqrt(v + sigma**2) * torch.randn(n, 2, dtype=torch.float64, generator=generator())
    noise = x * sigma / (v + sigma**2)  # E[eps | x] of a Gaussian around 0
    out = process.renoise_x0(batch.with_fields(**{exact.FIELD: x}), {exact.FIELD: noise}, t, generator(1)).fields[exact.FIELD]
    assert float(out.var()) == pytest.approx(v**2 / (v + sigma**2) + sigma**2, rel=0.02)
    assert float((out * x).mean()) == pytest.approx(v, rel=0.05, abs=0.02 * sigma**2)  # what is left of x is its estimate


@pytest.mark.parametrize('case', FREE)
def test_renoising_keeps_the_mean_of_a_dense_field_and_narrows_it(case):
    process, network = FREE[case]
    batch = exact.free_batch(300, shape=exact.DENSE)
    x = SAMPLERS['renoised_ancestral'](network, exact.single(process), batch, steps=60, generator=generator()).fields[exact.FIELD]
    assert float(x.mean()) == pytest.approx(exact.MEAN, abs=0.1)
    assert 0.05 * exact.WIDTH < float(x.std()) < exact.WIDTH


@pytest.mark.parametrize('shape', [(2,), exact.DENSE], ids=['flat', 'dense'])
def test_resampling_of_points_returns_them(shape):
    """Two points (or images) of different weight: both are found, in their shares."""
    schedule, n, shift = GeometricVE(0.02, 8.0 if shape == (2,) else 30.0), 4000 if shape == (2,) else 1000, math.log(0.7 / 0.3)

    def network(state, level, conditions):
        x, sigma = state.fields[exact.FIELD], float(torch.exp(4 * level[0]))
        first = torch.sigmoid(shift - ((x - 1).square() - (x + 1).square()).flatten(1).sum(-1) / (2 * sigma**2))
        return {exact.FIELD: (x - (2 * first - 1).reshape(-1, *[1] * len(shape))) / sigma}

    out = SAMPLERS['renoised_ancestral'](
        network, exact.single(Gaussian(schedule)), exact.free_batch(n, shape=shape), steps=60, generator=generator()
    )
    x = out.fields[exact.FIELD].flatten(1)
    assert (x.abs() - 1).abs().max() < 1e-3 and (x.sign() == x[:, :1].sign()).all()
    assert float((x[:, 0] > 0).double().mean()) == pytest.approx(0.7, abs=0.1)


def test_resampling_keeps_categories_and_what_is_given():
    process, batch = exact.single(WrappedNormal(GeometricVE(0.02, 4.0))), exact.torus_batch(6)
    kept = {exact.FIELD: torch.arange(6) < 3}
    out = SAMPLERS['renoised_ancestral'](exact.torus_noise, process, batch, steps=5, generator=generator(), mask=kept)
    assert torch.equal(out.fields[exact.FIELD][:3], batch.fields[exact.FIELD][:3])
    assert (out.fields[exact.FIELD][3:] != batch.fields[exact.FIELD][3:]).all()
    joint = JointProcess({'species': Categorical(CosineVP(), 4)})
    species = Batch({'species': torch.tensor([0, 3, 2])}, {'species': torch.tensor([0, 0, 1])}, 2)
    same = joint.renoise_x0(species, {'species': torch.randn(3, 4)}, torch.full((2,), 0.5), generator())
    assert torch.equal(same.fields['species'], species.fields['species'])


def test_times_of_a_density_begin_and_end_where_uniform_ones_do():
    u = torch.linspace(1.0, 0.0, 101, dtype=torch.float64)
    density = TimeDensity(0.5, 0.15, 0.9)
    for end in (1.0, 0.4):
        t = density.times(u, end)
        assert float(t[0]) == pytest.approx(end) and float(t[-1]) == pytest.approx(0.0, abs=1e-9)
        assert (t.diff() < 0).all()
    assert ((density.times(u) > 0.35) & (density.times(u) < 0.65)).double().mean() == pytest.approx(
        0.9 * 0.6835 + 0.1 * 0.3, abs=0.02
    )
    assert torch.allclose(TimeDensity(0.5, 0.15, 0.0).times(u), u)
    assert torch.allclose(TimeDensity(0.9, 0.01, 1.0).times(u, 0.1), 0.1 * u)  # where the normal distribution is nowhere near


def test_a_density_is_read_from_tuples_and_tables():
    density = TimeDensity(0.5, 0.15, 0.9)
    assert TimeDensity.of((0.5, 0.15, 0.9)) == TimeDensity.of([0.5, 0.15, 0.9]) == TimeDensity.of(density.todict()) == density
    assert TimeDensity.of(density) is density and TimeDensity.of(None) is None
    for wrong in ((0.5, 0.0, 0.9), (0.5, 0.1, 1.1), (0.5,), 'dense', 3, (0.5, 'x', 1.0), (float('nan'), 1, 1), {'mean': 1}):
        with pytest.raises(ValueError, match='time density'):
            TimeDensity.of(wrong)
