"""Campaigns: everything once, whatever happens in between. In this process where that is enough, which is quick."""

import io
import os
import sqlite3
import threading
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.calculators.vasp import Vasp
from ase.constraints import FixAtoms
from ase.db import connect
from ase.db.sqlite import SQLite3Database

from ase_diffusion.metrics import Distinct
from ase_diffusion.search.campaign import Campaign, describe
from ase_diffusion.search.store import Store, StoreError, differences, slab_settings

BLOCK = 4


def generate(block, count):
    """Return Cu adatoms on Cu(111) at random places; number 5 has a gold atom, which `Faulty` does not like."""
    rng = np.random.default_rng(block)
    slab = fcc111('Cu', (1, 1, 2), vacuum=6.0)
    slab.set_constraint(FixAtoms(indices=[0, 1]))
    images = []
    for k in range(count):
        atoms = slab.copy()
        symbol = 'Au' if BLOCK * block + k == 5 else 'Cu'
        atoms.extend(Atoms(symbol, [[*rng.uniform(0, 2.5, 2), slab.positions[1, 2] + rng.uniform(1.9, 2.4)]]))
        atoms.info = {'key_value_pairs': {'origin': f'b{block}'}, 'data': {'place': [block, k], 'ballast': 'x' * 9000}}
        images.append(atoms)
    return images


class Faulty(EMT):
    """EMT that raises, or returns NaN, for gold."""

    how = 'raise'

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if 79 in atoms.numbers and self.how == 'raise':
            raise RuntimeError('no convergence')
        if 79 in atoms.numbers and self.how == 'nan':
            self.results['energy'] = np.nan


class Counting:
    """A generator that counts what is asked for, and a hook that is called at each new structure."""

    def __init__(self, hook=None):
        self.blocks, self.relaxed, self.hook = [], [], hook

    def generate(self, block, count):
        self.blocks.append((block, count))
        return generate(block, count)

    def first_of_kind(self, number, atoms):
        self.relaxed.append(number)
        if self.hook is not None:
            self.hook(len(self.relaxed))
        return number


def campaign(path, source=None, calculator='emt', **options):
    source = source or Counting()
    options = {'steps': 3, 'workers': 0, 'block': BLOCK, 'logfile': None, 'patience': 0.0, **options}
    return Campaign(path, source.generate, calculator, first_of_kind=source.first_of_kind, **options)


def rows(path):
    return {row.number: row for row in connect(path, use_lock_file=False).select()}


def test_everything_is_kept_once(tmp_path):
    path, source = tmp_path / 'a.db', Counting()
    images = campaign(path, source).run(6)
    assert source.blocks == [(0, 4), (1, 2)], 'no more than asked for'
    kept = rows(path)
    assert sorted(kept) == list(range(6)) and len(images) == 6
    energies = [atoms.get_potential_energy() for atoms in images]
    assert energies == sorted(energies)
    row = kept[4]
    assert row.origin == 'b1' and row.data['place'] == [1, 0]
    assert row.relax_calculator == 'emt' and row.energy < row.energy_generated and not row.failed and row.unique
    assert np.array_equal(row.toatoms().positions[:2], generate(1, 1)[0].positions[:2])
    assert not list(tmp_path.glob('*.writer')) and not list(tmp_path.glob('.*'))


def test_it_goes_on(tmp_path):
    path = tmp_path / 'a.db'
    campaign(path).run(3)
    before = {number: row.unique_id for number, row in rows(path).items()}
    source = Counting()
    campaign(path, source).run(7)
    assert source.relaxed == [0, 1, 2, 3, 4, 5, 6], 'the first three from the database'
    assert source.blocks == [(0, 4), (1, 3)]
    after = {number: row.unique_id for number, row in rows(path).items()}
    assert before.items() <= after.items() and sorted(after) == list(range(7))
    source = Counting()
    assert len(campaign(path, source).run(7)) == 7
    assert source.blocks == [], 'nothing left to do'


