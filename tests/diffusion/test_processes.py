"""The processes against explicit sums, scipy and each other; schedules; what JSON keeps."""

import inspect
import json
import math

import exact_denoisers as exact
import numpy as np
import pytest
import scipy.stats
import torch

from ase_diffusion.diffusion import (
    Categorical,
    CosineVP,
    Gaussian,
    GeometricVE,
    GeometricVP,
    Interval,
    JointProcess,
    LinearVP,
    NoiseStream,
    Preconditioned,
    Process,
    ProductProcess,
    Torus,
    TruncatedNormal,
    WrappedNormal,
    WrappedScore,
)
from ase_diffusion.diffusion.joint import process_from_dict, times
from ase_diffusion.diffusion.schedules import schedule_from_dict

SCORE_TOL = 1e-5
PROCESSES = [
    Gaussian(LinearVP()),
    Gaussian(CosineVP()),
    Preconditioned(GeometricVP(0.02, 8.0)),
    WrappedNormal(GeometricVE(0.03, 7.0)),
    TruncatedNormal(GeometricVE(0.03, 7.0)),
    ProductProcess([((0, 2), WrappedNormal(GeometricVE())), ((2, 3), TruncatedNormal(GeometricVE()))]),
]


SCHEDULES = [GeometricVE(0.02, 8.0), GeometricVP(0.02, 8.0), LinearVP(), LinearVP(0.01, 3.0), CosineVP()]


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


@pytest.mark.parametrize('schedule', SCHEDULES, ids=str)
def test_schedules_go_from_data_to_noise(schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    level = schedule.c_noise(t)
    assert (level.diff() > 0).all() and torch.isfinite(level).all()
    assert (schedule.sigma(t) > 0).all() and (schedule.alpha(t) > 0).all()
    if type(schedule) is not GeometricVE:
        assert torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t))


@pytest.mark.parametrize('schedule', SCHEDULES, ids=str)
def test_the_time_of_a_noise_to_signal_ratio(schedule):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    ratio = schedule.sigma(ends) / schedule.alpha(ends)
    assert [schedule.sigma_min, schedule.sigma_max] == pytest.approx(ratio.tolist())
    for sigma in (2 * schedule.sigma_min, 0.5, 0.9 * schedule.sigma_max):
        t = torch.tensor(schedule.time(sigma), dtype=torch.float64)
        assert float(schedule.sigma(t) / schedule.alpha(t)) == pytest.approx(sigma, rel=1e-9)
    assert schedule.time(1e-9) == 0 and schedule.time(1e9) == 1
    assert schedule_from_dict(schedule.todict()) == schedule


def test_a_geometric_schedule_refuses_nonsense():
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
    free, limited = Gaussian(CosineVP()), Gaussian(CosineVP(), clip_norm=5.0)
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
    assert Gaussian.fromdict(limited.todict()).clip_norm == 5.0
    assert Gaussian.fromdict(free.todict()).clip_norm is None and 'clip_norm' not in free.todict()
    old = {'name': 'Gaussian', 'schedule': CosineVP().todict(), 'limit': 5.0}
    assert Gaussian.fromdict(old).todict() == limited.todict()


@pytest.mark.parametrize('kind', [Gaussian, Preconditioned])
def test_estimates_of_images_are_clipped_element_by_element(kind):
    free, clipped = kind(CosineVP()), kind(CosineVP(), clip_sample=1.0)
    t = torch.linspace(0, 1, 20, dtype=torch.float64)
    image = torch.full((20, *exact.DENSE), 0.9, dtype=torch.float64)
    xt, target = free.add_noise(image, t, stream())
    assert torch.allclose(clipped.to_x0(xt, target, t), image)  # clip_norm=1 would leave 0.45 of it
    assert torch.allclose(clipped.to_eps(xt, target, t), free.to_eps(xt, target, t))
    assert torch.allclose(clipped.reverse(xt, target, t, t / 2, None, eta=0.0), free.reverse(xt, target, t, t / 2, None, eta=0.0))
    wrong = clipped.to_x0(xt, target + 3, t)
    assert wrong.abs().max() == 1 and torch.equal(wrong, free.to_x0(xt, target + 3, t).clamp(-1, 1))
    alpha, sigma = clipped.scales(t, xt)
    assert torch.allclose(alpha * wrong + sigma * clipped.to_eps(xt, target + 3, t), xt)
    again = process_from_dict(json.loads(json.dumps(clipped.todict())))
    assert type(again) is kind and again.clip_sample == 1.0 and again.clip_norm is None
    assert kind(CosineVP(), clip_norm=2.0).to_x0(xt, target + 99, t).norm(dim=-1).max() == pytest.approx(2.0)


