"""The option relax of generators: checked at once, handed out one by one, failures skipped."""

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from ase_diffusion import CrystalDiffusion, PointCloudDiffusion, SurfaceDiffusion, ZeoliteDiffusion, metrics
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.representations.cells import space_group_of


@pytest.fixture(scope='module')
def slab():
    atoms = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=8.0)
    atoms.set_constraint(FixAtoms(indices=range(len(atoms))))
    return atoms


def surface(slab, relax, **options):
    return SurfaceDiffusion(slab, 'Ag2O', rng=2, steps=6, logfile=None, relax=relax, **options)


def crystal(relax, **options):
    return CrystalDiffusion('Al2', model='mp-le20', rng=0, steps=4, logfile=None, relax=relax, **options)


class Failing(EMT):
    """Fails for some structures: for those that begin with the k-th call, k in ``bad``."""

    def __init__(self, bad, error=RuntimeError):
        super().__init__()
        self.bad, self.error, self.begun = bad, error, 0

    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        self.begun += 1
        if self.begun - 1 in self.bad:
            raise self.error('no convergence')
        super().calculate(atoms, properties, system_changes)


class Nan(Calculator):
    implemented_properties = ['energy', 'forces']  # noqa: RUF012

    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        super().calculate(atoms, list(properties), system_changes)
        self.results = {'energy': np.nan, 'forces': np.zeros((len(atoms), 3))}


@pytest.mark.parametrize(
    'relax, error',
    [
        ('ag-o', TypeError),
        (True, TypeError),
        ({'calculatr': 'emt'}, ValueError),
        ({'calculator': 'emd'}, ValueError),
        ({'calculator': 'emt', 'fmax': -1}, ValueError),
        ({'calculator': 'emt', 'optimizer': 'BFG'}, ValueError),
    ],
)
def test_wrong_keywords_are_refused_at_construction(slab, relax, error):
    for make in (lambda: surface(slab, relax), lambda: crystal(relax)):
        with pytest.raises(error, match=r'relax|calculator|fmax|optimizer'):
            make()


def test_a_force_field_that_does_not_know_the_elements_is_refused_at_construction():
    copper = fcc111('Cu', (2, 2, 2), vacuum=8.0)
    copper.set_constraint(FixAtoms(indices=range(len(copper))))
    with pytest.raises(ValueError, match='Cu'):
        SurfaceDiffusion(copper, 'Cu3', model='untrained', relax={'calculator': 'ag-o'})


@pytest.mark.parametrize(
    'make',
    [
        lambda **options: PointCloudDiffusion(['Mg', 'O'], model='untrained', **options),
        lambda **options: ZeoliteDiffusion(model='untrained', **options),
        lambda **options: CrystalDiffusion(elements=['Mg', 'O'], all_elements=True, model='untrained', **options),
    ],
)
def test_a_calculator_that_cannot_know_the_elements_is_refused_by_all(make):
    with pytest.raises(ValueError, match='emt does not know (Mg|Si)'):
        make(relax={'calculator': 'emt'})


def test_failures_are_skipped_and_others_generated_instead(slab):
    gen = surface(slab, {'calculator': Failing({0, 2}), 'steps': 0})
    images = gen.sample(3)
    assert len(images) == 3 and all(np.isfinite(a.get_potential_energy()) for a in images)
    assert gen.statistics['generated'] == 5
    assert not any(a.info['key_value_pairs'].get('relax_failed') for a in images)


@pytest.mark.parametrize('best_of', [1, 2])
def test_a_calculator_that_always_fails_ends_with_the_reason(slab, best_of):
    gen = surface(slab, {'calculator': Nan(), 'steps': 2}, best_of=best_of, maxtries=2)
    with pytest.raises(GenerationFailed, match='the relaxation failed'):
        gen.sample(2)


def test_an_interruption_keeps_what_was_relaxed(slab, tmp_path):
    gen = surface(slab, {'calculator': Failing({3}, KeyboardInterrupt), 'steps': 0}, trajectory=tmp_path / 'kept.traj')
    images = []
    with pytest.raises(KeyboardInterrupt):
        images.extend(gen.irun(8))
    from ase.io import read

    assert len(read(tmp_path / 'kept.traj', ':')) == 3


