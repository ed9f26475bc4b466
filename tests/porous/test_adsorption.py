"""Properties of grids that can be worked out by hand, and closed pockets."""

import numpy as np
import pytest

from ase_diffusion.porous import (
    GAS_CONSTANT,
    accessible_mask,
    adsorption_properties,
    boltzmann_grid,
    find_channels,
    framework_density,
    write_cube,
)

T = 298.0


def two_levels():
    """Half of the points at -1000 K, half at 1e20 K."""
    grid = np.full((4, 4, 4), -1000.0)
    grid[2:] = 1e20
    return grid


def test_two_levels():
    found = adsorption_properties(two_levels(), T, density=1500.0)
    assert found['void_fraction'] == 0.5
    assert found['henry_coefficient'] == pytest.approx(np.exp(1000 / T) / 2)
    assert found['heat_of_adsorption'] == pytest.approx(8.314462618e-3 * (T + 1000))
    assert found['henry_coefficient_mol_kg_pa'] == pytest.approx(found['henry_coefficient'] / (8.314462618 * T * 1500))
    assert pytest.approx(8.314462618) == GAS_CONSTANT


def test_heat_is_the_slope_of_the_henry_coefficient():
    grid = np.random.default_rng(0).normal(-800, 600, (6, 6, 6))
    low, high = (adsorption_properties(grid, t)['henry_coefficient'] for t in (T - 0.01, T + 0.01))
    slope = (np.log(high) - np.log(low)) / 0.02  # d ln K / dT = <E exp(-E/T)> / <exp(-E/T)> / -T^2
    heat = adsorption_properties(grid, T)['heat_of_adsorption']
    assert heat == pytest.approx(8.314462618e-3 * (T - slope * T**2), rel=1e-6)


def test_many_grids():
    grids = np.stack([two_levels(), np.zeros((4, 4, 4))])
    found = adsorption_properties(grids, density=[1000.0, 2000.0])
    for k, density in enumerate((1000.0, 2000.0)):
        one = adsorption_properties(grids[k], density=density)
        assert {name: value[k] for name, value in found.items()} == pytest.approx(one)
        assert all(isinstance(value, float) for value in one.values())


def test_extremes():
    full = adsorption_properties(np.full((2, 2, 2), 1e21))
    assert full['henry_coefficient'] == 0 and full['void_fraction'] == 0
    closed = adsorption_properties(two_levels(), accessible=np.zeros((4, 4, 4), bool))
    assert closed['henry_coefficient'] == 0 and closed['void_fraction'] == 0 and np.isnan(closed['heat_of_adsorption'])
    deep = adsorption_properties(np.full((2, 2, 2), -1e5))
    assert deep['henry_coefficient'] == pytest.approx(np.exp(1e5 / T))


def test_boltzmann_grid():
    assert boltzmann_grid(np.float32([[[0, -298, 1e21]]])) == pytest.approx(np.array([[[1, np.e, 0]]]))


def test_density(lta):
    assert framework_density(lta) == pytest.approx(24 * 60.083 / 1693.24 * 1660.539, rel=1e-3)


@pytest.mark.parametrize(
    ('grid', 'options', 'word'),
    [
        (np.zeros((3, 3)), {}, 'energy grid'),
        (np.zeros((0, 3, 3)), {}, 'energy grid'),
        (np.full((2, 2, 2), np.nan), {}, 'finite'),
        (np.full((2, 2, 2), np.inf), {}, 'finite'),
        (np.zeros((2, 2, 2)), {'temperature': 0}, 'temperature'),
        (np.zeros((2, 2, 2)), {'temperature': np.nan}, 'temperature'),
        (np.zeros((2, 2, 2)), {'density': -1}, 'density'),
        (np.zeros((2, 2, 2)), {'accessible': np.ones((2, 2, 3), bool)}, 'accessible'),
        (np.zeros((2, 2, 2)), {'accessible': np.full((2, 2, 2), -300.0)}, '`accessible` is true or false'),
    ],
)
def test_wrong_input(grid, options, word):
    with pytest.raises(ValueError, match=word):
        adsorption_properties(grid, **options)


def test_energies_are_no_mask():
    with pytest.raises(ValueError, match='a mask is true or false at every point, such as grid < 0'):
        find_channels(np.full((4, 4, 4), -300.0))
    with pytest.raises(ValueError, match='finite'):
        accessible_mask(np.full((4, 4, 4), np.nan))


def box(*slices, shape=(8, 8, 8)):
    """Return a mask that is True in blocks."""
    mask = np.zeros(shape, bool)
    for one in slices:
        mask[one] = True
    return mask


