"""The generator of point clouds: exact elements whatever their order, conditions, seeds, provenance, training, errors."""

import io
import logging

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.db import connect
from ase.io import read, write

from ase_diffusion import PointCloudDiffusion
from ase_diffusion.cli.main import main
from ase_diffusion.diffusion import NoiseStream
from ase_diffusion.errors import CheckpointError, GenerationFailed
from ase_diffusion.networks import CloudUNet
from ase_diffusion.representations import Failure
from ase_diffusion.representations.pointcloud import PointCloud
from ase_diffusion.representations.substitution import element_tables
from ase_diffusion.training.checkpoint import load_checkpoint, save_checkpoint
from ase_diffusion.training.data import Structures
from ase_diffusion.training.pointcloud import (
    LEVELS,
    CloudData,
    TokenLoss,
    _form,
    labelled,
    new_network,
    sizes_of,
    suitable,
    train_pointcloud,
)
from ase_diffusion.training.recipe import header_of

SMALL = dict(features=24, blocks=1, batch_size=8, progress=False, accelerator='cpu', every=20, warmup=5)


def salts(n=24):
    """Rock salts and perovskites with an energy, a gap and, some of them, a magnetic order."""
    images = []
    for k in range(n):
        a = 4.2 + 0.02 * k
        if k % 3:
            atoms = bulk(('MgO', 'MnO')[k % 2], 'rocksalt', a=a)
        else:
            sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
            atoms = Atoms('MgMnO3', scaled_positions=sites, cell=a * np.eye(3), pbc=True)
        pairs = {'formation_energy': -2.0 - 0.01 * k, 'band_gap': (0.0, 0.7, 3.0)[k % 3]}
        atoms.info['key_value_pairs'] = pairs | ({'order': ('FM', 'AFM')[k % 2]} if k % 4 else {})
        images.append(atoms)
    return images


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The path of a model that was trained for seconds."""
    out = tmp_path_factory.mktemp('pointcloud')
    return train_pointcloud(salts(), out, steps=100, lr=3e-3, **SMALL)


def generator(trained, elements=('Mg', 'O'), **options):
    options = dict(rng=1, steps=6, logfile=None, maxtries=200) | options
    return PointCloudDiffusion(list(elements), model=trained, **options)


def same(a, b, tolerance=1e-4):
    return (a.numbers == b.numbers).all() and np.allclose(a.positions, b.positions, atol=tolerance)


# -------------------------------------------------------------------- elements and numbers of atoms


def test_all_of_the_asked_elements_and_no_others(trained):
    for elements in (('O',), ('Mg', 'O'), ('Mg', 'Mn', 'O')):
        gen = generator(trained, elements, natoms=5)
        images = gen.sample(6)
        assert all(set(atoms.get_chemical_symbols()) == set(elements) and len(atoms) == 5 for atoms in images)
        assert gen.statistics['rejected'] == sum(gen.failures.values())
        assert all(atoms.pbc.all() and (atoms.get_scaled_positions(wrap=False) > -1e-9).all() for atoms in images)
        assert all(np.allclose(atoms.cell, np.tril(atoms.cell)) and np.linalg.det(atoms.cell) > 0 for atoms in images)


def test_the_order_of_the_elements_does_not_matter(trained):
    orders = (['Mg', 'Mn', 'O'], ['O', 'Mg', 'Mn'], ('Mn', 'O', 'Mg'), {'O', 'Mn', 'Mg'})
    runs = [generator(trained, order).sample(4, band_gap='semiconductor') for order in orders]
    for images in runs[1:]:
        assert all(same(a, b, 1e-12) for a, b in zip(runs[0], images, strict=True))


def test_a_missing_element_is_a_failure_drawn_again_and_counted(trained):
    log = io.StringIO()
    gen = generator(trained, ('Mg', 'Mn', 'O'), logfile=log)
    decode = gen.representation.decode

    def sometimes(batch):
        outcomes = decode(batch)
        return [Failure('an asked element has no atom') if k % 2 else atoms for k, atoms in enumerate(outcomes)]

    gen.representation.decode = sometimes
    gen.validate = False
    assert len(gen.sample(4)) == 4
    assert gen.failures['an asked element has no atom'] >= 2
    assert 'x an asked element has no atom' in log.getvalue()
    gen.maxtries = 3
    gen.representation.decode = lambda batch: [Failure('an asked element has no atom')] * batch.size
    with pytest.raises(GenerationFailed, match='an asked element has no atom'):
        gen.sample(2)


def test_numbers_of_atoms_follow_the_data_for_as_many_elements(trained):
    _, header = load_checkpoint(trained)
    assert header['sizes'] == sizes_of(suitable(salts())) or set(header['sizes']) == {'2', '3'}
    assert {generator(trained)._count(seed) for seed in range(40)} == {2}
    assert {generator(trained, ('Mg', 'Mn', 'O'))._count(seed) for seed in range(40)} == {5}
    with pytest.raises(ValueError, match='saw crystals of 2, 3 elements, not of 1; pass natoms'):
        generator(trained, ('O',))
    gen = generator(trained)
    gen.header['sizes']['2'] = {'2': 30, '4': 10, '1': 99}
    counts = [gen._count(seed) for seed in range(2000)]
    assert set(counts) == {2, 4} and abs(np.mean(np.array(counts) == 4) - 0.25) < 0.04


def test_the_shipped_model_knows_which_atoms_go_where():
    gen = PointCloudDiffusion(elements=['Mg', 'Mn', 'O'], rng=0, steps=20, logfile=None)
    images = gen.sample(4, band_gap='semiconductor', formation_energy=-2.0)
    assert all(set(atoms.get_chemical_symbols()) == {'Mg', 'Mn', 'O'} and 3 <= len(atoms) <= 16 for atoms in images)
    near = [atoms.repeat(3).get_all_distances()[: len(atoms)] for atoms in images]
    assert sum(d[d > 0].min() > 1.1 for d in near) >= 3  # random sites in such cells: one in three
    assert all(5 < atoms.cell.volume / len(atoms) < 40 for atoms in images)


# -------------------------------------------------------------------- seeds, provenance, what follows the sampling


def test_same_seed_same_crystals_at_any_batch_size(trained):
    images = generator(trained, ('Mg', 'Mn', 'O')).sample(5, formation_energy=-2.1, guidance_scale=2.0)
    again = generator(trained, ('Mg', 'Mn', 'O'), batch_size=2).sample(5, formation_energy=-2.1, guidance_scale=2.0)
    assert all(same(a, b, 1e-3) for a, b in zip(images, again, strict=True))


def test_provenance_survives_a_database(trained, tmp_path):
    atoms = generator(trained).sample(band_gap='metal', formation_energy=-2.0, guidance_scale=1.5)
    with connect(tmp_path / 'a.db') as db:
        db.write(atoms, data=atoms.info['data'], **atoms.info['key_value_pairs'])
        row = db.get(1)
    told = row.key_value_pairs
    assert told['generator'] == 'PointCloudDiffusion' and told['elements'] == 'O-Mg' and told['sampler'] == 'renoised_ancestral'
    assert told['condition_band_gap'] == 'metal' and told['condition_formation_energy'] == -2.0 and told['guidance_scale'] == 1.5
    assert row.data['diffusion']['type'] == 'pointcloud-diffusion' and row.data['diffusion']['elements'] == ['O', 'Mg']


def test_conditions_and_guidance_change_the_result(trained):
    asked = {'band_gap': 'insulator', 'formation_energy': -2.2}
    clouds = [
        next(generator(trained).sample_batches(2, **conditions)).fields['cloud']
        for conditions in ({}, asked, asked | {'guidance_scale': 4.0})
    ]
    assert clouds[0].shape == (2, 3, 128, 3)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(clouds, clouds[1:], strict=False))


def test_the_guidance_scale_leaves_the_elements_alone(trained):
    """Without other conditions it changes nothing; with them, 0 is the model that knows the elements only."""

    def clouds(**conditions):
        return next(generator(trained).sample_batches(2, **conditions)).fields['cloud']

    plain = clouds()
    assert all(torch.equal(plain, clouds(guidance_scale=scale)) for scale in (0.0, 3.0))
    assert torch.equal(plain, clouds(band_gap='metal', guidance_scale=0.0))
    assert not torch.equal(plain, clouds(band_gap='metal'))


def test_a_condition_changes_compositions(tmp_path):
    """Oxides of high energy and suboxides of low energy: asked for one of them, their share rises with the scale."""
    images = []
    for k in range(48):
        rich = k % 2
        atoms = Atoms('MgO3' if rich else 'Mg3O', scaled_positions=np.eye(4, 3) / 2, cell=4.0 * np.eye(3), pbc=True)
        atoms.info['key_value_pairs'] = {'energy': 1.0 if rich else -1.0}
        images.append(atoms)
    gen = PointCloudDiffusion(['Mg', 'O'], model='untrained', rng=0, steps=8, logfile=None, maxtries=2000)
    gen.fit(images, validation=images[:8], steps=30, **SMALL)
    assert set(gen.networks) == {'denoiser', 'property'}
    shares = []
    for scale in (0.0, 4.0):
        gen.validate = False
        made = gen.sample(24, energy=1.0, guidance_scale=scale)
        shares.append(np.mean([np.mean(atoms.numbers == 8) for atoms in made]))
    assert shares[1] > shares[0] + 0.1
    again = PointCloudDiffusion(['Mg', 'O'], model=gen.save(tmp_path / 'a.safetensors'), logfile=None)
    assert set(again.networks) == {'denoiser', 'property'}


def test_atoms_inside_each_other_are_rejected(trained):
    gen = generator(trained)
    near = Atoms('CsBr', scaled_positions=[[0, 0, 0], [0.2, 0, 0]], cell=[10, 6, 6], pbc=True)  # 2 of 3.64 A
    assert gen._reason_to_reject(near) == 'atoms closer than 0.65 of the sum of their covalent radii'
    near.set_scaled_positions([[0, 0, 0], [0.25, 0, 0]])
    assert gen._reason_to_reject(near) is None
    water = Atoms('OH2', positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[5, 5, 5], pbc=True)
    assert gen._reason_to_reject(water) is None


def test_distances_symmetry_and_relaxation(trained):
    gen = generator(trained, min_distance=1.2, symmetrize=0.1, maxtries=1000)
    atoms = gen.sample(2)[0]
    assert atoms.repeat(3).get_all_distances()[0, 1:].min() >= 1.2
    gen = generator(trained, relax={'calculator': LennardJones(sigma=2.0, rc=5.0), 'steps': 2, 'fmax': 100.0})
    atoms = gen.sample()
    assert np.isfinite(atoms.get_potential_energy()) and atoms.info['key_value_pairs']['relax_steps'] <= 2
    assert set(atoms.get_chemical_symbols()) == {'Mg', 'O'}


# -------------------------------------------------------------------- training


def test_words_and_gaps_are_conditions_and_training_goes_on(tmp_path, caplog):
    images = salts(12)
    big = bulk('Mg') * (3, 3, 1)
    many = Atoms('LiMgMnO', scaled_positions=np.eye(4)[:, :3] / 2, cell=4 * np.eye(3), pbc=True)
    for atoms in (big, many):
        atoms.info['key_value_pairs'] = {'formation_energy': 0.0}
    gen = PointCloudDiffusion(['O', 'Mg'], model='untrained', rng=0, steps=4, logfile=None, maxtries=500)
    with caplog.at_level(logging.WARNING):
        names = ['band_gap', 'order']
        assert gen.fit([*images, big, many], tmp_path / 'run', steps=6, conditions=names, **SMALL) is gen
    assert '2 of 14 structures of the data cannot be used and are left out: structure 12 (Mg18), 13 (LiMgMnO)' in caplog.text
    assert gen.header['conditions'] == {
        'band_gap': {'classes': ['metal', 'semiconductor', 'insulator']},
        'order': {'classes': ['AFM', 'FM']},
    }
    assert gen.header['representation']['elements'] == [8, 12, 25]
    assert set(gen.sample(order='AFM').get_chemical_symbols()) == {'Mg', 'O'}
    path = gen.save(tmp_path / 'model.safetensors')
    again = PointCloudDiffusion.from_pretrained(path, ['Mg', 'O'], logfile=None)
    before = {name: value.clone() for name, value in again.network.state_dict().items()}
    assert all(torch.equal(value, gen.network.state_dict()[name]) for name, value in before.items())
    again.fit(images, steps=5, conditions=names, **{k: v for k, v in SMALL.items() if k not in ('features', 'blocks')})
    assert any(not torch.equal(value, again.network.state_dict()[name]) for name, value in before.items())


def test_the_unet_is_another_network(tmp_path):
    gen = PointCloudDiffusion(['O', 'Mg'], model='untrained', rng=0, steps=4, logfile=None, maxtries=500)
    gen.fit(salts(12), tmp_path / 'run', steps=3, network='unet', **(SMALL | {'features': 16}))
    assert type(gen.network) is CloudUNet and gen.network.settings['width'] == 16
    batch = next(gen.sample_batches(2))
    assert batch.fields['cloud'].shape == (2, 3, 128, 3) and torch.isfinite(batch.fields['cloud']).all()
    again = PointCloudDiffusion(['O', 'Mg'], model=gen.save(tmp_path / 'a.safetensors'), logfile=None)
    assert type(again.network) is CloudUNet
    with pytest.raises(ValueError, match="network is 'tokens' or 'unet'"):
        train_pointcloud(salts(12), tmp_path / 'no', steps=3, network='gan', **SMALL)


def test_the_loss_of_a_perfect_network_is_zero_and_that_of_none_is_known():
    """Predicting nothing (F = 0), atoms and lattice have E F^2 = 1 at every level, whatever the number of copies."""
    cloud = PointCloud(elements=(8, 12, 25))
    images = salts(3) * 200
    batch, process = cloud.encode(images), cloud.process()
    loss = TokenLoss(process)
    clean = batch.fields['cloud']

    def perfect(noisy, c_noise, conditions):
        s = torch.exp(4 * c_noise)[:, None, None, None]
        return {'cloud': (torch.sqrt(1 + s**2) * clean - noisy.fields['cloud']) / s}

    parts = loss(perfect, batch, torch.Generator().manual_seed(0))
    assert all(float(value) < 1e-3 for value in parts.values())

    class Means:
        """F of the pooled data is 0: the estimate is the pooled noised cloud, shrunk."""

        def __call__(self, noisy, c_noise, conditions):
            s = torch.exp(4 * c_noise)  # (B,)
            out = torch.empty_like(clean)
            for k, n in enumerate(batch.extras['counts'].tolist()):
                r, x = 128 // n, torch.sqrt(1 + s[k] ** 2) * noisy.fields['cloud'][k]  # rows of signal 1 and noise s
                slots = batch.extras['elements'][k]
                same_slot = (slots[:, None] == slots).float()
                for a in range(n):
                    rows = slice(a * r, 128 if a == n - 1 else (a + 1) * r)
                    copies = x[:, rows].shape[1]
                    out[k, 0, rows] = x[0, rows].mean(0) / (1 + s[k] ** 2 / copies)
                    pooled = x[1, rows].mean(0) @ same_slot / same_slot.sum(-1)
                    out[k, 1, rows] = pooled / (1 + s[k] ** 2 / copies / same_slot.sum(-1))
                for half in (slice(0, 64), slice(64, 128)):
                    out[k, 2, half] = x[2, half].mean(0) / (1 + s[k] ** 2 / 64)
            s = s[:, None, None, None]
            return {'cloud': (torch.sqrt(1 + s**2) * out - noisy.fields['cloud']) / s}

    parts = loss(Means(), batch, torch.Generator().manual_seed(1))
    variance = {'positions': clean[:, 0].square().mean(), 'species': clean[:, 1].square().mean()}
    for name, value in variance.items():  # F^2 = (s^2 x0^2 + 1) / (1 + s^2) of an atom: 1 for data of unit variance
        assert abs(float(parts[name]) - 1) < abs(float(value) - 1) + 0.1, name


def test_levels_are_those_of_atoms():
    cloud = PointCloud()
    seen = []

    class Spy(TokenLoss):
        def _times(self, ln_s):
            seen.append(ln_s)
            return super()._times(ln_s)

    for n in (1, 16):
        images = [bulk('Cu', 'sc', a=3.0) * (n, 1, 1)] * 512
        zero = lambda noisy, c_noise, conditions: {'cloud': torch.zeros_like(noisy.fields['cloud'])}  # noqa: E731
        Spy(cloud.process())(zero, cloud.encode(images), torch.Generator().manual_seed(0))
        ln_atom = seen[-1] - 0.5 * np.log(128 // n)
        assert abs(float(ln_atom.mean()) - LEVELS[0]) < 0.05 and abs(float(ln_atom.std()) - LEVELS[1]) < 0.05


# -------------------------------------------------------------------- errors, before any work


@pytest.mark.parametrize(
    ('elements', 'options', 'law'),
    [
        ([], {}, 'elements is a list of chemical symbols'),
        ('MgO', {}, 'elements is a list of chemical symbols'),
        (None, {}, 'elements is a list of chemical symbols'),
        (['Mg', 'Xx'], {}, "'Xx' is none"),
        ([12, 8], {}, '12 is none'),
        (['Li', 'Mg', 'Mn', 'O'], {}, 'one to three chemical symbols, got 4: Li, O, Mg, Mn'),
        (['O'], {'natoms': 17}, 'at most 16 sites, got natoms=17'),
        (['Mg', 'Mn', 'O'], {'natoms': 2}, '3 or more; got 2'),
        (['O'], {'natoms': 2.5}, '1 or more; got 2.5'),
        (['O'], {'best_of': 4}, 'best_of=4 compares energies'),
        (['O'], {'min_distance': 0.1}, 'min_distance is a distance of atoms in A'),
        (['O'], {'symmetrize': -1}, 'symmetrize is a tolerance'),
        (['O'], {'relax': {'calculator': 'nonsense'}}, 'nonsense'),
    ],
)
def test_what_has_no_meaning_is_refused_before_a_model_is_loaded(elements, options, law, monkeypatch):
    monkeypatch.setattr('ase_diffusion.generators.model.load_networks', lambda *args: pytest.fail('began'))
    with pytest.raises((ValueError, TypeError), match=law):
        PointCloudDiffusion(elements, model='somewhere', logfile=None, **options)


@pytest.mark.parametrize(
    ('conditions', 'error', 'law'),
    [
        ({'guidance_scale': -0.5}, ValueError, 'guidance_scale is 0 or more, got -0.5'),
        ({'band_gap': 'wide'}, ValueError, 'band_gap is one of metal, semiconductor, insulator, or None'),
        ({'formation_energy': 'low'}, ValueError, 'formation_energy must be a finite number'),
        ({'elements': ['Mg']}, TypeError, 'elements and natoms are arguments of PointCloudDiffusion'),
        ({'n': 0}, ValueError, 'n is an integer'),
    ],
)
def test_conditions_without_meaning_are_refused(trained, conditions, error, law, monkeypatch):
    gen = generator(trained)
    monkeypatch.setattr(gen, '_sample_batch', lambda *args: pytest.fail('began'))
    with pytest.raises(error, match=law):
        gen.sample(**{'n': 2, **conditions})


def test_unknown_elements_of_a_model_or_of_data(trained):
    with pytest.raises(ValueError, match='never saw Xe; it knows O, Mg, Mn'):
        generator(trained, ('Xe', 'O'))
    with pytest.raises(ValueError, match='never saw Xe'):
        PointCloudDiffusion(['Xe'], natoms=1, model='untrained', logfile=None).fit(salts(4), steps=2, **SMALL)
    with pytest.raises(ValueError, match='untrained'):
        PointCloudDiffusion(['O'], model='untrained', logfile=None).sample()
    with pytest.raises(ValueError, match=r'\(Mg18\): point clouds have at most 16 atoms and 3 elements'):
        suitable([bulk('Mg') * (3, 3, 1)])


def test_a_damaged_header_is_refused(tmp_path):
    cloud = PointCloud(elements=(8, 12))
    network = new_network(cloud, {}, features=24, blocks=1)
    header = header_of('pointcloud', cloud, cloud.process(), data={}, sizes={'2': {'17': 3}})
    path = save_checkpoint(tmp_path / 'bad.safetensors', network, header)
    with pytest.raises(CheckpointError, match='sizes are counts'):
        PointCloudDiffusion(['Mg', 'O'], model=path, logfile=None)


# -------------------------------------------------------------------- command line


def test_command_line(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write('salts.db', salts(12))
    line = 'train pointcloud salts.db --out run --steps 3 --features 24 --blocks 1 --batch-size 4 --quiet'
    assert main(line.split()) in (None, 0)
    assert 'next: ase-diffusion sample pointcloud --elements Mg Mn O --model run/best.safetensors' in capsys.readouterr().out
    line = f'sample pointcloud --elements O Mg --model {trained} -n 3 --seed 1 --steps 6 -o out.extxyz'
    assert main([*line.split(), '--condition', 'formation_energy=-2', '--guidance-scale', '2']) in (None, 0)
    assert all(set(atoms.get_chemical_symbols()) == {'Mg', 'O'} for atoms in read('out.extxyz', ':'))
    assert main([*line.split(), '--guidance-scale', '-1']) == 2
    assert main(['sample', 'pointcloud', '--elements', 'Li', 'Mg', 'Mn', 'O']) == 2
    assert 'one to three chemical symbols' in capsys.readouterr().err


def test_noise_of_one_batch_is_that_of_the_process(trained):
    """The field and the prediction of the shipped form of network have the same shape."""
    gen = generator(trained)
    batch = gen.representation.encode(suitable(salts(2)))
    noisy, _ = gen.process.add_noise(batch, torch.full((2,), 0.5), NoiseStream(torch.Generator().manual_seed(0)))
    out = gen.network(noisy, gen.process.c_noise(torch.full((2,), 0.5)), noisy.conditions)
    assert out['cloud'].shape == (2, 3, 128, 3)


# -------------------------------------------------------------------- exchanged elements


@pytest.mark.parametrize('lattice', ['log', 'paper'])
def test_clouds_of_crystals_with_exchanged_elements(lattice):
    data = labelled(Structures.from_atoms(suitable(salts()), ['formation_energy', 'band_gap']))
    forms = {name: _form(name, values) for name, values in data.conditions.items()}
    cloud = PointCloud(lattice=lattice)
    source = CloudData(data, cloud, forms, batch_size=24, dropout=0.0, substitute=0.5)
    index = np.arange(24)
    batch, plain = source.batch_of(index, np.random.default_rng(0)), source.batch_of(index)
    changed = (batch.extras['elements'] != plain.extras['elements']).any(1)
    assert 4 <= int(changed.sum()) <= 20 and torch.equal(batch.conditions['formation_energy'].isnan(), changed)
    assert torch.equal(batch.conditions['band_gap'].isnan(), changed)
    for k, (new, old) in enumerate(zip(cloud.decode(batch), cloud.decode(plain), strict=True)):
        assert np.allclose(new.get_scaled_positions(), old.get_scaled_positions(), atol=1e-4)
        volumes = element_tables()[1]
        ratio = volumes[new.numbers].sum() / volumes[old.numbers].sum()
        assert new.get_volume() / old.get_volume() == pytest.approx(ratio, rel=1e-3)
        assert len(set(new.numbers.tolist())) == len(set(old.numbers.tolist())) and bool(changed[k]) == (
            set(new.numbers) != set(old.numbers)
        )
        asked = batch.conditions['elements'][k].nonzero()[:, 0].tolist()
        assert asked == sorted(set(new.numbers.tolist()))


def test_the_command_line_exchanges_elements(tmp_path):
    write(tmp_path / 'data.traj', salts(12))
    small = ['--features', '24', '--blocks', '1', '--batch-size', '4', '--steps', '2', '--accelerator', 'cpu', '--quiet']
    main(['train', 'pointcloud', str(tmp_path / 'data.traj'), '--out', str(tmp_path / 'out'), '--substitute', '0.5', *small])
    assert load_checkpoint(tmp_path / 'out' / 'best.safetensors')[1]['substitute'] == 0.5
