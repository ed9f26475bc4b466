"""RowTransformer: symmetry and known pixels by construction, best linear estimates, conditions, precision."""

import math

import numpy as np
import pytest
import torch

from ase_diffusion.diffusion import Batch, GeometricVP, JointProcess, NoisePerStructure, Preconditioned, heun
from ase_diffusion.networks.image_layout import ATOMS, HEADER, SIZE, build_image, is_generated, is_present, pair_block, strips
from ase_diffusion.networks.rowtokens import RowTransformer

SHIFT = (29.0, 0.43, 0.43, 0.45, 1.86, 1.87, 2.09, 90.0, 93.4, 95.5, 104.0, 0.0, 0.67, 0.0, 0.0, 0.0)
SCALE = (23.5, 0.29, 0.29, 0.3, 0.39, 0.41, 0.45, 3.8, 9.5, 12.3, 79.0, 1.0, 0.23, 0.41, 0.41, 0.42)
SMALL = dict(features=24, blocks=2, heads=3, hidden=32, pair_hidden=8, pair_width=6, shells=5)
PROCESS = JointProcess({'image': Preconditioned(GeometricVP(0.004, 80.0))})
CONDITIONS = dict(conditions={'formation_energy': [-1.0, 1.0], 'space_group': {'classes': 230}, 'elements': {'elements': True}})


