"""What can go wrong with one structure: hanging, dying, exploding, wrong shapes; and which road a relaxation takes."""

import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from ase_diffusion.relax import batched, get_calculator, irelax, relax
from ase_diffusion.search import random_start

HELPERS = '''
import os, signal, subprocess, time
from ase.calculators.emt import EMT

class Bad(EMT):
    """EMT that goes astray for structures with a silver atom, in a way that the file `how` names."""
    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        if 47 in atoms.numbers:
            how = open(HOW).read()
            if how == 'hang':
                child = subprocess.Popen(['sleep', '1000'])
                open(HOW + '.pid', 'w').write(str(child.pid))
                time.sleep(1000)
            if how == 'die':
                os.kill(os.getpid(), signal.SIGSEGV)
            if how == 'raise':
                raise RuntimeError('no convergence')
        super().calculate(atoms, properties, system_changes)
'''


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """A calculator class in a module that other processes can import, and the file that says what it does."""
    how = tmp_path / 'how'
    (tmp_path / 'bad_calculators.py').write_text(HELPERS + f'\nHOW = {str(how)!r}\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__('sys').modules, 'bad_calculators', raising=False)
    import bad_calculators

    return bad_calculators.Bad, how


@pytest.fixture
def images():
    """Three slightly displaced Cu cells; the second has a silver atom."""
    made = [bulk('Cu', cubic=True) for _ in range(3)]
    for k, atoms in enumerate(made):
        atoms.rattle(0.05, seed=k)
    made[1].symbols[0] = 'Ag'
    return made


def outcomes(results):
    return [bool(atoms.info['key_value_pairs'].get('relax_failed')) for atoms in results]


def reason(atoms):
    return atoms.info['data']['relax_error']


def gone(pid):
    """Tell whether a process has ended; one that nobody has waited for counts."""
    for _ in range(100):
        try:
            if Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] == 'Z':
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_a_calculator_that_hangs_is_killed_with_what_it_started(images, bad):
    kind, how = bad
    how.write_text('hang')
    results = relax(images, kind, timeout=3.0, steps=5)
    assert outcomes(results) == [False, True, False]
    assert 'time limit of 3 s' in reason(results[1])
    assert np.array_equal(results[1].positions, images[1].positions)
    assert gone(int((how.parent / 'how.pid').read_text()))


def test_a_calculator_that_dies_takes_nobody_with_it(images, bad):
    kind, how = bad
    how.write_text('die')
    results = relax(images, kind, timeout=60.0, steps=5)
    assert outcomes(results) == [False, True, False]
    assert f'died with status {-signal.SIGSEGV}' in reason(results[1])


def test_with_a_time_limit_the_results_are_the_same(images, bad):
    kind, how = bad
    how.write_text('raise')
    frames = []
    results = relax(images, kind, timeout=60.0, frames=frames)
    plain = relax([images[0], images[2]], 'emt')
    assert outcomes(results) == [False, True, False] and 'no convergence' in reason(results[1])
    for one, other in zip([results[0], results[2]], plain, strict=True):
        assert np.allclose(one.positions, other.positions, rtol=0, atol=1e-9)
        assert one.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-9)
        assert one.info['key_value_pairs']['relax_steps'] == other.info['key_value_pairs']['relax_steps']
    assert [len(path) for path in frames] == [r.info['key_value_pairs'].get('relax_steps', -1) + 1 for r in results]


def test_what_cannot_be_pickled_has_no_time_limit(images):
    calc = EMT()
    calc.lock = threading.Lock()
    with pytest.raises(ValueError, match='cannot be pickled.*function that makes it'):
        relax(images, calc, timeout=10.0)


def test_an_error_of_the_factory_comes_through_the_process(images):
    def make():
        raise FileNotFoundError('no weights here')

    with pytest.raises(FileNotFoundError, match='no weights here'):
        relax(images, make, timeout=60.0)


class Shapes(EMT):
    """EMT whose results have wrong shapes for structures with a silver atom."""

    change: dict = {}

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if 47 in atoms.numbers:
            self.results.update(self.change)


@pytest.mark.parametrize(
    'change', [{'forces': np.zeros((3, 3))}, {'forces': np.zeros(12)}, {'energy': np.zeros(4)}, {'forces': np.zeros((4, 2))}]
)
def test_wrong_shapes(images, change, monkeypatch):
    monkeypatch.setattr(Shapes, 'change', change)
    results = relax(images, Shapes)
    assert outcomes(results) == [False, True, False]
    assert 'forces of shape (4, 3)' in reason(results[1])


