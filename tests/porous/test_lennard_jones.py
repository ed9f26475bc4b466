"""Energy and density grids: the exact sum, the symmetries of a crystal, and input that cannot be."""

import logging
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_diffusion.errors import MissingDependency
from ase_diffusion.porous import (
    accessible_mask,
    adsorption_properties,
    density_grid,
    energy_grid,
    interaction,
    iter_energy_grids,
    lennard_jones,
    torch_grid,
)

WINDOW, WORST, TYPICAL = 5000.0, 0.05, 0.005  # K; issue 6 asks for 0.2 and 0.05
BACKENDS = [pytest.param('numba', marks=pytest.mark.skipif(not find_spec('numba'), reason='numba is not installed')), 'torch']
CELLS = [  # seed, options, shape, cutoff
    (0, {}, (6, 7, 8), 12.0),
    (1, {'shortest': 1.5, 'longest': 3.0, 'atoms': 1}, (5, 4, 9), 12.0),  # images many times
    (2, {'shortest': 14, 'longest': 30}, (9, 10, 40), 6.0),  # a line longer than the cutoff
    (3, {'skew': 0.6, 'shortest': 5}, (1, 3, 2), 9.3),
    (4, {'atoms': 20, 'longest': 12}, (12, 5, 3), 7.7),
    (5, {'shortest': 3, 'longest': 40, 'skew': 0.1}, (32, 2, 2), 10.0),
]


def agrees(grid, reference):
    """Assert the accuracy inside the window of energies that matter."""
    difference = np.abs(grid - reference)[reference < WINDOW]
    assert difference.size == 0 or (difference.max() < WORST and np.median(difference) < TYPICAL)
    above = reference >= WINDOW
    assert np.allclose(grid[above], reference[above], rtol=1e-4)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(('seed', 'options', 'shape', 'cutoff'), CELLS)
def test_float32_agrees_with_the_direct_sum(exact, make_crystal, backend, seed, options, shape, cutoff):
    atoms = make_crystal(seed, **options)
    reference = exact(atoms, shape, cutoff)
    assert np.ptp(reference) > 1
    grid = energy_grid(atoms, shape, cutoff=cutoff, backend=backend)
    assert grid.dtype == np.float32 and grid.shape == shape
    agrees(grid, reference)


@pytest.mark.parametrize(('seed', 'options', 'shape', 'cutoff'), CELLS[:4])
def test_float64_is_exact(exact, make_crystal, seed, options, shape, cutoff):
    atoms = make_crystal(seed, **options)
    grid = energy_grid(atoms, shape, cutoff=cutoff, dtype=np.float64)
    assert np.allclose(grid, exact(atoms, shape, cutoff), rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not find_spec('numba'), reason='numba is not installed')
@given(seed=st.integers(0, 10**6), n=st.tuples(*[st.integers(1, 9)] * 3), cutoff=st.floats(0.5, 9.0))
@settings(max_examples=15, deadline=None)
def test_back_ends_agree_on_anything(seed, n, cutoff):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(4, 20, 3)) @ (np.eye(3) + rng.uniform(-0.5, 0.5, (3, 3)))
    atoms = Atoms('O2Al', scaled_positions=rng.random((3, 3)), cell=cell, pbc=True)
    agrees(energy_grid(atoms, n, cutoff=cutoff, backend='numba'), energy_grid(atoms, n, cutoff=cutoff, dtype=np.float64))


@pytest.mark.parametrize('backend', BACKENDS)
def test_one_atom(backend):
    atoms = Atoms('O', cell=[30, 30, 30], pbc=True)
    line = energy_grid(atoms, (300, 1, 1), backend=backend)[:, 0, 0]
    r = np.minimum(np.arange(300), 300 - np.arange(300)) / 10
    inside = (r > 0) & (r < 11.95)
    assert np.allclose(line[inside], 460 * ((3.47 / r[inside]) ** 12 - (3.47 / r[inside]) ** 6), rtol=2e-5, atol=0.01)
    assert not line[r > 12.05].any() and line[r == 11.9].all()
    assert line[0] == line.max() and 1e20 < line[0] < 1e23  # finite where the probe sits on the atom


@pytest.mark.parametrize('backend', BACKENDS)
def test_overlapping_atoms_are_finite(backend):
    atoms = Atoms('O64Al8', positions=np.zeros((72, 3)), cell=[3, 4, 5], pbc=True)
    grid = energy_grid(atoms, (4, 4, 4), backend=backend)
    assert np.isfinite(grid).all() and grid[0, 0, 0] > 1e20
    found = adsorption_properties(grid)
    assert found['henry_coefficient'] < 1e-3 and np.isfinite(found['heat_of_adsorption'])


