"""Averages of grids over space groups, against the operations themselves."""

import numpy as np
import pytest
import torch
from ase import Atoms

from ase_diffusion.porous import density_grid
from ase_diffusion.porous.grid_symmetry import GridSymmetry, symmetric_shape, symmetrize_grid


def space_group(number):
    spglib = pytest.importorskip('spglib')
    operations = spglib.get_symmetry_from_database({2: 2, 62: 292, 141: 426, 229: 529, 230: 530}[number])  # Hall numbers
    return operations['rotations'], operations['translations']


@pytest.mark.parametrize(
    ('number', 'shape'), [(2, (6, 8, 10)), (62, (8, 4, 6)), (141, (8, 8, 12)), (229, (8, 8, 8)), (230, (8, 8, 8))]
)
def test_symmetrizing_is_a_projection_onto_invariant_grids(number, shape):
    rotations, translations = space_group(number)
    grid = torch.randn(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
    once = symmetrize_grid(grid, (rotations, translations))
    assert torch.allclose(symmetrize_grid(once, (rotations, translations)), once, atol=1e-12)
    brute = torch.zeros_like(grid)
    points = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing='ij'), -1)
    for rotation, translation in zip(rotations, translations, strict=True):
        x = points / shape @ rotation.T + translation
        i = np.round(x * shape).astype(int) % shape
        image = once[:, :, i[..., 0], i[..., 1], i[..., 2]]
        assert torch.allclose(image, once, atol=1e-12)
        brute += grid[:, :, i[..., 0], i[..., 1], i[..., 2]] / len(rotations)
    assert torch.allclose(brute, once, atol=1e-12)


def test_symmetrized_noise_keeps_its_variance():
    symmetry = GridSymmetry.of(*space_group(229), (8, 8, 8))
    assert symmetry.sizes.min() < symmetry.sizes.max() <= 96
    noise = torch.randn(4000, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    out = symmetrize_grid(noise, symmetry, noise=True)
    assert torch.allclose(out.var(0), torch.ones(8, 8, 8), atol=0.15)
    assert abs(out.var() - 1) < 0.02
    assert torch.equal(symmetrize_grid(noise, symmetry, noise=True), out)


def test_a_symmetric_framework_is_left_as_it_is():
    rotations, translations = space_group(62)
    sites = (np.array([0.1, 0.2, 0.3]) @ rotations.transpose(0, 2, 1) + translations) % 1
    atoms = Atoms(f'O{len(sites)}', scaled_positions=sites, cell=(9.0, 10.0, 12.0), pbc=True)
    grid = torch.from_numpy(density_grid(atoms, 'O', shape=(8, 8, 12))).double()
    assert torch.allclose(symmetrize_grid(grid, (rotations, translations)), grid, atol=1e-6)


def test_symmetric_shapes_are_those_the_operations_allow():
    assert symmetric_shape((9.0, 9.0, 13.0), space_group(141), multiple=4) == (8, 8, 12)
    assert symmetric_shape((12.0, 12.0, 12.0), space_group(230)) == (12, 12, 12)
    shape = symmetric_shape((5.0, 14.0, 20.0), space_group(62))
    assert np.allclose(np.array([5, 14, 20]) / shape, 0.95, atol=0.15)
    GridSymmetry.of(*space_group(62), shape)


def test_wrong_operations_are_refused():
    with pytest.raises(ValueError, match='maps no grid'):
        symmetrize_grid(torch.zeros(6, 6, 6), space_group(141))
    with pytest.raises(ValueError, match='group'):
        GridSymmetry.of([np.eye(3, dtype=int)] * 2, [[0, 0, 0], [0.25, 0, 0]], (4, 4, 4))
    with pytest.raises(ValueError, match='points'):
        GridSymmetry.of(*space_group(2), (4, 4, 4)).average(torch.zeros(4, 4, 6))
