"""Laws of the Transformer of crystals: permutation, rotation, translation, periods, padding, precision, conditions."""

from dataclasses import replace

import pytest
import torch

from ase_diffusion.diffusion import NoiseStream
from ase_diffusion.networks import CrystalTransformer
from ase_diffusion.networks.transformer import pad
from ase_diffusion.representations.crystal import Crystal

ELEMENTS = (8, 22, 38, 56)
TOL = {torch.float64: 1e-9, torch.float32: 1e-3}
KINDS = pytest.mark.parametrize('conditioning', ['cds', 'cdi'])
COUPLED = {'cds': True, 'cdi': False}  # the laws hold for both kinds of pair terms
DTYPES = pytest.mark.parametrize('dtype', [torch.float64, torch.float32])


def network(conditioning='cds', dtype=torch.float64, **settings):
    torch.manual_seed(0)
    settings = dict(features=24, blocks=2, heads=3, head_width=8, hidden=32, pair_hidden=16, pair_width=12) | settings
    settings.setdefault('coupled', COUPLED[conditioning])
    net = CrystalTransformer(len(ELEMENTS), conditioning=conditioning, conditions={'energy': (0.0, 1.0)}, **settings)
    for p in net.parameters():  # so that nothing is zero by its start value
        p.data += 0.05 * torch.randn(p.shape)
    return net.to(dtype).eval()


def crystals(counts=(3, 5, 2), dtype=torch.float64, seed=1):
    gen = torch.Generator().manual_seed(seed)
    n = sum(counts)
    numbers = torch.tensor(ELEMENTS)[torch.randint(len(ELEMENTS), (n,), generator=gen)]
    cells = 4 * torch.eye(3) + torch.randn(len(counts), 3, 3, generator=gen)
    fractional = torch.rand(n, 3, generator=gen, dtype=torch.float64)
    energy = torch.randn(len(counts), generator=gen)
    return Crystal(ELEMENTS, dtype).assemble(fractional, numbers, cells, counts, {'energy': energy})


def evaluate(net, batch):
    level = torch.linspace(-1.2, -0.3, batch.size, dtype=batch.fields['lattice'].dtype)
    with torch.no_grad():
        return net(batch, level, batch.conditions)


def close(a, b, dtype=torch.float64):
    return all(torch.allclose(a[name], b[name], atol=TOL[dtype], rtol=TOL[dtype]) for name in b)


@KINDS
@DTYPES
def test_atoms_can_be_permuted(conditioning, dtype):
    batch, net = crystals((4,), dtype), network(conditioning, dtype)
    order = torch.tensor([2, 0, 3, 1])
    moved = batch.with_fields(fractional=batch.fields['fractional'][order], species=batch.fields['species'][order])
    out, expected = evaluate(net, moved), evaluate(net, batch)
    assert close(out, {'lattice': expected['lattice'], **{k: expected[k][order] for k in ('fractional', 'species')}}, dtype)
    assert expected['fractional'].std(0).min() > 1e-3  # atoms are told apart


@KINDS
@DTYPES
def test_rotations_turn_the_lattice_noise_and_nothing_else(conditioning, dtype):
    batch, net = crystals(dtype=dtype), network(conditioning, dtype)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    turn = turn.to(dtype)
    out = evaluate(net, batch.with_fields(lattice=batch.fields['lattice'] @ turn))
    expected = evaluate(net, batch)
    assert close(out, {**expected, 'lattice': expected['lattice'] @ turn}, dtype)


