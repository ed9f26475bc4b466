"""Forces step by step: who keeps which calculator, what counts as a failure, and what a time limit does."""

import gc
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from ase_diffusion.calculators.forces import Forces
from ase_diffusion.calculators.process import CalculatorProcessFailed


@pytest.fixture
def images():
    """Two displaced Cu cells."""
    made = [bulk('Cu', cubic=True) for _ in range(2)]
    for k, atoms in enumerate(made):
        atoms.rattle(0.05, seed=k)
    return made


def stateful():
    """Return EMT that belongs to one structure, as ASE marks it by `write_input`, and says in its forces where it writes."""

    class Stateful(EMT):
        calls = 0

        def write_input(self, atoms, properties=None, system_changes=None):
            pass

        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.calls += 1
            self.results['forces'] = np.full((4, 3), self.calls + 100 * int(Path(self.directory).name[-4:]))

    return Stateful


def direct(atoms):
    """Return forces and stress as ASE gives them."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_forces(), atoms.get_stress(voigt=False)


def alive(pid):
    """Tell whether a process runs; it has a few seconds to end."""
    for _ in range(100):
        if not Path(f'/proc/{pid}').exists():
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize('limit', [None, 60.0])
def test_forces_and_stress_are_those_of_ase(images, limit):
    forces = Forces('emt', time_limit=limit)
    forces.begin(2)
    for k in (0, 1, 0):
        got, stress = forces(k, images[k], stress=True)
        expected = direct(images[k])
        assert np.allclose(got, expected[0], rtol=0, atol=1e-12) and np.allclose(stress, expected[1], rtol=0, atol=1e-12)
        assert np.abs(got).max() > 0.01
        assert images[k].calc is None
    assert forces(0, images[0])[1] is None
    forces.close()


def test_a_call_without_end_is_a_failure_and_the_next_one_works(images, sleeper):
    kind, pids = sleeper
    forces = Forces(kind, time_limit=2.0)
    forces.begin(2)
    forces(0, images[0])
    begun = time.monotonic()
    with pytest.raises(CalculatorProcessFailed, match='time limit of 2 s'):
        forces(1, images[1])
    assert 1.5 < time.monotonic() - begun < 30
    assert np.allclose(forces(1, images[1])[0], direct(images[1])[0])
    first, second, third = (int(pid) for pid in pids.read_text().split())
    assert first == second != third and os.getpid() not in (first, third)
    assert not alive(first) and alive(third)
    forces.close()
    assert not alive(third)


def test_without_a_time_limit_there_is_no_process(images, sleeper):
    kind, pids = sleeper
    Forces(kind)(0, images[0])
    assert int(pids.read_text()) == os.getpid()


def test_the_process_ends_with_the_object(images, sleeper):
    kind, pids = sleeper
    forces = Forces(kind, time_limit=60.0)
    forces(0, images[0])
    pid = int(pids.read_text())
    assert Path(f'/proc/{pid}').exists()
    del forces
    gc.collect()
    assert not alive(pid)


def test_the_answer_to_an_interrupted_call_is_not_that_of_the_next(images, monkeypatch):
    forces = Forces('emt', time_limit=60.0)

    def interrupt(timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(forces.process.pipe, 'poll', interrupt)
    with pytest.raises(KeyboardInterrupt):
        forces(0, images[0])
    assert np.allclose(forces(1, images[1])[0], direct(images[1])[0])
    forces.close()


@pytest.mark.parametrize('limit', [None, 60.0])
def test_a_structure_keeps_its_calculator_and_folder(images, tmp_path, limit):
    forces = Forces(stateful(), tmp_path, time_limit=limit)
    forces.begin(2)
    told = [forces(k, images[k].copy())[0][0, 0] for k in (0, 1)]
    images[0].rattle(0.01, seed=5)
    told.append(forces(0, images[0])[0][0, 0])
    forces.begin(1)
    told.append(forces(0, images[1])[0][0, 0])
    assert told == [1, 101, 2, 201]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f'Stateful-{k:04d}' for k in range(3)]
    forces.close()


@pytest.mark.parametrize(('wrong', 'text'), [(np.zeros((2, 3)), 'shape'), (np.full((4, 3), np.nan), 'NaN')])
def test_forces_that_are_none_raise(images, wrong, text):
    class Odd(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results['forces'] = wrong

    with pytest.raises(ValueError, match=text):
        Forces(Odd)(0, images[0])


def test_a_failure_leaves_nothing_behind_in_a_calculator_that_is_shared(images):
    class Fails(EMT):
        fail = True

        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            if self.fail:
                raise RuntimeError('after the results are there')

    calc = Fails()
    forces = Forces(calc)
    with pytest.raises(RuntimeError, match='results are there'):
        forces(0, images[0])
    assert not calc.results
    calc.fail = False
    assert np.allclose(forces(0, images[0])[0], direct(images[0])[0])


def test_no_stress_is_no_failure(images):
    class NoStress(LennardJones):
        def get_stress(self, atoms=None):
            raise NotImplementedError

    forces, stress = Forces(NoStress())(0, images[0], stress=True)
    assert forces.shape == (4, 3) and stress is None


@pytest.mark.parametrize('limit', [0, -1.0, float('nan')])
def test_a_time_limit_is_a_time(limit):
    with pytest.raises(ValueError, match='time_limit is a time in seconds'):
        Forces('emt', time_limit=limit)


def test_errors_come_before_any_work():
    def make():
        raise FileNotFoundError('no weights here')

    with pytest.raises(ValueError, match='quantum'):
        Forces('quantum', time_limit=1.0)
    for limit in (None, 60.0):
        with pytest.raises(FileNotFoundError, match='no weights here'):
            Forces(make, time_limit=limit)


class Differentiated(Calculator):
    """A Morse-like pair energy whose forces torch differentiates, with a parameter made when the calculator is, as CHGNet has."""

    implemented_properties = ['energy', 'forces']

    def __init__(self):
        super().__init__()
        self.width = torch.nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = torch.tensor(self.atoms.positions, requires_grad=True)
        energy = torch.exp(-self.width * torch.pdist(x)).sum()
        energy.backward()
        self.results = {'energy': float(energy.detach()), 'forces': -x.grad.numpy()}


def test_calculators_that_differentiate_work_inside_a_sampler(images):
    """Samplers switch gradients off, by inference mode; the calculator is made and called inside."""
    with torch.inference_mode():
        forces, _ = Forces(Differentiated)(0, images[0])
    images[0].calc = Differentiated()
    assert np.allclose(forces, images[0].get_forces()) and np.abs(forces).max() > 1e-3


def test_plane_waves_do_not_compute_a_slab_that_stands_on_its_own_image():
    class PlaneWaves(EMT):
        name = 'vasp'

    forces, slab = Forces(PlaneWaves()), fcc111('Cu', (1, 1, 2), vacuum=6.0)
    forces.begin(2)
    assert np.isfinite(forces(0, slab)[0]).all()
    slab.center(vacuum=0.4, axis=2)
    with pytest.raises(ValueError, match='along z'):
        forces(1, slab)