@pytest.mark.parametrize('backend', BACKENDS)
def test_an_empty_box(backend):
    for atoms in (Atoms(cell=[9, 9, 9], pbc=True), Atoms('Si2', [[0, 0, 0], [2, 2, 2]], cell=[9, 9, 9], pbc=True)):
        grid = energy_grid(atoms, (4, 5, 6), backend=backend)
        assert not grid.any()
        found = adsorption_properties(grid)
        assert found['henry_coefficient'] == 1 and found['void_fraction'] == 1
        assert found['heat_of_adsorption'] == pytest.approx(8.314462618e-3 * 298)


@pytest.mark.parametrize(
    ('name', 'henry', 'void', 'heat'), [('lta', 54.3248, 0.210297, 22.5702), ('mfi', 35.4903, 0.085815, 20.4529)]
)
def test_published_frameworks(request, name, henry, void, heat):
    found = adsorption_properties(energy_grid(request.getfixturevalue(name)))
    assert found['henry_coefficient'] == pytest.approx(henry, rel=1e-3)
    assert found['void_fraction'] == pytest.approx(void, rel=1e-3)
    assert found['heat_of_adsorption'] == pytest.approx(heat, rel=1e-3)


@pytest.mark.parametrize('backend', BACKENDS)
class TestSymmetry:
    shape = (6, 8, 10)

    def grid(self, atoms, backend, shape=None):
        return np.minimum(energy_grid(atoms, shape or self.shape, cutoff=8.0, backend=backend), WINDOW)

    def test_translation(self, make_crystal, backend):
        atoms = make_crystal(10)
        moved = atoms.copy()
        moved.positions += np.array([1, -2, 13]) / self.shape @ atoms.cell.array
        assert np.allclose(self.grid(moved, backend), np.roll(self.grid(atoms, backend), (1, -2, 13), (0, 1, 2)), atol=WORST)

    def test_rotation(self, make_crystal, backend):
        atoms = make_crystal(11)
        turned = atoms.copy()
        turned.rotate(77, (1, 2, 3), rotate_cell=True)
        assert np.allclose(self.grid(turned, backend), self.grid(atoms, backend), atol=WORST)

    def test_reflection(self, make_crystal, backend):
        atoms = make_crystal(12)
        mirrored = atoms.copy()
        mirrored.cell[:, 1] *= -1
        mirrored.positions[:, 1] *= -1
        assert np.allclose(self.grid(mirrored, backend), self.grid(atoms, backend), atol=WORST)

    def test_axes(self, make_crystal, backend):
        atoms = make_crystal(13)
        turned = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.array[[2, 0, 1]], pbc=True)
        shape = tuple(self.shape[k] for k in (2, 0, 1))
        assert np.allclose(self.grid(turned, backend, shape), self.grid(atoms, backend).transpose(2, 0, 1), atol=WORST)

    def test_supercell(self, make_crystal, backend):
        atoms = make_crystal(14)
        grid = self.grid(atoms.repeat((1, 3, 2)), backend, (6, 24, 20))
        assert np.allclose(grid, np.tile(self.grid(atoms, backend), (1, 3, 2)), atol=WORST)

    def test_another_cell_of_the_same_lattice(self, make_crystal, backend):
        atoms = make_crystal(15)
        other = atoms.copy()
        other.set_cell(np.array([[1, 0, 0], [2, 1, 0], [-1, 0, 1]]) @ atoms.cell.array)
        points = np.indices((6, 6, 6)).reshape(3, -1).T @ [[1, 0, 0], [2, 1, 0], [-1, 0, 1]] % 6
        expected = self.grid(atoms, backend, (6, 6, 6))[tuple(points.T)].reshape(6, 6, 6)
        assert np.allclose(self.grid(other, backend, (6, 6, 6)), expected, atol=WORST)


@pytest.mark.parametrize('backend', BACKENDS)
def test_many_structures_in_one_call(make_crystal, backend, monkeypatch):
    monkeypatch.setitem(lennard_jones.CHUNK, 'cpu', 3 * 4 * 5 * 6 * 4)  # three grids at once
    images = [make_crystal(k, atoms=1 + k % 5) for k in range(8)]
    images[4] = Atoms(cell=[5, 5, 5], pbc=True)
    grids = energy_grid(images, (4, 5, 6), cutoff=6.0, backend=backend)
    assert grids.shape == (8, 4, 5, 6)
    for one, atoms in zip(grids, images, strict=True):
        assert np.array_equal(one, energy_grid(atoms, (4, 5, 6), cutoff=6.0, backend=backend))
    lazy = iter_energy_grids((image for image in images), (4, 5, 6), cutoff=6.0, backend=backend)
    assert np.array_equal(next(lazy), grids[0]) and np.array_equal(next(lazy), grids[1])
    assert energy_grid([], (4, 5, 6), backend=backend).shape == (0, 4, 5, 6)


