"""Structures that cannot be trained on are left out with one warning that counts and names them; the others are trained on."""

import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.spacegroup import crystal

from ase_diffusion import CrystalDiffusion, CrysTensDiffusion, PointCloudDiffusion, SurfaceDiffusion, ZeoliteDiffusion
from ase_diffusion.cli.main import main
from ase_diffusion.representations import Crystal, CrysTens, PointCloud, Slab, Voxels
from ase_diffusion.training.crystal_data import Crystals, split_crystals
from ase_diffusion.training.data import split_images
from ase_diffusion.training.surface import train_forcefield, train_surface
from ase_diffusion.training.surface_data import Overlayers
from ase_diffusion.training.zeolite import train_zeolite
from ase_diffusion.weights.zoo import load_model

QUIET = dict(progress=False, accelerator='cpu')


def salts(n=6):
    return [bulk(('NaCl', 'KCl', 'MgO')[k % 3], 'rocksalt', a=5.0 + 0.05 * k) for k in range(n)]


def overlayer(k=0):
    atoms = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=8)
    add_adsorbate(atoms, 'O', 1.2 + 0.05 * k, 'fcc')
    atoms.set_constraint(FixAtoms(indices=range(8)))
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - 0.01 * k, forces=np.full((9, 3), 0.1))
    return atoms


def silica(k=0):
    return crystal(['Si', 'O'], [(0, 0, 0), (1 / 8, 1 / 8, 1 / 8)], spacegroup=227, cellpar=[7.1 + 0.02 * k] * 3 + [90] * 3)


def broken(atoms, how):
    """Return a copy that nothing can be learned from."""
    calc, atoms = atoms.calc, atoms.copy()
    atoms.calc = calc
    if how == 'nan':
        atoms.positions[-1] = np.nan
    elif how == 'cell':
        atoms.cell[:] = 0
    elif how == 'overlap':
        atoms.set_constraint()
        atoms.positions[-1] = atoms.positions[0] + 0.01
        atoms.set_constraint(FixAtoms(indices=range(len(atoms) - 1)))
    elif how == 'x':
        atoms.numbers[-1] = 0
    elif how == 'empty':
        atoms = Atoms(cell=[4, 4, 4], pbc=atoms.pbc)
    return atoms


HOW = ('nan', 'cell', 'overlap', 'x', 'empty')


def with_broken(images):
    """Return structures with five broken ones among them, at 1, 3, 5, 7 and 9."""
    out = list(images)
    for k, how in enumerate(HOW):
        out.insert(2 * k + 1, broken(images[0], how))
    return out


def told(caplog):
    return [record.getMessage() for record in caplog.records if 'left out' in record.getMessage()]


METHODS = {
    'surface': (lambda: SurfaceDiffusion(overlayer()[:8], 'O', model='untrained', logfile=None), overlayer),
    'crystal': (lambda: CrystalDiffusion(model='untrained', logfile=None), None),
    'pointcloud': (lambda: PointCloudDiffusion(['Na', 'Cl'], model='untrained', logfile=None), None),
    'crystens': (lambda: CrysTensDiffusion(model='untrained', logfile=None), None),
    'zeolite': (lambda: ZeoliteDiffusion(model='untrained', source='network', logfile=None), silica),
}
SIZES = {
    'surface': dict(features=8, blocks=1),
    'crystal': dict(features=16, blocks=1),
    'pointcloud': dict(features=12, blocks=1),
    'crystens': dict(features=12, blocks=1),
    'zeolite': dict(settings=dict(features=8, blocks=1), shape=(4, 4, 4)),
}


@pytest.mark.parametrize('method', METHODS)
def test_bad_frames_do_not_end_a_training(method, tmp_path, caplog):
    pytest.importorskip('lightning')
    make, one = METHODS[method]
    images = [one(k) for k in range(6)] if one else [bulk('NaCl', 'rocksalt', a=5.0 + 0.1 * k) for k in range(6)]
    gen = make()
    gen.fit(with_broken(images), tmp_path / 'all', steps=1, batch_size=2, **SIZES[method], **QUIET)
    [line] = told(caplog)
    assert '5 of 11 structures' in line and all(f'{k} (' in line for k in (1, 3, 5, 7, 9)) and '0.3 A' in line
    clean = make().fit(images, tmp_path / 'good', steps=1, batch_size=2, **SIZES[method], **QUIET)
    assert gen.header['data'] == clean.header['data']


