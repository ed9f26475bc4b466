"""The processes against explicit sums, scipy and each other; schedules; what JSON keeps."""

import json
import math

import exact_denoisers as exact
import numpy as np
import pytest
import scipy.stats
import torch

from ase_diffusion.diffusion import (
    CosineVP,
    Gaussian,
    GeometricVE,
    GeometricVP,
    Interval,
    JointProcess,
    LinearVP,
    NoiseStream,
    Preconditioned,
    ProductProcess,
    Torus,
    TruncatedNormal,
    WrappedNormal,
)
from ase_diffusion.diffusion.joint import process_from_dict

SCORE_TOL = 1e-5
PROCESSES = [
    Gaussian(LinearVP()),
    Gaussian(CosineVP()),
    Preconditioned(GeometricVP(0.02, 8.0)),
    WrappedNormal(GeometricVE(0.03, 7.0)),
    TruncatedNormal(GeometricVE(0.03, 7.0)),
    ProductProcess([((0, 2), WrappedNormal(GeometricVE())), ((2, 3), TruncatedNormal(GeometricVE()))]),
]


def stream(seed=0):
    return NoiseStream(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('sigma', [0.05, 0.4, 1.5, 4.0])
def test_mean_unwrapped_noise_is_the_score_of_the_wrapped_normal(sigma):
    fractional = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = (fractional @ exact.CELL).requires_grad_()
    log_density = exact.log_wrapped(x, exact.CENTRE, sigma)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    assert torch.allclose(exact.wrapped_noise(x, exact.CENTRE, sigma), -sigma * score, atol=SCORE_TOL, rtol=SCORE_TOL)


@pytest.mark.parametrize('sigma', [0.4, 1.5, 3.0])
def test_targets_of_the_wrapped_normal_have_that_mean(sigma):
    """E[(target + sigma score(x_t)) g(x_t)] = 0 for every g: regression gives the score of the wrapped density."""
    n, process = 40_000, WrappedNormal(GeometricVE(0.02, 8.0))
    domain = Torus(exact.CELL.expand(n, 2, 2))
    t = torch.full((n,), process.schedule.time(sigma), dtype=torch.float64)
    xt, target = process.add_noise(exact.CENTRE.expand(n, 2), t, stream(), domain)
    rest = target - exact.wrapped_noise(xt, exact.CENTRE, sigma)
    phase = 2 * math.pi * domain._fractional(xt)
    for wave in (torch.ones(n, 2), torch.cos(phase), torch.sin(phase), torch.cos(2 * phase)):
        for axis in range(2):
            assert (rest * wave[:, axis, None]).mean(0).abs().max() < 4 / math.sqrt(n)


def test_the_wrapped_score_vanishes_and_the_density_is_uniform_at_large_sigma():
    length = 3.0
    cell = torch.eye(2, dtype=torch.float64) * length
    grid = torch.stack([torch.linspace(0, length, 401, dtype=torch.float64)[:-1], torch.zeros(400)], -1)

    def distance_from_uniform(sigma):
        density = torch.exp(exact.log_wrapped(grid, torch.zeros(2, dtype=torch.float64), sigma, cell))
        return float((density / density.mean() - 1).abs().mean() / 2)  # total variation

    assert distance_from_uniform(0.48 * length) < 0.01 < distance_from_uniform(0.44 * length)
    sizes = [
        float(exact.wrapped_noise(grid, torch.zeros(2, dtype=torch.float64), f * length, cell).abs().max())
        for f in (0.1, 0.3, 0.48, 0.8)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.07 and sizes[3] < 1e-3


def test_wrapped_points_lie_in_the_cell_and_differences_are_nearest_images():
    domain = Torus(exact.CELL.expand(200, 2, 2))
    x = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 20
    wrapped = domain.confine(x)
    fractional = domain._fractional(wrapped)
    assert (fractional >= 0).all() and (fractional < 1).all()
    whole = domain._fractional(x - wrapped)
    assert torch.allclose(whole, whole.round(), atol=1e-9)
    assert torch.allclose(domain.difference(wrapped, x), torch.zeros_like(x), atol=1e-9)


@pytest.mark.parametrize(
    ('mean', 'std', 'low', 'high'),
    [
        (0.3, 0.5, 0.0, 1.0),
        (5.0, 0.5, 0.0, 1.0),
        (-6.0, 0.3, -0.5, 4.0),
        (0.5, 100.0, 0.0, 1.0),
        (0.999, 1e-3, 0.0, 1.0),
        (20.0, 1.0, 0.0, 1.0),
    ],
    ids=['inside', 'far above', 'far below', 'wide', 'at the edge', 'twenty sigma'],
)
def test_truncated_normal_agrees_with_scipy(mean, std, low, high):
    n = 4000
    columns = [torch.full((n, 1), value, dtype=torch.float64) for value in (mean, std, low, high)]
    x = Interval(*columns[2:]).normal(columns[0], columns[1], stream()).squeeze(1).numpy()
    assert ((low <= x) & (x <= high)).all()
    exact_law = scipy.stats.truncnorm((low - mean) / std, (high - mean) / std, loc=mean, scale=std)
    assert scipy.stats.kstest(x, exact_law.cdf).pvalue > 1e-3


def test_a_window_out_of_reach_gives_its_nearest_end():
    one = torch.ones(5, 1)
    domain = Interval(0 * one, one)
    assert torch.equal(domain.normal(1e4 * one, 0.01 * one, stream()), one)
    assert torch.equal(domain.normal(-1e4 * one, 0.01 * one, stream()), 0 * one)


@pytest.mark.parametrize('mean', [0.5, 0.02, 3.0, -2.0])
def test_transport_keeps_the_quantile(mean):
    x = torch.linspace(0.001, 0.999, 57, dtype=torch.float64)[:, None]
    full = torch.full_like
    domain = Interval(torch.zeros_like(x), torch.ones_like(x))
    new = domain.transport(x, full(x, mean), full(x, 0.7), full(x, 0.3))

    def law(std):
        return scipy.stats.truncnorm(-mean / std, (1 - mean) / std, loc=mean, scale=std)

    assert np.allclose(law(0.7).cdf(x.numpy()), law(0.3).cdf(new.numpy()), atol=1e-9)


def test_transport_in_a_wide_window_is_that_of_free_space():
    x = torch.linspace(-30, 30, 61, dtype=torch.float64)[:, None]  # up to 30 sigma: quantiles underflow
    ends = [torch.full_like(x, end) for end in (-1e6, 1e6)]
    new = Interval(*ends).transport(x, torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 0.25))
    assert torch.allclose(new, 0.25 * x, rtol=1e-6)


@pytest.mark.parametrize(
    'schedule', [GeometricVE(0.02, 8.0), GeometricVP(0.02, 8.0), LinearVP(), LinearVP(0.01, 3.0), CosineVP()], ids=str
)
def test_schedules_go_from_data_to_noise(schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    level = schedule.c_noise(t)
    assert (level.diff() > 0).all() and torch.isfinite(level).all()
    assert (schedule.sigma(t) > 0).all() and (schedule.alpha(t) > 0).all()
    if type(schedule) is not GeometricVE:
        assert torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t))


