"""Conventional cells by spglib; cells from lengths and angles."""

from itertools import product

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from ase_diffusion.representations import Crystal, CrysTens, PointCloud
from ase_diffusion.representations.cells import (
    cells_of_parameters,
    common_operations,
    conventional,
    equivalent_origins,
    of_spglib,
    parameters_of_cells,
    space_group,
    space_group_of,
)
from ase_diffusion.representations.crystal import LogLatticeCrystal
from ase_diffusion.representations.reduction import niggli, symmetrize


def test_conventional_cells():
    primitive = bulk('NaCl', 'rocksalt', a=5.64)
    primitive.info['key_value_pairs'] = {'formation_energy': -2.0}
    cell = conventional(primitive)
    assert len(cell) == 8 and np.allclose(cell.cell.cellpar(), [5.64, 5.64, 5.64, 90, 90, 90])
    assert cell.info['key_value_pairs'] == {'formation_energy': -2.0, 'space_group': 225}
    assert primitive.info['key_value_pairs'] == {'formation_energy': -2.0}
    assert conventional(bulk('Zn')).info['key_value_pairs']['space_group'] == 194


def test_cells_of_parameters_undo_parameters_of_cells():
    rng = np.random.default_rng(5)
    cells = rng.normal(size=(50, 3, 3)) * 4
    lengths, angles = parameters_of_cells(cells)
    back = cells_of_parameters(lengths, angles)
    assert np.allclose(back @ back.transpose(0, 2, 1), cells @ cells.transpose(0, 2, 1))
    assert np.isnan(cells_of_parameters(np.array([[3.0, 3, 3]]), np.array([[150.0, 150, 90]]))).all()
    assert np.isnan(cells_of_parameters(np.array([[3.0, -3, 3]]), np.array([[90.0, 90, 90]]))).all()


def test_space_group_that_is_known_or_found():
    copper = bulk('Cu')
    assert space_group(copper) == 225
    copper.info['key_value_pairs'] = {'space_group': 1}
    assert space_group(copper) == 1


@pytest.mark.parametrize('what', ['positions', 'cell'])
def test_numbers_that_are_not_finite_have_no_symmetry_and_do_not_end_the_process(what):
    broken = bulk('NaCl', 'rocksalt', a=5.64)
    numbers = broken.positions if what == 'positions' else broken.cell.array
    numbers[0, 0] = np.nan
    broken = Atoms(broken.numbers, positions=broken.positions, cell=broken.cell, pbc=True)
    assert space_group(broken) == 1 and len(conventional(broken)) == 2
    assert len(common_operations([broken], 0.05)[0]) == 1
    assert len(symmetrize(broken, 0.1)) == 2


@pytest.mark.parametrize('tolerance', [0, -1, np.nan, np.inf, None, True, '0.1', [0.1, 0.2]])
def test_a_tolerance_is_positive_and_finite(tolerance):
    for use in (conventional, space_group_of, symmetrize, lambda a, t: common_operations([a], t)):
        with pytest.raises(ValueError, match='a tolerance in A, positive, such as'):
            use(bulk('Cu'), tolerance)


@pytest.mark.parametrize('label', ['Fm-3m', np.nan, 300, 0, 225.0, np.int64(225)])
def test_a_label_that_is_no_number_of_a_space_group_is_not_taken(label):
    copper = bulk('Cu')
    copper.info['key_value_pairs'] = {'space_group': label}
    assert space_group(copper) == 225


def test_no_symmetry_comes_back_in_space_group_one():
    flat = Atoms('H2', positions=[(0, 0, 0), (0, 0, 0)], cell=[3, 3, 3], pbc=True)  # spglib refuses atoms on one site
    assert conventional(flat).info['key_value_pairs']['space_group'] == 1 and len(conventional(flat)) == 2