@pytest.mark.parametrize('how', ['raise', 'nan'])
def test_a_structure_that_fails_is_noted_and_tried_again_if_asked(tmp_path, how, monkeypatch):
    path = tmp_path / 'a.db'
    monkeypatch.setattr(Faulty, 'how', how)
    log = io.StringIO()
    assert len(campaign(path, calculator=Faulty, logfile=log).run(8)) == 7
    assert '1 failed' in log.getvalue().splitlines()[-1]
    row = rows(path)[5]
    assert row.failed and {'raise': 'no convergence', 'nan': 'energy nan'}[how] in row.data['relax_error']
    source = Counting()
    campaign(path, source, Faulty).run(8)
    assert source.blocks == []
    monkeypatch.setattr(Faulty, 'how', 'well')
    assert len(campaign(path, source, Faulty, retry_failed=True).run(8)) == 8
    assert source.blocks == [(1, 2)]
    again = rows(path)
    assert not again[5].failed and len(again) == 8 and 'relax_error' not in again[5].data


def test_the_log_has_rate_and_best(tmp_path):
    log = io.StringIO()
    images = campaign(tmp_path / 'a.db', logfile=log).run(3)
    lines = log.getvalue().splitlines()
    assert '0 of 3 structures are there' in lines[0] and 'per hour' in lines[2]
    best = min(atoms.get_potential_energy() for atoms in images)
    assert f'{best:.4f}' in lines[5] and lines[5].endswith('new') and f'best has {best:.4f} eV' in lines[6]


def test_changed_settings_are_refused_and_shown(tmp_path):
    path = tmp_path / 'a.db'
    campaign(path, made_by={'generator': {'steps': 100, 'model': 'x'}}).run(1)
    with pytest.raises(ValueError, match='generator.steps 100, now 50; fmax 0.05, now 0.1. take the same settings') as error:
        campaign(path, made_by={'generator': {'steps': 50, 'model': 'x'}}, fmax=0.1).run(1)
    assert 'model' not in str(error.value)
    with pytest.raises(ValueError, match="calculator 'emt', now 'lj'"):
        campaign(path, calculator='lj', made_by={'generator': {'steps': 100, 'model': 'x'}}).run(1)
    with pytest.raises(ValueError, match="optimizer 'BFGS', now 'FIRE'; filter None, now 'UnitCellFilter'; pbc None, now"):
        campaign(
            path,
            made_by={'generator': {'steps': 100, 'model': 'x'}},
            optimizer='FIRE',
            filter='UnitCellFilter',
            pbc=(True, True, False),
        ).run(1)
    campaign(path, made_by={'generator': {'steps': 100, 'model': 'x'}}, patience=5.0, optimizer='bfgs').run(1)


def test_another_slab_is_refused():
    slab = fcc111('Cu', (1, 1, 2), vacuum=6.0)
    other, rounded, free = slab.copy(), slab.copy(), slab.copy()
    other.positions[0, 2] += 0.01
    rounded.positions[0, 2] += 1e-6
    free.set_constraint(FixAtoms(indices=[0]))
    mine = {'slab': slab_settings(slab), 'seed': 1}
    assert differences(mine, {'slab': slab_settings(rounded), 'seed': 1}) == []
    for strange in (other, free):
        assert differences(mine, {'slab': slab_settings(strange), 'seed': 1}) == ['another slab']
    assert differences(mine, {**mine, 'new': 3}) == ['new None, now 3']


def test_settings_of_calculators():
    assert describe('EMT') == 'emt' and describe(EMT) == 'EMT'
    assert describe(partial(EMT, asap_cutoff=True)) == {'name': 'EMT', 'asap_cutoff': True}
    assert describe(EMT(asap_cutoff=True))['asap_cutoff'] is True


def test_databases_of_others_are_refused(tmp_path):
    with connect(tmp_path / 'other.db') as db:
        db.write(generate(0, 1)[0])
    with pytest.raises(ValueError, match='1 other rows'):
        campaign(tmp_path / 'other.db').run(1)
    (tmp_path / 'text.db').write_text('not a database at all, but long enough to look at')
    with pytest.raises(StoreError, match='not a database'):
        campaign(tmp_path / 'text.db').run(1)
    with pytest.raises(FileNotFoundError, match='mkdir'):
        campaign(tmp_path / 'no' / 'folder.db').run(1)
    with pytest.raises(ValueError, match='sqlite file'):
        campaign(tmp_path / 'a.json')


