"""``ase-diffusion evaluate``: any file, a table, JSON, a picture."""

import json

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.db import connect
from ase.io import write

IMAGES = [bulk('Cu', a=3.6), bulk('NaCl', 'rocksalt', a=5.64), bulk('MgO', 'rocksalt', a=4.2), bulk('Cu', a=3.61)]


@pytest.fixture
def data(tmp_path):
    """A data set with splits, as npz: the test split is NaCl and MgO, the training split Cu."""
    images = [IMAGES[0], IMAGES[1], IMAGES[2]]
    np.savez(
        tmp_path / 'data.npz',
        natoms=np.array([len(a) for a in images], np.int16),
        info_gap=np.array([1.0, 2.0, 3.0]),
        numbers=np.concatenate([a.numbers for a in images]),
        cell=np.array([a.cell.array for a in images]),
        scaled_positions=np.concatenate([a.get_scaled_positions() for a in images]),
        info_split=np.array(['train', 'test', 'test']),
    )
    return 'data.npz'


@pytest.mark.parametrize('name', ['images.xyz', 'images.extxyz', 'images.cif', 'images.traj', 'images.db', 'data.npz'])
def test_any_file(name, data, call, tmp_path):
    if name.endswith('.db'):
        with connect(tmp_path / name) as db:
            for atoms in IMAGES:
                db.write(atoms)
    elif name != data:
        write(tmp_path / name, IMAGES, **({'format': 'extxyz'} if name.endswith('xyz') else {}))
    status, out, err = call(f'evaluate {name} --reference {data} --no-coverage --quiet --processes 1')
    assert status == 0, err
    report = json.loads((tmp_path / 'evaluation.json').read_text())
    n = 3 if name == data else 4
    assert report['n'] == n and report['n_reference'] == 2 and report['n_known'] == 1
    assert report['uniqueness'] == 3 / n and report['novelty'] == 2 / n
    assert f'{300 / n:.1f} %' in out and 'evaluation.json' in out
    assert (tmp_path / 'evaluation.png').read_bytes().startswith(b'\x89PNG')


def test_coverage_success_and_progress(data, call, tmp_path):
    options = '--property gap --json a.json --picture a.pdf -n 2 --reference-n 1'
    status, out, err = call(f'evaluate {data} --reference {data} {options}')
    assert status == 0, err
    report = json.loads((tmp_path / 'a.json').read_text())
    assert report['n'] == 2 and report['n_reference'] == 1
    assert report['coverage'] == {'recall': 1, 'precision': 0.5, 'cutoffs': [0.4, 10]} and report['success']['SR5'] == 0.5
    assert 'COV-R' in out and 'CrystalNN' in err and (tmp_path / 'a.pdf').is_file()


def test_a_file_is_replaced_only_by_force(data, call, tmp_path):
    for name in ('mine.json', 'evaluation.json'):
        (tmp_path / name).write_text('mine')
    line = f'evaluate {data} --quiet --no-coverage --processes 1'
    status, _, err = call(f'{line} --json mine.json')
    assert status == 2 and 'mine.json' in err and '--force' in err and (tmp_path / 'mine.json').read_text() == 'mine'
    status, out, _ = call(line)  # the default takes a free name
    assert status == 0 and 'evaluation-1.json' in out and (tmp_path / 'evaluation.json').read_text() == 'mine'
    assert call(f'{line} --json mine.json --force')[0] == 0
    assert json.loads((tmp_path / 'mine.json').read_text())['n'] == 3


def test_predictions(data, call, tmp_path):
    status, out, _ = call(f'evaluate {data} --targets {data} --quiet')
    assert status == 0 and 'match rate' in out
    assert json.loads((tmp_path / 'evaluation.json').read_text())['prediction']['match_rate'] == 1


@pytest.mark.parametrize(
    ('line', 'word'),
    [
        ('evaluate nothing.traj', 'there is none'),
        ('evaluate data.npz --reference nothing.npz', 'there is none'),
        ('evaluate data.npz --reference data.npz --property colour', 'gap'),
        ('evaluate data.npz --property gap', '--reference'),
        ('evaluate data.npz --reference data.npz --cutoffs qm9', 'perovskite'),
        ('evaluate data.npz --json no/where.json', 'mkdir'),
        ('evaluate data.npz -n 0', '-n'),
        ('evaluate data.npz --processes 0', 'processes'),
        ('evaluate water.xyz', 'pbc'),
    ],
)
def test_bad_input_is_one_line(line, word, data, call, tmp_path):
    write(tmp_path / 'water.xyz', molecule('H2O'))
    status, out, err = call(f'{line} --quiet')
    assert status == 2 and word in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / 'evaluation.json').exists()


@pytest.mark.parametrize(
    ('line', 'word'), [('--chgnet', 'pip install chgnet'), ('--picture out.xyz', 'out.xyz'), ('--json folder', 'is a folder')]
)
def test_what_cannot_end_well_does_not_begin(line, word, data, call, tmp_path, monkeypatch, hide):
    (tmp_path / 'folder').mkdir()
    hide('chgnet')
    monkeypatch.setattr('ase_diffusion.metrics.crystal.evaluation.structural_validity', lambda images: pytest.fail('began'))
    status, _, err = call(f'evaluate {data} --quiet {line}')
    assert status == 2 and word in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(('error', 'status'), [(KeyboardInterrupt(), 130), (ValueError('no memory'), 2)])
def test_the_rest_is_kept_where_chgnet_fails(error, status, data, call, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr('ase_diffusion.metrics.crystal.evaluation.chgnet_class', lambda: None)
    monkeypatch.setattr('ase_diffusion.metrics.crystal.hull.chgnet_energies', fail)
    found, out, _ = call(f'evaluate {data} --reference {data} --no-coverage --chgnet --quiet')
    assert found == status and 'numbers without CHGNet: evaluation.json' in out
    report = json.loads((tmp_path / 'evaluation.json').read_text())
    assert report['file'] == data and 'novelty' in report and 'stability' not in report


def test_pictures_of_crystals(data, call, tmp_path):
    """`plot` draws grids of unit cells and histograms of properties of any file that `evaluate` reads."""
    (tmp_path / 'other.npz').write_bytes((tmp_path / data).read_bytes())
    for line in (
        f'{data} --kind crystals --property gap -n 2',
        f'{data} --kind crystals --directions auto c',
        f'{data} other.npz --kind property --property gap --reference {data} --target 1.5',
    ):
        (tmp_path / 'picture.png').unlink(missing_ok=True)
        status, out, err = call(f'plot {line}')
        assert status == 0, err
        assert (tmp_path / 'picture.png').read_bytes().startswith(b'\x89PNG')
    for line, word in (
        (f'{data} --kind property', '--property'),
        (f'{data} --kind property --property mass', 'gap'),
        (f'{data} other.npz --kind crystals', 'one file'),
        (f'{data} --kind crystals -n 0', '-n'),
    ):
        status, _, err = call(f'plot {line}')
        assert status == 2 and word in err
