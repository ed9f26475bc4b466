"""Diffusion of categories against brute force: matrices, Bayes' rule, and chains that are enumerated."""

import json

import exact_denoisers as exact
import pytest
import torch

from ase_diffusion.diffusion import SAMPLERS, Batch, Categorical, CosineVP, JointProcess, NoisePerStructure, NoiseStream
from ase_diffusion.diffusion.joint import process_from_dict

K, T = 5, 40
BAYES_TOL = 1e-10


def process(auxiliary=0.0):
    return Categorical(CosineVP(), K, T, auxiliary)


def grid():
    return torch.linspace(0, 1, T, dtype=torch.float64)


def transitions():
    """Matrices Q_1 ... Q_T of the chain, from the betas: 1 - beta_t = abar_t / abar_(t - 1)."""
    keep = CosineVP().alpha(grid()) ** 2
    ratio = keep / torch.cat([torch.ones(1, dtype=torch.float64), keep[:-1]])
    return [a * torch.eye(K, dtype=torch.float64) + (1 - a) / K for a in ratio]


def products():
    """Qbar_1 ... Qbar_T by multiplication."""
    out, total = [], torch.eye(K, dtype=torch.float64)
    for q in transitions():
        total = total @ q
        out.append(total)
    return out


def stream(seed=0):
    return NoiseStream(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('k', [1, 2, 20, 38, 39])
def test_the_posterior_is_bayes_rule_over_the_chain(k):
    """q(x_(t-1) | x_t, x_0) = q(x_t | x_(t-1)) q(x_(t-1) | x_0) / q(x_t | x_0), for every x_0 and x_t."""
    q, qbar = transitions()[k], products()
    x0, xt = (x.flatten() for x in torch.meshgrid(torch.arange(K), torch.arange(K), indexing='ij'))
    expected = q[:, xt].T * qbar[k - 1][x0] / qbar[k][x0, xt][:, None]
    one_hot = torch.log(torch.nn.functional.one_hot(x0, K).double().clamp(min=1e-300))
    t, s = grid()[k].expand(K * K), grid()[k - 1].expand(K * K)
    found = process().posterior(xt, one_hot, t, s).exp()
    assert (found - expected).abs().max() < BAYES_TOL
    assert torch.allclose(expected.sum(-1), torch.ones(K * K, dtype=torch.float64))


def test_long_steps_are_products_of_short_ones():
    keep, qbar = process().keep(grid(), grid()), products()
    for k in (0, 7, T - 1):
        jump = keep[k] * torch.eye(K, dtype=torch.float64) + (1 - keep[k]) / K
        assert (jump - qbar[k]).abs().max() < BAYES_TOL


def test_marginals_of_noise_are_the_rows_of_the_product():
    n, k = 40_000, 25
    x0 = torch.full((n,), 3)
    xt, target = process().add_noise(x0, grid()[k].expand(n), stream())
    share = torch.bincount(xt, minlength=K) / n
    assert torch.allclose(share.double(), products()[k][3], atol=4 / n**0.5)
    assert torch.equal(target, torch.stack([x0, xt], -1))


def test_the_loss_is_the_divergence_by_brute_force():
    k = 17
    gen = torch.Generator().manual_seed(0)
    logits = torch.randn(K, K, dtype=torch.float64, generator=gen)
    p0 = torch.softmax(logits, -1)
    x0, xt = torch.arange(K), torch.tensor([1, 1, 4, 0, 2])
    q, qbar = transitions()[k], products()
    exact_q = q[:, xt].T * qbar[k - 1][x0] / qbar[k][x0, xt][:, None]
    guess = q[:, xt].T * (p0 @ qbar[k - 1])
    guess = guess / guess.sum(-1, keepdim=True)
    expected = (exact_q * torch.log(exact_q / guess)).sum(-1)
    target, t = torch.stack([x0, xt], -1), grid()[k].expand(K)
    assert (process().loss(logits, target, t) - expected).abs().max() < BAYES_TOL
    clean = p0 * qbar[k][:, xt].T
    clean = clean / clean.sum(-1, keepdim=True)
    with_auxiliary = expected - 0.3 * torch.log(clean[torch.arange(K), x0])
    assert (process(0.3).loss(logits, target, t) - with_auxiliary).abs().max() < BAYES_TOL


def test_the_loss_of_the_first_step_is_the_likelihood_of_the_data():
    logits = torch.randn(K, K, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x0 = torch.arange(K)
    target, t = torch.stack([x0, x0], -1), torch.zeros(K, dtype=torch.float64)
    clean = process().clean(x0, logits, t)
    assert torch.allclose(process().loss(logits, target, t), -clean[x0, x0], atol=1e-9)


def test_the_right_answer_costs_nothing_and_its_gradient_vanishes():
    """The optimum of the loss is the distribution of x_0 given everything but x_t: here the data distribution."""
    p = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05], dtype=torch.float64)
    logits = p.log().clone().requires_grad_()
    k, q, qbar = 20, transitions()[20], products()
    total = torch.zeros((), dtype=torch.float64)
    for x0 in range(K):
        for xt in range(K):
            target = torch.tensor([[x0, xt]])
            loss = process(0.1).loss(logits[None], target, grid()[k][None])
            total = total + p[x0] * qbar[k][x0, xt] * loss[0]
    (gradient,) = torch.autograd.grad(total, logits)
    assert gradient.abs().max() < 1e-10
    del q


@pytest.mark.parametrize('sampler', SAMPLERS)
@pytest.mark.parametrize('steps', [2, 25])
def test_every_sampler_returns_the_data_distribution_in_any_number_of_steps(sampler, steps):
    p = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05], dtype=torch.float64)
    n = 20_000
    batch = Batch({exact.FIELD: torch.zeros(n, dtype=torch.long)}, {exact.FIELD: torch.arange(n)}, n)

    def network(state, level, conditions):
        return {exact.FIELD: p.log().expand(n, K)}

    out = SAMPLERS[sampler](network, exact.single(process()), batch, steps=steps, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(out.fields[exact.FIELD], minlength=K) / n
    assert torch.allclose(share.double(), p, atol=4 / n**0.5)


def test_forbidden_categories_never_come_out():
    logits = torch.zeros(300, K, dtype=torch.float64)
    logits[:, [0, 3]] = -torch.inf
    xt = torch.randint(K, (300,), generator=torch.Generator().manual_seed(0))
    out = process().reverse(xt, logits, torch.full((300,), 0.5, dtype=torch.float64), None, stream())
    assert set(out.tolist()) == {1, 2, 4}


def test_draws_do_not_depend_on_the_batch_and_json_keeps_everything():
    def draw(seeds, counts):
        rows = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        like = torch.zeros(len(rows), dtype=torch.long)
        return process().prior(like, None, NoisePerStructure(seeds).bind(rows))

    assert torch.equal(draw([1, 2], [4, 3]), torch.cat([draw([1], [4]), draw([2], [3])]))
    joint = JointProcess({'a': process(0.2)})
    again = JointProcess.fromdict(json.loads(json.dumps(joint.todict())))
    assert again.todict() == joint.todict() and again.discrete == {'a'}
    assert process_from_dict(process(0.2).todict()).auxiliary == 0.2
    with pytest.raises(ValueError, match='at least one class'):
        Categorical(CosineVP(), 0)
