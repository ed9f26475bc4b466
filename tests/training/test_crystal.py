"""Training of the crystal model: data, splits, batches, a short run that learns and resumes."""

import logging

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell

from ase_diffusion.diffusion import JointProcess
from ase_diffusion.representations.crystal import Crystal
from ase_diffusion.representations.reduction import niggli
from ase_diffusion.training.crystal import train_crystal
from ase_diffusion.training.crystal_data import CrystalData, Crystals, split_crystals
from ase_diffusion.training.data import fixed_batches
from ase_diffusion.training.objectives import DenoisingLoss, condition_on_clean
from ase_diffusion.utils.provenance import note
from ase_diffusion.weights.zoo import load_model

SMALL = dict(
    features=16,
    blocks=1,
    settings=dict(heads=2, head_width=8, hidden=16, pair_hidden=16, pair_width=8, frequencies=3),
    batch_size=8,
    progress=False,
    accelerator='cpu',
)


def images(n=24):
    out = []
    for k in range(n):
        metal = ('Na', 'K', 'Li')[k % 3]
        atoms = bulk(f'{metal}Cl', 'rocksalt', a=5.0 + 0.02 * k)
        if k % 4 == 0:
            atoms *= (2, 1, 1)
        atoms.info['key_value_pairs'] = {'gap': 0.1 * k} if k % 5 else {'split': 'train'}
        out.append(atoms)
    return out


def test_data_keeps_crystals_and_properties():
    data = Crystals.from_atoms(images())
    assert len(data) == 24 and data.elements() == [3, 11, 17, 19]
    assert np.isnan(data.conditions['gap'][[0, 5]]).all() and data.conditions['gap'][3] == pytest.approx(0.3)
    some = data.select([4, 0, 7])
    assert some.counts.tolist() == [4, 4, 2]
    assert (some.numbers[:4] == images()[4].numbers).all() and np.allclose(some.cells[1], niggli(images()[0]).cell[:])
    assert some.fingerprint() != data.fingerprint() == Crystals.from_atoms(images()).fingerprint()


def test_the_choice_of_the_cell_is_nothing_to_learn():
    atoms = images()[4]
    skewed = make_supercell(atoms, [[1, 0, 0], [1, 1, 0], [0, -2, 1]], wrap=False)
    one, other = Crystals.from_atoms([atoms]), Crystals.from_atoms([skewed])
    assert np.allclose(np.sort(np.linalg.norm(one.cells[0], axis=1)), np.sort(np.linalg.norm(other.cells[0], axis=1)))
    assert np.linalg.norm(skewed.cell[:], axis=1).max() > 1.1 * np.linalg.norm(other.cells[0], axis=1).max()


def test_compositions_do_not_leak_from_split_to_split():
    training, held = Crystals.from_atoms(images()).split(0.3)
    assert len(training) + len(held) == 24 and len(held)

    def kinds(data):
        return {tuple(sorted(n)) for n in np.split(data.numbers, data.ends[:-1])}

    assert not kinds(training) & kinds(held)
    one = Crystals.from_atoms([bulk('Cu')])
    assert one.split() == (one, one)


def test_what_cannot_be_learned_from_is_refused(tmp_path):
    with pytest.raises(ValueError, match='the data set is empty'):
        Crystals.from_atoms([])
    with pytest.raises(ValueError, match=r'structure 0 \(Cu\): a crystal is periodic in three directions'):
        Crystals.from_atoms([Atoms('Cu', cell=[3, 3, 3])])
    data = Crystals.from_atoms(images())
    with pytest.raises(ValueError, match=r"no condition \['heat'\]; it has \['gap'\]"):
        train_crystal(data, tmp_path, conditions=['heat'], steps=1)
    with pytest.raises(ValueError, match='csp_fraction is a share'):
        train_crystal(data, tmp_path, csp_fraction=1.5, steps=1)


def generated():
    """Crystals as they come from a generator and a relaxation, with a property of their own."""
    out = images()
    for k, atoms in enumerate(out):
        atoms.info['key_value_pairs'] = {
            'gap': np.inf if k == 3 else 0.1 * k,
            'metal': k % 2 == 0,
            'seed': 3,
            'spacegroup.number': 225,
        }
        note(atoms, min_distance_ratio=1.0, sampling_steps=9, noise=0.3, condition_gap=1.0, guidance_scale=2.0, best_of=4)
        note(atoms, guidance_calls=5, relax_steps=7, relax_seconds=1, relax_converged=True, energy_generated=-3.0, sampler='x')
    return out


