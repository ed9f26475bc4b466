"""Clouds of points in the colors of their elements."""

import numpy as np
import pytest
from ase import Atoms

from ase_diffusion import plot
from ase_diffusion.representations.pointcloud import PointCloud


def test_a_cloud_of_a_crystal_lies_on_its_atoms(tmp_path):
    cell = [[4, 0, 0], [1, 5, 0], [1, 2, 6]]
    atoms = Atoms('LiFeO', scaled_positions=[[0.1, 0.2, 0.3], [0.5, 0.6, 0.7], [0.9, 0.1, 0.5]], cell=cell, pbc=True)
    cloud = PointCloud()
    points, numbers, cells = (x[0] for x in cloud.points(cloud.encode([atoms])))
    assert [numbers.tolist().count(z) for z in atoms.numbers] == [42, 42, 44]
    for where, z in zip(atoms.get_scaled_positions(), atoms.numbers, strict=True):
        assert np.abs(points[numbers == z] - where).max() < 1e-6
    ax = plot.plot_cloud(points, numbers, cells)
    drawn = np.unique(np.round(ax.collections[0].get_offsets(), 3), axis=0)
    a = cells[0] / np.linalg.norm(cells[0])
    flat = atoms.get_scaled_positions()[:, :2] @ cells[:2]
    assert len(drawn) == 3 and np.allclose(np.sort(drawn[:, 0]), np.sort(flat @ a), atol=2e-3)
    ax.figure.savefig(tmp_path / 'cloud.png')


def test_no_cell_is_a_square_and_shapes_are_checked():
    ax = plot.plot_cloud(np.random.default_rng(0).normal(size=(128, 3)), np.full(128, 8), np.full((3, 3), np.nan))
    x = np.asarray(ax.collections[0].get_offsets())
    assert x.shape == (128, 2) and x.min() >= 0 and x.max() <= 1
    with pytest.raises(ValueError, match=r'points \(n, 3\)'):
        plot.plot_cloud(np.zeros((4, 2)), np.zeros(4))
