"""Tokens of point clouds: pooling rows is exact, orders do not matter, conditions do."""

import json
import math

import pytest
import torch

from ase_diffusion.diffusion import Batch, GeometricVP, JointProcess, Preconditioned
from ase_diffusion.diffusion.samplers import dpmpp_2m
from ase_diffusion.networks.cloudtokens import CloudTokens, average_slots, denoised, slots_of
from ase_diffusion.networks.cloudunet import CloudUNet

SETTINGS = dict(
    features=48,
    blocks=2,
    heads=4,
    hidden=64,
    pair_hidden=16,
    pair_width=8,
    distances=8,
    frequencies=3,
    descriptors=5,
    conditions={'formation_energy': [-1.0, 1.0], 'band_gap': {'classes': 3}},
    scales={'positions': (0.4, 0.29), 'angles': (0.0, 0.3), 'lengths': (0.0, 0.38)},
)
COUNTS = torch.tensor([1, 2, 5, 9, 11, 16, 3, 15])
SLOTS = torch.tensor([[14, 14, 14], [11, 17, 11], [8, 12, 25], [8, 20, 22], [1, 8, 1], [3, 8, 26], [8, 22, 8], [5, 6, 7]])


UNET = {name: SETTINGS[name] for name in ('descriptors', 'conditions', 'scales')} | dict(width=16, multipliers=(1, 2))
FORMS = {CloudTokens: SETTINGS, CloudUNet: UNET}


def network(dtype=torch.float64, form=CloudTokens):
    torch.manual_seed(0)
    net = form(**FORMS[form])
    net.descriptors.copy_(torch.randn(net.descriptors.shape))
    for p in net.parameters():
        p.data += 0.1 * torch.randn(p.shape)
    return net.to(dtype).eval()


def batch_of(x, counts=COUNTS, slots=SLOTS, conditions=None):
    return Batch(
        {'cloud': x},
        {'cloud': torch.arange(len(x))},
        len(x),
        conditions=conditions or {},
        extras={'counts': counts, 'elements': slots},
    )


