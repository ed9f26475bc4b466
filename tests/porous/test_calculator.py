"""The grid as an ASE calculator: energies near those of atoms, forces that are exact derivatives, periodic."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.optimize import BFGS

from ase_diffusion.porous import GridCalculator, energy_grid


@pytest.fixture(scope='module')
def host():
    """A skew crystal with room for argon."""
    atoms = bulk('Si', 'diamond', a=10.0)
    atoms.rattle(0.3, seed=1)
    return atoms


@pytest.fixture(scope='module')
def calculator(host):
    return GridCalculator.from_framework(host, probe='Ar', framework='uff', spacing=0.25)


@pytest.fixture
def places(host):
    return np.random.default_rng(0).uniform(-20, 20, (40, 3))


def test_forces_are_the_derivatives(calculator, places):
    energies, forces = calculator.evaluate(places)
    keep = energies < 5000
    assert keep.sum() > 5
    for axis in range(3):
        step = 1e-4 * np.eye(3)[axis]
        slope = (calculator.evaluate(places + step)[0] - calculator.evaluate(places - step)[0]) / 2e-4
        assert np.allclose(-forces[keep, axis], slope[keep], rtol=1e-5, atol=0.01)


def test_it_is_periodic(calculator, host, places):
    moved = places + np.array([3, -2, 1]) @ host.cell.array
    for one, other in zip(calculator.evaluate(places), calculator.evaluate(moved), strict=True):
        assert np.allclose(one, other, rtol=1e-8)


def test_it_is_exact_on_the_points_and_near_between(host, calculator):
    shape = np.array(calculator.spline.shape)
    fine = energy_grid(host, tuple(2 * shape), probe='Ar', framework='uff')
    index = np.indices(fine.shape).reshape(3, -1).T
    energies = calculator.evaluate(index / (2 * shape) @ host.cell.array)[0].reshape(fine.shape)
    on = fine[::2, ::2, ::2]
    assert np.allclose(energies[::2, ::2, ::2], on, rtol=1e-4, atol=0.05)
    well = fine < 0
    assert well.any() and np.abs(energies - fine)[well].max() < 30.0  # K, a tenth of kB T at 298 K


def test_as_a_calculator(host, calculator, places):
    probes = Atoms('Ar2', places[np.argsort(calculator.evaluate(places)[0])[2:4]], cell=host.cell, pbc=True)
    probes.calc = calculator
    energies, forces = calculator.evaluate(probes.positions)
    assert probes.get_potential_energy() == pytest.approx(energies.sum() * units.kB)
    assert np.allclose(probes.get_forces(), forces * units.kB)
    assert np.allclose(probes.get_potential_energies(), energies * units.kB)
    before = probes.get_potential_energy()
    BFGS(probes, logfile=None).run(fmax=0.005, steps=100)
    assert probes.get_potential_energy() < before and np.abs(probes.get_forces()).max() < 0.005


@pytest.mark.parametrize(
    ('grid', 'cell', 'word'),
    [
        (np.zeros((4, 4)), np.eye(3), 'nx, ny, nz'),
        (np.zeros((3, 4, 4)), np.eye(3), '4 points'),
        (np.full((4, 4, 4), np.nan), np.eye(3), 'finite'),
        (np.zeros((4, 4, 4)), np.zeros((3, 3)), 'volume'),
    ],
)
def test_wrong_input(grid, cell, word):
    with pytest.raises(ValueError, match=word):
        GridCalculator(grid, cell)


def test_wrong_spacing_and_positions(host, calculator):
    with pytest.raises(ValueError, match='spacing'):
        GridCalculator.from_framework(host, spacing=0)
    with pytest.raises(ValueError, match='finite'):
        calculator.evaluate([[np.nan, 0, 0]])
