"""Unit cells, grids of them, and histograms of a property."""

import matplotlib
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111

matplotlib.use('Agg')

from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle

from ase_diffusion import metrics, plot
from ase_diffusion.plot.crystals import BOND, PIECES, _filled
from ase_diffusion.plot.properties import asked_for

SITES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close('all')


def perovskite(a=3.9, formula='SrTiO3', **info):
    atoms = Atoms(formula, scaled_positions=SITES, cell=[a] * 3, pbc=True)
    atoms.info['key_value_pairs'] = info
    return atoms


def disks(ax):
    """Return the disks, far ones first."""
    return sorted((patch for patch in ax.patches if isinstance(patch, Circle)), key=lambda patch: patch.zorder)


def lines(ax, width):
    return [c for c in ax.collections if isinstance(c, LineCollection) and c.get_linewidth()[0] == width]


def texts(figure):
    return [text.get_text() for text in figure.texts]


class TestCell:
    def test_atoms_at_faces_edges_and_corners_are_complete(self):
        """8 corners, 1 centre, 6 faces; all of them at the places of the ideal perovskite."""
        index, scaled = _filled(perovskite(), shift=True)
        assert np.bincount(index).tolist() == [8, 1, 2, 2, 2]
        np.testing.assert_allclose(scaled[index == 1], [[0.5, 0.5, 0.5]])
        assert {tuple(row) for row in scaled[index == 0].round(6)} == {(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)}

    def test_the_origin_does_not_matter(self):
        moved = perovskite()
        moved.positions += [0.7, -1.3, 2.9]
        np.testing.assert_allclose(np.sort(_filled(moved, True)[1], 0), np.sort(_filled(perovskite(), True)[1], 0), atol=1e-9)
        assert len(_filled(moved, False)[0]) == 5

    def test_draws_all_of_it_and_changes_nothing(self):
        atoms = perovskite()
        before = atoms.copy()
        ax = plot.plot_crystal(atoms, label='a')
        assert len(disks(ax)) == 15 and ax.get_title() == 'a' and atoms == before
        assert len(lines(ax, 0.8)) == 12 * PIECES
        assert len(lines(ax, 2.2)) == 6  # Ti-O, but neither Sr-O nor Sr-Ti
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ['Sr', 'Ti', 'O']
        ax = plot.plot_crystal(atoms, elements=False, ax=plt.figure().add_subplot())
        assert ax.get_legend() is None

    def test_the_automatic_direction_hides_little(self):
        """Of the 15 atoms of a perovskite none lies behind another one's centre; along c they do."""

        def hidden(direction):
            drawn = disks(plot.plot_crystal(perovskite(), direction=direction))
            centres = np.array([patch.center for patch in drawn])
            return sum(np.linalg.norm(centres[k] - centres[k + 1 :], axis=1).min() < drawn[k].radius for k in range(14))

        assert hidden('auto') == 0 and hidden('c') >= 6

    @pytest.mark.parametrize(('direction', 'span'), [('a', (3.5, 5)), ('b', (3, 5)), ('c', (3, 3.5)), ((2, 0, 0), (3.5, 5))])
    def test_directions(self, direction, span):
        """Along a vector of an orthorhombic cell the others span the picture, c upright."""
        atoms = Atoms('Po', cell=[3, 3.5, 5], pbc=True)
        centres = np.array([patch.center for patch in disks(plot.plot_crystal(atoms, direction=direction))])
        np.testing.assert_allclose(np.ptp(centres, axis=0), span, atol=1e-9)

    def test_near_atoms_cover_far_ones(self):
        """Along a: the atom at x = 1.5 lies behind the one at x = 2.5."""
        atoms = Atoms('CsNa', positions=[[1.5, 2, 2], [2.5, 2, 2]], cell=[6, 6, 6], pbc=True)
        radii = [patch.radius for patch in disks(plot.plot_crystal(atoms, direction='a', shift=False))]
        assert radii == sorted(radii, reverse=True)  # Cs is the larger one, and comes first
        radii = [patch.radius for patch in disks(plot.plot_crystal(atoms, direction=(-1, 0, 0), shift=False))]
        assert radii == sorted(radii)

    def test_bonds(self):
        """Of an atom and its image, only as long as covalent radii allow; none among metals."""
        for length, count in ((1.0, 1), (BOND * 1.52 - 0.01, 1), (BOND * 1.52 + 0.01, 0)):
            pair = Atoms('C2', [[3, 3, 3], [3, 3, 3 + length]], cell=[9, 9, 9], pbc=True)
            assert len(lines(plot.plot_crystal(pair, shift=False), 2.2)) == count
        assert not lines(plot.plot_crystal(bulk('Cu', cubic=True)), 2.2)

    @pytest.mark.parametrize(
        ('atoms', 'word'),
        [
            (fcc111('Ag', (1, 1, 2), vacuum=5), 'plot_structure'),
            (Atoms(), 'no atoms'),
            (Atoms('H', pbc=True), 'a cell'),
            (Atoms('H', [[np.nan] * 3], cell=[3] * 3, pbc=True), 'finite'),
        ],
    )
    def test_what_is_no_crystal(self, atoms, word):
        with pytest.raises(ValueError, match=word):
            plot.plot_crystal(atoms)

    @pytest.mark.parametrize('direction', ['x', (0, 0, 0), (1, 2), (np.nan, 0, 1)])
    def test_what_is_no_direction(self, direction):
        with pytest.raises(ValueError, match='[Dd]irection'):
            plot.plot_crystal(perovskite(), direction=direction)