@pytest.mark.skipif(not find_spec('numba'), reason='numba is not installed')
def test_threads_change_nothing(lta, monkeypatch):
    grids = []
    for threads in ('1', '3'):
        monkeypatch.setenv('OMP_NUM_THREADS', threads)
        grids.append(energy_grid(lta, (12, 12, 12), backend='numba'))
    assert np.array_equal(*grids)


def test_the_input_is_not_changed(make_crystal):
    atoms = make_crystal(3)
    before = atoms.copy()
    energy_grid(atoms, (3, 3, 3))
    density_grid(atoms, 'O', shape=(3, 3, 3))
    assert atoms == before and np.array_equal(atoms.positions, before.positions)


def tensors(atoms):
    """Return positions, cell and coefficients as tensors, the first two with gradients."""
    a, b = interaction(atoms)
    return [torch.tensor(x, requires_grad=k < 2) for k, x in enumerate((atoms.positions, atoms.cell.array, a, b))]


def test_gradients(make_crystal):
    atoms = make_crystal(21, atoms=3, shortest=6)
    positions, cell, a, b = tensors(atoms)
    options = {'shape': (2, 3, 2), 'cutoff': 6.0, 'dtype': torch.float64, 'elements': 30000}

    def energy(positions, cell):
        return (torch_grid(positions, cell, a, b, **options) / 1000).tanh().sum()

    energy(positions, cell).backward()
    rng = np.random.default_rng(0)
    for tensor in (positions, cell):
        step = torch.tensor(rng.normal(size=tensor.shape)) * 1e-6
        with torch.no_grad():
            moved = [x + step if x is tensor else x for x in (positions, cell)]
            back = [x - step if x is tensor else x for x in (positions, cell)]
            slope = (energy(*moved) - energy(*back)) / 2
        assert slope.item() == pytest.approx((tensor.grad * step).sum().item(), rel=1e-4)


def test_chunks_change_nothing(make_crystal, monkeypatch):
    from ase_diffusion.porous import torch_backend

    atoms = make_crystal(23, atoms=6)
    whole = energy_grid(atoms, (9, 9, 9), backend='torch')
    monkeypatch.setattr(torch_backend, 'TESTS', 1)
    monkeypatch.setitem(torch_backend.ELEMENTS, 'cpu', 1)
    assert np.allclose(energy_grid(atoms, (9, 9, 9), backend='torch'), whole, rtol=1e-5, atol=WORST)


class TestDensity:
    def test_one_atom(self):
        atoms = Atoms('SiO', [[0, 0, 0], [5, 5, 5]], cell=[10, 10, 10], pbc=True)
        line = density_grid(atoms, 'Si', shape=(100, 1, 1))[:, 0, 0]
        r = np.minimum(np.arange(100), 100 - np.arange(100)) / 10
        assert np.allclose(line, np.where(r < 4, np.exp(-(r**2)), 0), atol=1e-6)
        assert np.allclose(density_grid(atoms, 'Si', shape=(100, 1, 1), width=2.0)[1, 0, 0], np.exp(-0.0025), atol=1e-6)
        assert not density_grid(atoms, 'Al', shape=(4, 4, 4)).any()

    def test_the_integral_counts_the_atoms(self, mfi):
        grid = density_grid([mfi, mfi], 'O')
        assert grid.shape == (2, 32, 32, 32) and grid.dtype == np.float32
        assert grid[0].mean() * mfi.get_volume() == pytest.approx(192 * np.pi**1.5, rel=1e-3)
        assert np.array_equal(*grid)

    @pytest.mark.parametrize(
        ('symbol', 'options', 'word'),
        [
            ('Xx', {}, 'Xx'),
            ('', {}, 'element'),
            ('Si', {'width': 0}, 'width'),
            ('Si', {'cutoff': -1}, 'cutoff'),
            ('Si', {'shape': (3, 3)}, 'shape'),
        ],
    )
    def test_errors(self, lta, symbol, options, word):
        with pytest.raises(ValueError, match=word):
            density_grid(lta, symbol, **options)


def box(**changes):
    """Return a good crystal with changes."""
    return Atoms(**{'symbols': 'O', 'cell': [5, 5, 5], 'pbc': True, **changes})


