"""Augmented batches of grids, against the grids of the same structures."""

import numpy as np
import pytest
import torch
from ase import Atoms

from ase_diffusion.porous import density_grid, energy_grid
from ase_diffusion.porous.framework_grids import (
    FrameworkGrids,
    grid_shape,
    orbit_noise,
    oxygen_energies,
    scale_energy,
    separable_density,
)


def frameworks(lengths, n=3):
    images = []
    for seed, edges in enumerate(lengths):
        positions = np.random.default_rng(seed).random((3 * n, 3))
        images.append(Atoms(f'Si{n}O{2 * n}', scaled_positions=positions, cell=edges, pbc=True))
    return images


def arrays(images):
    return (
        np.concatenate([a.get_scaled_positions() for a in images]),
        np.concatenate([a.numbers for a in images]),
        [len(a) for a in images],
        np.stack([np.asarray(a.cell) for a in images]),
    )


def test_separable_density_is_the_density():
    atoms = frameworks([(5.0, 9.0, 13.0)])[0]
    f = torch.from_numpy(atoms.get_scaled_positions()[atoms.numbers == 8])[None]
    lengths = torch.tensor([[5.0, 9.0, 13.0]], dtype=torch.float64)
    grid = separable_density(f, torch.ones(1, f.shape[1], dtype=f.dtype), lengths, (6, 8, 12))[0]
    assert np.abs(grid.numpy() - density_grid(atoms, 'O', shape=(6, 8, 12))).max() < 2e-6


@pytest.mark.parametrize('numba', [True, False])
def test_energies_are_those_of_energy_grid(numba, monkeypatch):
    if not numba:
        monkeypatch.setattr('ase_diffusion.porous.framework_grids.find_spec', lambda name: None)
    atoms = frameworks([(6.0, 9.0, 13.0)])[0]
    f = atoms.get_scaled_positions()[atoms.numbers == 8]
    grid = oxygen_energies([f], [(6.0, 9.0, 13.0)], (8, 8, 12))[0].numpy()
    assert np.abs(np.clip(grid, -4000, 5000) - np.clip(energy_grid(atoms, shape=(8, 8, 12)), -4000, 5000)).max() < 0.5  # K


@pytest.mark.parametrize('channels', [3, 4])
def test_a_drawn_grid_is_that_of_the_moved_structure(channels):
    images = frameworks([(9.0, 12.0, 8.0)])
    grids = FrameworkGrids(*arrays(images), channels=channels)
    assert grids.groups[0].shape == (8, 8, 12)
    rng = torch.Generator().manual_seed(3)
    for _ in range(4):
        x, cells, *_ = grids.draw(rng, voxels=2000)
        x = x * grids.std[:, None, None, None] + grids.mean[:, None, None, None]
        assert x.shape[1] == channels
        assert all(found(one, cell, images[0]) for one, cell in zip(x[:1], cells[:1], strict=True))


def found(x, cell, atoms):
    """Tell whether a grid is that of the structure after a signed permutation of axes and a shift by half voxels."""
    lengths, shape = np.diag(cell.numpy()), x.shape[1:]
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        if np.abs(atoms.cell.lengths()[list(order)] - lengths).max() > 1e-4:
            continue
        for signs in np.ndindex(2, 2, 2):
            f = atoms.get_scaled_positions()[:, list(order)] * (1 - 2 * np.array(signs))
            moved = Atoms(atoms.numbers, scaled_positions=f, cell=lengths, pbc=True)
            fine = torch.from_numpy(density_grid(moved, 'Si', shape=[2 * n for n in shape])) * 2 - 1
            energy = scale_energy(torch.from_numpy(energy_grid(moved, shape=[2 * n for n in shape])))
            sub = torch.zeros_like(fine)
            sub[::2, ::2, ::2] = x[1] - x[1].mean()
            match = torch.fft.ifftn(torch.fft.fftn(sub).conj() * torch.fft.fftn(fine)).real
            shift = [-int(i) for i in np.unravel_index(int(match.argmax()), match.shape)]
            same = torch.roll(fine, shift, (0, 1, 2))[::2, ::2, ::2]
            low = torch.roll(energy, shift, (0, 1, 2))[::2, ::2, ::2]
            if torch.allclose(same, x[1], atol=1e-5) and torch.allclose(low, x[0], atol=2e-3):
                return True
    return False


