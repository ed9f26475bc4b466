"""Outputs are tried before any work, and files are not replaced without --force."""

import sqlite3

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.db import connect
from ase.io import read, write

from ase_diffusion.cli.common import Output, check_path, chosen_path
from ase_diffusion.generators.surface.generator import SurfaceDiffusion
from ase_diffusion.relax import relax as relax_function
from ase_diffusion.search.store import split_pairs

VERBS = [
    ('sample surface slab.traj --stoich Ag3O -n 1 -o {}', 'o.extxyz'),
    ('sample surface slab.traj --stoich Ag3O -n 1 -o {}', 'o.traj'),
    ('sample surface slab.traj --stoich Ag3O -n 1 --denoising-trajectory {}', 'o.traj'),
    ('relax starts.traj --calculator emt -o {}', 'o.json'),
    ('relax starts.traj --calculator emt -o {}', 'o.db'),
    ('plot starts.traj -o {}', 'o.png'),
    ('data convert starts.traj {}', 'o.npz'),
]


@pytest.fixture
def no_work(monkeypatch):
    """Fail where a structure is generated, relaxed, read for a picture, or trained on."""
    fail = lambda *args, **kwargs: pytest.fail('worked')  # noqa: E731
    monkeypatch.setattr(SurfaceDiffusion, '_candidates', fail)
    monkeypatch.setattr('ase_diffusion.relax.relaxer.Relaxer.iterate', fail)
    monkeypatch.setattr('ase_diffusion.cli.surface_options.read_data', fail)


def in_folder(line, name, folder):
    return line.format(f'{folder}/{name}')


@pytest.mark.parametrize(
    'line',
    [
        *(in_folder(line, name, '/proc') for line, name in VERBS),
        'sample surface slab.traj --stoich Ag3O -n 1 --log /proc/log',
        'data rss slab.traj --stoich Ag3O --calculator emt --db /proc/r.db',
        'search slab.traj --stoich Ag3O --calculator emt --db /proc/s.db --workers 0 -n 1',
        'train surface starts.traj --out /proc/model',
        'train forcefield starts.traj --out slab.traj',
        'demo --out /proc/demo',
    ],
)
def test_what_cannot_be_written_is_said_first(call, slab_file, starts_file, no_work, line):
    status, out, err = call(line)
    assert status == 2 and err.count('\n') == 1 and 'no structure' not in out, err
    assert '/proc' in err or 'slab.traj is a file' in err


@pytest.mark.parametrize(('line', 'name'), VERBS)
def test_files_are_not_replaced(call, slab_file, starts_file, no_work, tmp_path, line, name):
    if name.endswith('.db'):
        pytest.skip('rows are added')
    (tmp_path / name).write_bytes(b'of the user')
    status, _, err = call(in_folder(line, name, '.'))
    assert status == 2 and '--force' in err and name in err and err.count('\n') == 1
    assert (tmp_path / name).read_bytes() == b'of the user'


@pytest.mark.parametrize('name', ['o.traj', 'o.extxyz', 'o.json', 'o.npz', 'o.png'])
def test_force_replaces_them(call, starts_file, tmp_path, name):
    (tmp_path / name).write_bytes(b'of the user')
    line = f'plot starts.traj -n 1 -o {name}' if name.endswith('png') else f'data convert starts.traj {name}'
    assert call(line)[0] == 2
    assert call(f'{line} --force')[0] == 0
    assert b'of the user' not in (tmp_path / name).read_bytes()
    assert not list(tmp_path.glob('.*part*'))


def test_a_database_grows(call, starts_file):
    for count in (3, 6):
        assert call('data convert starts.traj o.db')[0] == 0
        assert len(connect('o.db')) == count
    status, _, err = call('data convert o.db o.db')
    assert status == 2 and 'is read as well' in err and len(connect('o.db')) == 6