@pytest.mark.parametrize(
    ('atoms', 'options', 'word'),
    [
        (box(pbc=False), {}, 'periodic'),
        (box(pbc=(True, True, False)), {}, 'periodic'),
        (box(cell=None), {}, 'volume'),
        (box(cell=[5, 5, 0]), {}, 'volume'),
        (box(cell=[[1, 0, 0], [0, 1, 0], [1, 1, 0]]), {}, 'volume'),
        (box(cell=[5, 5, np.nan]), {}, 'volume'),
        (box(positions=[[0, np.nan, 0]]), {}, r'atoms \[0\]'),
        (box(positions=[[0, np.inf, 0]]), {}, 'finite'),
        (box(symbols='X'), {}, "'X'.*framework="),
        (box(), {'probe': 'He3'}, 'CH4, Ar.*He3'),
        (box(), {'probe': (1, 0)}, 'sigma > 0'),
        (box(), {'probe': 3}, 'probe'),
        (box(), {'framework': 'glass'}, 'silica, uff.*glass'),
        (box(), {'framework': {'Foo': (1, 1)}}, 'Foo'),
        (box(), {'framework': {'O': (1, -1)}}, 'O has'),
        (box(), {'framework': 7}, 'table'),
        (box(), {'shape': (32, 32)}, 'three integers'),
        (box(), {'shape': (32, 32, 0)}, 'three integers'),
        (box(), {'shape': (32, 32, 1.5)}, 'three integers'),
        (box(), {'cutoff': 0}, 'cutoff'),
        (box(), {'cutoff': -12.0}, 'cutoff'),
        (box(), {'cutoff': np.nan}, 'cutoff'),
        (box(), {'cutoff': 'far'}, 'cutoff'),
        (box(), {'shape': (10**5, 10**5, 10**5)}, r'4000000\.0 GB'),
        (box(), {'dtype': np.int32}, 'dtype'),
        (box(), {'backend': 'fortran'}, 'numba, torch, triton'),
        (box(), {'backend': 'numba', 'dtype': np.float64}, 'float32'),
        (box(), {'backend': 'numba', 'device': 'cuda'}, 'CPU'),
        (box(), {'device': 'abacus'}, 'abacus'),
    ],
)
def test_wrong_input(atoms, options, word):
    with pytest.raises(ValueError, match=word):
        energy_grid(atoms, **{'shape': (4, 4, 4), **options})


def test_not_a_structure():
    with pytest.raises(TypeError, match=r'ase\.Atoms'):
        energy_grid(['LTA.cif'], (4, 4, 4))


def test_without_numba(monkeypatch, caplog, lta):
    monkeypatch.setattr(lennard_jones, 'find_spec', lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert energy_grid(lta, (4, 4, 4)).shape == (4, 4, 4)
    assert 'pip install numba' in caplog.text
    for backend in ('numba', 'triton'):
        with pytest.raises(MissingDependency, match=f'pip install {backend}'):
            energy_grid(lta, (4, 4, 4), backend=backend)


def test_a_beta_cage_is_no_pore(lta):
    grid = energy_grid(lta)
    found = adsorption_properties(grid, accessible=accessible_mask(grid))
    assert 0.2 * 54.3 < found['henry_coefficient'] < 0.3 * 54.3


def test_partly_occupied_sites_are_named(caplog):
    lta = Atoms('SiO2', scaled_positions=[[0, 0, 0], [0.2, 0, 0], [0, 0.2, 0]], cell=[8.0] * 3, pbc=True)
    lta.info['occupancy'] = {'0': {'Si': 0.5, 'Al': 0.5}, '1': {'O': 1.0}}
    with caplog.at_level(logging.WARNING):
        energy_grid(lta, 2, device='cpu')
    assert "SiO2: site 0 is occupied by {'Si': 0.5, 'Al': 0.5}, and counts as full" in caplog.text.replace('O2Si', 'SiO2')


def test_a_type_that_numpy_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"float32 or float64; got dtype='foo'"):
        energy_grid(Atoms('O', cell=[8.0] * 3, pbc=True), 2, dtype='foo')


@pytest.mark.parametrize('wrong', [None, 3, 'lta.cif', [None]])
def test_what_is_no_structure_is_named(wrong):
    for grid in (lambda: energy_grid(wrong, (4, 4, 4)), lambda: density_grid(wrong, 'Si', shape=(4, 4, 4))):
        with pytest.raises(TypeError, match='structures are ase.Atoms; number 0 is'):
            grid()
