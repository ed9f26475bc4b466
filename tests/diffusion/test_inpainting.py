"""Inpainting against a case whose answer is known: a correlated Gaussian, one of whose two points is given."""

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
    GeometricVP,
    JointProcess,
    LinearVP,
    WrappedScore,
)
from ase_diffusion.diffusion.inpainting import Inpainting

RHO, GIVEN, SIZE = 0.8, 1.5, 1000


class Exact:
    """Predict the noise of pairs drawn from N(0, [[1, rho], [rho, 1]]) exactly."""

    def __init__(self, vp=False):
        self.vp = vp

    def __call__(self, batch, level, conditions):
        x = batch.fields['x'].reshape(-1, 2)  # (B, pair)
        ratio = torch.exp(4 * level).reshape(-1, 1, 1).double()  # sigma / alpha
        alpha = 1 / torch.sqrt(1 + ratio**2) if self.vp else torch.ones_like(ratio)
        sigma = alpha * ratio
        cov = alpha**2 * torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64) + sigma**2 * torch.eye(2)
        score = -torch.linalg.solve(cov, x.double().unsqueeze(-1))
        return {'x': (-sigma * score).reshape(-1, 1).to(batch.fields['x'].dtype)}


def generated(sampler, repeats, schedule=GeometricVE(0.02, 8.0)):  # noqa: B008
    """Return the points that were generated in the company of GIVEN, (SIZE,)."""
    process, network = JointProcess({'x': Gaussian(schedule)}), Exact(type(schedule) is not GeometricVE)
    clean = torch.tensor([GIVEN, 99.0]).repeat(SIZE).reshape(-1, 1)  # the second of a pair is generated
    batch = Batch({'x': clean}, {'x': torch.arange(SIZE).repeat_interleave(2)}, SIZE)
    inpainting = Inpainting(process, batch, {'x': torch.tensor([True, False]).repeat(SIZE)}, network, repeats)
    final = SAMPLERS[sampler](network, inpainting, batch, steps=50, generator=torch.Generator().manual_seed(0))
    x = final.fields['x'].reshape(-1, 2)
    assert torch.equal(x[:, 0], torch.full((SIZE,), GIVEN))
    return x[:, 1]


@pytest.mark.parametrize('sampler', ['ancestral', 'euler_maruyama'])
def test_the_generated_point_follows_the_conditional_distribution(sampler):
    x = generated(sampler, repeats=10)
    assert x.mean().item() == pytest.approx(RHO * GIVEN, abs=0.1)
    assert x.std().item() == pytest.approx(math.sqrt(1 - RHO**2), abs=0.1)