def test_one_writer(tmp_path):
    path = tmp_path / 'a.db'
    with Store(path, {}), pytest.raises(StoreError, match='another one has'):
        Store(path, {}).open()
    Store(path, {}).open().close()


# ------------------------------------------------------------------------------------------------ disks and locks


class Trouble:
    """Make every later connection to a database fail in the way that sqlite itself has for it."""

    def __init__(self, monkeypatch, how, path):
        self.monkeypatch, self.how, self.path, self.blocker = monkeypatch, how, path, None

    def begin(self, count=3):
        if count != 3:
            return
        how, path = self.how, self.path

        def fail(db):
            if how == 'read-only':
                return sqlite3.connect(f'file:{path}?mode=ro', uri=True)
            connection = sqlite3.connect(path, timeout=0.1)
            if how == 'full':
                pages = connection.execute('PRAGMA page_count').fetchone()[0]
                connection.execute(f'PRAGMA max_page_count = {pages}')
            return connection

        if how == 'locked':
            self.blocker = sqlite3.connect(path, check_same_thread=False)
            self.blocker.execute('BEGIN EXCLUSIVE')
        self.monkeypatch.setattr(SQLite3Database, '_connect', fail)

    def end(self):
        if self.blocker is not None:
            self.blocker.close()
        self.monkeypatch.undo()


@pytest.mark.parametrize(('how', 'text'), [('locked', 'database is locked'), ('full', 'full'), ('read-only', 'readonly')])
@pytest.mark.parametrize('beside', [True, False])
def test_what_cannot_be_written_is_rescued_and_taken_in(tmp_path, monkeypatch, how, text, beside):
    path, trouble = tmp_path / 'a.db', Trouble(monkeypatch, how, tmp_path / 'a.db')
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'temporary'))
    (tmp_path / 'temporary').mkdir()
    source = Counting(trouble.begin)
    search = campaign(path, source)
    if not beside:  # the disk of the database takes nothing: a folder is in the place of the file
        monkeypatch.setattr(Store, '_rescue_files', lambda self: [tmp_path, tmp_path / 'temporary' / 'rescued.traj'])
    with pytest.raises(StoreError, match=f'{text}.*nothing is lost: 1 structures are in .*rescued'):
        search.run(6)
    assert source.relaxed == [0, 1, 2]
    trouble.end()
    if not beside:
        monkeypatch.setattr(Store, '_rescue_files', lambda self: [tmp_path / 'temporary' / 'rescued.traj'])
    again = Counting()
    assert len(campaign(path, again).run(6)) == 6
    assert again.relaxed == [0, 1, 2, 3, 4, 5] and again.blocks == [(0, 4), (1, 2)]
    assert rows(path)[2].data['place'] == [0, 2] and len(rows(path)) == 6
    assert not list(tmp_path.rglob('*.traj'))


def test_a_lock_that_goes_away_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / 'a.db'
    trouble = Trouble(monkeypatch, 'locked', path)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        trouble.end()

    monkeypatch.setattr('ase_diffusion.search.store.time.sleep', sleep)
    assert len(campaign(path, Counting(trouble.begin), patience=60.0).run(4)) == 4
    assert len(slept) == 1 and len(rows(path)) == 4


@pytest.mark.parametrize('how', ['locked', 'read-only'])
def test_a_database_that_cannot_be_written_is_an_error_before_any_work(tmp_path, monkeypatch, how):
    path = tmp_path / 'a.db'
    campaign(path).run(1)
    inner = sqlite3.connect
    if how == 'locked':
        blocker = inner(path)
        blocker.execute('BEGIN EXCLUSIVE')
        monkeypatch.setattr(sqlite3, 'connect', lambda name, timeout=0: inner(name, timeout=0.05))
    else:
        monkeypatch.setattr(sqlite3, 'connect', lambda name, timeout=0: inner(f'file:{name}?mode=ro', uri=True))
    source = Counting()
    with pytest.raises(StoreError, match='must be a database that can be written'):
        campaign(path, source).run(2)
    assert source.blocks == []
    monkeypatch.undo()
    if how == 'locked':
        blocker.close()
    assert len(campaign(path).run(2)) == 2


