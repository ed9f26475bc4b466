"""Inpainting against a case whose answer is known: a correlated Gaussian, one of whose two points is given."""

import math

import pytest
import torch

from ase_diffusion.diffusion import SAMPLERS, Batch, Gaussian, GeometricVE, JointProcess
from ase_diffusion.diffusion.inpainting import Inpainting

RHO, GIVEN, SIZE = 0.8, 1.5, 1000


class Exact:
    """Predict the noise of pairs drawn from N(0, [[1, rho], [rho, 1]]) exactly."""

    def __call__(self, batch, level, conditions):
        x = batch.fields['x'].reshape(-1, 2)  # (B, pair)
        sigma = torch.exp(4 * level).reshape(-1, 1, 1).double()
        cov = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64) + sigma**2 * torch.eye(2)
        score = -torch.linalg.solve(cov, x.double().unsqueeze(-1))
        return {'x': (-sigma * score).reshape(-1, 1).to(batch.fields['x'].dtype)}


def generated(sampler, repeats):
    """Return the points that were generated in the company of GIVEN, (SIZE,)."""
    schedule = GeometricVE(0.02, 8.0)
    process, network = JointProcess({'x': Gaussian(schedule)}), Exact()
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


@pytest.mark.parametrize(('s', 't'), [(0.2, 0.9), (0.5, 0.501), (0.0, 1.0)])
def test_noise_back_to_t_has_the_variance_that_is_missing(s, t):
    schedule = GeometricVE(0.02, 8.0)
    batch = Batch({'x': torch.zeros(1, 1)}, {'x': torch.zeros(1, dtype=torch.long)}, 1)
    inpainting = Inpainting(JointProcess({'x': Gaussian(schedule)}), batch, {}, None)
    s, t = torch.tensor([s], dtype=torch.float64), torch.tensor([t], dtype=torch.float64)
    total = schedule.sigma(s) ** 2 + schedule.sigma(inpainting._between(s, t)) ** 2
    assert torch.allclose(total, schedule.sigma(t) ** 2)


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