@pytest.mark.parametrize('method', METHODS)
def test_where_none_is_left_the_reasons_are_said(method, tmp_path):
    make, one = METHODS[method]
    images = [broken(one() if one else salts()[0], how) for how in ('nan', 'nan', 'overlap')]
    with pytest.raises(ValueError, match=r'no structure of the data can be used: structure 0 \(.*\), 1 \(.*\): .*2 \('):
        make().fit(images, tmp_path / 'out', steps=1, **QUIET)
    assert not (tmp_path / 'out').exists()


def test_reasons_are_counted_together(caplog):
    images = salts(30)
    for atoms in images[3:20]:
        atoms.pbc = False
    with caplog.at_level(logging.WARNING):
        assert len(Crystals.from_atoms(images)) == 13
    [line] = told(caplog)
    assert '17 of 30' in line and line.count('periodic in three directions') == 1 and 'and 7 more' in line and len(line) < 500


def test_structures_keep_their_numbers_where_there_are_splits(caplog):
    images = with_broken(salts())
    for k, atoms in enumerate(images):
        atoms.info['key_value_pairs'] = {'split': ('val', 'train')[k % 4 > 0]}
    training, held = split_images(images)
    assert len(training) + len(held) == 6
    both = split_crystals(images)
    assert [len(part) for part in both] == [len(training), len(held)]
    assert len(told(caplog)) == 2 and all('5 of 11' in line for line in told(caplog))


def test_frameworks_are_of_silicon_and_oxygen(tmp_path):
    images = [bulk('NaCl', 'rocksalt', a=5.6), silica(), bulk('Si')]
    images[1].numbers[0] = 13
    with pytest.raises(ValueError, match=r'structure 0 \(ClNa\), 1 \(.*\), 2 \(Si2\): a framework to learn from has Si and O'):
        train_zeolite(images, tmp_path / 'a', steps=1, **SIZES['zeolite'], **QUIET)


def test_values_of_conditions_follow_their_structures(tmp_path):
    pytest.importorskip('lightning')
    images = with_broken([silica(k) for k in range(6)])
    values = [100.0 if k % 2 and k < 10 else float(k) for k in range(11)]
    options = dict(steps=1, batch_size=2, **SIZES['zeolite'], **QUIET)
    best = train_zeolite(images, tmp_path / 'a', conditions={'x': values}, **options)
    low, high = load_model(best)[1]['conditions']['x']
    assert 0 <= low < high <= 10
    with pytest.raises(ValueError, match='one value per structure, 11; x has 3'):
        train_zeolite(images, tmp_path / 'b', conditions={'x': values[:3]}, **options)


def test_frames_without_energy_are_left_out_of_a_force_field(tmp_path, caplog):
    pytest.importorskip('lightning')
    images = [overlayer(k) for k in range(8)]
    images[2].calc = None
    images[4].calc.results['forces'][-1] = np.nan
    train_forcefield(Overlayers.from_atoms(images), tmp_path / 'a', steps=1, features=8, blocks=1, batch_size=2, **QUIET)
    [line] = told(caplog)
    assert '2 of 8' in line and 'energy' in line
    for atoms in images:
        atoms.calc = None
    with pytest.raises(ValueError, match='no structure of the data has an energy and forces'):
        train_forcefield(Overlayers.from_atoms(images), tmp_path / 'b', steps=1, **QUIET)


def test_frames_outside_the_window_are_counted(tmp_path, caplog):
    pytest.importorskip('lightning')
    data = Overlayers.from_atoms([overlayer(k) for k in range(8)])
    options = dict(steps=1, features=8, blocks=1, batch_size=2, **QUIET)
    train_surface(data, tmp_path / 'a', height=(0.0, 1.41), **options)
    [line] = told(caplog)
    assert '3 of 8' in line and 'height' in line
    with pytest.raises(ValueError, match='no structure of the data has all mobile atoms in the window'):
        train_surface(data, tmp_path / 'b', height=(0.0, 1.0), **options)


def test_one_structure_is_still_refused_where_it_is_all_there_is():
    for representation in (Crystal([11, 17]), PointCloud(), CrysTens(), Voxels()):
        with pytest.raises(ValueError, match='finite'):
            representation.encode([broken(salts()[0], 'nan')])
        with pytest.raises(ValueError, match='one or more structures'):
            representation.encode([])
    with pytest.raises(ValueError, match='one or more structures'):
        Slab().encode([])