class TestRow:
    def test_rows_columns_and_labels(self):
        images = [perovskite(), bulk('NaCl', 'rocksalt', a=5.64), perovskite(4.0, 'BaTiO3')]
        figure = plot.plot_crystals(images, directions=('auto', 'a', (1, 1, 0)), columns=2)
        panels = [ax for ax in figure.axes if disks(ax)]
        assert len(panels) == 9
        assert texts(figure)[0] == 'SrTiO$_{3}$' and {'along a', 'along [1 1 0]'} < set(texts(figure))
        assert len({len(disks(ax)) for ax in panels[:3]}) == 1
        assert texts(plot.plot_crystals(images, labels='xyz')) == ['x', 'y', 'z']

    @pytest.mark.parametrize('same', [True, False])
    def test_scale(self, same):
        """Inches per A are equal on one scale, else every panel is filled."""
        figure = plot.plot_crystals([perovskite(3.9), perovskite(7.8)], same_scale=same)
        panels = [ax for ax in figure.axes if disks(ax)]
        scales = [ax.get_position().width * figure.get_figwidth() / np.ptp(ax.get_xlim()) for ax in panels]
        assert (abs(scales[0] / scales[1] - 1) < 1e-6) == same

    def test_panels_and_texts_do_not_overlap(self):
        images = [perovskite(), Atoms('Po', cell=[3, 3, 9], pbc=True), Atoms('Po', cell=[9, 3, 3], pbc=True)] * 2
        figure = plot.plot_crystals(images, labels=['one\ntwo'] * 6, columns=3)
        figure.canvas.draw()
        boxes = [ax.get_window_extent() for ax in figure.axes if disks(ax)] + [t.get_window_extent() for t in figure.texts]
        boxes += [ax.get_legend().get_window_extent() for ax in figure.axes if ax.get_legend()]
        assert len(boxes) == 18
        page = figure.bbox
        for k, box in enumerate(boxes):
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
            assert not any(box.shrunk(0.98, 0.98).overlaps(other.shrunk(0.98, 0.98)) for other in boxes[k + 1 :])

    def test_errors(self):
        with pytest.raises(ValueError, match='empty'):
            plot.plot_crystals([])
        with pytest.raises(ValueError, match='2 labels'):
            plot.plot_crystals([perovskite()], labels=['a', 'b'])


