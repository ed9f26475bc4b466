"""Training without data: a short one with EMT, killed and resumed, and what it refuses."""

import io
import json
from functools import partial

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.calculators.vasp import Vasp
from ase.constraints import FixAtoms
from ase.io import read

pytest.importorskip('lightning')
from ase_diffusion import SurfaceDiffusion
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.generators.surface.selftraining import SelfTrainingSchedule, boltzmann

PLAN = {'rounds': 2, 'samples': 4, 'relax_steps': 4, 'steps': 6}
OPTIONS = {'features': 8, 'blocks': 1, 'batch_size': 4, 'accelerator': 'cpu'}


@pytest.fixture
def slab():
    """p(2x2) Cu(111), two frozen layers: an element that no shipped model knows."""
    slab = fcc111('Cu', (2, 2, 2), vacuum=8.0)
    slab.set_constraint(FixAtoms(indices=range(8)))
    return slab


def generator(slab, logfile=None):
    """Return an untrained generator."""
    return SurfaceDiffusion(slab, 'Cu2', model='untrained', rng=0, steps=5, maxtries=2, logfile=logfile, compile=False)


class Counting(EMT):
    """EMT that counts its calls, and stops the program after some."""

    calls, limit = 0, None

    def calculate(self, *args, **kwargs):
        Counting.calls += 1
        if Counting.limit is not None and Counting.calls > Counting.limit:
            raise KeyboardInterrupt
        super().calculate(*args, **kwargs)


@pytest.fixture(autouse=True)
def _reset():
    Counting.calls, Counting.limit = 0, None


def test_from_nothing_to_a_model_that_samples(slab, tmp_path):
    log = io.StringIO()
    gen = generator(slab, log)
    assert gen.fit_with_calculator(Counting(), tmp_path / 'out', options=OPTIONS, **PLAN) is gen
    assert gen.calculator_calls == Counting.calls
    assert len(gen.found) == 8
    energies = [atoms.get_potential_energy() for atoms in gen.found]
    assert energies == sorted(energies)
    for atoms in gen.found:
        assert np.array_equal(atoms.positions[:8], slab.positions)
    lines = log.getvalue().splitlines()
    assert lines[-1].split()[0] == '1'
    assert int(lines[-1].split()[2]) == Counting.calls
    gen._reason_to_reject = lambda atoms: None
    assert gen.sample().get_chemical_formula() == 'Cu10'
    assert json.loads((tmp_path / 'out' / 'settings.json').read_text())['rounds'] == 2
    gen.save(tmp_path / 'cu.safetensors')
    assert SurfaceDiffusion.from_pretrained(tmp_path / 'cu.safetensors', slab, 'Cu2', logfile=None).stoich == 'Cu2'


def test_a_training_that_was_killed_goes_on_and_computes_nothing_twice(slab, tmp_path):
    whole = generator(slab).fit_with_calculator(Counting(), tmp_path / 'whole', options=OPTIONS, **PLAN)
    needed, Counting.calls, Counting.limit = Counting.calls, 0, 9  # in the middle of round 0
    with pytest.raises(KeyboardInterrupt):
        generator(slab).fit_with_calculator(Counting(), tmp_path / 'killed', options=OPTIONS, **PLAN)
    kept = sum(read(path, -1).info['key_value_pairs']['relax_steps'] + 1 for path in (tmp_path / 'killed').rglob('*.traj'))
    assert kept
    Counting.calls, Counting.limit = 0, None
    again = generator(slab).fit_with_calculator(Counting(), tmp_path / 'killed', options=OPTIONS, **PLAN)
    assert Counting.calls == needed - kept
    assert again.calculator_calls == needed
    ends = [np.sort([atoms.get_potential_energy() for atoms in gen.found]) for gen in (whole, again)]
    assert np.allclose(*ends, atol=1e-4)  # the same seeds, the same structures
    Counting.calls = 0
    generator(slab).fit_with_calculator(Counting(), tmp_path / 'killed', options=OPTIONS, **PLAN)
    assert Counting.calls == 0


def test_a_folder_of_another_training_is_refused(slab, tmp_path):
    generator(slab).fit_with_calculator('emt', tmp_path, options=OPTIONS, **{**PLAN, 'rounds': 1})
    with pytest.raises(ValueError, match=r'samples 4, now 5'):
        generator(slab).fit_with_calculator('emt', tmp_path, options=OPTIONS, **{**PLAN, 'rounds': 1, 'samples': 5})


