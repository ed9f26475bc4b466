"""The U-Net: rolls, conditions, the published sizes, further axes."""

import pytest
import torch

from ase_diffusion.diffusion import Batch
from ase_diffusion.networks.unet import UNet

NAN = float('nan')


def shaken(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(
                torch.randn(p.shape, generator=generator, dtype=p.dtype) / max(1.0, p[0].numel() ** 0.5 if p.dim() > 1 else 3.0)
            )
    return net


def batch_of(x, **extras):
    return Batch({'grids': x}, {'grids': torch.arange(len(x))}, len(x), extras=extras)


def small(dims, channels=2, dtype=torch.float64, **options):
    return shaken(UNet(dims, channels, **({'width': 8, 'multipliers': (1, 2), 'blocks': 1, 'heads': 2} | options))).to(dtype)


@pytest.mark.parametrize('linear', [False, True])
@pytest.mark.parametrize(('dims', 'shape'), [(1, (16,)), (2, (8, 12)), (3, (8, 4, 8))])
def test_a_circular_net_rolls_exactly_by_multiples_of_its_stride(dims, shape, linear):
    net = small(dims, multipliers=(1, 2, 2), attention=(True, False, True), linear=linear)
    assert net.stride == 4
    x, level = torch.randn(2, 2, *shape, dtype=torch.float64), torch.tensor([0.1, -0.3], dtype=torch.float64)
    shift, axes = (4, -4, 8)[:dims], tuple(range(2, 2 + dims))
    a = net(batch_of(x), level, {})['grids']
    b = net(batch_of(torch.roll(x, shift, axes)), level, {})['grids']
    assert a.std() > 0.05
    assert (torch.roll(a, shift, axes) - b).abs().max() < 1e-9


def test_a_net_with_edges_does_not_roll():
    net = small(2, circular=False)
    x, level = torch.randn(1, 2, 8, 8, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    a = net(batch_of(x), level, {})['grids']
    b = net(batch_of(torch.roll(x, 4, 2)), level, {})['grids']
    assert a.shape == x.shape and (torch.roll(a, 4, 2) - b).abs().max() > 1e-3


@pytest.mark.parametrize('way', ['conditions', 'tiled'])
def test_conditions_matter_and_nan_is_not_asked_for(way):
    net = small(3, **{way: {'void_fraction': (0.1, 0.1)}})
    x, one = torch.randn(2, 2, 4, 4, 4, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    free = net(batch_of(x), 0 * one, {})['grids']
    assert torch.equal(free, net(batch_of(x), 0 * one, {'void_fraction': NAN * one})['grids'])
    some = net(batch_of(x), 0 * one, {'void_fraction': torch.tensor([0.2, NAN], dtype=torch.float64)})['grids']
    assert (some[0] - free[0]).abs().max() > 1e-4 and (some[1] - free[1]).abs().max() < 1e-12
    assert (net(batch_of(x), one, {})['grids'] - free).abs().max() > 1e-4


def test_the_mean_value_of_a_tiled_condition_is_not_the_same_as_none():
    net = small(1, tiled={'band_gap': (1.0, 2.0)})
    x, zero = torch.randn(1, 2, 8, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    free = net(batch_of(x), zero, {})['grids']
    assert (net(batch_of(x), zero, {'band_gap': zero + 1.0})['grids'] - free).abs().max() > 1e-4


def test_context_is_seen():
    net = small(2, context=3)
    x, zero = torch.randn(1, 2, 8, 8, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    outs = [net(batch_of(x, context=torch.full((1, 3, 8, 8), v)), zero, {})['grids'] for v in (0.0, 1.0)]
    assert (outs[0] - outs[1]).abs().max() > 1e-3


def test_further_axes_are_channels():
    net = small(1, 9)
    x, zero = torch.randn(2, 3, 16, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    out = net(batch_of(x), zero, {})['grids']
    assert out.shape == x.shape
    flat = x.permute(0, 1, 3, 2).reshape(2, 9, 16)
    same = net(batch_of(flat), zero, {})['grids'].reshape(2, 3, 3, 16).permute(0, 1, 3, 2)
    assert torch.equal(out, same)


def test_a_fresh_net_returns_zeros_and_settings_rebuild_it():
    net = UNet(2, 4, width=8, multipliers=(1, 2), blocks=1, tiled={'a': (0, 1)}, conditions={'b': (0, 1)}, field='image')
    x = torch.randn(1, 4, 8, 8)
    batch = Batch({'image': x}, {'image': torch.arange(1)}, 1)
    assert torch.equal(net(batch, torch.zeros(1), {})['image'], 0 * x)
    again = UNet(**net.settings)
    again.load_state_dict(net.state_dict())
    assert again.settings == net.settings


def test_the_size_of_zeodiff():
    net = UNet(3, 3, width=32, multipliers=(1, 2, 4))
    n = sum(p.numel() for p in net.parameters())
    assert 5.0e6 < n < 7.0e6  # 5.6 M in the paper
    assert net.stride == 4 and net.settings['attention'] == [False, False, True]  # 8^3 of 32^3


def test_bfloat16_trains():
    net = small(3, dtype=torch.float32)
    x = torch.randn(2, 2, 4, 4, 4)
    with torch.autocast('cpu', torch.bfloat16):
        out = net(batch_of(x), torch.zeros(2), {})['grids']
    assert out.dtype == torch.float32
    out.square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_wrong_shapes_and_settings_are_refused():
    with pytest.raises(ValueError, match='multiples of 2'):
        small(2)(batch_of(torch.zeros(1, 2, 7, 8, dtype=torch.float64)), torch.zeros(1), {})
    with pytest.raises(ValueError, match='dimensions'):
        UNet(4, 1)
    with pytest.raises(ValueError, match='level by level'):
        UNet(1, 1, attention=(True,))