ALL = slice(None)
CHANNELS = {
    'pocket': (box(np.s_[2:4, 2:4, 2:4]), [0]),
    'pocket across a corner': (box(np.ix_([7, 0], [7, 0], [7, 0])), [0]),
    'two pockets': (box(np.s_[1, 1, 1], np.s_[5, 5, 5]), [0, 0]),
    'touching at an edge only': (box(np.s_[1, 1, 1], np.s_[2, 2, 1]), [0, 0]),
    'channel': (box(np.s_[:, 3, 3]), [1]),
    'two channels that do not meet': (box(np.s_[:, 1, 1], np.s_[1, :, 4]), [1, 1]),
    'two channels that meet': (box(np.s_[:, 1, 1], np.s_[1, :, 1]), [2]),
    'layer': (box(np.s_[:, :, 0]), [2]),
    'everything': (np.ones((8, 8, 8), bool), [3]),
    'a ring that closes within the cell': (box(np.s_[1:6, 1, 1], np.s_[1:6, 5, 1], np.s_[1, 1:6, 1], np.s_[5, 1:6, 1]), [0]),
    'diagonal': (box(np.s_[0:4, 0, 0], np.s_[3, 0:, 0], np.s_[3:, 7, 0]), [1]),
    'nothing': (np.zeros((8, 8, 8), bool), []),
    'one point': (np.ones((1, 1, 1), bool), [3]),
}


@pytest.mark.parametrize('name', CHANNELS)
def test_channels(name):
    mask, expected = CHANNELS[name]
    labels, dimensions = find_channels(mask)
    assert sorted(dimensions.tolist()) == expected
    assert np.array_equal(labels > 0, mask) and labels.max() == len(expected)
    rolled, again = find_channels(np.roll(mask, (3, 5, 6), (0, 1, 2)))
    assert sorted(again.tolist()) == expected and np.array_equal(rolled > 0, np.roll(mask, (3, 5, 6), (0, 1, 2)))


def test_a_double_helix_is_one_channel():
    """Two strands change places at the face: each meets itself only two cells further on."""
    mask = box(
        np.s_[0:4, 2, 2],
        np.s_[4:, 5, 2],
        np.s_[3:5, 2:6, 2],
        np.s_[0:3, 5, 4],
        np.s_[5:, 2, 4],
        np.s_[0, 5, 2:5],
        np.s_[7, 2, 2:5],
    )
    labels, dimensions = find_channels(mask)
    for k, dimension in enumerate(dimensions, 1):
        doubled = find_channels(np.concatenate([labels == k] * 2))[1]
        assert (doubled > 0).all() == (dimension > 0)


def test_pockets_of_a_grid():
    grid = np.full((8, 8, 8), 1e6)
    grid[:, 3, 3] = -500.0
    grid[6, 6, 6] = -3000.0
    mask = accessible_mask(grid, T)
    assert mask[:, 3, 3].all() and not mask[6, 6, 6] and mask.sum() == 8
    whole, open_ = adsorption_properties(grid, T), adsorption_properties(grid, T, accessible=mask)
    assert whole['henry_coefficient'] > 40 * open_['henry_coefficient'] > 0
    assert open_['heat_of_adsorption'] == pytest.approx(8.314462618e-3 * (T + 500))
    assert accessible_mask(grid, T, threshold=-1000.0).sum() == 0
    for function in (accessible_mask, find_channels):
        with pytest.raises(ValueError, match='nx, ny, nz'):
            function(grid[0])


def test_cube(lta, tmp_path):
    from ase.io.cube import read_cube_data

    grid = np.random.default_rng(0).normal(size=(5, 6, 7)) * 1000
    grid[0, 0, 0] = 1e21
    write_cube(tmp_path / 'a.cube', grid, lta)
    data, atoms = read_cube_data(str(tmp_path / 'a.cube'))
    assert np.allclose(data, np.minimum(grid, 1e6), rtol=1e-4, atol=0.1) and data.max() == 1e6
    assert np.allclose(atoms.cell, lta.cell, atol=1e-4) and np.array_equal(atoms.numbers, lta.numbers)
    assert np.allclose(atoms.positions, lta.positions, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ['a.cube']
    with pytest.raises(ValueError, match='cube file'):
        write_cube(tmp_path / 'b.cube', grid[0], lta)


@pytest.mark.parametrize('options', [{'temperature': 'warm'}, {'temperature': None}, {'temperature': [298.0, 300.0]}])
def test_a_temperature_is_a_number(options):
    with pytest.raises(ValueError, match='temperature is a positive number, in K'):
        adsorption_properties(np.zeros((2, 2, 2)), **options)


@pytest.mark.parametrize('density', ['heavy', 0, [1.0, 2.0], np.nan])
def test_a_density_is_one_number_or_one_for_each_grid(density):
    with pytest.raises(ValueError, match='a density is positive, in kg/m'):
        adsorption_properties(np.zeros((2, 2, 2)), density=density)
    assert adsorption_properties(np.zeros((2, 2, 2, 2)), density=[1.0, 2.0])['henry_coefficient_mol_kg_pa'].shape == (2,)
