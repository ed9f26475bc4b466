"""The command line of CrysTens images: train for a few steps, then sample; no model of them ships."""

from ase.build import bulk
from ase.io import read, write

from ase_diffusion.cli.main import main


def test_train_then_sample_with_conditions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    salts = [bulk(name, 'rocksalt', a=5.0 + 0.1 * k) for k, name in enumerate(['NaCl', 'KCl', 'LiF', 'MgO', 'NaBr', 'KBr'])]
    write('salts.traj', salts)
    line = 'train crystens salts.traj --out r --steps 3 --features 24 --blocks 1 --batch-size 4 --conditions space_group elements'
    assert main(line.split()) == 0
    assert 'ase-diffusion sample crystens --model r/best.safetensors' in capsys.readouterr().out
    line = 'sample crystens --model r/best.safetensors -n 1 --natoms 2 --steps 3 --seed 1 --log log -o out.traj'
    assert main([*line.split(), '--condition', 'space_group=225', 'elements=Na,Cl']) == 0
    (atoms,) = read('out.traj', ':')
    notes = atoms.info['key_value_pairs']
    assert len(atoms) <= 2 and notes['condition_space_group'] == 'class 225' and notes['condition_elements'] == 'Na-Cl'


def test_without_a_model_it_says_what_to_do(capsys):
    assert main(['sample', 'crystens', '--network', 'gan']) == 2
    assert 'train' in capsys.readouterr().err


def test_a_network_that_does_not_exist_costs_one_line(capsys):
    assert main(['sample', 'crystens', '--network', 'vae']) == 2
    assert 'diffusion, cascade, wgan, gan' in capsys.readouterr().err


def test_a_wgan_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write('salts.traj', [bulk(name, 'rocksalt', a=5.0 + 0.1 * k) for k, name in enumerate(['NaCl', 'KCl', 'LiF', 'MgO'])])
    assert (
        main(
            [
                'train',
                'crystens',
                'salts.traj',
                '--network',
                'wgan',
                '--out',
                'r',
                '--steps',
                '1',
                '--features',
                '8',
                '--batch-size',
                '4',
                '--quiet',
            ]
        )
        == 0
    )
    assert main(['sample', 'crystens', '--model', 'r/best.safetensors', '-n', '1', '--seed', '1', '--steps', '3']) == 2
    assert 'leave out steps' in capsys.readouterr().err
    assert main(['train', 'crystens', 'salts.traj', '--init', 'r/best.safetensors', '--network', 'gan', '--out', 's']) == 2
    assert "network='wgan', not 'gan'" in capsys.readouterr().err