def test_how_a_structure_was_made_is_learned_only_where_it_is_named(tmp_path, caplog):
    data = Crystals.from_atoms(generated())
    assert set(data.conditions) == {'gap'} and set(data.select([1, 0]).conditions) == {'gap'}
    with caplog.at_level(logging.INFO, 'ase_diffusion'):
        network, header = load_model(train_crystal(data, tmp_path / 'a', steps=1, **SMALL))
    assert set(network.settings['conditions']) == set(header['conditions']) == {'gap'}
    assert np.isfinite(header['conditions']['gap']).all() and all(
        name in caplog.text.partition('names them: ')[2] for name in ('best_of', 'min_distance_ratio', 'noise')
    )
    named = ['min_distance_ratio', 'metal', 'spacegroup.number']
    _, header = load_model(train_crystal(data, tmp_path / 'b', conditions=named, steps=1, **SMALL))
    assert header['conditions'] == {'min_distance_ratio': [1, 1], 'metal': [0, 1], 'spacegroup.number': [225, 225]}
    with pytest.raises(ValueError, match='guidance_scale is a keyword of sampling'):
        train_crystal(data, tmp_path, conditions=['guidance_scale'], steps=1)


def test_a_property_that_is_nowhere_known_is_named(tmp_path):
    data, crystals = Crystals.from_atoms(images()), generated()
    for atoms in crystals:
        atoms.info['key_value_pairs'] = {'gap': -np.inf}
    with pytest.raises(ValueError, match='none with gap. Leave it out'):
        train_crystal(Crystals.from_atoms(crystals), tmp_path, validation=data, steps=1)
    for atoms in crystals:
        atoms.info.clear()
    best = train_crystal(data, tmp_path, validation=Crystals.from_atoms(crystals), steps=1, **SMALL)
    assert set(load_model(best)[1]['conditions']) == {'gap'}  # unknown in all that validate


def test_the_splits_that_are_asked_for_are_taken_or_refused():
    crystals = images()
    for k, atoms in enumerate(crystals):
        atoms.info['key_value_pairs'] = {'split': ('val', 'test')[k % 2]}
    with pytest.raises(ValueError, match=r"no split \['train'\]; it has \['test', 'val'\]. name those"):
        split_crystals(crystals)
    with pytest.raises(ValueError, match=r"no split \['test'\]; it has \['val'\]"):
        split_crystals(crystals[::2], ['test'])
    training, held = split_crystals(crystals, ['test'])
    assert len(training) == 12 and len(held) == 12
    for atoms in crystals:
        atoms.info.clear()
    assert len(split_crystals(crystals)[0]) == 24 and split_crystals(crystals, ['test'])[1] is None


@pytest.mark.parametrize('scheme', ['edm', 'd3pm'])
def test_a_trained_network_keeps_its_elements(tmp_path, scheme):
    network, header = load_model(
        train_crystal(Crystals.from_atoms(images()), tmp_path / 'a', conditions=[], scheme=scheme, steps=1, **SMALL)
    )
    elements = header['representation']['elements']
    assert elements == [3, 11, 17, 19]
    fewer = Crystals.from_atoms(images()[::3])
    best = train_crystal(fewer, tmp_path / 'b', conditions=[], network=network, elements=elements, steps=1, **SMALL)
    again = load_model(best)[1]
    assert again['representation']['elements'] == elements and again['data']['elements'] == [11, 17]
    others = Crystals.from_atoms([bulk('NaBr', 'rocksalt', a=6.0), bulk('CsCl', 'rocksalt', a=6.0), *images()[:2]])
    with pytest.raises(ValueError, match='never saw Br, Cs; it knows Li, Na, Cl, K'):
        train_crystal(others, tmp_path / 'c', conditions=[], network=network, elements=elements, steps=1)
    with pytest.raises(ValueError, match='knows 4 elements'):
        train_crystal(fewer, tmp_path / 'c', conditions=[], network=network, steps=1)