@pytest.mark.parametrize('method', METHODS)
def test_settings_of_a_new_network_are_refused_where_one_is_trained_further(method, tmp_path):
    pytest.importorskip('lightning')
    make, one = METHODS[method]
    images = [one(k) for k in range(4)] if one else [bulk('NaCl', 'rocksalt', a=5.0 + 0.1 * k) for k in range(4)]
    gen, sizes = make(), SIZES[method]
    gen.fit(images, tmp_path / 'a', steps=1, batch_size=2, **sizes, **QUIET)
    gen.fit(images, tmp_path / 'b', steps=1, batch_size=2, **sizes, **QUIET)  # the same once more
    others = {'settings': {'features': 24}} if 'settings' in sizes else {'features': 24}
    with pytest.raises(ValueError, match=r"keeps its settings; asked for were features=24 \(\d+\): .*model='untrained'"):
        gen.fit(images, tmp_path / 'c', steps=1, **{**sizes, **others}, **QUIET)
    assert not (tmp_path / 'c').exists()


def test_the_command_line_goes_on_and_names_a_slab_that_is_one(tmp_path, capsys):
    pytest.importorskip('lightning')
    write(tmp_path / 'data.traj', [*(overlayer(k) for k in range(4)), broken(overlayer(), 'nan')])
    line = ['train', 'surface', str(tmp_path / 'data.traj'), '--out', str(tmp_path / 'a b'), '--steps', '1', '--features', '8']
    assert main([*line, '--blocks', '1', '--batch-size', '2', '--quiet', '--accelerator', 'cpu']) in (0, None)
    out = capsys.readouterr().out
    assert '4 structures' in out and f"'{tmp_path / 'a b' / 'slab.traj'}' --stoich O" in out
    assert len(read(tmp_path / 'a b' / 'slab.traj')) == 8


def test_templates_that_are_no_crystals_are_left_out(caplog):
    gen = CrystalDiffusion(stoich='TiO2', templates=[broken(salts()[0], 'nan'), bulk('NaCl', 'rocksalt', a=5.6)], logfile=None)
    [line] = told(caplog)
    assert '1 of 2 structures of the templates' in line and '0 (ClNa)' in line and gen.templates.bank.name(-1) == 'template 1'


QUICK = dict(steps=1, features=12, blocks=1, batch_size=2, **QUIET)
CRYSTALS = ('crystal', 'pointcloud', 'crystens')


@pytest.mark.parametrize('method', CRYSTALS)
def test_names_of_conditions_and_nothing_else(method):
    pytest.importorskip('lightning')
    images = [bulk('NaCl', 'rocksalt', a=5.0 + 0.1 * k) for k in range(4)]
    for k, atoms in enumerate(images):
        atoms.info['key_value_pairs'] = {'gap': float(k)}
    make, _ = METHODS[method]
    with pytest.raises(TypeError, match=r"names of key-value pairs here, such as \['gap'\]; the values stand in"):
        make().fit(images, conditions={'gap': [9.0] * 4}, **QUICK)
    assert list(make().fit(images, conditions='gap', **QUICK).header['conditions']) == ['gap']


@pytest.mark.parametrize('method', CRYSTALS)
def test_numbers_of_a_training_are_named(method):
    make, _ = METHODS[method]
    for name, value in (('seed', -1), ('seed', 1.5), ('features', 0), ('blocks', 0)):
        with pytest.raises(ValueError, match=f'{name} is an integer, . or more; got {value}'):
            make().fit(salts(3), **{**QUICK, name: value})


@pytest.mark.parametrize('method', CRYSTALS)
def test_crystals_to_validate_on_are_taken(method, caplog):
    pytest.importorskip('lightning')
    make, _ = METHODS[method]
    gen = make().fit(salts(3), validation=[salts()[0], broken(salts()[0], 'nan')], **QUICK)
    assert gen.header['data']['structures'] == 3 and '1 of 2 structures' in told(caplog)[0]


def test_names_that_other_programs_read_otherwise(tmp_path, monkeypatch):
    """Lightning takes ~ for the home folder and what stands before a colon for a protocol."""
    pytest.importorskip('lightning')
    monkeypatch.chdir(tmp_path)
    for name in ('~/run', 'a:b'):
        gen = METHODS['crystal'][0]().fit(salts(3), name, **QUICK)
        METHODS['crystal'][0]().fit(salts(3), name, **{**QUICK, 'steps': 2})
        assert gen.model == f'{name}/best.safetensors' and (tmp_path / name / 'resume.ckpt').is_file()
    with pytest.raises(IsADirectoryError, match='name a file in it'):
        gen.save(tmp_path)
