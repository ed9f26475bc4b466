"""The report of all metrics: what is in it, that it is JSON, and that it does not depend on the number of processes."""

import json

import numpy as np
import pytest
from ase.build import bulk
from crystal_cases import broken, disguised, rattled, zoo

from ase_diffusion import metrics

COV = {'cov': False}


def with_property(images, values):
    """Return copies that carry a property."""
    images = [atoms.copy() for atoms in images]
    for atoms, value in zip(images, values, strict=True):
        atoms.info['key_value_pairs'] = {'gap': value}
    return images


def test_shares():
    images = [*zoo()[:2], disguised(zoo()[0]), broken()[0]]
    report = metrics.evaluate_crystals(images, zoo()[1:], **COV)
    assert report['structural_validity'] == 0.75 and report['uniqueness'] == 0.5
    assert report['novelty'] == 0.5 and report['unique_novel'] == 0.25  # the first, and its copy
    assert report['compositional_validity'] == 1 and report['validity'] == 0.75
    assert report['n'] == 4 and report['n_reference'] == report['n_known'] == len(zoo()) - 1


def test_it_does_not_depend_on_the_processes():
    images = [rattled(atoms, 0.1, k) for k, atoms in enumerate(zoo()[:8:2] * 2)]
    one, two = (metrics.evaluate_crystals(images, zoo()[:6], known=zoo()[:3], processes=n) for n in (1, 2))
    assert one == two
    assert one['coverage']['recall'] > 0


def test_broken_crystals_alone_make_a_report():
    """Nothing can be measured of them, and that is the answer; it is JSON without nan."""
    report = metrics.evaluate_crystals(broken(), zoo())
    assert report['structural_validity'] == report['uniqueness'] == report['coverage']['precision'] == 0
    assert report['wasserstein']['density'] is None and report['ks']['a'] is None
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert ('Wasserstein, density', '-', 'g/cm^3, 0 valid crystals') in metrics.report_rows(report)


def test_without_a_reference():
    report = metrics.evaluate_crystals(zoo())
    assert set(report) == {'n', 'structural_validity', 'compositional_validity', 'validity', 'uniqueness'}
    assert len(metrics.report_rows(report)) == 5


def test_success_rates():
    known = with_property([bulk('Cu')] * 100, range(100))
    report = metrics.evaluate_crystals(with_property(zoo()[:4], [1, 7, 12, 80]), known=known, prop='gap')
    assert [report['success'][name] for name in ('SR5', 'SR10', 'SR15')] == [0.25, 0.5, 0.75]
    assert ('SR5', '25.0 %', 'gap <= 4.9500') in metrics.report_rows(report)
    with pytest.raises(ValueError, match="'colour'; there are: gap"):
        metrics.evaluate_crystals(known, known=known, prop='colour')


def test_structure_prediction():
    images = [disguised(zoo()[0]), bulk('Cu'), bulk('Cu'), zoo()[1], bulk('Cu'), bulk('Cu')]
    report = metrics.evaluate_crystals(images, targets=zoo()[:3])
    assert report['prediction']['match_rate'] == pytest.approx(2 / 3) and report['prediction']['candidates'] == 2
    with pytest.raises(ValueError, match='got 6 for 4 targets'):
        metrics.evaluate_crystals(images, targets=zoo()[:4])


def test_stability(monkeypatch):
    """A judge that knows the formation energies: the copy of the most stable crystal is not unique, another is known."""
    table = {'ClNa': -2.0, 'Cu': 0.05, 'C2': 0.3, 'ClCs': -2.2}
    references = metrics.elemental_references()

    def judge(images, **options):
        zero = [np.mean([references[z] for z in atoms.numbers]) for atoms in images]
        return np.array([table[atoms.get_chemical_formula()] for atoms in images]) + zero

    monkeypatch.setattr('ase_diffusion.metrics.crystal.hull.chgnet_energies', judge)
    monkeypatch.setattr('ase_diffusion.metrics.crystal.evaluation.chgnet_class', lambda: None)
    salt, caesium = bulk('NaCl', 'rocksalt', a=5.64), bulk('CsCl', 'cesiumchloride', a=4.12)
    images = [salt, salt, caesium, bulk('Cu'), bulk('C')]
    report = metrics.evaluate_crystals(images, known=[caesium], phases=[caesium, salt], chgnet=True)
    assert report['stability']['above_hull'] == pytest.approx([0, 0, 0, 0.05, 0.3], abs=1e-9)
    assert report['stability']['stable'] == 0.8 and report['stability']['sun'] == 0.4 and report['stability']['n_phases'] == 2
    # percentiles of the training set (-2.2), not of all phases
    assert report['success_formation_energy']['thresholds']['15'] == pytest.approx(-2.2)
    assert report['success_formation_energy']['SR15'] == 0.2
    assert ('S.U.N.', '40.0 %', 'stable up to 0.1 eV/atom, unique, novel') in metrics.report_rows(report)


def test_known_crystals_need_not_be_phases(monkeypatch):
    """They get energies of their own for the percentiles; without any there are no success rates."""

    def energies(images, **options):
        return -np.array([*map(len, images)], float)

    monkeypatch.setattr('ase_diffusion.metrics.crystal.hull.chgnet_energies', energies)
    monkeypatch.setattr('ase_diffusion.metrics.crystal.evaluation.chgnet_class', lambda: None)
    zero = metrics.elemental_references()[29]
    one, two = bulk('Cu'), bulk('Cu', cubic=True)
    report = metrics.evaluate_crystals([one], known=[two, two], phases=[one], chgnet=True)
    assert report['success_formation_energy']['thresholds']['5'] == pytest.approx(-4 - zero)
    assert report['stability']['n_phases'] == 1
    assert 'success_formation_energy' not in metrics.evaluate_crystals([one], phases=[one], chgnet=True)


def test_energies_that_crystals_carry_are_not_computed_again(monkeypatch):
    from ase_diffusion.metrics.crystal.evaluation import CHGNET, _chgnet_of

    asked = []
    judge = 'ase_diffusion.metrics.crystal.hull.chgnet_energies'
    monkeypatch.setattr(judge, lambda images, **o: asked.append(len(images)) or [-1.0])
    images = zoo()[:3]
    for atoms, value in zip(images[:2], (-3.0, -4.0), strict=True):
        atoms.info['key_value_pairs'] = {CHGNET: value}
    assert _chgnet_of(images, False).tolist() == [-3, -4, -1] and asked == [1]