def test_batches_depend_on_seed_and_number_and_are_sorted_by_size():
    data = Crystals.from_atoms(images())
    source = CrystalData(data, Crystal(data.elements()), ['gap'], batch_size=6, dropout=0.5, seed=3)
    again = CrystalData(data, Crystal(data.elements()), ['gap'], batch_size=6, dropout=0.5, seed=3, start=2)
    a, b = source.draw(2), next(iter(again))
    assert all(torch.equal(a.fields[k], b.fields[k]) for k in a.fields)
    assert torch.equal(a.conditions['gap'].nan_to_num(-1), b.conditions['gap'].nan_to_num(-1))
    assert not torch.equal(a.fields['lattice'], source.draw(3).fields['lattice'])
    spread = [len(set(source.draw(k).extras['counts'].tolist())) for k in range(12)]
    assert spread.count(1) >= 6  # most batches need no padding
    dropped = torch.cat([source.draw(k).conditions['gap'] for k in range(40)]).isnan().float().mean()
    assert 0.45 < float(dropped) < 0.8  # half of them, and the fifth that is unknown


def test_conditions_are_left_out_alone_and_together():
    crystals = images()
    for k, atoms in enumerate(crystals):
        atoms.info['key_value_pairs'] = {'gap': float(k), 'energy': -float(k)}
    data = Crystals.from_atoms(crystals)
    batch = CrystalData(data, Crystal(data.elements()), ['energy', 'gap'], batch_size=4000, dropout=0.2).draw(0)
    gap, energy = (torch.isnan(batch.conditions[name]) for name in ('gap', 'energy'))
    together, alone = 0.2 + 0.8 * 0.2**2, 0.8 * 0.2 * 0.8
    for share, expected in (((gap & energy), together), ((gap & ~energy), alone), ((energy & ~gap), alone)):
        assert share.double().mean() == pytest.approx(expected, abs=0.03)


def test_half_of_the_crystals_are_inverted():
    atoms = Atoms('NaCl', scaled_positions=[[0, 0.1, 0.2], [0.3, 0.4, 0.6]], cell=[4, 5, 6], pbc=True)
    data = Crystals.from_atoms([atoms])
    f = CrystalData(data, Crystal(data.elements()), batch_size=400).draw(0).fields['fractional'].view(400, 2, 3)
    as_it_is = np.isclose(f, atoms.get_scaled_positions(), atol=1e-6).all((1, 2))
    assert np.allclose(f[~as_it_is], 1 - atoms.get_scaled_positions(), atol=1e-6)
    assert 150 < as_it_is.sum() < 250


def test_half_of_the_times_are_where_atoms_find_their_places():
    draw = DenoisingLoss(Crystal(range(1, 2 + 1)).process(), density=(0.65, 0.05, 0.5)).times
    t = draw((torch.arange(4000) + 0.5) / 4000)
    assert ((t > 0.5) & (t < 0.8)).double().mean() == pytest.approx(0.5 + 0.5 * 0.3, abs=2e-3)  # 3 sigma are 99.7 %
    assert (t < 0.1).double().mean() == pytest.approx(0.05, abs=1e-3)
    all_of_them = DenoisingLoss(Crystal(range(1, 2 + 1)).process(), density=(0.65, 0.05, 1.0)).times(
        torch.tensor([0.0, 0.5, 1.0])
    )
    assert all_of_them[1] == pytest.approx(0.65) and 0 <= all_of_them[0] < 0.65 < all_of_them[2] <= 1