def test_an_explosion_is_stopped_by_its_energy():
    """Steps far too long drive the atoms into each other: the energy rises by hundreds of eV."""
    atoms = bulk('Cu', cubic=True)
    atoms.rattle(0.1, seed=0)

    class Wild(BFGS):
        def step(self, *args):
            self.optimizable.set_x(self.optimizable.get_x() * 0.8)

    result = relax(atoms, 'emt', optimizer=Wild, min_distance=None, max_energy=5.0)
    assert 'max_energy = 5 eV' in reason(result)
    assert np.array_equal(result.positions, atoms.positions)
    free = relax(atoms, 'emt', optimizer=Wild, min_distance=None, max_energy=None, steps=2)
    assert free.get_potential_energy() > atoms_energy(atoms) + 5.0


def atoms_energy(atoms):
    copy = atoms.copy()
    copy.calc = EMT()
    return copy.get_potential_energy()


class Hole(LennardJones):
    """A pair potential with a hole: the energy falls until the atoms lie on each other, as learned potentials may have it."""

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        d = atoms.positions[1] - atoms.positions[0]
        self.results.update(energy=10.0 * d @ d, forces=np.array([20.0 * d, -20.0 * d]))


def test_a_hole_of_the_potential_is_noticed():
    atoms = Atoms('Ag2', [(0, 0, 0), (0, 0, 2.0)])
    assert 'min_distance' in reason(relax(atoms, Hole))
    assert 'relax_failed' not in relax(atoms, Hole, min_distance=None, steps=5).info['key_value_pairs']


def test_a_structure_that_starts_too_close_may_relax():
    atoms = Atoms('Ag2', [(0, 0, 0), (0, 0, 0.8)])
    result = relax(atoms, LennardJones(sigma=1.0, epsilon=0.1, rc=10.0), min_distance=0.4)
    assert result.info['key_value_pairs']['relax_converged']
    assert result.get_distance(0, 1) > 1.0
    assert 'relax_failed' not in relax(atoms, LennardJones(), steps=0).info['key_value_pairs']


def test_filters_have_names():
    atoms = bulk('Cu', a=3.9)
    one, other = (relax(atoms, 'emt', filter=kind, fmax=0.01) for kind in ('frechetcellfilter', FrechetCellFilter))
    assert np.array_equal(one.cell, other.cell) and not np.allclose(one.cell, atoms.cell)


def test_periodicity_while_relaxing(monkeypatch):
    """A slab may be computed as if it were periodic; the result has the periodicity of the input."""
    came = []

    class Spy(EMT):
        def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
            came.append(atoms.pbc.tolist())
            super().calculate(atoms, properties, system_changes)

    slab = fcc111('Cu', (1, 1, 2), vacuum=5.0)
    result = relax(slab, Spy(), steps=0, pbc=True)
    assert came[0] == [True, True, True] and result.pbc.tolist() == [True, True, False]


# ------------------------------------------------------------------------------------------------ batches


@pytest.fixture(scope='module')
def minima():
    """Three structures near minima of the shipped force field."""
    slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(8)))
    starts = relax([random_start(slab, 'Ag2O', seed) for seed in range(3)], 'ag-o', fmax=0.02, steps=300)
    for k, atoms in enumerate(starts):
        atoms.calc = None
        atoms.positions[8:] += 0.05 * np.random.default_rng(k).normal(size=(3, 3))
    return starts


def test_batches_reach_the_minima_of_ase_bfgs(minima):
    for start, result in zip(minima, relax(minima, 'ag-o', fmax=0.01, steps=300, batch_size=2), strict=True):
        atoms = start.copy()
        atoms.calc = get_calculator('ag-o')
        assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
        assert result.info['key_value_pairs']['relax_converged']
        assert result.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-3)
        assert result.info['key_value_pairs']['relax_calculator'] == 'ag-o'