def test_fields_have_zero_mean_and_unit_variance():
    grids = FrameworkGrids(*arrays(frameworks([(9.0, 9.0, 8.5)] * 8)))
    x = torch.cat([grids.draw(torch.Generator().manual_seed(k), voxels=20000)[0] for k in range(4)])
    assert x.mean((0, 2, 3, 4)).abs().max() < 0.1 and (x.std((0, 2, 3, 4)) - 1).abs().max() < 0.1


def test_structures_are_drawn_equally_often_with_their_conditions():
    images = frameworks([(6.0, 6.0, 6.0), (12.0, 12.0, 12.0), (12.0, 12.0, 12.0), (16.0, 8.0, 12.0)])
    grids = FrameworkGrids(*arrays(images), conditions={'void_fraction': np.arange(4) / 10})
    rng, seen = torch.Generator().manual_seed(0), []
    for _ in range(400):
        _, cells, conditions, _ = grids.draw(rng, voxels=8000)
        volume = torch.det(cells)
        seen += conditions['void_fraction'].tolist()
        assert torch.allclose(
            volume, torch.tensor([a.get_volume() for a in images]).float()[(conditions['void_fraction'] * 10).long()]
        )
    counts = np.bincount(np.round(np.array(seen) * 10).astype(int), minlength=4) / len(seen)
    assert np.abs(counts - 0.25).max() < 0.06


def test_the_same_seed_draws_the_same_batch():
    grids = FrameworkGrids(*arrays(frameworks([(9.0, 12.0, 8.0), (8.0, 8.0, 8.0)])))
    a, b = (grids.draw(torch.Generator().manual_seed(5))[0] for _ in range(2))
    assert torch.equal(a, b)


def test_shapes():
    assert grid_shape((4.8, 6.0, 7.0)) == (6, 6, 8)
    assert grid_shape((9.3, 9.4, 31.0)) == (8, 12, 32)
    assert grid_shape((9.3, 9.4, 31.0), multiple=2) == (10, 10, 32)
    for length in np.arange(4.5, 40, 0.1):
        assert 0.77 < length / grid_shape([length])[0] / 0.95 < 1.24


def test_skew_cells_are_refused():
    with pytest.raises(ValueError, match='orthogonal'):
        FrameworkGrids(np.zeros((3, 3)), [14, 8, 8], [3], [[[9, 0, 0], [3, 9, 0], [0, 0, 9]]])


def test_symmetric_noise_belongs_to_the_moved_structure():
    """A structure of P4/mmm, in which a site generates the others: its grid and its noise have the same orbits."""
    fourfold = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    rotations = [np.linalg.matrix_power(fourfold, k) @ m for k in range(4) for m in (np.eye(3, dtype=int), np.diag([-1, 1, 1]))]
    rotations = np.array(rotations + [r @ np.diag([1, 1, -1]) for r in rotations])
    translations = np.zeros((16, 3))
    seeds = np.random.default_rng(0).random((2, 3))
    sites = [(seed @ rotations.transpose(0, 2, 1)) % 1 for seed in seeds]
    atoms = Atoms('Si16O16', scaled_positions=np.concatenate(sites), cell=(9.0, 9.0, 12.0), pbc=True)
    order = [2, 0, 1]  # the unique axis first
    images = [
        atoms,
        Atoms(atoms.numbers, scaled_positions=atoms.get_scaled_positions()[:, order], cell=(12.0, 9.0, 9.0), pbc=True),
    ]
    moved = rotations[:, order][:, :, order]
    grids = FrameworkGrids(
        *arrays(images), operations=[(rotations, translations), (moved, translations)], shape=[(8, 8, 12), (12, 8, 8)]
    )
    rng = torch.Generator().manual_seed(0)
    for _ in range(6):
        x, _, conditions, orbits = grids.draw(rng, voxels=8000, symmetric=0.5)
        symmetric = conditions['multiplicity'] > 1
        assert 0 < symmetric.sum() < len(x)
        noise = orbit_noise(orbits, 3, rng)
        assert noise.shape == x.shape and abs(noise.std() - 1) < 0.1
        for field, mine, draws, flag in zip(x, orbits, noise, symmetric, strict=True):
            values, labels = torch.unique(mine, return_inverse=True)
            if not flag:
                assert len(values) == mine.numel()
                continue
            assert 6 < mine.numel() / len(values) < 16
            spread = [
                max(float(c[labels == k].max() - c[labels == k].min()) for k in range(len(values))) for c in (*field, *draws)
            ]
            assert max(spread) < 2e-2  # float16 energies over a standard deviation of about 0.3
