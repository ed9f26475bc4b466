"""The surrogate Hessian against exact ones, and what it is for: fewer steps to the same minimum."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS

from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.relax.hessian import surrogate_hessian


class Quadratic(Calculator):
    """E = x K x / 2 with a given K: its Hessian is known exactly."""

    implemented_properties = ['energy', 'forces']  # noqa: RUF012

    def __init__(self, k):
        super().__init__()
        self.k = k

    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions.ravel()
        self.results = {'energy': x @ self.k @ x / 2, 'forces': -(self.k @ x).reshape(-1, 3)}


@pytest.fixture
def overlayer():
    """Return an Ag2O overlayer on a small frozen slab, off its minimum."""
    slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=8.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    for symbol, site, height in (('Ag', 'fcc', 2.3), ('Ag', 'hcp', 2.4), ('O', 'ontop', 2.2)):
        add_adsorbate(slab, symbol, height, site)
    slab.pbc = (True, True, False)
    return slab


def test_of_a_quadratic_energy_it_is_exact():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(9, 9))
    k = root @ root.T + 3 * np.eye(9)  # all eigenvalues above the floor
    atoms = Atoms('H3', rng.normal(size=(3, 3)))
    assert np.allclose(surrogate_hessian(atoms, Quadratic(k)), k, atol=1e-9)


def test_unstable_and_soft_modes_are_turned_and_lifted():
    vectors, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    k = (vectors * [-30.0, -0.5, 0.0, 0.5, 10.0, 50.0]) @ vectors.T
    hessian = surrogate_hessian(Atoms('H2', np.eye(3)[:2]), Quadratic(k), floor=2.0)
    assert np.allclose(np.linalg.eigvalsh(hessian), [2, 2, 2, 10, 30, 50])
    assert np.allclose(hessian @ vectors[:, 0], 30 * vectors[:, 0])


def test_fixed_atoms_keep_the_default_and_nothing_is_changed(overlayer):
    before = overlayer.copy()
    hessian = surrogate_hessian(overlayer, EMT())
    n = 3 * 8
    assert np.array_equal(hessian[:n, :n], 70 * np.eye(n))
    assert not hessian[:n, n:].any() and not hessian[n:, :n].any()
    assert overlayer == before and overlayer.calc is None


def test_batches_of_the_own_force_field_agree_with_one_by_one(overlayer):
    calculator = get_calculator('ag-o')
    many = surrogate_hessian(overlayer, calculator)

    class Plain(Calculator):
        """Hide the class of the force field, so that structures go one by one."""

        implemented_properties = ['energy', 'forces']  # noqa: RUF012

        def calculate(self, atoms=None, properties=('energy',), system_changes=()):
            super().calculate(atoms, properties, system_changes)
            copy = self.atoms.copy()
            copy.calc = calculator
            self.results = {'energy': copy.get_potential_energy(), 'forces': copy.get_forces(apply_constraint=False)}

    assert np.allclose(many, surrogate_hessian(overlayer, Plain()), atol=0.05)  # float32 forces over 0.04 A
    assert np.linalg.eigvalsh(many).min() > 1.99


def test_a_relaxation_started_with_it_needs_fewer_steps_to_the_same_minimum(overlayer):
    runs = []
    for hessian in (None, surrogate_hessian(overlayer, EMT())):
        atoms = overlayer.copy()
        atoms.calc = EMT()
        optimizer = BFGS(atoms, logfile=None)
        if hessian is not None:
            optimizer.H0 = hessian
        assert optimizer.run(fmax=0.01, steps=200)
        runs.append((optimizer.nsteps, atoms.get_potential_energy()))
    assert runs[1][0] < 0.7 * runs[0][0]
    assert runs[1][1] == pytest.approx(runs[0][1], abs=2e-3)


@pytest.mark.parametrize('options', [{'step': 0.0}, {'step': float('nan')}, {'floor': -1.0}])
def test_bad_numbers(overlayer, options):
    with pytest.raises(ValueError, match='positive'):
        surrogate_hessian(overlayer, EMT(), **options)


def test_nothing_to_move_and_forces_that_are_not_finite(overlayer):
    with pytest.raises(ValueError, match='free atoms'):
        surrogate_hessian(overlayer[:8], EMT())
    with pytest.raises(ValueError, match='not finite'):
        surrogate_hessian(Atoms('H2', np.eye(3)[:2]), Quadratic(np.full((6, 6), np.nan)))


def test_relax_takes_it(overlayer):
    plain, fast = (relax(overlayer, 'emt', fmax=0.01, hessian=hessian) for hessian in (None, 'emt'))
    assert fast.info['key_value_pairs']['relax_converged']
    assert fast.info['key_value_pairs']['relax_steps'] < 0.7 * plain.info['key_value_pairs']['relax_steps']
    assert fast.get_potential_energy() == pytest.approx(plain.get_potential_energy(), abs=2e-3)
    assert np.array_equal(fast.positions[:8], overlayer.positions[:8])


@pytest.mark.parametrize('options', [{'optimizer': 'FIRE'}, {'filter': 'FrechetCellFilter'}, {'hessian': 'magic'}])
def test_relax_refuses_it_where_it_has_no_meaning(overlayer, options):
    overlayer.set_constraint()
    with pytest.raises(ValueError, match='magic|BFGS'):
        relax(overlayer, 'emt', **{'hessian': 'emt', **options})
