"""Force guidance by ASE calculators: who gets which instance, what is counted, what the log says."""

import io
import re
import threading

import numpy as np
import pytest
import torch
from ase.build import fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.diffusion import Batch, ForceGuidance, GeometricVE, JointProcess, WrappedNormal
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.generators.surface.guidance import Guidance

PLAN = {'finish_steps': 2, 'below': 0.5}


@pytest.fixture
def slab():
    """p(2x2) Ag(111), two frozen layers."""
    slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(8)))
    return slab


def generator(slab, calculator, logfile=None, **guidance):
    """Return a quick guided generator that accepts whatever comes."""
    gen = SurfaceDiffusion(
        slab, 'Ag2O', rng=0, steps=8, logfile=logfile, batch_size=2, calculator=calculator, guidance={**PLAN, **guidance}
    )
    gen._reason_to_reject = lambda atoms: None
    return gen


class Recorder(Calculator):
    """Pull every atom down gently, and remember which structures came."""

    implemented_properties = ['energy', 'forces']  # noqa: RUF012
    made: list = []  # noqa: RUF012

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = []
        Recorder.made.append(self)

    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        super().calculate(atoms, list(properties), system_changes)
        self.seen.append(atoms.positions.copy())
        self.results = {'energy': 0.0, 'forces': np.tile([0.0, 0.0, -0.1], (len(atoms), 1))}


class Stateful(Recorder):
    """Writes input files, as GPAW and VASP do: ASE's mark of a calculator that belongs to one structure."""

    def write_input(self, atoms, properties=None, system_changes=None):
        super().write_input(atoms, properties, system_changes)


@pytest.fixture(autouse=True)
def _fresh():
    Recorder.made.clear()


def test_a_stateful_factory_makes_one_calculator_per_structure_in_its_own_folder(slab, tmp_path):
    gen = generator(slab, Stateful, directory=tmp_path)
    gen.sample(3)
    used = [calc for calc in Recorder.made if calc.seen]
    assert len(used) == 3
    assert len({str(calc.directory) for calc in used}) == 3
    assert all(str(calc.directory).startswith(str(tmp_path)) for calc in used)
    for calc in used:  # one structure, step by step: the cap bounds how far it goes in a call
        assert len(calc.seen) == len(used[0].seen) > 2
        assert np.abs(calc.seen[-1] - calc.seen[-2])[8:, 2].max() <= 0.1 + 1e-6
    assert gen.guidance.calls == sum(len(calc.seen) for calc in used)


def test_others_are_made_once_and_shared(slab):
    generator(slab, Recorder).sample(3)
    assert len([calc for calc in Recorder.made if calc.seen]) == 1
    mine = Recorder()
    generator(slab, mine).sample(1)
    assert mine.seen


def test_calls_are_counted_and_the_log_says_what_a_structure_costs(slab):
    log = io.StringIO()
    gen = generator(slab, EMT, log)
    gen.sampler = 'ancestral'  # of equidistant times
    images = gen.sample(3)
    late = (np.linspace(gen._start(), 0, 8)[:-1] < 0.5).sum() + 2
    assert gen.guidance.calls == 3 * late
    assert [atoms.info['key_value_pairs']['guidance_calls'] for atoms in images] == [late] * 3
    line = log.getvalue().splitlines()[-1]
    assert re.match(rf'guidance: {3 * late} calculator calls, 0 failed, .* cost per accepted structure: {late:.1f} calls', line)
    gen.sample(1)
    assert log.getvalue().splitlines()[-1].startswith(f'guidance: {late} calculator calls')  # of this run, not of all


def plain(slab):
    """Return the generator without guidance."""
    gen = SurfaceDiffusion(slab, 'Ag2O', rng=0, steps=8, logfile=None)
    gen._reason_to_reject = lambda atoms: None
    return gen


class Odd(Recorder):
    """Returns forces of the wrong shape."""

    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results['forces'] = np.zeros((2, 3))


class Raises(Recorder):
    """Raises at every call."""

    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        raise RuntimeError('no convergence')


@pytest.mark.parametrize('kind', [Odd, Raises])
def test_failures_displace_nothing_and_are_counted(slab, kind, caplog):
    log = io.StringIO()
    gen = generator(slab, kind, log)
    with pytest.raises(GenerationFailed, match='all .* evaluations of a batch failed; the last error: .*(shape|no convergence)'):
        gen.sample()  # stops after the first batch
    assert gen.guidance.failures == gen.guidance.calls > 0
    assert f'{gen.guidance.calls} failed' in log.getvalue()


def test_forces_act_in_their_direction(slab):
    below = [gen.sample().positions[8:, 2].mean() for gen in (generator(slab, Recorder, strength=0.2), plain(slab))]
    assert below[0] < below[1] - 0.01


