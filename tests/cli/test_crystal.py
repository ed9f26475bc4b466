"""The crystal verbs, in small: train, go on, sample."""

import logging
from argparse import Namespace

import pytest
from ase.build import bulk
from ase.io import read, write

from ase_diffusion.weights.zoo import load_model

TRAIN = 'train crystal salts.extxyz --out run --conditions gap --features 12 --blocks 1 --batch-size 4 --every 5 --quiet'


@pytest.fixture
def salts(tmp_path):
    """Rock salts with a gap and splits."""
    images = []
    for k in range(9):
        atoms = bulk(('NaCl', 'KCl', 'NaF')[k % 3], 'rocksalt', a=5 + 0.1 * k)
        atoms.info.update(gap=float(k), split='val' if k == 4 else 'train')
        images.append(atoms)
    write(tmp_path / 'salts.extxyz', images)


def test_train_and_sample(call, salts):
    status, out, _ = call(f'{TRAIN} --steps 5 --conditioning cdi --paper-network')
    assert status == 0 and '8 crystals to train on, 1 to validate' in out and 'run/best.safetensors' in out
    network, header = load_model('run/best.safetensors')
    assert not network.settings['coupled'] and network.settings['conditioning'] == 'cdi' and header['steps'] == 5
    sample = 'sample crystal --model run/best.safetensors -n 2 --steps 4 --seed 1'
    status, out, _ = call(f'{sample} --stoich NaCl --condition gap=3 --guidance-scale 2 -o a.extxyz --symmetrize 0.01')
    assert status == 0 and '2 of 2 structures in a.extxyz' in out
    images = read('a.extxyz', ':')
    assert all(sorted(atoms.symbols) == ['Cl', 'Na'] and atoms.pbc.all() for atoms in images)
    status, _, _ = call(f'{sample} --elements Na F --natoms 2 -o b.db --log b.log --denoising-trajectory way.traj')
    assert status == 0 and set(read('b.db').symbols) <= {'Na', 'F'} and len(read('way.traj', ':')) == 4
    status, out, _ = call(f'{TRAIN} --steps 10 --init run/best.safetensors')
    assert status == 0


def test_the_validation_split_may_be_trained_on(call, salts):
    status, out, _ = call(f'{TRAIN} --steps 2 --split train val')
    assert status == 0 and '9 crystals to train on, 5 % to validate' in out
    status, _, err = call(f'{TRAIN} --steps 2 --split test')
    assert status == 2 and "the data has no split ['test']; it has ['train', 'val']" in err


def test_mistakes_are_one_line(call, salts):
    call(f'{TRAIN} --steps 2')
    for line, text in (
        (f'{TRAIN} --steps 2 --init ag-o-overlayer', 'of kind crystal is asked for'),
        ('train crystal none.npz --out x', 'there is none at'),
        ('sample crystal --model run/best.safetensors --condition heat=1', "unknown conditions ['heat']"),
        ('sample crystal --model run/best.safetensors --stoich XeF2', 'never saw Xe'),
    ):
        status, _, err = call(line)
        assert status == 2 and text in err and len(err.splitlines()) == 1
    with pytest.raises(SystemExit):
        call('sample crystal --condition gap')


def test_every_condition_counts(call, monkeypatch):
    """Also those of a second --condition; nothing is sampled where a name comes twice or the file could not take the crystals."""
    came, line = [], 'sample crystal -n 2 --condition a=1 --condition b=2 c=3'
    header = {'conditions': {name: [0.0, 9.0] for name in 'abc'}}
    keep = lambda **options: came.append(options) or Namespace(header=header)  # noqa: E731
    monkeypatch.setattr('ase_diffusion.generators.crystal.CrystalDiffusion', keep)
    monkeypatch.setattr('ase_diffusion.cli.sample._write', lambda generator, args, out, conditions: came.append(conditions))
    assert call(f'{line} --elements Na --elements F')[0] == 0
    assert came[0]['elements'] == ['Na', 'F'] and came[1] == {'a': 1, 'b': 2, 'c': 3}
    for more, text in (
        ('--condition a=2', '--condition names a more than once'),
        ('-o p.vasp', 'holds one structure'),
        ('-o POSCAR', 'holds one structure'),
        ('-o p.npz', 'not crystals'),
    ):
        status, _, err = call(f'{line} {more}')
        assert status == 2 and text in err and len(err.splitlines()) == 1
    assert len(came) == 2


@pytest.fixture(autouse=True)
def quiet_again():
    yield
    logging.getLogger('ase_diffusion').setLevel(logging.NOTSET)


def test_templates_and_space_group_on_the_command_line(call, salts):
    status, _, _ = call('sample crystal --stoich Na4Cl4 --space-group 225 -n 1 --seed 1 -o a.traj')
    assert status == 0 and read('a.traj').info['key_value_pairs']['source'] == 'template'
    status, _, _ = call('sample crystal --stoich NaCl --templates 1 -n 2 --steps 20 --seed 1 -o b.traj')
    assert [atoms.info['key_value_pairs']['source'] for atoms in read('b.traj', ':')] == ['template', 'network']
    status, _, _ = call('sample crystal --stoich NaCl --templates no -n 1 --steps 20 --seed 1 -o c.traj')
    assert 'source' not in read('c.traj').info['key_value_pairs']
    status, _, _ = call('sample crystal --stoich NaCl --templates salts.extxyz -n 1 --seed 1 -o d.traj')
    assert status == 0 and read('d.traj').info['key_value_pairs']['template_formula'] == 'NaCl'
    for option, text in (('--templates none.db', 'there is none at'), ('--space-group 0', 'space_group')):
        status, _, err = call(f'sample crystal --stoich NaCl {option}')
        assert status == 2 and text in err and len(err.splitlines()) == 1