def test_who_goes_in_batches(minima, monkeypatch):
    used = []
    inner = batched.irelax_batched
    monkeypatch.setattr(batched, 'irelax_batched', lambda *args, **kwargs: used.append(1) or inner(*args, **kwargs))

    def batches(images=minima, calculator='ag-o', **options):
        used.clear()
        assert len(relax(images, calculator, steps=1, **options)) == len(images)
        return bool(used)

    assert batches() and batches(calculator=get_calculator('ag-o'))
    assert batches(frames=[]) and not batches(optimizer='FIRE') and not batches(batch_size=1)
    assert not batches(images=minima[:1]) and not batches(calculator='lj')
    frozen = minima[0].copy()
    frozen.set_constraint(FixAtoms(indices=range(len(frozen))))
    assert not batches(images=[minima[0], frozen])


def test_one_bad_structure_of_a_batch_is_reported_and_the_others_kept(minima):
    strange = [atoms.copy() for atoms in minima]
    strange[1].symbols[-1] = 'Pt'
    done = [number for number, _ in irelax(strange, 'ag-o', steps=2)]
    results = relax(strange, 'ag-o', steps=2)
    assert sorted(done) == [0, 1, 2]
    assert outcomes(results) == [False, True, False] and 'Pt' in reason(results[1])


def test_a_batch_that_fails_is_evaluated_one_by_one(minima, monkeypatch):
    good, sizes = batched.OverlayerBatches.evaluate, []

    def evaluate(self, images):
        sizes.append(len(images))
        if len(images) > 1:
            raise RuntimeError('out of memory')
        if np.allclose(images[0].positions, minima[1].positions):
            raise RuntimeError('this one is bad')
        return good(self, images)

    monkeypatch.setattr(batched.OverlayerBatches, 'evaluate', evaluate)
    results = relax(minima, 'ag-o', steps=2)
    assert max(sizes) == len(minima) > 2
    assert [atoms.info['key_value_pairs'].get('relax_failed', False) for atoms in results] == [k == 1 for k in range(len(minima))]
    assert 'this one is bad' in results[1].info['data']['relax_error']


def test_the_guards_hold_in_batches(minima, monkeypatch):
    good = batched._State.put

    def put(state, energy, forces):
        exploding, strange = state.number == 0, state.number == 1 and state.steps
        good(state, energy + 50.0 * state.steps if exploding else energy, np.full_like(forces, np.nan) if strange else forces)

    monkeypatch.setattr(batched._State, 'put', put)
    results = relax(minima, 'ag-o', fmax=0.001, steps=10)
    assert 'max_energy' in reason(results[0]) and 'not finite' in reason(results[1])
    assert outcomes(results) == [True, True, False]


def test_iteration_hands_out_each_as_it_is_done(images):
    iterator = irelax(images, 'emt', steps=3)
    assert next(iterator)[0] == 0
    with pytest.raises(ValueError, match='fmax'):
        irelax(images, 'emt', fmax=0)


@pytest.mark.parametrize(
    ('name', 'value'), [('pbc', (True, True)), ('pbc', 'xy'), ('timeout', 'x'), ('min_distance', '1 A'), ('max_energy', [1])]
)
def test_settings_without_a_meaning_are_named(images, name, value):
    with pytest.raises(ValueError, match=f'{name} is'):
        relax(images, 'emt', **{name: value})


def test_a_structure_without_atoms_is_named():
    empty, _ = relax([Atoms(), bulk('Cu')], 'emt', steps=0)
    assert 'no atoms' in empty.info['data']['relax_error']


def test_a_calculator_that_needs_three_cell_vectors_is_told_of_with_the_way_out():
    class Inverting(EMT):
        def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
            np.linalg.inv(atoms.cell[:])
            super().calculate(atoms, properties, system_changes)

    reason = relax(fcc111('Cu', (1, 1, 2)), Inverting(), steps=0).info['data']['relax_error']
    assert 'three cell vectors' in reason and 'center(vacuum=' in reason


def test_planes_of_waves_need_room_between_the_images_of_a_slab():
    """Made periodic along z, a slab in a low cell stands on itself; GPAW and VASP would compute that without a word."""

    class PlaneWaves(EMT):
        name = 'vasp'

    slab = fcc111('Cu', (1, 1, 2), vacuum=5.0)
    assert not relax(slab, PlaneWaves(), steps=0).info['key_value_pairs'].get('relax_failed')
    slab.center(vacuum=0.4, axis=2)
    assert 'along z' in relax(slab, PlaneWaves(), steps=0).info['data']['relax_error']
    assert not relax(slab, PlaneWaves(), steps=0, pbc=True).info['key_value_pairs'].get('relax_failed')  # asked for