@KINDS
@DTYPES
def test_crystals_can_be_shifted_and_atoms_wrapped(conditioning, dtype):
    batch, net = crystals(dtype=dtype), network(conditioning, dtype)
    f = batch.fields['fractional']
    whole = torch.randint(-2, 3, f.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    shift = torch.tensor([[0.3, -0.8, 0.1], [0.0, 0.5, 0.25], [0.7, 0.7, 0.7]], dtype=dtype)[batch.rows['fractional']]
    assert close(evaluate(net, batch.with_fields(fractional=f + shift + whole)), evaluate(net, batch), dtype)


@KINDS
def test_padding_reaches_nothing(conditioning):
    net, batch = network(conditioning), crystals((3, 5, 2))
    together = evaluate(net, batch)
    level = torch.linspace(-1.2, -0.3, 3, dtype=torch.float64)
    for k, n in enumerate((3, 5, 2)):
        mine = batch.rows['fractional'] == k
        numbers = torch.tensor(ELEMENTS)[batch.fields['species'][mine]]
        cell, energy = batch.fields['lattice'][k][None], batch.conditions['energy'][k][None]
        sites = batch.fields['fractional'][mine]
        alone = Crystal(ELEMENTS, torch.float64).assemble(sites, numbers, cell, [n], {'energy': energy})
        with torch.no_grad():
            out = net(alone, level[k : k + 1], alone.conditions)
        expected = {'lattice': together['lattice'][k][None], **{m: together[m][mine] for m in ('fractional', 'species')}}
        assert close(out, expected)


def test_rows_are_spread_over_slots():
    x = torch.arange(1, 6.0)[:, None]
    assert pad(x, torch.tensor([0, 1, 2, 3, 4]), 2, 3).squeeze(-1).tolist() == [[1, 2, 3], [4, 5, 0]]
    assert pad(x[:4], torch.arange(4), 2, 2).squeeze(-1).tolist() == [[1, 2], [3, 4]]


@KINDS
def test_conditions_time_size_and_given_species_reach_the_output(conditioning):
    net, batch = network(conditioning), crystals((3, 3))
    base = evaluate(net, batch)
    asked = evaluate(net, crystals((3, 3)).with_fields())
    assert close(asked, base)
    other = dict(batch.conditions, energy=batch.conditions['energy'] + 1.0)
    none = {'energy': torch.full((2,), float('nan'), dtype=torch.float64)}
    level = torch.linspace(-1.2, -0.3, 2, dtype=torch.float64)
    with torch.no_grad():
        outs = [net(batch, level, other), net(batch, level, none), net(batch, level + 0.1, batch.conditions)]
        assert close(net(batch, level, none), net(batch, level, {}))
    batch.extras['known'] = torch.tensor([True, False])
    given = evaluate(net, batch)
    outs.append({k: v[:1] for k, v in given.items()})
    assert close({k: v[3:] for k, v in given.items() if k != 'lattice'}, {k: v[3:] for k, v in base.items() if k != 'lattice'})
    for out in outs:
        assert not torch.allclose(out['fractional'], base['fractional'][: len(out['fractional'])], atol=1e-4)


def test_gradients_reach_every_parameter():
    net, batch = network('cdi').train(), crystals()
    batch.extras['known'] = torch.tensor([True, False, True])
    batch.conditions['energy'][0] = float('nan')
    process = Crystal(ELEMENTS).process()
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    noisy, target = process.add_noise(batch, t, NoiseStream(torch.Generator().manual_seed(0)))
    process.loss(noisy, net(noisy, process.c_noise(t), batch.conditions), target, t).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_conditioning_is_one_of_two():
    with pytest.raises(ValueError, match="'cds' or 'cdi'"):
        CrystalTransformer(3, conditioning='cross')


@KINDS
def test_a_network_forgets_a_condition_and_predicts_as_if_it_were_not_asked(conditioning):
    batch, net = crystals(), network(conditioning)
    asked = evaluate(net, batch)
    nothing = evaluate(net, replace(batch, conditions={'energy': torch.full((3,), float('nan'))}))
    less = net.without('energy')
    assert less.settings['conditions'] == {} and net.settings['conditions']
    assert close(evaluate(less, batch), nothing) and not close(asked, nothing)


def test_a_condition_may_have_any_name():
    """Torch refuses dots and the names of its own methods; names that it takes are the keys, as they always were."""
    names = ['gap', 'spacegroup.number', 'spacegroup%2Enumber', 'type', 'keys', 'pop', 'training', 'my gap']
    torch.manual_seed(0)
    net = CrystalTransformer(4, 8, 1, conditions={name: (0.0, 1.0 + k) for k, name in enumerate(names)})
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    keys = {key for key in net.state_dict() if key.startswith('conditions.')}
    assert len(keys) == 5 * len(names)
    assert {'conditions.absent.gap', 'conditions.nets.gap.0.weight', 'conditions.absent.my gap'} <= keys
    other = CrystalTransformer(**net.settings)
    other.load_state_dict(net.state_dict())
    like = torch.zeros(1, 8)
    for name in names:
        assert not torch.allclose(net.conditions({name: torch.tensor([0.3])}, like), net.conditions({}, like))
    assert torch.equal(net.conditions({'pop': torch.tensor([0.3])}, like), other.conditions({'pop': torch.tensor([0.3])}, like))
    less = net.without('type', 'spacegroup.number')
    assert set(less.conditions.names) == set(names) - {'type', 'spacegroup.number'}
    absent = net.conditions.absent['type'] + net.conditions.absent['spacegroup.number']
    assert torch.allclose(less.count[2].bias, net.count[2].bias + absent)