def test_default_names_are_free_ones(call, starts_file, tmp_path):
    for name in ('relaxed.traj', 'relaxed-1.traj', 'relaxed-2.traj'):
        status, out, _ = call('relax starts.traj --calculator emt --steps 1')
        assert status == 0 and f'in {name}' in out and (tmp_path / name).exists()
    assert chosen_path(None, 'relaxed.traj', force=True) == 'relaxed.traj'
    assert chosen_path('relaxed.traj', 'x.traj') == 'relaxed.traj'
    assert call('plot starts.traj -n 1')[0] == call('plot starts.traj -n 1')[0] == 0
    assert (tmp_path / 'picture-1.png').exists()


def test_a_database_that_takes_no_rows_is_said_first(call, starts_file, no_work, tmp_path):
    call('models')
    (tmp_path / 'text.db').write_text('not a database')
    status, _, err = call('relax starts.traj --calculator emt -o text.db')
    assert status == 2 and 'text.db' in err and err.count('\n') == 1
    status, _, err = call('data rss starts.traj --stoich Ag3O --calculator emt --db text.db -n 1')
    assert status == 2 and 'text.db' in err and err.count('\n') == 1
    with connect('locked.db') as db:
        db.write(bulk('Cu'))
    other = sqlite3.connect('locked.db')
    other.execute('BEGIN IMMEDIATE')
    status, _, err = call('relax starts.traj --calculator emt -o locked.db')
    other.close()
    assert status == 2 and 'locked' in err


@pytest.mark.parametrize('name', ['o.db', 'o.json', 'o.traj', 'o.extxyz', 'o.npz'])
def test_reserved_keys_cost_nothing(call, starts, tmp_path, name):
    call('models')
    for atoms in starts:
        atoms.info['key_value_pairs'] = {
            'energy': -1.0,
            'origin': 'x',
            'many': [1, 2],
            'none': None,
            'text': '12',
            'np': np.int64(3),
        }
    write('in.traj', starts)
    status, _, err = call(f'relax in.traj --calculator emt --steps 1 -o {name}')
    assert status == 0, err
    assert len(read(name, ':')) == 3 if not name.endswith('npz') else (tmp_path / name).exists()
    if name == 'o.db':
        row = connect(name).get(id=1)
        assert row.origin == 'x' and row.np == 3 and row.data['other_pairs']['many'] == [1, 2]


def test_data_that_are_no_table_are_kept(starts):
    starts[0].info['data'] = 'text'
    assert split_pairs(starts[0])[1] == {'data': 'text'}


def test_structures_that_a_format_does_not_take_are_kept(starts, tmp_path, monkeypatch):
    out = Output(tmp_path / 'o.extxyz')
    out.write(starts[0])
    usual = ase.io.write

    def fail(path, images, **kwargs):
        if str(path).endswith('xyz'):
            raise RuntimeError('disk full')
        usual(path, images, **kwargs)

    monkeypatch.setattr(ase.io, 'write', fail)
    with pytest.raises(OSError, match='disk full.*the structures are in') as error:
        out.close()
    [atoms] = read(str(error.value).rpartition(' in ')[2], ':')
    assert np.array_equal(atoms.positions, starts[0].positions)


def test_an_empty_file_is_no_work(tmp_path):
    (tmp_path / 'o.traj').touch()
    check_path(tmp_path / 'o.traj', force=False)


def test_relaxations_before_ctrl_c_are_handed_out(starts, monkeypatch):
    from ase_diffusion.relax.relaxer import Relaxer

    usual = Relaxer.iterate

    def interrupted(self, *args, **kwargs):
        results = usual(self, *args, **kwargs)
        yield next(results)
        raise KeyboardInterrupt

    monkeypatch.setattr(Relaxer, 'iterate', interrupted)
    with pytest.raises(KeyboardInterrupt) as stop:
        relax_function(starts, 'emt', steps=1)
    assert len(stop.value.images) == 1
