"""The denoiser of grids: rolls, conditions, precisions."""

import pytest
import torch

from ase_diffusion.diffusion import Batch
from ase_diffusion.networks.voxelnet import VoxelNet

NAN = float('nan')


def shaken(net, seed=0):
    """Fill all parameters with random numbers, those that start at zero too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(
                torch.randn(p.shape, generator=generator, dtype=p.dtype) / max(1.0, p[0].numel() ** 0.5 if p.dim() > 1 else 3.0)
            )
    return net


def batch_of(x, lengths=(9.0, 10.0, 12.0)):
    cells = torch.diag(torch.tensor(lengths, dtype=x.dtype)).expand(len(x), 3, 3)
    return Batch({'grids': x}, {'grids': torch.arange(len(x))}, len(x), extras={'cells': cells})


def net_of(dtype=torch.float64, **options):
    options = {'width': 16, 'blocks': 2, 'attention': 1, 'heads': 2, 'embedding': 16} | options
    return shaken(
        VoxelNet(
            conditions={'void_fraction': (0.1, 0.1), 'henry_coefficient': (1.0, 2.0)},
            logarithmic=['henry_coefficient'],
            **options,
        )
    ).to(dtype)


@pytest.mark.parametrize('patch', [1, 2, 4])
def test_rolls_by_whole_patches_commute_with_the_network(patch):
    net, x = net_of(patch=patch), torch.randn(2, 3, 8, 8, 12, dtype=torch.float64)
    level = torch.tensor([0.1, -0.2], dtype=torch.float64)
    shift = (patch, -2 * patch, 2 * patch)
    a = net(batch_of(x), level, {})['grids']
    b = net(batch_of(torch.roll(x, shift, (2, 3, 4))), level, {})['grids']
    assert a.std() > 0.1
    assert (torch.roll(a, shift, (2, 3, 4)) - b).abs().max() < 1e-9


def test_a_supercell_has_the_output_of_its_cell_without_the_edges_of_the_cell():
    net = net_of()
    with torch.no_grad():
        net.cell[2].weight.zero_()
    x, level = torch.randn(1, 3, 8, 8, 8, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    one = net(batch_of(x), level, {})['grids']
    two = net(batch_of(x.repeat(1, 1, 2, 1, 1), (18.0, 10.0, 12.0)), level, {})['grids']
    assert (one.repeat(1, 1, 2, 1, 1) - two).abs().max() < 1e-9


def test_every_input_of_the_condition_matters():
    net, x = net_of(), torch.randn(1, 3, 8, 8, 8, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    base = net(batch_of(x), 0 * one, {})['grids']
    nan = net(batch_of(x), 0 * one, {'void_fraction': NAN * one, 'henry_coefficient': NAN * one})['grids']
    assert torch.equal(base, nan)
    others = [
        net(batch_of(x), 0.3 * one, {}),
        net(batch_of(x, (9.5, 10.0, 12.0)), 0 * one, {}),
        net(batch_of(x), 0 * one, {'void_fraction': 0.2 * one}),
        net(batch_of(x), 0 * one, {'henry_coefficient': 40 * one}),
    ]
    assert all((other['grids'] - base).abs().max() > 1e-4 for other in others)


def test_numbers_below_zero_of_a_logarithmic_condition_stay_finite():
    net, x = net_of(), torch.randn(2, 3, 8, 8, 8, dtype=torch.float64)
    values = torch.tensor([0.0, -5.0], dtype=torch.float64)
    assert net(batch_of(x), 0 * values, {'henry_coefficient': values})['grids'].isfinite().all()


def test_samples_do_not_see_each_other():
    net, x = net_of(), torch.randn(3, 3, 8, 8, 8, dtype=torch.float64)
    level = torch.tensor([0.0, 0.2, -0.4], dtype=torch.float64)
    asked = {'void_fraction': torch.tensor([0.1, NAN, 0.3], dtype=torch.float64)}
    together = net(batch_of(x), level, asked)['grids']
    for k in range(3):
        alone = net(batch_of(x[k : k + 1]), level[k : k + 1], {n: v[k : k + 1] for n, v in asked.items()})['grids']
        assert (alone[0] - together[k]).abs().max() < 1e-9


def test_bfloat16_is_close_and_trains():
    net, x = net_of(torch.float32), torch.randn(2, 3, 8, 8, 8)
    exact = net(batch_of(x), torch.zeros(2), {})['grids']
    with torch.autocast('cpu', torch.bfloat16):
        rough = net(batch_of(x), torch.zeros(2), {})['grids']
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
    rough.square().mean().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None and not name.startswith('conditions.nets')]
    assert not missing


def test_settings_rebuild_the_network():
    net = net_of(patch=2, channels=4)
    again = VoxelNet(**net.settings).double()
    again.load_state_dict(net.state_dict())
    x = torch.randn(1, 4, 8, 8, 8, dtype=torch.float64)
    level = torch.zeros(1, dtype=torch.float64)
    assert torch.equal(net(batch_of(x), level, {})['grids'], again(batch_of(x), level, {})['grids'])


def test_wrong_settings_and_shapes_are_refused():
    with pytest.raises(ValueError, match='multiple of the patch'):
        net_of()(batch_of(torch.zeros(1, 3, 7, 8, 8, dtype=torch.float64)), torch.zeros(1), {})
    with pytest.raises(ValueError, match='logarithmic'):
        VoxelNet(logarithmic=['nothing'])
    with pytest.raises(ValueError, match='attention'):
        VoxelNet(blocks=2, attention=3)


@pytest.mark.parametrize('width', [0, 7, 12])
def test_the_width_is_a_multiple_of_eight(width):
    with pytest.raises(ValueError, match='width of a VoxelNet .* multiple of 8'):
        VoxelNet(width=width)