@pytest.mark.parametrize('kind', [Gaussian, Preconditioned, WrappedScore])
@pytest.mark.parametrize('loss', ['mse', 'l1', 'huber'])
def test_losses_are_the_means_over_a_row(kind, loss):
    process = kind(
        GeometricVE(0.01, 0.5) if kind is WrappedScore else CosineVP(), loss=loss, **({'delta': 0.5} if loss == 'huber' else {})
    )
    error = torch.tensor([0.0, 0.2, -0.5, 2.0], dtype=torch.float64).expand(3, 2, 4)
    expected = {
        'mse': error.square(),
        'l1': error.abs(),
        'huber': torch.where(error.abs() < 0.5, error.square(), error.abs() - 0.25),
    }[loss]
    found = process.loss(error + 1, torch.ones_like(error), torch.zeros(3))
    assert torch.allclose(found, expected.mean((1, 2)))
    again = process_from_dict(json.loads(json.dumps(process.todict())))
    assert again.todict() == process.todict() and ('loss' in process.todict()) is (loss != 'mse')
    assert torch.equal(again.loss(error + 1, torch.ones_like(error), torch.zeros(3)), found)


def test_columns_keep_their_own_losses():
    process = ProductProcess([((0, 2), Gaussian(CosineVP(), loss='l1')), ((2, 3), Gaussian(CosineVP()))])
    error = torch.tensor([[1.0, -3.0, 5.0]])
    assert process.loss(error, 0 * error, torch.zeros(1)).tolist() == pytest.approx([(1 + 3 + 25) / 3])


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'loss': 'l2'}, 'mse, l1, huber'),
        ({'delta': 0.0}, 'delta must be positive'),
        ({'clip_norm': -1.0}, 'clip_norm must be positive'),
        ({'clip_sample': 0}, 'clip_sample must be positive'),
        ({'clip_norm': 1.0, 'clip_sample': 1.0}, 'leave one out'),
    ],
)
def test_options_without_sense_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        Gaussian(CosineVP(), **options)


def test_preconditioning_needs_unit_variance():
    with pytest.raises(ValueError, match='variance-preserving.*GeometricVE.*take GeometricVP'):
        Preconditioned(GeometricVE(0.02, 8.0))


@pytest.mark.parametrize('process', [*PROCESSES, Categorical(CosineVP(), 3)], ids=lambda p: type(p).__name__)
def test_every_process_keeps_the_protocol(process):
    """All names are there, with the arguments of the protocol in its order."""
    assert isinstance(process, Process)
    for name, method in vars(Process).items():
        if not name.startswith('_') and inspect.isfunction(method):
            own = inspect.signature(getattr(type(process), name))
            assert list(own.parameters) == list(inspect.signature(method).parameters), name
    if process.discrete:
        with pytest.raises(NotImplementedError, match='Categorical'):
            process.from_eps(None, None, None)


@pytest.mark.parametrize('kind', [Gaussian, Preconditioned, WrappedNormal, WrappedScore, TruncatedNormal])
def test_conversions_are_inverse_also_where_nothing_is_exact(kind):
    process = kind(GeometricVE(0.02, 0.5) if kind not in (Gaussian, Preconditioned) else CosineVP())
    t, (xt, pred) = torch.linspace(0, 1, 40, dtype=torch.float64), torch.randn(2, 40, 3, dtype=torch.float64)
    assert torch.allclose(process.from_eps(xt, process.to_eps(xt, pred, t), t), pred)
    assert torch.allclose(process.from_x0(xt, process.to_x0(xt, pred, t), t), pred)
    alpha, sigma = process.scales(t, xt)
    assert torch.allclose(alpha * process.to_x0(xt, pred, t) + sigma * process.to_eps(xt, pred, t), xt)


