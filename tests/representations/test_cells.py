"""Conventional cells by spglib; cells from lengths and angles."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from ase_diffusion.representations.cells import (
    cells_of_parameters,
    common_operations,
    conventional,
    parameters_of_cells,
    space_group,
)


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


def test_no_symmetry_comes_back_in_space_group_one():
    flat = Atoms('H2', positions=[(0, 0, 0), (0, 0, 0)], cell=[3, 3, 3], pbc=True)  # spglib refuses atoms on one site
    assert conventional(flat).info['key_value_pairs']['space_group'] == 1 and len(conventional(flat)) == 2


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