def test_relaxed_in_batches_they_keep_their_order(slab):
    plain, relaxed = surface(slab, None).sample(5), surface(slab, {'calculator': 'ag-o', 'steps': 40}).sample(5)
    assert [a.info['key_value_pairs']['seed'] for a in plain] == [a.info['key_value_pairs']['seed'] for a in relaxed]
    for before, after in zip(plain, relaxed, strict=True):
        d = after.get_distances(-1, [-2, -3], mic=True)
        assert after.info['key_value_pairs']['min_distance_ratio'] != before.info['key_value_pairs']['min_distance_ratio']
        assert np.isfinite(d).all() and after.get_potential_energy() < 0


def test_what_would_be_rejected_is_not_relaxed():
    calculator = Failing(())
    gen = crystal({'calculator': calculator, 'steps': 0}, maxtries=2)
    gen._reason_to_reject = lambda atoms: 'never'
    with pytest.raises(GenerationFailed, match='never'):
        gen.sample(2)
    assert calculator.begun == 0


def test_relaxed_crystals_are_reduced_and_carry_the_results_of_the_cell():
    (atoms,) = crystal({'calculator': EMT(), 'steps': 3}).sample(1)
    again = atoms.copy()
    again.calc = EMT()
    assert atoms.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-6)
    assert np.allclose(atoms.get_stress(), again.get_stress(), atol=1e-6)
    assert atoms.pbc.all()


class Squeeze(Calculator):
    """Ask for a smaller cell; the stress has the shape of this class."""

    implemented_properties = ['energy', 'forces', 'stress']  # noqa: RUF012
    shape = (6,)

    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        super().calculate(atoms, list(properties), system_changes)
        strain = np.log(atoms.cell.volume / 60)
        stress = 2 * strain / atoms.cell.volume * np.eye(3)
        stress = stress if self.shape == (3, 3) else stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        self.results = {'energy': strain**2, 'forces': np.zeros((len(atoms), 3)), 'stress': stress}


@pytest.mark.parametrize('shape', [(6,), (3, 3)])
def test_crystals_are_relaxed_by_calculators_whose_stress_has_either_form(shape):
    made = type('Made', (Squeeze,), {'shape': shape})
    gen = CrystalDiffusion('Ti2O4', relax={'calculator': made, 'fmax': 1e-4}, rng=0, logfile=None)
    for atoms in gen.sample(2):
        assert atoms.cell.volume == pytest.approx(60, rel=1e-2)
        assert atoms.get_stress().shape == (6,) and np.allclose(atoms.get_stress(), 0, atol=1e-3)


def test_a_prediction_is_relaxed_by_chgnet_and_the_lowest_of_several_is_the_known_crystal():
    pytest.importorskip('chgnet')
    gen = CrystalDiffusion('GaAs', best_of=3, relax={'calculator': 'chgnet', 'fmax': 0.1, 'steps': 20}, rng=0, logfile=None)
    atoms = gen.sample()
    pairs = atoms.info['key_value_pairs']
    assert np.isfinite(atoms.get_potential_energy()) and atoms.get_stress().shape == (6,) and pairs['source'] == 'template'
    assert metrics.match_rate([atoms], [bulk('GaAs', 'zincblende', a=5.65)], processes=1)['match_rate'] == 1


def test_a_relaxed_crystal_is_averaged_over_its_symmetry_and_keeps_its_energy():
    class Tilted(Squeeze):
        """Push the atoms a little off their sites."""

        def calculate(self, atoms=None, properties=('energy',), system_changes=()):
            super().calculate(atoms, properties, system_changes)
            self.results['forces'] = 0.3 * np.sin(np.arange(3 * len(atoms))).reshape(-1, 3)

    options = dict(relax={'calculator': Tilted, 'steps': 1}, rng=0, logfile=None, templates=1)
    plain, averaged = (CrystalDiffusion('Ti2O4', symmetrize=s, **options).sample() for s in (None, 0.2))
    numbers = [space_group_of(atoms, 1e-4) for atoms in (plain, averaged)]
    assert numbers[0] == 1 and numbers[1] > 1
    assert averaged.get_potential_energy() == pytest.approx(plain.get_potential_energy())
    assert averaged.get_forces().shape == (6, 3) and averaged.get_stress().shape == (6,)  # where the atoms are now
