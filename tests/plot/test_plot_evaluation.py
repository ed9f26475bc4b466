"""The page of an evaluation."""

from ase.build import bulk

from ase_diffusion import metrics, plot

IMAGES = [bulk('Cu', a=3.6), bulk('NaCl', 'rocksalt', a=5.64), bulk('MgO', 'rocksalt', a=4.2)]


def labels(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_all_panels():
    report = metrics.evaluate_crystals(IMAGES, IMAGES[1:], cov=False)
    shares, ks, densities, elements = plot.plot_evaluation(report, IMAGES, IMAGES[1:]).axes
    assert labels(shares) == ['structural validity', 'compositional validity', 'unique', 'novel']
    assert [bar.get_width() for bar in shares.patches][:3] == [100, 100, 100]
    assert len(ks.patches) == len(report['ks'])
    assert len(densities.patches) == 2 and len(elements.containers) == 2


def test_energies_above_the_hull_take_the_last_panel():
    report = {'n': 3, 'structural_validity': 1.0, 'stability': {'sun': 0.5, 'limit': 0.1, 'above_hull': [0.0, 0.2, None]}}
    shares, _, _, hull = plot.plot_evaluation(report, IMAGES).axes
    assert labels(shares) == ['structural validity', 'S.U.N.']
    assert sum(bar.get_height() for bar in hull.patches) == 2


def test_nothing_to_draw_is_said():
    report = {'n': 1, 'structural_validity': 0.0}
    texts = [[text.get_text() for text in ax.texts] for ax in plot.plot_evaluation(report).axes]
    assert texts[1:] == [['no reference'], ['no valid crystals'], ['no valid crystals']]
