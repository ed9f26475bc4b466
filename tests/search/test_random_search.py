"""Random starts keep their distances and window; a search can be cut off, continued and spread over processes."""

import copy
import io
import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.data import covalent_radii
from ase.db import connect
from ase.geometry import get_distances

from ase_diffusion.data import frames_to_npz, read_frames
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.search import RandomStructureSearch, random_start


@pytest.fixture
def slab():
    slab = fcc111('Pt', (2, 2, 1), vacuum=8.0)
    slab.set_constraint(FixAtoms(indices=[atom.index for atom in slab]))
    return slab


def search(slab, path, **kwargs):
    """Return a small search with EMT."""
    options = {'stoich': 'Pt2', 'calculator': 'emt', 'rng': 7, 'steps': 12, 'logfile': None, **kwargs}
    return RandomStructureSearch(slab, database=path, **options)


def assert_same_frames(one, two):
    one, two = read_frames(one), read_frames(two)
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        assert a.info['key_value_pairs'] == pytest.approx(b.info['key_value_pairs'], abs=1e-9)
        assert np.allclose(a.positions, b.positions, rtol=0, atol=1e-9)
        assert a.get_potential_energy() == pytest.approx(b.get_potential_energy(), abs=1e-9)
        forces = [c.get_forces(apply_constraint=False) for c in (a, b)]
        assert np.allclose(*forces, rtol=0, atol=1e-8)