@pytest.mark.parametrize('schedule', SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(('s', 't'), [(0.2, 0.9), (0.5, 0.501), (0.0, 1.0), (None, 0.3)])
def test_noise_from_s_to_t_makes_the_marginal_of_t(schedule, s, t):
    """x_s of q(x_s | x_0), noised on to t, has mean alpha_t x_0 and variance sigma_t^2."""
    n, process = 40_000, Gaussian(schedule)
    x0, t = torch.full((n, 1), 2.0, dtype=torch.float64), torch.full((n,), t, dtype=torch.float64)
    s = None if s is None else torch.full((n,), s, dtype=torch.float64)
    xs = x0 if s is None else process.add_noise(x0, s, stream(0))[0]
    xt = process.renoise(xs, s, t, stream(1))
    alpha, sigma = float(schedule.alpha(t[0])), float(schedule.sigma(t[0]))
    assert float(xt.mean()) == pytest.approx(2 * alpha, abs=4 * sigma / n**0.5)
    assert float(xt.std()) == pytest.approx(sigma, rel=0.015)


def test_noise_on_a_torus_and_in_a_window_stays_there():
    n = 500
    torus, window = Torus(exact.CELL.expand(n, 2, 2)), Interval(torch.zeros(n, 1).double(), torch.ones(n, 1).double())
    s, t = torch.full((n,), 0.2, dtype=torch.float64), torch.full((n,), 0.9, dtype=torch.float64)
    x = torch.full((n, 3), 0.4, dtype=torch.float64)
    process = PROCESSES[-1]
    out = process.renoise(x, s, t, stream(), (torus, window))
    assert torch.allclose(torus.confine(out[:, :2]), out[:, :2]) and ((out[:, 2] >= 0) & (out[:, 2] <= 1)).all()
    assert float(out[:, 2].std()) == pytest.approx(12**-0.5, rel=0.1)  # sigma is far above the window


def test_categories_noised_in_two_steps_are_those_of_one():
    n, process = 60_000, Categorical(CosineVP(), 4)
    x0 = torch.full((n,), 2)
    s, t = torch.full((n,), 0.3, dtype=torch.float64), torch.full((n,), 0.6, dtype=torch.float64)
    once = torch.bincount(process.add_noise(x0, t, stream())[0], minlength=4) / n
    twice = torch.bincount(process.renoise(process.add_noise(x0, s, stream(1))[0], s, t, stream(2)), minlength=4) / n
    assert torch.allclose(once, twice, atol=4 / n**0.5)


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


def test_the_clock_is_the_field_whose_schedule_tells_the_noise_level():
    processes = {'a': Gaussian(CosineVP()), 'b': Gaussian(LinearVP())}
    t = torch.rand(5)
    assert torch.equal(JointProcess(processes).c_noise(t), CosineVP().c_noise(t))
    joint = JointProcess(processes, clock='b')
    assert torch.equal(joint.c_noise(t), LinearVP().c_noise(t))
    kept = json.loads(json.dumps(joint.todict()))
    kept['processes'] = dict(reversed(kept['processes'].items()))  # the order of a JSON object says nothing
    assert JointProcess.fromdict(kept).clock == 'b' and joint.todict()['clock'] == 'b'
    del kept['clock']  # files of the first version: the first field
    assert JointProcess.fromdict(kept).clock == next(iter(kept['processes']))
    with pytest.raises(ValueError, match=r"one of the fields, \['a', 'b'\]; got 'c'"):
        JointProcess(processes, clock='c')
    with pytest.raises(ValueError, match='at least one field'):
        JointProcess({})


def test_times_are_no_integers_where_the_first_field_is():
    batch = exact.free_batch(3)
    batch.fields = {'species': torch.zeros(3, dtype=torch.long), **batch.fields}
    assert times(batch, 0.3).tolist() == [0.3] * 3 and times(batch, 0.3).dtype == torch.float64
    batch.fields = {'species': torch.zeros(3, dtype=torch.long)}
    assert times(batch, 0.3).tolist() == [0.3] * 3
