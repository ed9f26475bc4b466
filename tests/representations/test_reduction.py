"""Niggli cells and symmetrisation: the crystal stays the same, or becomes exactly symmetric."""

import warnings

import numpy as np
import pytest
import spglib
from ase.build import bulk
from ase.calculators.emt import EMT

from ase_diffusion.representations.cells import conventional, space_group
from ase_diffusion.representations.reduction import niggli, symmetrize


def awkward(seed=0):
    """Wurtzite in a skewed, turned and mirrored cell."""
    atoms = bulk('ZnS', 'wurtzite', a=3.8, c=6.2)
    atoms.rattle(0.05, seed=seed)
    f = atoms.get_scaled_positions()
    whole = np.array([[1, 2, 0], [0, 1, -1], [0, 0, -1]])
    atoms.set_cell(whole @ atoms.cell[:])
    atoms.set_scaled_positions(f @ np.linalg.inv(whole))
    atoms.rotate(33, (1, 2, 3), rotate_cell=True)
    return atoms


def sorted_distances(atoms):
    big = atoms * (2, 2, 2)
    return np.sort(big.get_all_distances(mic=True).ravel())


@pytest.mark.parametrize('seed', range(4))
def test_the_niggli_cell_holds_the_same_crystal(seed):
    atoms = awkward(seed)
    new = niggli(atoms)
    assert (new.numbers == atoms.numbers).all()
    expected, _ = atoms.cell.niggli_reduce()
    assert np.allclose(new.cell.cellpar(), expected.cellpar(), atol=1e-3)
    assert np.allclose(np.triu(new.cell[:], 1), 0) and np.linalg.det(new.cell) > 0
    f = new.get_scaled_positions(wrap=False)
    assert (f > -1e-8).all() and (f < 1).all()
    assert np.allclose(np.sort(new.get_all_distances(mic=True)), np.sort(atoms.get_all_distances(mic=True)), atol=1e-6)
    assert np.allclose(sorted_distances(new), sorted_distances(niggli(new)), atol=1e-6)


def test_noise_on_a_symmetric_crystal_is_averaged_away():
    perfect = bulk('ZnS', 'wurtzite', a=3.8, c=6.2)
    noisy = perfect.copy()
    noisy.rattle(0.004, seed=3)
    noisy.set_cell(noisy.cell[:] * (1 + 0.001 * np.random.default_rng(0).normal(size=(3, 3))), scale_atoms=True)

    def number(atoms, symprec):
        return spglib.get_spacegroup((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), symprec)

    assert number(noisy, 1e-4) != number(perfect, 1e-4) == 'P6_3mc (186)'
    clean = symmetrize(noisy, 0.1)
    assert number(clean, 1e-6) == 'P6_3mc (186)'
    assert (clean.numbers == noisy.numbers).all()
    assert np.allclose(clean.cell.cellpar(), perfect.cell.cellpar(), atol=0.05)
    assert np.allclose(clean.get_all_distances(mic=True), perfect.get_all_distances(mic=True), atol=0.03)


def test_a_crystal_without_symmetry_stays_and_nonsense_is_refused():
    atoms = awkward(1)
    atoms.rattle(0.4, seed=5)
    same = symmetrize(atoms, 0.01)
    assert np.allclose(same.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-6)
    with pytest.raises(ValueError, match='tolerance in A'):
        symmetrize(atoms, 0.0)


def test_energy_forces_and_stress_turn_with_the_crystal():
    atoms = awkward()
    atoms.numbers[:] = [29, 47, 29, 47]
    atoms.set_cell(1.3 * atoms.cell[:], scale_atoms=True)
    atoms.calc = EMT()
    before = atoms.get_forces(), atoms.get_stress()
    new = niggli(atoms)
    fresh = new.copy()
    fresh.calc = EMT()
    assert new.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-8)
    assert np.allclose(new.get_forces(), fresh.get_forces(), atol=1e-7)
    assert np.allclose(new.get_stress(), fresh.get_stress(), atol=1e-9)
    assert np.abs(before[0] - new.get_forces()).max() > 0.01 and np.abs(before[1] - new.get_stress()).max() > 1e-4
    assert niggli(awkward()).calc is None


def test_warnings_as_errors_change_no_result():
    """The DeprecationWarning of spglib used to pass for a failure: cells came back unreduced, and nothing was symmetrised."""
    atoms = awkward(1)
    noisy = bulk('ZnS', 'wurtzite', a=3.8, c=6.2)
    noisy.rattle(0.004, seed=3)
    plain = niggli(atoms), symmetrize(noisy, 0.1), space_group(noisy, 0.1), conventional(noisy, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        strict = niggli(atoms), symmetrize(noisy, 0.1), space_group(noisy, 0.1), conventional(noisy, 0.1)
    assert plain[2] == strict[2] == 186
    for k in (0, 1, 3):
        assert np.array_equal(plain[k].positions, strict[k].positions) and np.array_equal(plain[k].cell, strict[k].cell)
    assert not np.allclose(plain[0].cell.cellpar(), atoms.cell.cellpar())
    assert not np.allclose(plain[1].positions, noisy.positions, atol=1e-4)


def test_other_errors_than_those_of_spglib_are_raised(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError('a fault')

    monkeypatch.setattr(spglib, 'niggli_reduce', broken)
    monkeypatch.setattr(spglib, 'get_symmetry', broken)
    for function in (niggli, symmetrize):
        with pytest.raises(RuntimeError, match='a fault'):
            function(awkward())


def test_own_arrays_and_info_stay():
    atoms = awkward(2)
    atoms.set_initial_magnetic_moments([1, -1, 2, -2])
    atoms.set_array('own', np.arange(8).reshape(4, 2))
    atoms.info = {'mine': 1, 'key_value_pairs': {'a': 2}}
    for new in (niggli(atoms), symmetrize(atoms, 0.3)):
        assert new.get_initial_magnetic_moments().tolist() == [1, -1, 2, -2]
        assert np.array_equal(new.arrays['own'], atoms.arrays['own']) and new.info == atoms.info