STRUCTURES = {
    225: dict(symbols=['Na', 'Cl'], basis=[(0, 0, 0), (0.5, 0.5, 0.5)], cellpar=[5.64] * 3 + [90] * 3),
    136: dict(symbols=['Ti', 'O'], basis=[(0, 0, 0), (0.305, 0.305, 0)], cellpar=[4.59, 4.59, 2.96, 90, 90, 90]),
    152: dict(symbols=['Si', 'O'], basis=[(0.47, 0, 1 / 3), (0.41, 0.27, 0.45)], cellpar=[4.91, 4.91, 5.4, 90, 90, 120]),
    227: dict(symbols=['C'], basis=[(0, 0, 0)], cellpar=[3.57] * 3 + [90] * 3),
    62: dict(symbols=['Fe', 'C'], basis=[(0.18, 0.06, 0.33), (0.89, 0.25, 0.44)], cellpar=[5.0, 6.7, 4.5, 90, 90, 90]),
}


def operations(atoms):
    """Rotations and translations that spglib finds, as a set of whole numbers in 1/48."""
    found = of_spglib(spglib.get_symmetry, (np.asarray(atoms.cell), atoms.get_scaled_positions(), atoms.numbers), 1e-4)
    return {(*r.ravel(), *(np.round(t * 48).astype(int) % 48)) for r, t in zip(*list(found.values())[:2], strict=True)}


@pytest.mark.parametrize('number', STRUCTURES)
def test_equivalent_origins_keep_the_operations_as_they_stand(number):
    values = STRUCTURES[number]
    atoms = conventional(crystal(spacegroup=number, **values))
    plain, expected = Atoms(atoms.numbers, cell=atoms.cell, positions=atoms.positions, pbc=True), operations(atoms)
    assert space_group(plain) == number
    signs, shifts = equivalent_origins(number)
    valid = {(sign, *shift) for sign, shift in zip(signs.tolist(), shifts.tolist(), strict=True)}
    assert (1, 0.0, 0.0, 0.0) in valid and (-1 in signs) == (number != 152)  # quartz has a hand
    for sign, shift in product((1, -1), product((0.0, 0.25, 0.5, 0.75), repeat=3)):
        moved = plain.copy()
        moved.set_scaled_positions(sign * plain.get_scaled_positions() + shift)
        assert (operations(moved) == expected) == ((sign, *shift) in valid), (sign, shift)


def test_operations_that_two_crystals_share():
    sodalite = crystal(['Si', 'O'], [(0.25, 0.5, 0.0), (0.3534, 0.3534, 0.0)], spacegroup=229, cellpar=[8.87] * 3 + [90] * 3)
    rotations, translations = common_operations([sodalite, sodalite], 0.05)
    assert len(rotations) == 96 and set(np.unique(translations).tolist()) == {0.0, 0.5}
    shifted = sodalite.copy()
    shifted.translate([8.87 / 8, 0, 0])
    fewer, _ = common_operations([sodalite, shifted], 0.05)
    assert 1 < len(fewer) < 96  # those of a common origin
    shifted.rattle(0.3, seed=1)
    rotations, translations = common_operations([sodalite, shifted], 0.05)
    assert (rotations == np.eye(3)).all() and not translations.any()


def quartz(hand):
    """Return quartz, P3_121, in a right-handed or a left-handed cell; the mirror image is P3_221."""
    atoms = crystal(
        ['Si', 'O'], [(0.4697, 0, 0), (0.4133, 0.2672, 0.1188)], spacegroup=152, cellpar=[4.916, 4.916, 5.405, 90, 90, 120]
    )
    if hand == 'left':
        atoms.set_cell(atoms.cell[:][[1, 0, 2]])
    return atoms


@pytest.mark.parametrize('hand', ['right', 'left'])
@pytest.mark.parametrize(
    'keep',
    [
        *(
            lambda atoms, r=r: r.decode(r.encode([atoms]))[0]
            for r in (Crystal([8, 14]), LogLatticeCrystal([8, 14]), CrysTens(), PointCloud())
        ),
        niggli,
        conventional,
        lambda atoms: symmetrize(atoms, 0.1),
    ],
)
def test_a_crystal_in_a_left_handed_cell_is_not_mirrored(hand, keep):
    atoms = quartz(hand)
    before = atoms.positions.copy()
    assert space_group_of(atoms, 0.05) == space_group_of(keep(atoms), 0.05) == 152
    assert np.array_equal(atoms.positions, before) and (np.linalg.det(atoms.cell) > 0) == (hand == 'right')