def test_geometric_schedule_inverts_and_refuses_nonsense():
    schedule = GeometricVE(0.02, 8.0)
    assert float(schedule.sigma(torch.tensor(schedule.time(0.5)))) == pytest.approx(0.5, rel=1e-6)
    assert schedule.time(1e-9) == 0 and schedule.time(1e9) == 1
    with pytest.raises(ValueError, match='sigma_min < sigma_max'):
        GeometricVE(1.0, 0.5)


@pytest.mark.parametrize('process', PROCESSES, ids=lambda p: type(p).__name__)
def test_noise_x0_and_eps_are_inverse(process):
    n, columns = 64, 3 if isinstance(process, ProductProcess) else 2
    ends = [torch.full((n, 1), end, dtype=torch.float64) for end in (0.0, 50.0)]
    torus = Torus(100 * torch.eye(2, dtype=torch.float64).expand(n, 2, 2))
    domain = {'ProductProcess': (torus, Interval(*ends)), 'WrappedNormal': torus, 'TruncatedNormal': Interval(*ends)}.get(
        type(process).__name__
    )
    columns = 1 if isinstance(process, TruncatedNormal) else columns
    x0 = torch.full((n, columns), 25.0, dtype=torch.float64)
    t = torch.linspace(0, 0.6, n, dtype=torch.float64)
    xt, target = process.add_noise(x0, t, stream(), domain)
    assert torch.allclose(process.to_x0(xt, target, t), x0)
    assert torch.allclose(process.from_x0(xt, x0, t), target)
    assert torch.equal(process.loss(target, target, t), torch.zeros(n, dtype=torch.float64))
    assert process.loss(target + 2, target, t).tolist() == pytest.approx([4.0] * n)
    assert torch.allclose(process.reverse(xt, target, t, None, None, domain, 0.0), x0)


