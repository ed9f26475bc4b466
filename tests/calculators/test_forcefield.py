"""The shipped force field: as an ASE calculator, in batches, at random starts."""

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms, FixCartesian
from ase.optimize import BFGS

from ase_diffusion.calculators.forcefield import ForceFieldCalculator
from ase_diffusion.networks import ForceField
from ase_diffusion.relax import get_calculator, relax, relax_batched
from ase_diffusion.search import random_start


@pytest.fixture
def images():
    """Three random starts on p(2x4) Ag(111)."""
    slab = fcc111('Ag', (2, 4, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(16)))
    return [random_start(slab, 'Ag6O3', seed) for seed in range(3)]


def test_forces_are_the_negative_gradient(images):
    atoms = images[0]
    atoms.calc = get_calculator('ag-o')
    forces = atoms.get_forces(apply_constraint=False)
    h = 5e-3
    for k in (17, 23):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[k, 0] += sign * h
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        slope = -(energies[0] - energies[1]) / (2 * h)
        assert slope == pytest.approx(forces[k, 0], abs=0.03 + 0.02 * abs(forces[k, 0]))
    assert np.all(forces[:16] == 0)


def test_double_precision_gives_the_gradient_to_1e_6(images):
    atoms, h = images[0], 1e-4
    atoms.calc = get_calculator('ag-o', dtype='float64')
    forces = atoms.get_forces(apply_constraint=False)
    energies = []
    for k, axis in [(k, axis) for k in (16, 20, 24) for axis in range(3)]:
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[k, axis] += sign * h
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
    slopes = -np.diff(np.reshape(energies, (9, 2)), axis=1)[:, 0] / (-2 * h)
    assert np.abs(slopes - forces[[16, 20, 24]].ravel()).max() < 1e-6 * max(1, np.abs(forces).max())
    single = atoms.copy()
    single.calc = get_calculator('ag-o')
    assert single.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-3)


def test_as_a_calculator_of_ase(images):
    """What ASE asks of a calculator: results are kept until something changes, and do not depend on shifts and order."""
    atoms = images[0]
    calc = atoms.calc = get_calculator('ag-o', dtype='float64')
    energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    assert calc.check_state(atoms) == [] and not calc.calculation_required(atoms, ['energy', 'forces'])
    assert set(calc.results) == set(calc.implemented_properties) and calc.results['free_energy'] == energy
    with pytest.raises(NotImplementedError):
        atoms.get_stress()
    order = np.random.default_rng(0).permutation(len(atoms))
    moved = atoms[order]
    moved.set_positions(moved.positions + [1.3, -0.4, 2.0], apply_constraint=False)
    moved.calc = calc
    assert moved.get_potential_energy() == pytest.approx(energy, abs=1e-8)
    assert np.allclose(moved.get_forces(apply_constraint=False), forces[order], atol=1e-8)
    twice = atoms.repeat((2, 1, 1))
    twice.calc = calc
    assert twice.get_potential_energy() == pytest.approx(2 * energy, abs=1e-7)
    flat = atoms.copy()
    flat.cell[2] = 0  # not periodic there
    flat.calc = calc
    assert flat.get_potential_energy() == pytest.approx(energy, abs=1e-8)
    assert repr(calc) == "ForceFieldCalculator('ag-o-forcefield', device='cpu', dtype='float64')"
    assert calc.todict()['model'] == 'ag-o-forcefield' and calc.name == 'ag-o-forcefield'


def test_other_precisions_are_refused():
    with pytest.raises(ValueError, match="'float32' or 'float64'; got 'float16'"):
        get_calculator('ag-o', dtype='float16')


def test_batched_relaxation_reaches_the_minima_of_ase_bfgs(images):
    batched = relax_batched(images, 'ag-o', fmax=0.02, steps=300, batch_size=2)
    for start, result in zip(images, batched, strict=True):
        atoms = start.copy()
        atoms.calc = get_calculator('ag-o')
        opt = BFGS(atoms, logfile=None)
        opt.run(fmax=0.02, steps=300)
        pairs = result.info['key_value_pairs']
        assert pairs['relax_converged']
        assert pairs['relax_steps'] == pytest.approx(opt.nsteps, abs=max(10, 0.3 * opt.nsteps))
        assert result.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=0.3)
        assert np.array_equal(result.positions[:16], start.positions[:16])
        assert 'relax_steps' not in start.info.get('key_value_pairs', {})