def test_the_descent_at_the_end_reaches_soft_and_stiff_minima_and_leaves_failures_alone():
    rows, stiffness = torch.arange(3), torch.tensor([[0.5], [20.0], [torch.nan]])  # eV/A^2, one atom in each of three structures
    start = torch.tensor([[0.4, 0.0, 0.1], [0.0, 0.3, 0.0], [0.2, 0.2, 0.2]])
    batch = Batch(fields={'positions': start}, rows={'positions': rows}, size=3)
    process = JointProcess({'positions': WrappedNormal(GeometricVE())})
    guidance = Guidance()
    hook = ForceGuidance(lambda batch: -stiffness * batch.fields['positions'])
    end = guidance.finish(batch, hook, process).fields['positions']
    energies = (stiffness / 2 * end.square()).sum(-1) / (stiffness / 2 * start.square()).sum(-1)
    assert energies[:2].max() < 0.02  # without momentum the soft one would keep 16 %
    assert torch.equal(end[2], start[2]) and guidance.failures == guidance.finish_steps


def test_settings_are_told_in_the_provenance_and_bad_ones_refused(slab):
    atoms = generator(slab, 'emt', strength=0.01).sample()
    told = atoms.info['data']['diffusion']['guidance']
    assert (told['calculator'], told['strength'], told['finish_steps']) == ('emt', 0.01, 2)
    with pytest.raises(TypeError, match='guidance'):
        SurfaceDiffusion(slab, 'Ag2O', guidance=3, logfile=None)
    with pytest.raises(ValueError, match='calculator'):
        SurfaceDiffusion(slab, 'Ag2O', guidance=Guidance(calculator='quantum'), logfile=None)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('every', 0),
        ('every', 1.5),
        ('cap', 'a'),
        ('cap', 0),
        ('strength', -1),
        ('finish_steps', 2.5),
        ('below', None),
        ('power', -1),
    ],
)
def test_parameters_without_a_meaning_are_named(slab, name, value):
    with pytest.raises(ValueError, match=f'{name} is'):
        SurfaceDiffusion(slab, 'Ag2O', guidance={name: value}, logfile=None)


@pytest.mark.parametrize('given', ['emt', EMT, EMT()], ids=['name', 'factory', 'calculator'])
def test_guidance_takes_a_calculator_itself(slab, given):
    gen = SurfaceDiffusion(slab, 'Ag2O', guidance=given, logfile=None)
    assert gen.guidance.todict()['calculator'] in ('emt', 'EMT')
    with pytest.raises(ValueError, match='two calculators'):
        SurfaceDiffusion(slab, 'Ag2O', guidance=given, calculator='ag-o', logfile=None)


def test_guidance_that_is_handed_over_is_not_changed(slab):
    mine = Guidance(finish_steps=3)
    gen = SurfaceDiffusion(slab, 'Ag2O', guidance=mine, calculator='emt', steps=1000, logfile=None)
    assert (mine.calculator, mine.strength) == (None, None)
    assert (gen.guidance.calculator, gen.guidance.strength, gen.guidance.finish_steps) == ('emt', 0.003, 3)


def test_a_force_field_that_does_not_know_the_elements_guides_nothing():
    copper = fcc111('Cu', (2, 2, 2), vacuum=8.0)
    copper.set_constraint(FixAtoms(indices=range(8)))
    with pytest.raises(ValueError, match='guidance needs forces.*never saw Cu.*metal-oxide: its data have no Cu on Cu'):
        SurfaceDiffusion(copper, 'Cu3', model='untrained', guidance=True, logfile=None)


def test_a_call_without_end_is_a_failure_like_others(slab, sleeper):
    """A calculator that sleeps for ever at its second call: that call is counted and skipped, the others guide."""
    endless, pids = sleeper
    log = io.StringIO()
    gen = generator(slab, endless, log, time_limit=8.0)
    free = generator(slab, EMT)
    guided, same = gen.sample(2), free.sample(2)
    assert gen.guidance.calls == free.guidance.calls == len(pids.read_text().split()) > 2
    assert gen.guidance.failures == 1 and ', 1 failed' in log.getvalue().splitlines()[-1]
    assert gen.guidance.seconds >= 8.0
    assert np.allclose(guided[0].positions, same[0].positions, atol=1e-5)  # its calls are the first, third, ...
    assert not np.allclose(guided[1].positions, same[1].positions, atol=1e-5)
    assert guided[0].info['data']['diffusion']['guidance']['time_limit'] == 8.0
    assert 'time_limit' not in same[0].info['data']['diffusion']['guidance']  # as before there was one
    process = gen.guidance.compute.process.process
    assert process.poll() is None
    gen.close()
    assert process.poll() is not None


def test_our_own_force_field_with_a_time_limit_guides_as_without(slab):
    one, other = (generator(slab, 'ag-o', **limit).sample() for limit in ({}, {'time_limit': 60.0}))
    assert np.allclose(one.positions, other.positions, atol=1e-4)
    assert not np.allclose(one.positions, plain(slab).sample().positions, atol=1e-3)


def test_a_time_limit_needs_a_calculator_for_pickle_and_a_time(slab):
    mine = EMT()
    mine.lock = threading.Lock()
    with pytest.raises(ValueError, match='EMT cannot be pickled.*function that makes it'):
        generator(slab, mine, time_limit=1.0)
    with pytest.raises(ValueError, match='time_limit is a time in seconds'):
        generator(slab, EMT, time_limit=0)