class Broken(EMT):
    """Raises at every call."""

    def calculate(self, *args, **kwargs):
        raise RuntimeError('no')


def test_a_calculator_that_always_fails_ends_with_an_error(slab, tmp_path):
    with pytest.raises(GenerationFailed, match='calculator failed'):
        generator(slab).fit_with_calculator(Broken, tmp_path, options=OPTIONS, **PLAN)


@pytest.mark.parametrize(
    'bad',
    [{'rounds': 0}, {'samples': 1.5}, {'temperature': (0.1, 0.2)}, {'temperature': 0.1}, {'explore': 1.5}, {'relax_steps': -1}],
)
def test_settings_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SelfTrainingSchedule(**bad)


def test_unknown_settings_and_calculators_are_refused(slab, tmp_path):
    with pytest.raises(TypeError, match='epochs'):
        generator(slab).fit_with_calculator('emt', tmp_path, epochs=3)
    with pytest.raises(ValueError, match='calculator'):
        generator(slab).fit_with_calculator('quantum', tmp_path)


def test_the_temperature_falls_geometrically_and_weights_are_those_of_boltzmann():
    plan = SelfTrainingSchedule(rounds=3, temperature=(0.4, 0.1))
    assert [plan.temperature_at(k) for k in range(3)] == pytest.approx([0.4, 0.2, 0.1])
    weights = boltzmann([1.0, 1.5, 3.0], 0.5)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] / weights[1] == pytest.approx(np.e)


@pytest.fixture
def silver():
    """Ag(111) p(1x1), fixed; the springs of the stand-in for VASP rest at 11 A, 2.6 A above it."""
    slab = fcc111('Ag', (1, 1, 2), a=4.16, vacuum=6.0)
    slab.set_constraint(FixAtoms(indices=[0, 1]))
    return slab


def made(folder):
    """Return the names of the folders of calculations, sorted."""
    return sorted(path.name for path in (folder / 'calculations').iterdir())


@pytest.mark.parametrize('calculator', ['vasp', partial(Vasp, xc='pbe')], ids=['name', 'factory'])
def test_calculators_with_files_have_a_folder_for_each_structure(vasp, silver, calculator):
    """Over all rounds; the POSCAR of a structure is its last frame, which that of no other has overwritten."""
    gen = SurfaceDiffusion(silver, 'O', model='untrained', rng=0, steps=5, maxtries=2, logfile=None, compile=False)
    gen.fit_with_calculator(calculator, vasp / 'out', options=OPTIONS, rounds=2, samples=2, relax_steps=1, steps=4)
    name = calculator if isinstance(calculator, str) else 'Vasp'
    assert made(vasp / 'out') == [f'{name}-{number:04d}' for number in range(4)]
    ends = [read(vasp / 'out' / f'round_{number // 2:03d}' / f'{number % 2:04d}.traj', -1) for number in range(4)]
    for number, atoms in enumerate(ends):
        assert np.allclose(
            read(vasp / 'out' / 'calculations' / f'{name}-{number:04d}' / 'POSCAR').positions, atoms.positions, atol=1e-6
        )
        assert atoms.info['key_value_pairs']['relax_calculator'] == name
    assert not np.allclose(ends[0].positions, ends[1].positions, atol=0.01)
    assert not (vasp / 'POSCAR').exists()


def test_a_structure_that_is_computed_again_has_another_folder(vasp, silver):
    def fit():
        gen = SurfaceDiffusion(silver, 'O', model='untrained', rng=0, steps=5, logfile=None, compile=False)
        gen.fit_with_calculator('vasp', vasp, options=OPTIONS, rounds=1, samples=2, relax_steps=1, steps=4)

    fit()
    (vasp / 'round_000' / '0001.traj').unlink()  # as where it was killed meanwhile
    fit()
    assert made(vasp) == ['vasp-0000', 'vasp-0001', 'vasp-0001.1']


def test_a_calculator_without_files_is_made_once(slab, tmp_path):
    counting = []

    def make():
        counting.append(Counting())
        return counting[-1]

    generator(slab).fit_with_calculator(make, tmp_path, options=OPTIONS, **{**PLAN, 'rounds': 1})
    assert len(counting) == 1 and Counting.calls
    assert not (tmp_path / 'calculations').exists()