class Fussy(EMT):
    """EMT that does not take structures with two silver atoms."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        if (self.atoms.numbers == 47).sum() == 2:
            raise RuntimeError('too much silver')


# random starts


@pytest.mark.parametrize('size', [(1, 1, 2), (3, 3, 2)])
@pytest.mark.parametrize('kind', ['oblique', 'orthogonal', 'skewed', 'cluster'])
def test_distances_hold_with_all_images(size, kind):
    slab = fcc111('Ag', (size[0], 2 * size[1], size[2]), vacuum=8.0, orthogonal=kind == 'orthogonal')
    if kind == 'skewed':
        slab.set_cell(slab.cell[:] + np.array([[0, 0, 0], 3 * slab.cell[0], [0, 0, 0]]))
    slab.pbc = [False] * 3 if kind == 'cluster' else [True, True, False]
    numbers = [47, 8, 8]
    for seed in range(10):
        atoms = random_start(slab, numbers, seed, height=(0.8, 5.0), ratio=0.75)
        _, d = get_distances(atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        limit = 0.75 * (covalent_radii[atoms.numbers][:, None] + covalent_radii[atoms.numbers])
        np.fill_diagonal(d, 99)
        assert (d > limit)[len(slab) :].all()
        z = atoms.positions[len(slab) :, 2] - slab.positions[:, 2].max()
        assert ((z >= 0.8) & (z <= 5.0)).all()
        scaled = atoms.cell.scaled_positions(atoms.positions[len(slab) :])[:, :2]
        assert ((scaled >= 0) & (scaled < 1)).all()


def test_the_window_is_filled_evenly(slab):
    height = [random_start(slab, 'H', seed, height=(1.5, 3.5)).positions[-1, 2] for seed in range(300)]
    scaled = (np.array(height) - slab.positions[:, 2].max() - 1.5) / 2
    assert abs(scaled.mean() - 0.5) < 4 / np.sqrt(12 * 300)


def test_slab_first_then_atoms_in_the_order_of_the_formula(slab):
    slab.set_tags([4, 4, 2, 2])
    kept = copy.deepcopy(slab)
    atoms = random_start(slab, 'Ag2O3', 0, height=(1, 8))
    assert atoms.get_chemical_symbols() == ['Pt'] * 4 + ['Ag'] * 2 + ['O'] * 3
    assert atoms.get_tags().tolist() == [4, 4, 2, 2, 5, 5, 5, 5, 5]
    assert atoms.positions[:4].tobytes() == slab.positions.tobytes()
    assert atoms.constraints[0].index.tolist() == [0, 1, 2, 3]
    assert (atoms.cell == slab.cell).all()
    assert 'adsorbate_info' not in atoms.info
    assert 'adsorbate_info' in slab.info
    assert slab == kept
    assert random_start(slab, 'O3Ag2', 0, height=(1, 8)).get_chemical_symbols()[4:] == ['O'] * 3 + ['Ag'] * 2
    assert random_start(slab, [8, 47], 0).numbers[4:].tolist() == [8, 47]


def test_same_seed_same_atoms(slab):
    one, two = (random_start(slab, 'Ag2', rng) for rng in (5, np.random.default_rng(5)))
    other = random_start(slab, 'Ag2', 6)
    assert np.array_equal(one.positions, two.positions)
    assert not np.array_equal(one.positions, other.positions)
    for rng in (np.random.RandomState(5), np.random, None):
        assert len(random_start(slab, 'Ag2', rng)) == 6


def test_window_too_small_says_which_knob(slab):
    with pytest.raises(GenerationFailed, match='window of 1 to 1.2 A above Pt4 in 3 attempts.*height.*ratio.*maxiter'):
        random_start(slab, 'Ag9O9', 0, height=(1.0, 1.2), maxiter=3)


@pytest.mark.parametrize('formula', ['', 'Ag6Ox', 'silver', '6', 'X2', 'Ag-O', 'Ag0'])
def test_a_formula_that_is_not_one(slab, formula, tmp_path):
    with pytest.raises(ValueError, match="such as 'Ag6O3'; got"):
        random_start(slab, formula, 0)
    with pytest.raises(ValueError, match="such as 'Ag6O3'; got"):
        search(slab, tmp_path / 'a.db', stoich=formula)


def test_blanks_around_a_formula(slab):
    assert len(random_start(slab, ' PtO ', 0)) == 6


@pytest.mark.parametrize(
    ('kwargs', 'text'),
    [
        ({'height': (2, 1)}, 'height is'),
        ({'height': 3}, 'height is'),
        ({'height': (1, np.inf)}, 'height is'),
        ({'ratio': -1}, 'ratio is'),
        ({'maxiter': 0}, 'maxiter is'),
    ],
)
def test_bad_knobs(slab, kwargs, text):
    with pytest.raises(ValueError, match=text):
        random_start(slab, 'O', 0, **kwargs)


def test_bad_slab(slab):
    slab.rotate(90, 'x', rotate_cell=True)
    with pytest.raises(ValueError, match='span the xy plane'):
        random_start(slab, 'O', 0)
    with pytest.raises(TypeError, match='ase.Atoms'):
        random_start('slab.traj', 'O', 0)


# the search


@pytest.mark.parametrize(
    ('stoich', 'calculator', 'text'),
    [
        ('K2', 'emt', 'emt does not know K'),
        ({'Pt': (1, 2), 'Cl': (0, 1)}, EMT, 'EMT does not know Cl'),
        ('Cl2', 'ag-o', 'never saw'),
        (['Pt', 'Po'], '7net-mf-0', 'does not know Po'),
    ],
)
def test_a_calculator_that_does_not_know_an_element_is_refused_before_any_work(slab, tmp_path, stoich, calculator, text):
    with pytest.raises(ValueError, match=text):
        search(slab, tmp_path / 'rss.db', stoich=stoich, calculator=calculator)
    assert not (tmp_path / 'rss.db').exists()


def test_rows_hold_every_frame_with_raw_forces(slab, tmp_path):
    path = tmp_path / 'a.db'
    results = search(slab, path).run(2)
    frames = read_frames(path)
    pairs = [atoms.info['key_value_pairs'] for atoms in frames]
    for run in (0, 1):
        steps = [p['step'] for p in pairs if p['run'] == run]
        assert steps == list(range(len(steps)))
        assert [p['step'] for p in pairs if p['run'] == run and p['last']] == [steps[-1]]
    lasts = [atoms for atoms in frames if atoms.info['key_value_pairs']['last']]
    assert [atoms.info['key_value_pairs'] for atoms in lasts] == [atoms.info['key_value_pairs'] for atoms in results]
    assert results[0].info['key_value_pairs']['relax_calculator'] == 'emt'
    for atoms in (frames[0], frames[5], *results):
        check = atoms.copy()
        check.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(check.get_potential_energy(), abs=1e-9)
        raw = atoms.get_forces(apply_constraint=False)
        assert np.allclose(raw, check.get_forces(apply_constraint=False), atol=1e-8)
        assert np.abs(raw[:4]).max() > 1e-3
        assert atoms.positions[:4].tobytes() == slab.positions.tobytes()
        assert atoms.get_tags().tolist() == [1, 1, 1, 1, 2, 2]
    assert frames_to_npz(path, tmp_path / 'a.npz') < len(frames)
    assert read_frames(tmp_path / 'a.npz')[-1].get_potential_energy() == results[-1].get_potential_energy()


def test_a_search_goes_on_where_it_stopped(slab, tmp_path):
    search(slab, tmp_path / 'a.db').run(2)
    again = search(slab, tmp_path / 'a.db').run(4)
    whole = search(slab, tmp_path / 'b.db').run(4)
    assert [atoms.info['key_value_pairs']['run'] for atoms in again] == [0, 1, 2, 3]
    assert np.allclose([a.positions for a in again], [a.positions for a in whole], atol=1e-9)
    assert_same_frames(tmp_path / 'a.db', tmp_path / 'b.db')


def test_what_is_done_is_not_repeated(slab, tmp_path):
    calls = []

    class Counting(EMT):
        def calculate(self, *args, **kwargs):
            calls.append(1)
            super().calculate(*args, **kwargs)

    make = search(slab, tmp_path / 'a.db', calculator=Counting())
    one = make.run(2)
    n = len(calls)
    assert n > 0
    two = make.run(2)
    assert len(calls) == n
    assert len(make.run(1)) == 1
    assert [a.positions.tolist() for a in one] == [a.positions.tolist() for a in two]


def test_interruption_leaves_whole_runs(slab, tmp_path):
    calls = []

    class Cut(EMT):
        def calculate(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 20:
                raise KeyboardInterrupt
            super().calculate(*args, **kwargs)

    with pytest.raises(KeyboardInterrupt):
        search(slab, tmp_path / 'a.db', calculator=lambda: Cut()).run(3)
    pairs = [atoms.info['key_value_pairs'] for atoms in read_frames(tmp_path / 'a.db')]
    assert {p['run'] for p in pairs} == {0}
    search(slab, tmp_path / 'a.db', calculator=lambda: EMT()).run(3)
    search(slab, tmp_path / 'b.db', calculator=lambda: EMT()).run(3)
    assert_same_frames(tmp_path / 'a.db', tmp_path / 'b.db')


def test_rows_of_half_a_run_are_replaced(slab, tmp_path):
    make = search(slab, tmp_path / 'a.db')
    make.run(2)
    db = connect(tmp_path / 'a.db')
    db.delete([row.id for row in db.select(run=1) if row.last])
    make.run(2)
    search(slab, tmp_path / 'b.db').run(2)
    assert_same_frames(tmp_path / 'a.db', tmp_path / 'b.db')


def test_two_workers_give_the_same_as_one(slab, tmp_path):
    search(slab, tmp_path / 'a.db', workers=2).run(4)
    search(slab, tmp_path / 'b.db').run(4)
    assert_same_frames(tmp_path / 'a.db', tmp_path / 'b.db')


def test_errors_of_workers_reach_the_parent(slab, tmp_path):
    with pytest.raises(GenerationFailed, match='upper end of height'):
        search(slab, tmp_path / 'a.db', workers=2, stoich='Pt9O9', height=(1.0, 1.1), maxiter=1).run(2)
    with pytest.raises(ValueError, match='cannot be pickled.*workers=1'):
        search(slab, tmp_path / 'b.db', workers=2, calculator=lambda: EMT()).run(2)


def test_composition_ranges_and_lists(slab, tmp_path):
    ranges = search(slab, tmp_path / 'a.db', stoich={'Ag': (0, 2), 'O': 1}, height=(1, 6))
    drawn = {ranges.start(run)[4:].get_chemical_formula('reduce') for run in range(40)}
    assert drawn == {'O', 'AgO', 'Ag2O'}
    formulas = search(slab, tmp_path / 'b.db', stoich=['Ag2', 'O2Ag'], height=(1, 6))
    assert {formulas.start(run)[4:].get_chemical_formula('reduce') for run in range(40)} == {'Ag2', 'O2Ag'}


@pytest.mark.parametrize(
    'stoich',
    [
        {'Ag': (3,)},
        {'Ag': (1, 2, 3)},
        {'Ag': 'ab'},
        {'Ag': None},
        {'Ag': (3, 2)},
        {'Ag': (-1, 2)},
        {'Qq': (1, 2)},
        {'Ag': (0, 0)},
        {'Ag': (1.5, 2)},
        {},
        [],
    ],
)
def test_bad_ranges(slab, tmp_path, stoich):
    with pytest.raises(ValueError, match='atoms of an element|at least one atom|list of formulas'):
        search(slab, tmp_path / 'a.db', stoich=stoich)


def test_what_is_no_composition(slab, tmp_path):
    for stoich in (3, None):
        with pytest.raises(TypeError, match='a composition is'):
            search(slab, tmp_path / 'a.db', stoich=stoich)


def test_failed_runs_are_reported_and_tried_again(slab, tmp_path, caplog):
    options = {'stoich': {'Ag': (1, 2)}, 'steps': 3}
    stream = io.StringIO()
    make = search(slab, tmp_path / 'a.db', calculator=Fussy(), logfile=stream, **options)
    with caplog.at_level(logging.WARNING):
        results = make.run(6)
    rows = list(connect(tmp_path / 'a.db').select(failed=True))
    assert 0 < len(rows) < 6
    assert all(atoms.calc for atoms in read_frames(tmp_path / 'a.db'))
    assert len(results) + len(rows) == 6
    assert all(row.data['relax_error'] == 'RuntimeError: too much silver' for row in rows)
    assert caplog.text.count('too much silver') == stream.getvalue().count('too much silver') == len(rows)
    frames_to_npz(tmp_path / 'a.db', tmp_path / 'a.npz')
    Fussy.calculate, old = EMT.calculate, Fussy.calculate
    try:
        assert len(make.run(6)) == 6
    finally:
        Fussy.calculate = old
    assert connect(tmp_path / 'a.db').count(failed=True) == 0


def test_seed_comes_from_anything_and_is_remembered(slab, tmp_path):
    first = search(slab, tmp_path / 'a.db', rng=None)
    first.run(1)
    assert search(slab, tmp_path / 'a.db', rng=None).seed == first.seed
    assert search(slab, tmp_path / 'b.db', rng=None).seed != first.seed
    seeds = [search(slab, tmp_path / 'b.db', rng=np.random.RandomState(3)).seed for _ in range(2)]
    assert seeds[0] == seeds[1]
    assert search(slab, tmp_path / 'b.db', rng=11).seed == 11
    assert search(slab, tmp_path / 'b.db', rng=np.random.default_rng(3)).seed > 0
    for rng, error in ((-1, ValueError), (True, TypeError), ('x', TypeError)):
        with pytest.raises(error):
            search(slab, tmp_path / 'b.db', rng=rng)


def test_database_of_another_search(slab, tmp_path):
    search(slab, tmp_path / 'a.db').run(1)
    for kwargs in ({'rng': 8}, {'fmax': 0.1}, {'stoich': 'Pt3'}, {'optimizer': 'FIRE'}):
        key = {'rng': 'seed'}.get(*kwargs) or next(iter(kwargs))
        with pytest.raises(ValueError, match=f'belongs to one search; .* was made with {key} '):
            search(slab, tmp_path / 'a.db', **kwargs).run(2)
    moved = slab.copy()
    moved.positions[0, 2] += 1e-9
    search(moved, tmp_path / 'a.db', maxiter=7).run(1)
    moved.positions[0, 2] += 0.1
    with pytest.raises(ValueError, match='another slab'):
        search(moved, tmp_path / 'a.db').run(2)
    connect(tmp_path / 'b.db').write(slab)
    with pytest.raises(ValueError, match='1 other rows'):
        search(slab, tmp_path / 'b.db').run(1)


def test_log_has_a_line_for_each_run(slab, tmp_path):
    stream = io.StringIO()
    search(slab, tmp_path / 'a.db', logfile=stream).run(2)
    lines = stream.getvalue().splitlines()
    assert 'emt, seed 7' in lines[0]
    assert '2 runs, 0 of them done, 1 worker' in lines[1]
    assert len(lines) == 5
    assert 'Pt2' in lines[3]


def test_slab_is_not_changed(slab, tmp_path):
    kept = copy.deepcopy(slab)
    search(slab, tmp_path / 'a.db').run(1)
    assert slab == kept
    assert slab.info.keys() == kept.info.keys()
    assert slab.calc is None


def test_slabs_that_training_would_refuse(slab, tmp_path):
    periodic, flat, bad = slab.copy(), slab.copy(), slab.copy()
    periodic.pbc, flat.cell[2], bad.positions[0] = True, 0, np.nan
    for atoms, text in ((periodic, 'periodic along z'), (flat, 'three independent'), (bad, 'must be finite')):
        with pytest.raises(ValueError, match=text):
            search(atoms, tmp_path / 'a.db')
    with pytest.raises(ValueError, match='finite positions'):
        random_start(bad, 'O', 0)
    with pytest.raises(FileNotFoundError, match='mkdir -p .*nodir'):
        search(slab, tmp_path / 'nodir' / 'a.db')


class Blind(EMT):
    """EMT, of which nothing can be told before it computes."""


def test_a_call_in_which_all_runs_fail_says_why(slab, tmp_path, caplog):
    with pytest.raises(GenerationFailed, match='all 2 runs .* Blind .* failed attempts: 2 x NotImplementedError'):
        search(slab, tmp_path / 'a.db', stoich='U', calculator=Blind).run(2)
    make = search(slab, tmp_path / 'b.db', stoich=['U', 'Pt'], calculator=Blind)
    good = sum(78 in make.start(run).numbers[4:] for run in range(10))
    assert len(make.run(10)) == good and 'runs of this call' not in caplog.text
    assert len(make.run(10)) == good  # those that failed are tried again, and all fail
    assert f'all {10 - good} runs of this call failed' in caplog.text


def test_slab_without_fixed_atoms(slab, tmp_path):
    slab.set_constraint()
    with pytest.raises(ValueError, match=r'slab.set_constraint\(FixAtoms\(indices=\['):
        search(slab, tmp_path / 'a.db')


@pytest.mark.parametrize('n', [0, -3, 2.5, '4', True])
def test_bad_number_of_runs(slab, tmp_path, n):
    with pytest.raises(ValueError, match='n is the number of runs'):
        search(slab, tmp_path / 'a.db').run(n)
    assert not (tmp_path / 'a.db').exists()


@pytest.mark.parametrize(
    ('kwargs', 'text'),
    [
        ({'calculator': 'emtt'}, "'emt', 'lj', '7net-mf-0'.*'emtt'"),
        ({'optimizer': 'BFFS'}, 'BFGS'),
        ({'workers': 0}, 'workers is the number of processes'),
        ({'fmax': -1}, 'fmax is'),
        ({'steps': -1}, 'steps is'),
        ({'height': (3, 2)}, 'height is'),
    ],
)
def test_bad_input_is_found_at_once(slab, tmp_path, kwargs, text):
    with pytest.raises(ValueError, match=text):
        search(slab, tmp_path / 'a.db', **kwargs)
    with pytest.raises(ValueError, match=r'\*.db'):
        search(slab, tmp_path / 'a.json')


@pytest.mark.parametrize('numbers', [29, None, ['Cu'], [29.5], [0], [200], [-1], Atoms('Cu')])
def test_what_are_no_atomic_numbers_is_named(slab, numbers):
    with pytest.raises(ValueError, match="new atoms are a formula such as 'Ag6O3', a dict .* or atomic numbers; got"):
        random_start(slab, numbers, 0)
    assert len(random_start(slab, np.array([8, 47], np.uint8), 0)) == len(slab) + 2
