"""Figures show what they are given, and touch nothing else."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms

matplotlib.use('Agg')

from matplotlib import pyplot as plt

from ase_diffusion import plot
from ase_diffusion.metrics import ag6_model
from ase_diffusion.plot.energies import levels


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close('all')


def drawn(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def small_slab():
    slab = fcc111('Ag', (1, 1, 3), a=4.16, vacuum=8.0)
    slab.set_constraint(FixAtoms(range(3)))
    return slab + Atoms('O', [slab.positions[-1] + [0, 1.7, 1.2]])


def disks(ax):
    """Return centres (m, 2) and colours (m, 4) of the atoms drawn."""
    return ax.collections[0].get_offsets(), ax.collections[0].get_facecolors()


def red(colors):
    return (colors[:, 0] > 0.9) & (colors[:, 1] < 0.2)


def test_import_leaves_matplotlib_alone():
    code = "import sys, ase_diffusion.plot as p; dir(p); sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
    with pytest.raises(AttributeError, match='it has'):
        plot.plot_nothing  # noqa: B018


@pytest.mark.parametrize('empty', [Atoms(), Atoms('H', [[np.nan] * 3]), fcc111('Ag', (2, 2, 1), vacuum=5)[:0]])
def test_a_structure_without_places_leaves_its_panel_empty(empty):
    figure = plot.plot_structures([small_slab(), empty])
    drawn(figure)
    assert len(figure.axes) == 4 and not len(disks(figure.axes[-1])[0])


class TestStructure:
    @pytest.mark.parametrize('view', ['top', 'side'])
    @pytest.mark.parametrize('atoms', [ag6_model(), small_slab(), bulk('NaCl', 'rocksalt', a=5.6), molecule('CH3OH')])
    def test_draws_anything(self, atoms, view):
        before = atoms.copy()
        ax = plot.plot_structure(atoms, view=view, label='a')
        assert ax.get_title() == 'a' and drawn(ax.figure).std() > 0
        assert atoms == before

    def test_every_atom_and_its_images(self):
        """In the cell every O shows once in full red; outside it is faded."""
        atoms = ag6_model()
        atoms.positions[44:, :2] += [0.3, 0.9]  # off the cell's edges
        centres, colors = disks(plot.plot_structure(atoms))
        oxygen = centres[red(colors)]
        assert len(oxygen) == 6
        moved = atoms.copy()
        moved.positions[44:] += 2 * atoms.cell[0] - atoms.cell[1]
        centres, colors = disks(plot.plot_structure(moved))
        np.testing.assert_allclose(np.sort(centres[red(colors)], 0), np.sort(oxygen, 0), atol=1e-6)

    def test_depth_order(self):
        """Higher atoms are drawn later."""
        atoms = Atoms('OAg', [[0, 0, 2], [0, 0, 0]])
        assert red(disks(plot.plot_structure(atoms))[1]).tolist() == [False, True]
        assert red(disks(plot.plot_structure(atoms[::-1]))[1]).tolist() == [False, True]

    def test_turned_cell_looks_the_same(self):
        atoms = ag6_model()
        centres = disks(plot.plot_structure(atoms))[0]
        atoms.set_constraint()
        atoms.rotate(50, 'z', rotate_cell=True)
        assert len(disks(plot.plot_structure(atoms))[0]) == len(centres)

    def test_grays_and_own_colors(self):
        colors = disks(plot.plot_structure(ag6_model(), colors={'O': 'lime'}))[1]
        assert not red(colors).any() and ((colors[:, 1] == 1.0) & (colors[:, 0] < 0.1)).any()
        grey = colors[np.ptp(colors[:, :3], axis=1) < 1e-9]
        assert len(np.unique(grey.round(3), axis=0)) == 4  # two layers, in the cell and faded

    def test_narrow_cells_are_repeated(self):
        spans = [np.ptp(plot.plot_structure(small_slab(), repeat=repeat).get_xlim()) for repeat in (None, (1, 1))]
        assert spans[0] > 2 * spans[1] - 4

    def test_atoms_that_are_not_finite_are_left_out(self):
        atoms = ag6_model()
        atoms.positions[44] = np.nan
        drawn(plot.plot_structure(atoms).figure)

    def test_unknown_view(self):
        with pytest.raises(ValueError, match="got 'front'"):
            plot.plot_structure(ag6_model(), view='front')


class TestStructures:
    def test_rows_and_labels(self):
        figure = plot.plot_structures([ag6_model(), small_slab()], labels=['one', 'two'])
        assert [ax.get_title() for ax in figure.axes] == ['one', '', 'two', '']
        drawn(figure)

    def test_one_scale(self):
        figure = plot.plot_structures([ag6_model(), small_slab(), molecule('H2O')])
        drawn(figure)
        scales = [ax.get_window_extent().width / np.ptp(ax.get_xlim()) for ax in figure.axes]
        np.testing.assert_allclose(scales, scales[0], rtol=1e-3)

    def test_blocks_and_bounds(self):
        figure = plot.plot_structures([small_slab()] * 7, columns=3, labels=list('abcdefg'))
        assert len(figure.axes) == 14
        boxes = np.array([ax.get_position(original=True).extents for ax in figure.axes])
        assert boxes.min() >= 0 and boxes.max() <= 1

    def test_errors(self):
        with pytest.raises(ValueError, match='empty'):
            plot.plot_structures([])
        with pytest.raises(ValueError, match='got 1 labels for 2'):
            plot.plot_structures([molecule('H2O')] * 2, labels=['a'])


class TestEnergies:
    def test_levels(self):
        energies, counts = levels([0.5, 0.01, 0.0, 0.505, 1.0], tol=0.02)
        assert energies.tolist() == [0.0, 0.5, 1.0] and counts.tolist() == [2, 2, 1]
        assert levels([])[0].size == 0

    def test_ladder(self):
        ax = plot.plot_energy_ladder({'a': [0, 0.001, 1.0, np.nan], 'b': [0.2, 3.0, 4.0], 'c': [np.nan]}, top=1.5)
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ['a', 'b', 'c']
        assert [text.get_text() for text in ax.texts] == [r'$\times$2', '2 above']
        drawn(ax.figure)
        own = plt.subplots()[1]
        assert plot.plot_energy_ladder([1.0], own) is own

    def test_histogram_shares(self):
        ax = plot.plot_energy_histogram({'a': [0, 0, 1, 9], 'b': [1.0], 'c': []}, bins=4, limits=(0, 2))
        shares = [patch.get_data().values for patch in ax.patches if not patch.get_fill()]
        assert [share.sum() for share in shares] == [1, 1] and shares[0].tolist() == [0.5, 0, 0.25, 0.25]
        assert len(ax.get_legend().get_texts()) == 2
        drawn(ax.figure)
        drawn(plot.plot_energy_histogram([1.0, 1.0], density=False).figure)

    @pytest.mark.parametrize('function', [plot.plot_energy_ladder, plot.plot_energy_histogram])
    def test_nothing_finite(self, function):
        with pytest.raises(ValueError, match='at least one finite'):
            function({'a': [np.nan]})


class TestStrip:
    def frames(self, n=9):
        frames = [ag6_model() for _ in range(n)]
        for k, atoms in enumerate(frames):
            atoms.info['key_value_pairs'] = {'noise_level': 6.0 / 2**k}
        return frames

    def test_labels_from_info(self):
        figure = plot.plot_denoising_strip(self.frames(), count=3)
        assert [ax.get_title() for ax in figure.axes] == [rf'$\sigma$ = {v} Å' for v in ('6', '0.38', '0.023')]
        drawn(figure)

    def test_given_levels_and_both_views(self):
        figure = plot.plot_denoising_strip(self.frames(3), levels=[1, 0.5, 0], symbol='t', unit='', view='both')
        assert [ax.get_title() for ax in figure.axes] == ['$t$ = 1', '', '$t$ = 0.5', '', '$t$ = 0', '']
        drawn(figure)

    def test_without_levels(self):
        assert plot.plot_denoising_strip([molecule('H2O')]).axes[0].get_title() == ''

    def test_errors(self):
        with pytest.raises(ValueError, match='denoising_trajectory'):
            plot.plot_denoising_strip([])
        with pytest.raises(ValueError, match='got 2 levels for 3'):
            plot.plot_denoising_strip(self.frames(3), levels=[1, 2])


class TestSuccess:
    x, p = np.arange(5), np.linspace(0, 1, 5)

    def test_curves_share_axes(self):
        ax = plot.plot_success_curve(self.x, self.p, (0.8 * self.p, self.p), label='a')
        assert plot.plot_success_curve(self.x, self.p**2, ax=ax, label='b') is ax
        assert len({line.get_color() for line in ax.get_lines()}) == 2 and len(ax.collections) == 1
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ['a', 'b']
        assert ax.get_xlim() == (0, 4) and ax.get_xlabel() == 'Number of relaxations'
        drawn(ax.figure)

    def test_logarithmic(self):
        ax = plot.plot_success_curve(self.x, self.p, (self.p, self.p), logx=True)
        assert ax.get_xscale() == 'log' and len(ax.get_lines()[0].get_xdata()) == 4
        drawn(ax.figure)

    def test_shapes(self):
        with pytest.raises(ValueError, match='same points'):
            plot.plot_success_curve([1, 2], [1])
        with pytest.raises(ValueError, match=r'pass band=\(low, high\)'):
            plot.plot_success_curve([1, 2], [0, 1], [0, 1])


def test_structures_in_place_of_numbers_and_lists_in_place_of_one_are_named():
    from ase_diffusion.metrics.surface import is_ag6

    images = [small_slab(), small_slab()]
    for draw in (plot.plot_energy_ladder, plot.plot_energy_histogram, plot.plot_property_histogram):
        for wrong in (images, images[0], {'a': images}, iter(images)):
            with pytest.raises(TypeError, match='numbers are drawn, such as'):
                draw(wrong)
    for one, hint in ((plot.plot_structure, 'plot_structures'), (plot.plot_crystal, 'plot_crystals'), (is_ag6, 'for each')):
        for wrong in (images, None, iter(images)):
            with pytest.raises(TypeError, match=f'one structure is an ase.Atoms; got .*{hint}'):
                one(wrong)