def test_given_species_are_not_noised_not_learned_and_told():
    data = Crystals.from_atoms(images())
    batch = fixed_batches(CrystalData(data, Crystal(data.elements()), ['gap']))[0]
    process = Crystal(data.elements()).process()
    seen = {}

    def network(state, level, conditions):
        seen.update(state=state)
        return {
            'fractional': torch.zeros_like(state.fields['fractional']),
            'lattice': torch.zeros_like(state.fields['lattice']),
            'species': torch.zeros(len(state.fields['species']), 4),
        }

    losses = DenoisingLoss(process, {'species': 1.0})(network, batch, torch.Generator().manual_seed(0))
    assert seen['state'].extras['given_species'].all()
    assert torch.equal(seen['state'].fields['species'], batch.fields['species'])
    assert (seen['state'].fields['fractional'] != batch.fields['fractional']).any()
    assert losses['species'] == 0
    assert float(losses['loss']) == pytest.approx(float(losses['fractional'] + losses['lattice']))
    none = DenoisingLoss(process, {'species': 0.0})(network, batch, torch.Generator().manual_seed(0))
    plain = DenoisingLoss(process)(network, batch, torch.Generator().manual_seed(0))
    assert not seen['state'].extras.get('given_species', torch.tensor(False)).any()
    assert float(none['loss']) == pytest.approx(float(plain['loss'])) and none['species'] > 0
    which = torch.arange(batch.size) % 2 == 0
    mixed = condition_on_clean(batch.with_fields(species=batch.fields['species'] * 0 + 9), batch, 'species', which)
    rows = which[batch.rows['species']]
    assert torch.equal(mixed.fields['species'][rows], batch.fields['species'][rows])
    assert (mixed.fields['species'][~rows] == 9).all() and 'given_species' not in batch.extras


def test_a_short_training_learns_and_goes_on(tmp_path):
    data = Crystals.from_atoms(images())
    common = dict(validation=data, conditions=['gap'], every=20, lr=6e-3, warmup=5, seed=1, **SMALL)
    train_crystal(data, tmp_path, steps=20, **common)
    best = train_crystal(data, tmp_path, steps=120, **common)
    log = (tmp_path / 'log.csv').read_text().splitlines()
    column = log[0].split(',').index('val_loss')
    losses = [float(line.split(',')[column]) for line in log[1:]]
    assert len(losses) >= 3 and losses[-1] < 0.95 * losses[0]
    network, header = load_model(best)
    assert network.settings['coupled']
    assert header['kind'] == 'crystal' and header['steps'] <= 120
    assert header['sizes'] == {'2': 18, '4': 6} and header['conditions']['gap'] == pytest.approx([0.1, 2.3])
    assert JointProcess.fromdict(header['process']).discrete == {'species'}
    with pytest.raises(ValueError, match='train a new one'):
        train_crystal(data, tmp_path / 'b', conditions=['gap'], network=network.without('gap'), steps=1)
    best = train_crystal(data, tmp_path / 'b', conditions=[], network=network, validation=data, steps=2, **SMALL)
    assert load_model(best)[1]['conditions'] == {}


def test_crystals_with_exchanged_elements():
    crystals = [bulk(name, 'rocksalt', a=a) for name, a in (('NaCl', 5.6), ('KCl', 6.3), ('LiF', 4.0), ('MgO', 4.2))] * 5
    for k, atoms in enumerate(crystals):
        atoms.info['key_value_pairs'] = {'gap': float(k)}
    data = Crystals.from_atoms(crystals)
    before = data.fingerprint()
    source = CrystalData(data, Crystal(data.elements()), ['gap'], batch_size=200, dropout=0.0, substitute=0.5)
    batch, again = source.draw(0), source.draw(0)
    assert all(torch.equal(batch.fields[name], again.fields[name]) for name in batch.fields)
    assert data.fingerprint() == before and np.isfinite(data.conditions['gap']).all()  # drawn crystals are copies
    changed = batch.conditions['gap'].isnan()
    assert 0.4 < changed.double().mean() < 0.6
    numbers = np.array(data.elements())[batch.fields['species'].view(-1, 2).numpy()]
    known = {tuple(sorted(atoms.numbers)) for atoms in crystals}
    new = {tuple(sorted(row)) for row in numbers[changed.numpy()].tolist()}
    assert new - known and {tuple(sorted(row)) for row in numbers[~changed.numpy()].tolist()} <= known
    assert fixed_batches(source)[0].conditions['gap'].isfinite().all()  # validation sees what is there


def test_training_with_exchanged_elements(tmp_path):
    data = Crystals.from_atoms(images())
    best = train_crystal(data, tmp_path, steps=2, substitute=0.5, **SMALL)
    assert load_model(best)[1]['substitute'] == 0.5
    with pytest.raises(ValueError, match='share of the crystals'):
        train_crystal(data, tmp_path / 'no', steps=2, substitute=2, **SMALL)
