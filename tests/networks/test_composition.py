"""Properties of compositions, and what their gradient does to the species of clouds."""

import json
import math

import pytest
import torch

from ase_diffusion.diffusion import Batch
from ase_diffusion.networks.composition import CompositionGuided, CompositionNet

SLOTS = torch.tensor([[8, 12, 25], [11, 17, 11], [14, 14, 14]])
FRACTIONS = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [1 / 3] * 3])


def network(dtype=torch.float64):
    torch.manual_seed(0)
    net = CompositionNet({'energy': [-1.0, 2.0], 'gap': {'classes': 3}}, hidden=12, descriptors=5)
    net.descriptors.copy_(torch.randn(net.descriptors.shape))
    net.log_error.data += 0.3
    return net.to(dtype).eval().requires_grad_(False)


def test_likelihoods_are_normalised_and_nan_is_not_asked():
    net, f = network(), FRACTIONS.double()
    nan = torch.full((3,), math.nan)
    total = sum(net.log_likelihood(f, SLOTS, {'gap': torch.full((3,), float(k))}).exp() for k in range(3))
    assert torch.allclose(total, torch.ones(3).double())
    grid = torch.linspace(-40, 40, 4001).double()
    density = torch.stack([net.log_likelihood(f, SLOTS, {'energy': x.expand(3)}).exp() for x in grid])
    assert torch.allclose(torch.trapezoid(density / 2.0, grid, dim=0), torch.ones(3).double(), atol=1e-3)  # scaled by 2
    assert torch.equal(net.log_likelihood(f, SLOTS, {'gap': nan, 'energy': nan}), torch.zeros(3).double())
    both = net.log_likelihood(f, SLOTS, {'gap': torch.ones(3), 'energy': torch.zeros(3)})
    parts = [net.log_likelihood(f, SLOTS, {name: value}) for name, value in (('gap', torch.ones(3)), ('energy', torch.zeros(3)))]
    assert torch.allclose(both, sum(parts))


def test_order_and_repetition_of_slots_do_not_matter():
    net, f = network(), FRACTIONS.double()
    order = [2, 0, 1]
    for name, out in net(f, SLOTS).items():
        assert torch.allclose(net(f[:, order], SLOTS[:, order])[name], out)
    whole = net(torch.tensor([[0.4, 0.6, 0.0]]).double(), SLOTS[1:2])
    assert torch.allclose(whole['gap'], net(f[1:2], SLOTS[1:2])['gap'])


def test_settings_are_json():
    net = network()
    again = CompositionNet(**json.loads(json.dumps(net.settings))).double()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(FRACTIONS.double(), SLOTS)['gap'], net(FRACTIONS.double(), SLOTS)['gap'])


def cloud():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 128, 3, generator=generator)
    rows = (torch.arange(128) // 32)[None, :, None].expand(3, -1, 3)  # four atoms
    x = x[:, :, :4].gather(2, rows[:, None].expand(-1, 3, -1, -1))
    return Batch.dense('cloud', x, extras={'counts': torch.full((3,), 4), 'elements': SLOTS})


@pytest.mark.parametrize('scale', [0.0, 1.0, 3.0])
def test_the_estimate_follows_what_is_asked_for(scale):
    net, batch, calls = network(torch.float32), cloud(), []

    def denoiser(batch, c_noise, conditions):
        calls.append(conditions)
        return {'cloud': torch.zeros_like(batch.fields['cloud'])}

    asked = {'gap': torch.tensor([1.0, 1.0, math.nan]), 'elements': torch.ones(3, 119)}
    guided = CompositionGuided(denoiser, net, scale, (0.38, 0.486))
    level = torch.full((3,), 0.2)
    with torch.inference_mode():
        out = guided(batch, level, asked)['cloud']
    assert torch.isnan(calls[0]['gap']).all() and not torch.isnan(calls[0]['elements']).any()  # asked for the elements only
    assert torch.equal(out[:, [0, 2]], torch.zeros_like(out[:, [0, 2]]))
    assert torch.equal(out[2], torch.zeros_like(out[2]))  # not asked for
    s = math.exp(0.8)

    def likelihood(f):
        clean = (batch.fields['cloud'][:, 1] + s * f[:, 1]) / math.sqrt(1 + s**2)
        fractions = torch.softmax(4.0 * (clean * 0.486 + 0.38), -1).mean(1)
        return net.log_likelihood(fractions, SLOTS, {'gap': asked['gap']})

    gain = likelihood(out) - likelihood(torch.zeros_like(out))
    assert ((gain[:2] > 0) == (scale > 0)).all()
    rows = out[:, 1].reshape(3, 4, 32, 3)
    assert (rows - rows[:, :, :1]).abs().max() < 1e-5  # copies stay copies