def test_the_error_falls_with_the_number_of_repeats():
    errors = [abs(generated('ancestral', repeats).mean().item() - RHO * GIVEN) for repeats in (1, 3, 10)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_given_rows_stay_in_the_corrector_step():
    """A Langevin step moves the generated rows only: in both calls of a step the network sees the given rows at one place."""
    process = JointProcess({'x': WrappedScore(GeometricVE(0.01, 0.5))})
    clean = torch.rand(8, 2, generator=torch.Generator().manual_seed(1))
    batch, given = Batch.dense('x', clean), torch.arange(8) < 4
    seen = []

    def network(state, level, conditions):
        seen.append(state.fields['x'][given])
        return {'x': torch.ones_like(state.fields['x'])}

    inpainting, t = Inpainting(process, batch, {'x': given}, network, 1), torch.full((8,), 0.5)
    moved = inpainting.correct(batch, network(batch, t, {}), t, 0.04, torch.Generator().manual_seed(0)).fields['x']
    assert torch.equal(moved[given], clean[given]) and (moved[~given] != clean[~given]).all()
    free = process.correct(batch, network(batch, t, {}), t, 0.04, torch.Generator().manual_seed(0)).fields['x']
    assert (free[given] != clean[given]).all()
    seen.clear()
    corrector = SAMPLERS['predictor_corrector']
    out = corrector(network, inpainting, batch, steps=6, generator=torch.Generator().manual_seed(0), corrector=0.2)
    assert len(seen) == 11  # the last step is not corrected
    assert all(torch.equal(before, after) for before, after in zip(seen[0:10:2], seen[1:10:2], strict=True))
    assert torch.equal(out.fields['x'][given], clean[given])


@pytest.mark.parametrize('schedule', [LinearVP(), CosineVP(), GeometricVP(0.02, 8.0)], ids=lambda s: type(s).__name__)
def test_any_schedule_can_be_inpainted(schedule):
    x = generated('ancestral', 10, schedule)
    assert x.mean().item() == pytest.approx(RHO * GIVEN, abs=0.12)
    assert x.std().item() == pytest.approx(math.sqrt(1 - RHO**2), abs=0.1)


def test_elements_of_an_image_are_given():
    """Half of every image: it comes back as it is, the other half follows the exact score, element by element."""
    schedule = CosineVP()
    clean = torch.full((300, *exact.DENSE), 5.0, dtype=torch.float64)
    batch, left = Batch.dense(exact.FIELD, clean), torch.arange(4) < 2  # (W,)
    given = left.expand(1, 1, 4, 4)
    network = exact.GaussianNoise(schedule)
    inpainting = Inpainting(exact.single(Gaussian(schedule)), batch, {exact.FIELD: given}, network, 2)
    out = SAMPLERS['ancestral'](network, inpainting, batch, steps=60, generator=torch.Generator().manual_seed(0))
    x = out.fields[exact.FIELD]
    assert (x[..., left] == 5).all()
    assert float(x[..., ~left].mean()) == pytest.approx(exact.MEAN, abs=0.05)
    assert float(x[..., ~left].std()) == pytest.approx(exact.WIDTH, rel=0.12)


def test_inpainting_is_a_joint_process_with_the_same_clock():
    process = JointProcess({'x': Gaussian(CosineVP()), 'y': Gaussian(LinearVP())}, {'y': 2.0}, clock='y')
    inpainting = Inpainting(process, None, {}, None)
    assert isinstance(inpainting, JointProcess) and inpainting.todict() == process.todict()


def test_given_rows_are_noised_again_as_they_are():
    process = JointProcess({'x': Gaussian(GeometricVE(0.02, 8.0))})
    batch = Batch({'x': torch.full((2000, 1), 7.0)}, {'x': torch.arange(2000)}, 2000)
    inpainting = Inpainting(process, batch, {'x': torch.arange(2000) < 1000}, None, 1)
    far = {'x': torch.full((2000, 1), 100.0)}  # predicts x - 100 sigma for every row
    again = inpainting.renoise_x0(batch, far, torch.full((2000,), 0.5), torch.Generator().manual_seed(0)).fields['x']
    assert again[:1000].mean().item() == pytest.approx(7.0, abs=0.1) and again[1000:].mean().item() < -20


def test_given_rows_follow_their_noised_values_on_the_way():
    process = JointProcess({'x': Gaussian(GeometricVE(0.02, 8.0))})
    batch = Batch({'x': torch.zeros(2000, 1)}, {'x': torch.arange(2000)}, 2000)
    inpainting = Inpainting(process, batch, {'x': torch.ones(2000, dtype=torch.bool)}, None, 1)
    spread = {}
    SAMPLERS['ancestral'](
        lambda b, level, c: {'x': torch.zeros_like(b.fields['x'])},
        inpainting,
        batch,
        steps=5,
        generator=torch.Generator().manual_seed(0),
        callback=lambda k, t, b, x0: spread.setdefault(k, b.fields['x'].std().item()),
    )
    grid = torch.linspace(1, 0, 5)[1:]
    expected = [*(0.02 * 400**t for t in grid.tolist()), 0.0]
    assert [spread[k] for k in range(5)] == pytest.approx(expected, rel=0.06)