def test_batched_relaxation_near_a_minimum_agrees_to_a_millielectronvolt(images):
    (minimum,) = relax_batched(images[:1], 'ag-o', fmax=0.01, steps=400)
    rattled = minimum.copy()
    rattled.positions[16:] += 0.03 * np.random.default_rng(0).normal(size=(9, 3))
    one = relax([rattled], 'ag-o', fmax=0.01, steps=300)[0]
    (other,) = relax_batched([rattled], 'ag-o', fmax=0.01, steps=300)
    assert other.get_potential_energy() == pytest.approx(one.get_potential_energy(), abs=2e-3)


def test_random_starts_do_not_explode(images):
    for atoms, start in zip(relax_batched(images, 'ag-o', fmax=0.1, steps=200), images, strict=True):
        assert atoms.get_potential_energy() < atoms.info['key_value_pairs']['energy_generated']
        assert np.linalg.norm(atoms.positions - start.positions, axis=1).max() < 12.0


def test_a_structure_without_fixed_atoms_is_refused(images):
    images[0].set_constraint()
    images[0].calc = get_calculator('ag-o')
    with pytest.raises(ValueError, match='FixAtoms'):
        images[0].get_potential_energy()


def test_other_constraints_hold_in_a_list_too(images):
    """Batches know FixAtoms only, so structures with others are relaxed one by one."""
    for atoms in images:
        atoms.set_constraint([FixAtoms(indices=range(16)), FixCartesian(range(16, 25), mask=(True, True, False))])
    for start, atoms in zip(images, relax(images, 'ag-o', steps=3), strict=True):
        moved = np.abs(atoms.positions - start.positions).max(axis=0)
        assert moved[:2].tolist() == [0, 0] and moved[2] > 0
    failed = relax_batched(images[:1], 'ag-o', steps=3)[0]
    assert 'FixCartesian' in failed.info['data']['relax_error']


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def whole(request):
    """A force field with edges between all atoms, as those of schnetpack become."""
    torch.manual_seed(0)
    network = ForceField(features=8, blocks=1, cutoff=4.0, n_basis=8, passive_edges=True).to(request.param)
    network.references = torch.full((2, 100), -1.5, dtype=torch.float64)
    return network


def test_a_network_is_a_calculator(whole, images):
    energies, forces = [], []
    for fixed in (0, 9, 24, 25):
        atoms = images[0].copy()
        atoms.set_constraint(FixAtoms(indices=range(fixed)) if fixed else None)
        atoms.calc = get_calculator(whole, device='cpu')
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces(apply_constraint=False))
        assert np.allclose(atoms.calc.forces_of([atoms, images[1]])[0], forces[-1], atol=1e-5)
    assert energies == pytest.approx([energies[0]] * 4, abs=1e-4) and abs(energies[0] + 25 * 1.5) > 1e-3
    assert np.abs(forces[0]).min(axis=1).max() > 0 and all(np.allclose(each, forces[0], atol=1e-4) for each in forces)
    assert next(whole.parameters()).requires_grad  # the calculator has a copy
    assert isinstance(ForceFieldCalculator(whole), type(atoms.calc))


def test_a_network_relaxes_lists_of_anything(whole):
    images = [bulk('Cu', cubic=True), bulk('Cu', cubic=True)]
    for atoms in images:
        atoms.rattle(0.05, seed=1)
    results = relax(images, whole, steps=2, fmax=1e-6, device='cpu')
    assert [atoms.info['key_value_pairs'].get('relax_steps') for atoms in results] == [2, 2]
    assert results[0].info['key_value_pairs']['relax_calculator'] == 'ForceField'


def test_unknown_elements_are_refused(images):
    images[0].symbols[20] = 'Pt'
    images[0].calc = get_calculator('ag-o')
    with pytest.raises(ValueError, match='Pt'):
        images[0].get_potential_energy()
