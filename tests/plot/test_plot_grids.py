"""Surfaces and slices of periodic grids."""

import numpy as np
import pytest
from ase import Atoms

from ase_diffusion import plot
from ase_diffusion.plot.grids import isosurface


def sphere(n=24, centre=0.5):
    """Distances from a point in a periodic unit cube, and that point's radius of 0.3."""
    points = np.indices((n, n, n)) / n - centre
    points -= np.round(points)
    return np.sqrt((points**2).sum(0))


def areas(vertices, faces):
    """Return twice the area vectors of faces, and their centres."""
    corners = vertices[faces]
    return np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]), corners.mean(1)


def test_a_sphere_has_its_radius_its_area_and_its_outside():
    vertices, faces = isosurface(sphere(), 0.3)
    assert np.abs(np.linalg.norm(vertices - 0.5, axis=1) - 0.3).max() < 0.004
    vectors, centres = areas(vertices, faces)
    assert np.linalg.norm(vectors, axis=1).sum() / 2 == pytest.approx(4 * np.pi * 0.09, rel=0.03)
    assert ((vectors * (centres - 0.5)).sum(1) > 0).mean() > 0.99
    edges = np.sort(np.stack([faces, np.roll(faces, 1, 1)], -1).reshape(-1, 2), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()  # closed


def test_a_surface_goes_on_across_the_faces_of_the_cell():
    area = np.linalg.norm(areas(*isosurface(sphere(centre=0.0), 0.3))[0], axis=1).sum() / 2
    assert area == pytest.approx(4 * np.pi * 0.09, rel=0.03)


def test_a_wall_does_not_push_the_surface():
    steep = np.where(sphere() < 0.3, -100.0, 1e20)
    assert np.abs(np.linalg.norm(isosurface(steep, 0.0)[0] - 0.5, axis=1) - 0.3).max() < 0.05


@pytest.mark.parametrize(
    ('grid', 'level', 'word'),
    [
        (np.zeros((4, 4)), 0, 'nx, ny, nz'),
        (np.zeros((4, 4, 4)), 0, 'between'),
        (sphere(), np.nan, 'between'),
        (sphere(), 5, 'between'),
    ],
)
def test_no_surface(grid, level, word):
    with pytest.raises(ValueError, match=word):
        isosurface(grid, level)


def test_plot_isosurface(tmp_path):
    atoms = Atoms('OSi', [[0, 0, 0], [2, 2, 2]], cell=[[6, 0, 0], [2, 5, 0], [0, 1, 7]], pbc=True)
    ax = plot.plot_isosurface(sphere(12), 0.3, atoms=atoms, color='red')
    assert ax.get_xlim()[1] >= 8 and ax.name == '3d'
    assert plot.plot_isosurface(sphere(12), 0.2, atoms, ax=ax) is ax
    ax.figure.savefig(tmp_path / 'a.png', dpi=40)
    with pytest.raises(ValueError, match='volume'):
        plot.plot_isosurface(sphere(12), 0.3, np.zeros((3, 3)))


def test_plot_slice(tmp_path):
    grid = np.zeros((4, 5, 6))
    grid[:, :, 3] = -100.0
    grid[0, 0, 3] = 1e9
    ax = plot.plot_slice(grid, [[6, 0, 0], [-3, 5, 0], [0, 0, 7]], position=0.5)
    mesh = ax.collections[0]
    assert mesh.get_array().min() == -100 and mesh.get_clim() == (-100, 100)
    assert mesh.get_array().size == 5 * 6  # closed on the far sides
    ax.figure.savefig(tmp_path / 'a.png', dpi=40)
    assert plot.plot_slice(grid, axis=0, limits=(0, 1), label=None).collections[-1].get_clim() == (0, 1)
    for position, lowest in ((0.5, -100), (1.5, -100), (-0.5, -100), (0.99, 0)):  # periodic
        assert plot.plot_slice(grid, position=position, label=None).collections[0].get_array().min() == lowest
    with pytest.raises(ValueError, match='axis 0, 1 or 2'):
        plot.plot_slice(grid, axis=3)


def test_the_level_is_zero_by_default_and_a_number():
    x = np.cos(2 * np.pi * np.arange(8) / 8)
    grid = x[:, None, None] + x[None, :, None] + x[None, None, :]
    plain, zero = plot.plot_isosurface(grid), plot.plot_isosurface(grid, 0.0)
    assert len(plain.collections[0].get_facecolor()) == len(zero.collections[0].get_facecolor()) > 0
    with pytest.raises(TypeError, match='number'):
        plot.plot_isosurface(grid, Atoms('O'))
