"""Preconditioning changes the target and nothing else; categories as points follow Bayes' rule."""

import json

import exact_denoisers as exact
import pytest
import torch

from ase_diffusion.diffusion import (
    SAMPLERS,
    Batch,
    EmbeddedCategorical,
    Gaussian,
    GeometricVP,
    JointProcess,
    NoiseStream,
    Preconditioned,
)

SCHEDULE = GeometricVP(0.01, 20.0)
TABLE = torch.tensor([[1.2, 0.0], [-0.6, 1.0], [-0.6, -1.0]], dtype=torch.float64)
SHARES = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)


def scales(level):
    ratio = torch.exp(4 * level)
    alpha = 1 / torch.sqrt(1 + ratio**2)
    return alpha[:, None], (alpha * ratio)[:, None]


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_preconditioning_changes_the_target_only(sampler):
    """With the same denoiser, told as eps or as F, every sampler takes the same path."""
    plain = exact.GaussianNoise(SCHEDULE)

    def network(batch, level, conditions):
        alpha, sigma = scales(level)
        x, eps = batch.fields[exact.FIELD], plain(batch, level, conditions)[exact.FIELD]
        return {exact.FIELD: (sigma * x - eps) / alpha}  # F = (D - alpha x) / sigma with D = (x - sigma eps) / alpha

    batch = exact.free_batch(50, torch.float64)
    first = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    ends = [
        SAMPLERS[sampler](
            net,
            exact.single(process),
            batch,
            steps=12,
            generator=torch.Generator().manual_seed(0),
            initial=batch.with_fields(**{exact.FIELD: first}),
        )
        for net, process in ((plain, Gaussian(SCHEDULE)), (network, Preconditioned(SCHEDULE)))
    ]
    assert torch.allclose(ends[0].fields[exact.FIELD], ends[1].fields[exact.FIELD], atol=1e-6)


def test_state_and_target_have_unit_size_at_every_time():
    process, n = Preconditioned(SCHEDULE), 40_000
    x0 = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in (0.0, 0.3, 0.6, 1.0):
        xt, target = process.add_noise(
            x0, torch.full((n,), t, dtype=torch.float64), NoiseStream(torch.Generator().manual_seed(1))
        )
        assert xt.std() == pytest.approx(1, abs=0.02) and target.std() == pytest.approx(1, abs=0.02)


def bayes(batch, level, conditions):
    """Exact logits of the clean category given x_t alone."""
    alpha, sigma = scales(level)
    x = batch.fields['species']
    return {'species': SHARES.log() - (x[:, None] - alpha[:, None] * TABLE).square().sum(-1) / (2 * sigma**2)}


def points(n):
    return Batch({'species': torch.zeros(n, 2, dtype=torch.float64)}, {'species': torch.arange(n)}, n)


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_every_sampler_returns_the_shares_of_the_categories(sampler):
    process, n, stream = EmbeddedCategorical(GeometricVP(0.1, 30.0), TABLE), 4000, torch.Generator().manual_seed(0)
    out = SAMPLERS[sampler](bayes, JointProcess({'species': process}), points(n), steps=60, generator=stream)
    x = out.fields['species']
    assert torch.cdist(x, TABLE).min(1).values.max() < 1e-12  # points of the table themselves
    shares = torch.bincount(process.nearest(x), minlength=3) / n
    assert shares.tolist() == pytest.approx(SHARES.tolist(), abs=0.035)


def test_the_estimate_is_the_mean_given_x_t():
    process, n = EmbeddedCategorical(GeometricVP(0.1, 30.0), TABLE), 60_000
    kinds = torch.multinomial(SHARES, n, replacement=True, generator=torch.Generator().manual_seed(0))
    t = torch.full((n,), 0.45, dtype=torch.float64)
    xt, target = process.add_noise(TABLE[kinds], t, NoiseStream(torch.Generator().manual_seed(1)))
    assert torch.equal(target, kinds)
    batch = points(n).with_fields(species=xt)
    logits = bayes(batch, process.schedule.c_noise(t), {})['species']
    rest = TABLE[kinds] - process.to_x0(xt, logits, t)
    for weight in (torch.ones_like(xt), xt, xt.square()):
        assert (rest * weight).mean(0).abs().max() < 4 * float((rest * weight).std()) / n**0.5
    better = process.loss(logits, target, t).mean()
    assert better < process.loss(logits * 1.1, target, t).mean() and better < process.loss(logits * 0.9, target, t).mean()


def test_forbidden_categories_never_come_out():
    process, n = EmbeddedCategorical(GeometricVP(0.1, 30.0), TABLE), 200

    def network(batch, level, conditions):
        return {'species': bayes(batch, level, conditions)['species'] + torch.tensor([-torch.inf, 0.0, 0.0])}

    for sampler in SAMPLERS.values():
        out = sampler(network, JointProcess({'species': process}), points(n), steps=8, generator=torch.Generator().manual_seed(0))
        assert torch.isfinite(out.fields['species']).all() and (process.nearest(out.fields['species']) > 0).all()


def test_tables_survive_json_and_equal_points_are_refused():
    joint = JointProcess({'species': EmbeddedCategorical(SCHEDULE, TABLE)})
    again = JointProcess.fromdict(json.loads(json.dumps(joint.todict())))
    assert torch.equal(again.processes['species'].table, TABLE) and again.todict() == joint.todict()
    with pytest.raises(ValueError, match='all different'):
        EmbeddedCategorical(SCHEDULE, [[1.0, 0.0], [1.0, 0.0]])