def noise(seed=0, dtype=torch.float32, size=8):
    return torch.randn(size, 3, 128, 3, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rows_of(k):
    n = int(COUNTS[k])
    return (torch.arange(128) // (128 // n)).clamp(max=n - 1)


def clean(net, x, c_noise, **kwargs):
    """Return D (B, 3, 128, 3) of the rows."""
    batch = batch_of(x, **kwargs)
    with torch.no_grad():
        return denoised(x, net(batch, c_noise, batch.conditions)['cloud'], torch.exp(4 * c_noise)[:, None, None, None])


LEVELS = torch.linspace(-0.9, 0.9, len(COUNTS))


@pytest.mark.parametrize('form', FORMS)
def test_rows_of_an_atom_are_copies_and_only_their_means_count(form):
    net, x = network(torch.float32, form), noise()
    out = clean(net, x, LEVELS)
    moved = x.clone()
    for k in range(len(x)):
        rows, scatter = rows_of(k), noise(1)[k]
        for atom in range(int(COUNTS[k])):
            mine = rows == atom
            assert (out[k, :2, mine] - out[k, :2, mine][:, :1]).abs().max() < 2e-4
            moved[k, :2, mine] += (scatter[:2, mine] - scatter[:2, mine].mean(1, keepdim=True)) * LEVELS[k].mul(4).exp()
        for half in (slice(0, 64), slice(64, 128)):
            assert (out[k, 2, half] - out[k, 2, half][:1]).abs().max() < 2e-4
    again = clean(net, moved, LEVELS)
    assert (again - out).abs().max() < 5e-4


@pytest.mark.parametrize('form', FORMS)
def test_equal_slots_are_pooled(form):
    net, x = network(torch.float32, form), noise()
    out = clean(net, x, LEVELS)
    same = [k for k in range(len(x)) if SLOTS[k, 0] == SLOTS[k, 2]]
    assert same and (out[same, 1, :, 0] - out[same, 1, :, 2]).abs().max() < 2e-4
    moved = x.clone()
    moved[same, 1, :, 0] += 0.3
    moved[same, 1, :, 2] -= 0.3
    assert (clean(net, moved, LEVELS)[[1, 4, 6]] - out[[1, 4, 6]]).abs().max() < 5e-4


def test_the_posterior_mean_of_a_cloud_is_that_of_its_means():
    """E[x0 | rows] at sigma and E[x0 | means] at sigma / sqrt(copies) agree for crystals drawn from a list: Bayes by hand."""
    net = network()
    generator = torch.Generator().manual_seed(3)
    for n, slots, s in ((9, [8, 20, 22], 2.0), (11, [1, 8, 1], 3.0), (16, [3, 8, 26], 0.7), (1, [14, 14, 14], 9.0)):
        counts, slots, s = torch.tensor([n]), torch.tensor([slots]), torch.tensor([s], dtype=torch.float64)
        near = 0.04 * s * torch.ones(6, 1, dtype=torch.float64)  # so near to each other that the noise hides which one it is
        atoms = near[..., None] * torch.randn(6, n, 6, generator=generator, dtype=torch.float64)  # six, equally likely
        atoms[..., 3:] = average_slots(atoms[..., 3:], slots.expand(6, -1))
        lattice = near * torch.randn(6, 6, generator=generator, dtype=torch.float64)
        data = net.unpool(atoms, lattice, counts.expand(6))  # (6, 3, 128, 3)
        noisy = data[:1] + s * torch.randn(1, 3, 128, 3, generator=generator, dtype=torch.float64)
        weight = torch.softmax(-((noisy - data) ** 2).flatten(1).sum(1) / (2 * s**2), 0)  # of the rows
        expected = (weight[:, None, None, None] * data).sum(0)
        a, b, s_a, s_b = net.pool(noisy / torch.sqrt(1 + s**2), s, counts, slots, n)
        a, b = a * torch.sqrt(1 + s_a**2), b * torch.sqrt(1 + s_b**2)  # means without the scale of unit variance
        shared = (slots[:, :, None] == slots[:, None]).sum(-1)[:, None].double()  # equal slots count once together
        each = ((a - atoms) ** 2 / (2 * s_a**2)) / torch.cat([torch.ones(1, 1, 3), shared], -1)
        exponent = each.flatten(1).sum(1) + ((b - lattice) ** 2 / (2 * s_b**2)).sum(1)
        weight = torch.softmax(-exponent, 0)
        found = net.unpool((weight[:, None, None] * atoms).sum(0)[None], (weight[:, None] * lattice).sum(0)[None], counts)[0]
        assert weight.max() < 0.99
        assert torch.allclose(found, expected, atol=1e-8)


def test_noise_of_means():
    """Means of pooled noise have unit variance at x0 = 0, whatever the number of copies."""
    net = network()
    s = torch.full((1500,), 1.7, dtype=torch.float64)
    x = noise(5, torch.float64, 1500) * 1.7 / math.sqrt(1 + 1.7**2)
    for k in range(len(COUNTS)):
        counts, slots = COUNTS[k].expand(1500), SLOTS[k].expand(1500, -1)
        a, b, s_a, s_b = net.pool(x, s, counts, slots, int(COUNTS[k]))
        assert torch.allclose(a.std(0), (s_a / torch.sqrt(1 + s_a**2))[0], rtol=0.12)
        assert torch.allclose(b.std(0), (s_b / torch.sqrt(1 + s_b**2))[0], rtol=0.12)


@pytest.mark.parametrize('form', FORMS)
def test_prediction_and_denoised_agree_with_the_process(form):
    net, x = network(torch.float32, form), noise()
    t = torch.linspace(0.1, 0.9, len(COUNTS))
    process = Preconditioned(GeometricVP(0.02, 80.0))
    batch = batch_of(x)
    with torch.no_grad():
        f = net(batch, process.schedule.c_noise(t), {})['cloud']
    expected = clean(net, x, process.schedule.c_noise(t))
    assert torch.allclose(process.to_x0(x, f, t), expected, atol=1e-4)


def test_order_of_elements_does_not_matter():
    net, x = network(torch.float32), noise()
    for order in ([1, 0, 2], [2, 1, 0], [1, 2, 0]):
        y = x.clone()
        y[:, 1] = x[:, 1][..., order]
        out, other = clean(net, x, LEVELS), clean(net, y, LEVELS, slots=SLOTS[:, order])
        assert torch.allclose(other[:, [0, 2]], out[:, [0, 2]], atol=2e-4)
        assert torch.allclose(other[:, 1], out[:, 1][..., order], atol=2e-4)


def test_permuted_atoms_are_permuted():
    net = network(torch.float32)
    counts, slots = torch.tensor([8, 16, 4]), SLOTS[:3]  # 128 is a multiple: all atoms are alike
    x, level = noise()[:3], LEVELS[2:5]
    y, takes = x.clone(), []
    for k, n in enumerate(counts.tolist()):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(k))
        takes.append((order[:, None] * (128 // n) + torch.arange(128 // n)).flatten())
        y[k, :2] = x[k, :2, takes[-1]]
    out, other = (clean(net, z, level, counts=counts, slots=slots) for z in (x, y))
    for k, take in enumerate(takes):
        assert torch.allclose(other[k, :2], out[k, :2, take], atol=3e-4)
        assert torch.allclose(other[k, 2], out[k, 2], atol=3e-4)


@pytest.mark.parametrize('form', FORMS)
def test_a_crystal_does_not_see_its_batch(form):
    net, x = network(torch.float32, form), noise()
    out = clean(net, x, LEVELS)
    for k in range(len(x)):
        alone = clean(net, x[k : k + 1], LEVELS[k : k + 1], counts=COUNTS[k : k + 1], slots=SLOTS[k : k + 1])
        assert torch.allclose(alone[0], out[k], atol=3e-4)


def test_whole_cells_do_not_change_the_pairs():
    """Fourier waves and distances are periodic: atoms a lattice vector away are the same neighbors."""
    net = network()
    fractional = torch.rand(2, 5, 3, dtype=torch.float64)
    cell, metric = torch.randn(2, 16, dtype=torch.float64), 9 * torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    bias = torch.zeros(2, 5, dtype=torch.float64)
    shifted = fractional + torch.randint(-2, 3, fractional.shape)
    for a, b in zip(net.pairs(fractional, cell, bias, metric), net.pairs(shifted, cell, bias, metric), strict=True):
        assert torch.allclose(a, b, atol=1e-6)  # distances are in single precision


def test_metric_of_clean_lattice():
    net = network()
    angles, lengths = torch.tensor([[80.0, 95.0, 110.0]]).double(), torch.tensor([[3.0, 6.0, 11.0]]).double()
    numbers = torch.cat([(angles - 90) / 60 / 0.3, torch.log(lengths / 6) / 0.84 / 0.38], -1)
    metric = net.metric(numbers, torch.zeros(1, 1, dtype=torch.float64))[0]
    assert torch.allclose(metric.diagonal().sqrt(), lengths[0])
    cosine = metric[[1, 0, 0], [2, 2, 1]] / (lengths[0, [1, 0, 0]] * lengths[0, [2, 2, 1]])
    assert torch.allclose(torch.rad2deg(torch.arccos(cosine)), angles[0])


@pytest.mark.parametrize('form', FORMS)
def test_conditions_matter_and_nan_is_not_asked(form):
    net, x = network(torch.float32, form), noise()
    size = len(x)
    nan = torch.full((size,), float('nan'))
    plain = clean(net, x, LEVELS)
    assert torch.equal(clean(net, x, LEVELS, conditions={'formation_energy': nan, 'band_gap': nan}), plain)
    outs = [clean(net, x, LEVELS, conditions={'band_gap': torch.full((size,), float(k))}) for k in range(3)]
    outs.append(clean(net, x, LEVELS, conditions={'formation_energy': torch.full((size,), -3.0)}))
    for k, a in enumerate(outs):
        for b in [plain, *outs[:k]]:
            assert (a - b).abs().amax((1, 2, 3)).min() > 1e-4
    hot = torch.zeros(size, 119).scatter_(1, SLOTS, 1.0)
    assert torch.equal(clean(net, x, LEVELS, conditions={'elements': hot}), plain)
    blind = clean(net, x, LEVELS, conditions={'elements': torch.full_like(hot, float('nan'))})
    assert (blind - plain).abs().amax((1, 2, 3)).min() > 1e-3
    other = SLOTS.clone()
    other[:, 0] = other[:, 2] = torch.where(SLOTS[:, 0] == SLOTS[:, 2], 31, SLOTS[:, 0])
    other[:, 2] = torch.where(SLOTS[:, 0] == SLOTS[:, 2], other[:, 2], SLOTS[:, 2])
    unseen = clean(net, x, LEVELS, slots=other, conditions={'elements': torch.full_like(hot, float('nan'))})
    kept = [k for k in range(size) if len(set(other[k].tolist())) == len(set(SLOTS[k].tolist()))]
    assert torch.allclose(unseen[kept], blind[kept], atol=1e-5)  # which elements they are is not known to the network


def test_structure_from_conditions_alone():
    net, x = network(torch.float32), noise()
    hot = torch.zeros(len(x), 119).scatter_(1, SLOTS, 1.0)
    expected = clean(net, x, LEVELS)
    for elements in (hot, SLOTS.float()):
        conditions = {'natoms': COUNTS.float(), 'elements': elements}
        batch = Batch({'cloud': x}, {'cloud': torch.arange(len(x))}, len(x), conditions=conditions)
        with torch.no_grad():
            f = net(batch, LEVELS, conditions)['cloud']
        assert torch.allclose(denoised(x, f, torch.exp(4 * LEVELS)[:, None, None, None]), expected, atol=1e-5)
    with pytest.raises(ValueError, match='number of atoms'):
        net(Batch({'cloud': x}, {}, len(x)), LEVELS, {'elements': hot})
    with pytest.raises(ValueError, match='condition elements is needed'):
        net(Batch({'cloud': x}, {}, len(x)), LEVELS, {'natoms': COUNTS.float()})
    assert slots_of(hot).tolist() == [sorted(set(s)) + [min(s)] * (3 - len(set(s))) for s in SLOTS.tolist()]


@pytest.mark.parametrize('form', FORMS)
def test_bf16(form):
    net, x = network(torch.float32, form), noise()
    out = clean(net, x, LEVELS)
    with torch.autocast('cpu', torch.bfloat16):
        half = clean(net, x, LEVELS)
    assert half.dtype == torch.float32
    assert (half - out).square().mean().sqrt() < 0.05 * out.std()
    net.train()
    with torch.autocast('cpu', torch.bfloat16):
        loss = net(batch_of(x), LEVELS, {})['cloud'].square().mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize('form', FORMS)
def test_settings_are_json_and_the_shipped_size_fits(form):
    net = form(**json.loads(json.dumps(network(torch.float32, form).settings)))
    net.load_state_dict(network(torch.float32, form).state_dict())
    assert torch.equal(clean(net.eval(), noise(), LEVELS), clean(network(torch.float32, form), noise(), LEVELS))
    full = CloudTokens(descriptors=56, conditions={'formation_energy': [0, 1], 'band_gap': {'classes': 3}})
    assert sum(p.numel() for p in full.parameters()) < 5e6
    with pytest.raises(ValueError, match='multiple of heads'):
        CloudTokens(features=50, heads=4)


def test_sampling_gives_blocks_of_copies():
    net = network(torch.float32)
    batch = batch_of(torch.zeros(len(COUNTS), 3, 128, 3))
    process = JointProcess({'cloud': Preconditioned(GeometricVP(0.02, 80.0))})
    out = dpmpp_2m(net, process, batch, steps=4, generator=torch.Generator().manual_seed(0)).fields['cloud']
    assert torch.isfinite(out).all()
    for k in range(len(COUNTS)):
        rows = rows_of(k)
        first = torch.searchsorted(rows, torch.arange(int(COUNTS[k])))
        assert (out[k, :2] - out[k, :2, first[rows]]).abs().max() < 1e-3


@pytest.mark.slow
def test_learns_one_crystal():
    torch.manual_seed(0)
    net = CloudTokens(features=64, blocks=2, heads=4, hidden=128, pair_hidden=16, pair_width=8)
    counts, slots = torch.tensor([5]), torch.tensor([[8, 12, 25]])
    atoms, lattice = torch.randn(1, 5, 6), torch.randn(1, 6)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    known = torch.ones(64, dtype=torch.bool)
    for _ in range(400):
        s = torch.exp(1.5 * torch.randn(64)) * 5
        c, e = counts.expand(64), slots.expand(64, -1)
        s_a, s_l = net.ratios(s, c, e, 5)
        noise_a, noise_l = torch.randn(64, 5, 6), torch.randn(64, 6)
        xa, xl = (atoms + s_a * noise_a) / torch.sqrt(1 + s_a**2), (lattice + s_l * noise_l) / torch.sqrt(1 + s_l**2)
        fa, fl = net.core(xa, xl, s, c, e, known, {})
        loss = ((denoised(xa, fa, s_a) - atoms) / s_a * torch.sqrt(1 + s_a**2)).square().mean()
        loss = loss + ((denoised(xl, fl, s_l) - lattice) / s_l * torch.sqrt(1 + s_l**2)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch = batch_of(torch.zeros(1, 3, 128, 3), counts, slots)
    process = JointProcess({'cloud': Preconditioned(GeometricVP(0.02, 80.0))})
    # the order of atoms is free: distances of every found atom to the nearest one
    out = dpmpp_2m(net.eval(), process, batch, steps=30, generator=torch.Generator().manual_seed(0)).fields['cloud']
    found = out[0, :2, torch.arange(5) * 25].transpose(0, 1).reshape(5, 6)
    assert torch.cdist(found, atoms[0]).amin(1).max() < 0.3
    assert (torch.cat([out[0, 2, 0], out[0, 2, 64]]) - lattice[0]).abs().max() < 0.1