@pytest.mark.parametrize('process', PROCESSES, ids=lambda p: type(p).__name__)
def test_joint_process_survives_json(process):
    joint = JointProcess({'a': process, 'b': Gaussian(LinearVP(0.2, 9.0))}, weights={'b': 0.5})
    again = JointProcess.fromdict(json.loads(json.dumps(joint.todict())))
    assert again.todict() == joint.todict()
    t = torch.rand(5)
    assert torch.equal(again.c_noise(t), joint.c_noise(t))
    assert again.weights == {'a': 1.0, 'b': 0.5}


def test_estimates_are_no_longer_than_the_longest_clean_vector():
    free, limited = Gaussian(CosineVP()), Gaussian(CosineVP(), limit=5.0)
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    gen = torch.Generator().manual_seed(0)
    x0 = torch.randn(50, 3, 3, dtype=torch.float64, generator=gen)
    xt, eps = free.add_noise(x0, t, stream())
    assert torch.allclose(limited.to_x0(xt, eps, t), x0)  # what is in reach stays
    assert torch.allclose(limited.reverse(xt, eps, t, t / 2, None, eta=0.0), free.reverse(xt, eps, t, t / 2, None, eta=0.0))
    wrong = limited.to_x0(xt, -eps, t)
    assert wrong.norm(dim=-1).max() == pytest.approx(5.0)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=gen))
    assert torch.allclose(limited.to_x0(xt @ turn, -eps @ turn, t), wrong @ turn)
    last = torch.ones(50, dtype=torch.float64)
    assert limited.reverse(xt, -eps, last, last / 2, None, eta=0.0).abs().max() < 20
    assert free.reverse(xt, -eps, last, last / 2, None, eta=0.0).abs().max() > 200
    assert Gaussian.fromdict(limited.todict()).limit == 5.0
    assert Gaussian.fromdict(free.todict()).limit is None and 'limit' not in free.todict()


def test_only_known_processes_are_rebuilt():
    with pytest.raises(ValueError, match='unknown process .*os.system.*known'):
        process_from_dict({'name': 'os.system', 'schedule': {'name': 'LinearVP'}})
    with pytest.raises(ValueError, match='unknown schedule .*eval.*known'):
        process_from_dict({'name': 'Gaussian', 'schedule': {'name': 'eval'}})
    with pytest.raises(ValueError, match='unknown fields .*nothing'):
        JointProcess({'a': Gaussian(LinearVP())}, weights={'nothing': 1.0})


def test_joint_loss_weighs_fields_and_averages_rows():
    batch = exact.free_batch(3)
    batch.rows[exact.FIELD] = torch.tensor([0, 0, 2])  # structure 1 has no rows
    joint = JointProcess({exact.FIELD: Gaussian(LinearVP())}, weights={exact.FIELD: 3.0})
    zero = torch.zeros(3, 2, dtype=torch.float64)
    error = torch.tensor([[1.0, 1.0], [3.0, 3.0], [2.0, 2.0]], dtype=torch.float64)
    loss = joint.loss(batch, {exact.FIELD: error}, {exact.FIELD: zero}, torch.rand(3))
    assert loss.tolist() == [15.0, 0.0, 12.0]