def network(dtype=torch.float32, **options):
    """A network whose every parameter is random, so that no law holds by a zero."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        net = RowTransformer(SHIFT, SCALE, **{**SMALL, **options})
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return net.to(dtype).eval()


def crystals(counts=(1, 2, 7, 20), seed=0):
    """Clean images of random crystals."""
    g = torch.Generator().manual_seed(seed)
    counts = torch.tensor(counts)
    atoms = torch.rand(len(counts), ATOMS, 4, generator=g)
    atoms[..., 0] = torch.randint(1, 90, atoms.shape[:2], generator=g).float().sort(1).values
    cell = torch.tensor(SHIFT[4:11]) + torch.tensor(SCALE[4:11]) * torch.randn(len(counts), 7, generator=g)
    cell[:, 6] = cell[:, 6].round().clamp(1, 230)
    image = build_image(atoms, cell, counts, torch.tensor(SHIFT), torch.tensor(SCALE), 0.0)
    return Batch({'image': image}, {'image': torch.arange(len(counts))}, len(counts), extras={'counts': counts})


def noised(sigma=0.5, **options):
    """A noised batch, its noise level (B,) and time (B,)."""
    batch = crystals(**options)
    t = torch.full((batch.size,), PROCESS.schedule.time(sigma))
    return PROCESS.add_noise(batch, t, torch.Generator().manual_seed(1))[0], PROCESS.c_noise(t), t


def clean_of(net, batch, level, t, conditions=None):
    """The estimate D of the clean image."""
    with torch.no_grad():
        return PROCESS.to_x0(batch, net(batch, level, conditions or {}), t)['image']


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('sigma', [0.03, 1.0, 30.0])
def test_symmetry_of_the_estimate(tied, sigma):
    batch, level, t = noised(sigma)
    clean = clean_of(network(tied=tied), batch, level, t)
    copies = strips(clean)
    tolerance = 3e-6 * max(1.0, float(clean.abs().max()))
    assert torch.allclose(copies[:, :, 0], copies[:, :, 1], atol=tolerance)
    length, directions = pair_block(clean)
    assert torch.allclose(length, clean[:, 0, HEADER:, HEADER:], atol=tolerance)
    assert torch.allclose(directions, clean[:, 1:, HEADER:, HEADER:], atol=tolerance)


def test_pixels_of_their_own_begin_with_what_all_copies_say():
    """Differences come from places and lengths from differences: they agree before any training."""
    batch, level, t = noised(0.02)
    net = RowTransformer(SHIFT, SCALE, tied=False, **SMALL).eval()  # its outputs are zero
    torch.nn.init.zeros_(net.key.weight), torch.nn.init.zeros_(net.key.bias)
    unit, clean = torch.tensor(SCALE), clean_of(net, batch, level, t)[3:]
    place = strips(clean)[0, :, 0, 1:4, :20].mean(0) * unit[1:4, None]
    length, directions = pair_block(clean)
    directions = directions[0, :, :20, :20] * unit[13:, None, None]
    assert torch.allclose(directions, place[:, :, None] - place[:, None], atol=1e-3)
    other = ~torch.eye(20, dtype=torch.bool)
    length = length[0, :20, :20] * SCALE[12] + SHIFT[12]
    assert torch.allclose(length[other], directions.norm(dim=0)[other], atol=2e-3)


def test_tied_copies_are_one_number():
    batch, level, t = noised(0.3)
    clean = clean_of(network(), batch, level, t)
    copies = strips(clean)
    assert torch.allclose(copies, copies[:, :1, :1].expand_as(copies), atol=3e-6)
    cell = copies[3, 0, 0, 4:11, :20]
    assert torch.allclose(cell, cell[:, :1].expand_as(cell), atol=3e-6)
    place = (copies[:, 0, 0, 1:4] * torch.tensor(SCALE[1:4])[:, None])[3, :, :20]
    d = clean[3, 1:, HEADER : HEADER + 20, HEADER : HEADER + 20] * torch.tensor(SCALE[13:])[:, None, None]
    assert torch.allclose(d, place[:, :, None] - place[:, None], atol=3e-6)
    assert not torch.allclose(strips(clean_of(network(tied=False), batch, level, t))[3, 0, 0, 5, :20].std(), torch.tensor(0.0))


@pytest.mark.parametrize('tied', [True, False])
def test_known_pixels_are_known_and_not_read(tied):
    net = network(tied=tied, absent=-1.0)
    batch, level, t = noised(2.0)
    unknown = is_generated(batch.extras['counts']).expand(-1, 4, -1, -1)
    clean = clean_of(net, batch, level, t)
    assert torch.allclose(clean[:, :, 11, HEADER:], 2.0 * is_present(batch.extras['counts'])[:, None].float() - 1, atol=1e-5)
    corner = clean[:, :, :HEADER, :HEADER]
    assert torch.allclose(corner, torch.full_like(corner, -1.0), atol=1e-5)
    assert torch.allclose(clean[0, 1:, HEADER:, HEADER:], torch.zeros(3, ATOMS, ATOMS), atol=1e-5)
    assert int(unknown[2, 0].sum()) == 2 * 11 * 7 + 7 * 6
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    other = batch.with_fields(image=torch.where(unknown, batch.fields['image'], noise))
    assert torch.allclose(clean_of(net, other, level, t), clean, atol=1e-5)


@pytest.mark.parametrize('tied', [True, False])
def test_companions_and_absent_slots_do_not_matter(tied):
    """Alone, in a batch of larger ones, and with all 52 slots (training)."""
    net = network(tied=tied)
    batch, level, t = noised(1.0)
    together = clean_of(net, batch, level, t)
    for k in range(3):
        alone = Batch(
            {'image': batch.fields['image'][k : k + 1]},
            {'image': torch.arange(1)},
            1,
            extras={'counts': batch.extras['counts'][k : k + 1]},
        )
        assert torch.allclose(clean_of(net, alone, level[:1], t[:1])[0], together[k], atol=2e-5)
    assert torch.allclose(clean_of(net.train(), batch, level, t), together, atol=2e-5)


def test_exchange_of_atoms_without_order():
    net = network(torch.float64, ordered=False)
    batch, level, t = noised(0.7)
    batch, level, t = batch.with_fields(image=batch.fields['image'].double()), level.double(), t.double()
    net.float()
    order = torch.arange(SIZE)
    order[HEADER : HEADER + 20] = HEADER + torch.randperm(20, generator=torch.Generator().manual_seed(3))
    last = Batch(
        {'image': batch.fields['image'][3:]}, {'image': torch.arange(1)}, 1, extras={'counts': batch.extras['counts'][3:]}
    )
    turned = last.with_fields(image=last.fields['image'][:, :, order][:, :, :, order])
    a, b = clean_of(net, last, level[3:], t[3:]), clean_of(net, turned, level[3:], t[3:])
    assert torch.allclose(a[:, :, order][:, :, :, order], b, atol=2e-5)
    ordered = network()
    a, b = clean_of(ordered, last, level[3:], t[3:]), clean_of(ordered, turned, level[3:], t[3:])
    assert (a[:, :, order][:, :, :, order] - b).abs().max() > 1e-3


def test_places_are_the_least_squares_fit():
    """All pixels that tell of x, each with the same noise in units of its scale."""
    n, axis = 5, 0
    y = torch.randn(1, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    net = network(torch.float64)
    found = net.estimate(y, is_present(torch.tensor([n])), torch.ones(1, dtype=torch.float64))
    rows, right = [], []
    scale_f, scale_d = SCALE[1 + axis], SCALE[13 + axis]
    for channel in range(4):
        for i in range(n):
            for value in (y[0, channel, 1 + axis, HEADER + i], y[0, channel, HEADER + i, 1 + axis]):
                rows.append(np.eye(n)[i] / scale_f)
                right.append(float(value))
    for i in range(n):
        for j in range(n):
            if i != j:
                rows.append((np.eye(n)[i] - np.eye(n)[j]) / scale_d)
                right.append(float(y[0, 1 + axis, HEADER + i, HEADER + j]))
    rows = np.array(rows)
    expected = np.linalg.lstsq(rows, np.array(right), rcond=None)[0] / scale_f
    assert np.allclose(found.atoms[0, :n, 1 + axis].numpy(), expected, atol=1e-6)
    covariance = np.linalg.inv(rows.T @ rows) / scale_f**2
    assert math.isclose(float(found.noise[0, 1 + axis]) ** 2, np.trace(covariance) / n, rel_tol=1e-5)
    assert math.isclose(float(found.noise[0, 4]), 1 / math.sqrt(8 * n), rel_tol=1e-6)


def test_untrained_network_has_the_loss_of_the_best_linear_estimate():
    """Fields of unit variance: the mean weighted loss is one, whatever the noise."""
    torch.manual_seed(0)
    net = RowTransformer(SHIFT, SCALE, **SMALL)
    for sigma in (0.02, 0.5, 5.0):
        batch = crystals(counts=(12,) * 40, seed=4)
        t = torch.full((batch.size,), PROCESS.schedule.time(sigma))
        xt, target = PROCESS.add_noise(batch, t, torch.Generator().manual_seed(6))
        level = PROCESS.c_noise(t)
        with torch.no_grad():
            error = (net(xt, level, {})['image'] - target['image']).square()
        weights = net.loss_weights(batch.extras['counts'], level)
        numbers = 2 * (weights * error)[:, :, 1:10].sum() / weights.numel()  # places, lengths and angles
        assert 0.85 < float(numbers) / (6.0 / 9.7) < 1.15
        assert not weights[:, :, 11].any() and not weights[:, :, :, HEADER + 12 :].any()


def test_exact_limit_of_small_noise():
    """The skip alone gives the clean image to the noise of the averaged copies."""
    torch.manual_seed(0)
    net = RowTransformer(SHIFT, SCALE, **SMALL)
    batch, level, t = noised(0.004)
    clean = clean_of(net, batch, level, t)
    cell = (clean - crystals().fields['image'])[3, 0, 4:11, HEADER : HEADER + 20]
    assert cell.abs().max() < 4 * 0.004 / math.sqrt(8 * 20)


def test_conditions_that_are_not_asked_for():
    net = network(**CONDITIONS)
    batch, level, t = noised(1.0)
    nan = torch.full((4,), math.nan)
    nothing = {'formation_energy': nan, 'space_group': nan, 'elements': nan[:, None].expand(-1, 119)}
    base = clean_of(net, batch, level, t)
    assert torch.equal(clean_of(net, batch, level, t, nothing), base)
    elements = torch.zeros(4, 119)
    elements[:, [8, 22]] = 1.0
    for asked in (
        {'formation_energy': torch.tensor([-2.0] * 4)},
        {'space_group': torch.tensor([225.0] * 4)},
        {'elements': elements},
    ):
        name, value = next(iter(asked.items()))
        value = value.clone()
        value[1:] = math.nan  # only the first one asks
        found = clean_of(net, batch, level, t, {name: value})
        assert (found[0] - base[0]).abs().max() > 1e-4 and torch.equal(found[1:], base[1:])


@pytest.mark.parametrize('tied', [True, False])
def test_bf16_autocast(tied):
    net = network(tied=tied)
    batch, level, t = noised(1.0)
    exact = clean_of(net, batch, level, t)
    with torch.autocast('cpu', torch.bfloat16):
        found = clean_of(net, batch, level, t)
        loss = net(batch, level, {})['image'].square().mean()
    loss.backward()
    assert found.dtype == torch.float32 and (found - exact).abs().mean() < 0.02 * exact.abs().mean()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_every_parameter_learns():
    for tied in (True, False):
        net = network(tied=tied, **CONDITIONS).train()
        batch, level, _ = noised(1.0)
        net(batch, level, {'space_group': torch.tensor([1.0, 2, 3, math.nan])})['image'].square().mean().backward()
        idle = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
        allowed = ('conditions', 'key') if tied is False else ('conditions.nets', 'conditions.absent', 'symmetry')
        assert not {name for name in idle if not name.startswith(allowed)}


@pytest.mark.parametrize('tied', [True, False])
def test_first_gradients_are_of_order_one_at_all_levels(tied):
    """The law that a compiled network broke on a GPU (norm 715)."""
    torch.manual_seed(0)
    net = RowTransformer(SHIFT, SCALE, tied=tied, **{**SMALL, 'features': 96})
    if not tied:
        torch.nn.init.ones_(net.share.bias)  # a pixel alone knows far less than all copies: large at first
    for sigma in (0.01, 0.1, 1.0, 10.0, 80.0):
        batch = crystals(counts=(1, 3, 12, 30, 52) * 4, seed=4)
        t = torch.full((batch.size,), PROCESS.schedule.time(sigma))
        xt, target = PROCESS.add_noise(batch, t, torch.Generator().manual_seed(6))
        level = PROCESS.c_noise(t)
        error = (net(xt, level, {})['image'] - target['image']).square()
        net.zero_grad()
        (error * net.loss_weights(batch.extras['counts'], level)).mean().backward()
        norm = sum(float(p.grad.square().sum()) for p in net.parameters() if p.grad is not None) ** 0.5
        assert 0 < norm < 5


def test_samples_have_the_asked_number_of_atoms():
    net = network()
    batch = crystals()
    noise = NoisePerStructure([1, 2, 3, 4])
    found = heun(net, PROCESS, batch, steps=4, generator=noise).fields['image']
    assert torch.isfinite(found).all()
    assert torch.allclose(found[:, :, 11, HEADER:], 2.0 * is_present(batch.extras['counts'])[:, None].float() - 1, atol=1e-4)
    again = heun(net, PROCESS, crystals(counts=(1,)), steps=4, generator=NoisePerStructure([1])).fields['image']
    assert torch.allclose(found[0], again[0], atol=1e-3)


def test_best_linear_estimates_sample_the_gaussian_that_they_belong_to():
    """An untrained network knows mean and variance of each number, and that its copies are equal: so do the samples."""
    torch.manual_seed(0)
    net = RowTransformer(SHIFT, SCALE, **SMALL).eval()
    batch = crystals(counts=(3,) * 150)
    found = heun(net, PROCESS, batch, steps=24, generator=torch.Generator().manual_seed(8)).fields['image']
    copies = strips(found)[:, :, :, :, :3].flatten(1, 2)  # (B, 8, 12, 3)
    assert copies[:, :, :11].std(1).max() < 1e-3
    assert copies[:, :, 4:11].std(3).max() < 1e-3  # cell parameters of the three atoms
    for numbers in (copies[:, 0, 4:10, 0], copies[:, 0, 1:4]):
        assert abs(float(numbers.mean())) < 0.1 and 0.92 < float(numbers.std()) < 1.05
    z = copies[:, 0, 0] * SCALE[0] + SHIFT[0]  # any whole number from 1 to 100 is as likely as another
    assert (z - z.round()).abs().max() < 1e-3 and abs(float(z.mean()) - 50.5) < 5 and abs(float(z.std()) - 28.9) < 3


def test_whole_numbers_in_little_noise():
    """Z and the space group are found exactly once noise is smaller than the steps between them."""
    net = network()
    batch, level, t = noised(0.004)
    clean = clean_of(net, batch, level, t)
    exact = crystals().fields['image']
    for field in (0, 10):
        assert torch.allclose(clean[:, :, field, HEADER:], exact[:, :, field, HEADER:], atol=1e-4)


def test_no_other_elements_than_allowed_ones():
    """Whatever the noise says; a batch in which everything is allowed is what it was."""
    net = network()
    for sigma in (0.004, 1.0, 30.0):
        batch, level, t = noised(sigma)
        base = clean_of(net, batch, level, t)
        batch.extras['allowed'] = torch.ones(4, 100, dtype=torch.bool)
        assert torch.equal(clean_of(net, batch, level, t), base)
        batch.extras['allowed'][:, torch.arange(100) != 25] = False  # iron alone
        z = clean_of(net, batch, level, t)[3, :, 0, HEADER : HEADER + 20] * SCALE[0] + SHIFT[0]
        assert torch.allclose(z, torch.full_like(z, 26.0), atol=1e-2)


def test_logits_while_training():
    net = network().train()
    batch, level, _ = noised(0.02)
    out = net(batch, level, {})
    assert set(out) == {'image', 'elements', 'groups'}
    z = crystals().fields['image'][3, 0, 0, HEADER : HEADER + 20] * SCALE[0] + SHIFT[0]
    assert torch.equal(out['elements'][3, :20].argmax(-1) + 1, z.round().long())
    group = crystals().fields['image'][:, 0, 10, HEADER] * SCALE[10] + SHIFT[10]
    assert torch.equal(out['groups'].argmax(-1) + 1, group.round().long())


def test_settings_rebuild_and_size():
    net = RowTransformer(SHIFT, SCALE, **CONDITIONS)
    assert sum(p.numel() for p in net.parameters()) <= 5_000_000
    import json

    RowTransformer(**json.loads(json.dumps(net.settings))).load_state_dict(net.state_dict())


def test_refusals():
    batch, level, _ = noised(1.0)
    del batch.extras['counts']
    with pytest.raises(ValueError, match='counts'):
        network()(batch, level, {})
    with pytest.raises(ValueError, match='tied'):
        RowTransformer(SHIFT, SCALE, tied=False, ordered=False)
    with pytest.raises(ValueError, match='16 numbers'):
        RowTransformer(SHIFT[:4], SCALE)
