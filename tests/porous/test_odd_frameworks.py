"""Shifted energies, closed frameworks, channels of any cell, elements beside silica, flat cells."""

import itertools
import logging

import numpy as np
import pytest
from ase import Atoms

from ase_diffusion.porous import accessible_mask, adsorption_properties, energy_grid, find_channels, pair_parameters
from ase_diffusion.porous.blocking import _facing


def direct(atoms, point, cutoff, shifted):
    """Sum the pairs of CH4 at one point, one by one."""
    total = 0.0
    parameters = pair_parameters(set(atoms.symbols))
    for symbol, position in zip(atoms.symbols, atoms.positions, strict=True):
        epsilon, sigma = parameters[symbol]
        for shift in itertools.product(range(-4, 5), repeat=3):
            r = np.linalg.norm(position + shift @ atoms.cell.array - point)
            if r < cutoff:
                pair = [4 * epsilon * ((sigma / x) ** 12 - (sigma / x) ** 6) for x in (max(r, 0.1), cutoff)]
                total += pair[0] - shifted * pair[1]
    return total


@pytest.mark.parametrize('backend', ['numba', 'torch'])
@pytest.mark.parametrize('shifted', [False, True])
def test_energies_end_at_zero_where_shifted(backend, shifted):
    cell = [[7.0, 0, 0], [1.5, 6.5, 0], [0.5, 1.0, 8.0]]
    atoms = Atoms('SiO2', [[0.1, 0.2, 0.3], [2.5, 2.0, 1.0], [4.0, 4.5, 6.0]], cell=cell, pbc=True)
    grid = energy_grid(atoms, (5, 4, 6), cutoff=9.0, shifted=shifted, backend=backend, device='cpu')
    for index in [(0, 0, 0), (2, 1, 3), (4, 3, 5), (1, 2, 0)]:
        point = np.array(index) / grid.shape @ atoms.cell.array
        expected = direct(atoms, point, 9.0, shifted)
        assert grid[index] == pytest.approx(expected, rel=2e-4, abs=0.1)


def test_one_number_is_a_shape():
    atoms = Atoms('O', cell=[6] * 3, pbc=True)
    assert np.array_equal(energy_grid(atoms, 4), energy_grid(atoms, (4, 4, 4)))
    assert energy_grid(atoms, np.int64(3)).shape == (3, 3, 3)
    for shape in (0, -1, 2.5, True, 'four', None, float('inf'), float('nan')):
        with pytest.raises(ValueError, match='a shape is'):
            energy_grid(atoms, shape)


def test_a_closed_framework_has_no_heat():
    grid = np.full((4, 4, 4), 4e5)
    assert np.isnan(adsorption_properties(grid)['heat_of_adsorption'])
    assert np.isnan(adsorption_properties(np.stack([grid, 0 * grid]))['heat_of_adsorption']).tolist() == [True, False]
    grid[0, 0, 0] = -1000.0
    assert adsorption_properties(grid)['heat_of_adsorption'] == pytest.approx(8.314462618e-3 * 1298)


@pytest.mark.parametrize(
    ('cell', 'count'),
    [
        (np.eye(3), 3),
        ([[1, 0, 0], [-0.5, 3**0.5 / 2, 0], [0, 0, 1]], 4),
        ([[0, 1, 1], [1, 0, 1], [1, 1, 0]], 6),
        ([[-1, 1, 1], [1, -1, 1], [1, 1, -1]], 7),
    ],
)
def test_faces_of_voronoi_cells(cell, count):
    """Cube 6, hexagonal prism 8, rhombic dodecahedron 12, truncated octahedron 14; of any cell of the lattice."""
    for change in (np.eye(3, dtype=int), [[1, 0, 0], [3, 1, 0], [-2, 4, 1]]):
        vectors = np.array(change) @ np.array(cell, float)
        assert len(_facing(vectors)) == count
        lengths = np.linalg.norm(_facing(vectors) @ vectors, axis=1)
        assert lengths.max() < 2.1


def tubes(cell, n=12):
    """Return a mask with a straight tube along the third Cartesian axis in a grid of a cell with edges of 6 A."""
    fractions = np.stack(np.meshgrid(*[np.arange(n) / n] * 3, indexing='ij'), -1)
    places = fractions @ cell
    apart = places[..., :2] - np.array([3.0, 3.0])
    apart -= 6 * np.round(apart / 6)
    return np.linalg.norm(apart, axis=-1) < 0.6  # narrow: not connected along the axes of a sheared grid


@pytest.mark.parametrize('shear', [0, 1, 3, -5])
def test_channels_do_not_depend_on_the_cell(shear):
    cell = np.diag([6.0] * 3)
    cell[2, 0] = 6.0 * shear
    mask = tubes(cell)
    labels, dimensions = find_channels(mask, cell)
    assert dimensions.tolist() == [1] and labels.max() == 1
    grid = np.where(mask, -100.0, 1e6)
    assert accessible_mask(grid, cell=cell).sum() == mask.sum()


def test_channels_of_sheared_random_masks_are_the_same():
    rng = np.random.default_rng(1)
    cell, n = np.diag([4.0, 5.0, 6.0]), 6
    mask = rng.random((n, n, n)) < 0.45
    index = np.indices((n, n, n))
    sheared = mask[(index[0] + 2 * index[2]) % n, (index[1] - index[2]) % n, index[2]]  # c' = c + 2 a - b
    other = cell.copy()
    other[2] += 2 * cell[0] - cell[1]
    results = [find_channels(*each) for each in ((mask, cell), (sheared, other), (mask, None))]
    assert len({tuple(sorted(dimensions.tolist())) for _, dimensions in results}) == 1
    sizes = [sorted(np.bincount(labels.ravel())[1:].tolist()) for labels, _ in results]
    assert sizes[0] == sizes[1] == sizes[2] and len(sizes[0]) > 3


def test_empty_and_full_masks():
    assert find_channels(np.zeros((3, 3, 3)))[1].size == 0
    for shape in ((3, 3, 3), (1, 1, 1), (2, 1, 4)):
        assert find_channels(np.ones(shape))[1].tolist() == [3]


@pytest.mark.parametrize(
    ('formula', 'framework', 'told'),
    [
        ('SiO2', 'silica', ''),
        ('AlO2', 'silica', 'Al'),
        ('AlPO', 'silica', 'Al, P'),
        ('AlO2', 'uff', ''),
        ('AlO2', {'Al': (10, 3)}, ''),
    ],
)
def test_elements_beside_silica_are_told_once(formula, framework, told, caplog):
    atoms = Atoms(formula, [[0, 0, 0], [2, 0, 0], [0, 2, 0]], cell=[8] * 3, pbc=True)
    with caplog.at_level(logging.WARNING):
        energy_grid([atoms, atoms], 3, framework=framework, device='cpu')
    assert len(caplog.records) == bool(told) and (not told or f'{told} from UFF' in caplog.text)


def test_cells_that_cost_too_much_are_named():
    atoms = Atoms('O', cell=[[9, 0, 0], [9, 1e-5, 0], [0, 0, 9]], pbc=True)
    with pytest.raises(ValueError, match='apart'):
        energy_grid(atoms, 4)