def test_a_kill_while_the_database_is_made_leaves_nothing(tmp_path, monkeypatch):
    def kill(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', kill)
    with pytest.raises(KeyboardInterrupt):
        campaign(tmp_path / 'a.db').run(1)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_what_was_done(tmp_path):
    def interrupt(count):
        if count == 3:
            raise KeyboardInterrupt

    path = tmp_path / 'a.db'
    with pytest.raises(KeyboardInterrupt):
        campaign(path, Counting(interrupt)).run(6)
    assert sorted(rows(path)) == [0, 1, 2], 'the third had been relaxed'
    assert len(campaign(path).run(6)) == 6


def test_a_generator_that_gives_up_stops_it_in_order(tmp_path):
    def give_up(block, count):
        if block == 1:
            raise RuntimeError('no model')
        return generate(block, count)

    path = tmp_path / 'a.db'
    with pytest.raises(RuntimeError, match='no model'):
        Campaign(path, give_up, 'emt', steps=2, workers=0, block=BLOCK, logfile=None).run(8)
    assert sorted(rows(path)) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match='at least count Atoms'):
        Campaign(path, lambda block, count: [], 'emt', steps=2, workers=0, block=BLOCK, logfile=None).run(8)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'workers': -1}, 'workers is'),
        ({'block': 0}, 'block is'),
        ({'fmax': 0}, 'fmax is'),
        ({'timeout': -1}, 'timeout is'),
        ({'calculator': 'emtt'}, "'emtt'"),
    ],
)
def test_bad_input(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        campaign(tmp_path / 'a.db', **options)
    with pytest.raises(ValueError, match='n is the number'):
        campaign(tmp_path / 'a.db').run(0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('options', 'who', 'way'), [({'workers': 2}, '2 workers', 'workers=1'), ({'client': object()}, 'of a cluster', 'no client')]
)
def test_a_finished_calculator_with_files_has_one_process(tmp_path, options, who, way):
    """Refused before a database is made, also where it could not be pickled; all that has folders, or needs none, is taken."""
    path, finished, locked = tmp_path / 'a.db', Vasp(xc='pbe'), Vasp(xc='pbe')
    locked.lock = threading.Lock()
    for calculator in (finished, locked):
        with pytest.raises(ValueError, match=f'finished Vasp has one folder.*{who}.*function that makes it.*{way}'):
            campaign(path, calculator=calculator, **options)
    for calculator in ('vasp', partial(Vasp, xc='pbe'), EMT()):
        campaign(path, calculator=calculator, **options)
    for workers in (0, 1):
        campaign(path, calculator=finished, workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_duplicates_are_marked_and_survive_a_resume(tmp_path):
    """The same atom at a place that a symmetry of the substrate makes of another."""
    slab = fcc111('Cu', (2, 2, 2), vacuum=6.0)
    slab.set_constraint(FixAtoms(indices=range(8)))

    def places(block, count):
        images = []
        for k in range(count):  # 0 and 2 on fcc hollows, 1 and 3 on hcp hollows of other cells
            atoms, cell = slab.copy(), slab.cell[:2] / 2
            third = [1 / 3, 2 / 3][k % 2]
            atoms.extend(Atoms('Cu', [slab.positions[4] + (third + k // 2) * (cell[0] + cell[1]) + [0, 0, 2.0]]))
            images.append(atoms)
        return images

    def search(n):
        return Campaign(
            tmp_path / 'a.db', places, 'emt', first_of_kind=Distinct().add, steps=30, workers=0, block=4, logfile=None
        ).run(n)

    assert len(search(2)) == 2
    assert len(search(4)) == 2
    assert [rows(tmp_path / 'a.db')[k].duplicate_of for k in range(4)] == [0, 1, 0, 1]
    assert [rows(tmp_path / 'a.db')[k].unique for k in range(4)] == [True, True, False, False]