class TestGrid:
    def test_formula_and_property_in_its_order(self):
        images = [perovskite(formula=f, band_gap=g) for f, g in (('SrTiO3', 2.0), ('BaTiO3', -1.0), ('CaTiO3', 0.5))]
        images.append(perovskite(formula='PbTiO3'))
        figure = plot.plot_composition_grid(images, prop='band_gap')
        assert texts(figure) == [
            'BaTiO$_{3}$\n\N{MINUS SIGN}1.000 eV',
            'CaTiO$_{3}$\n0.500 eV',
            'SrTiO$_{3}$\n2.000 eV',
            'PbTiO$_{3}$',
        ]
        figure = plot.plot_composition_grid(images, values=[4, 3, 2, 1], unit='GPa', count=2)
        assert texts(figure) == ['PbTiO$_{3}$\n1.000 GPa', 'CaTiO$_{3}$\n2.000 GPa']
        assert texts(plot.plot_composition_grid(images))[0] == 'SrTiO$_{3}$'

    def test_errors(self):
        with pytest.raises(ValueError, match='no property|has the property'):
            plot.plot_composition_grid([perovskite()], prop='hardness')
        with pytest.raises(ValueError, match='one value'):
            plot.plot_composition_grid([perovskite()], values=[1, 2])


class TestHistogram:
    def test_shares_target_and_axes(self):
        ax = plt.figure().add_subplot()
        assert plot.plot_property_histogram([0, 0, 1, np.nan], [0, 1, 2, 4], ax, target=3.0, bins=4, xlabel='x') is ax
        data, generated = (ax.patches[k].get_data() for k in (1, 3))
        np.testing.assert_allclose(data.values, [0.25, 0.25, 0.25, 0.25])
        np.testing.assert_allclose(generated.values, [2 / 3, 1 / 3, 0, 0])
        np.testing.assert_allclose(generated.edges, [0, 1, 2, 3, 4])
        assert ax.lines[0].get_xdata() == [3, 3] and ax.get_xlabel() == 'x'
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ['data (n = 4)', 'generated (n = 3)', 'target, 3']

    def test_the_target_is_always_in_sight(self):
        ax = plot.plot_property_histogram({'a': [1.0], 'b': [2.0]}, target=-5.0)
        assert ax.get_xlim()[0] < -5 and len(ax.patches) == 4

    def test_outside_of_limits_goes_to_the_last_bins(self):
        ax = plot.plot_property_histogram([-9.0, 0.5, 9.0, 9.0], limits=(0, 1), bins=4)
        assert ax.patches[1].get_data().values.tolist() == [0.25, 0, 0.25, 0.5]

    def test_nothing_to_draw(self):
        with pytest.raises(ValueError, match='finite'):
            plot.plot_property_histogram([np.nan], [1.0])

    def test_label(self):
        assert plot.property_label('formation_energy') == 'Formation energy (eV/atom)'
        assert plot.property_label('bulk_modulus') == 'bulk modulus'

    def test_what_was_asked_for(self):
        assert asked_for([perovskite(condition_gap=2.0)] * 2, 'gap') == 2.0
        assert asked_for([perovskite(condition_gap=2.0), perovskite(condition_gap=1.0)], 'gap') is None
        assert asked_for([perovskite(condition_gap=2.0), perovskite()], 'gap') is None
        assert asked_for([perovskite()], 'gap') is None


def test_evaluation_shows_the_property_beside_data_and_target():
    images = [perovskite(a, gap=g, condition_gap=0.5) for a, g in ((3.9, 0.4), (4.0, 0.7))]
    data = [perovskite(3.8, gap=1.0), perovskite(4.1, gap=2.0)]
    report = metrics.evaluate_crystals(images, data, prop='gap', cov=False, processes=1)
    axes = plot.plot_evaluation(report, images, data).axes
    assert len(axes) == 6 and axes[2].get_xlabel() == 'gap' and axes[2].lines[0].get_xdata() == [0.5, 0.5]
    assert [t.get_text() for t in axes[2].get_legend().get_texts()] == ['data (n = 2)', 'evaluated (n = 2)', 'target, 0.5']
    report = {'n': 2, 'structural_validity': 1.0, 'formation_energy': {'median': -1.0, 'values': [-1.0, None]}}
    assert 'CHGNet' in plot.plot_evaluation(report, images, data).axes[2].get_xlabel()
