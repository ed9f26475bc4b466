"""The report of overlayers: numbers that are known beforehand, and plain enough for JSON."""

import json

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from ase_diffusion import metrics


def with_energy(atoms, energy):
    """Return a copy that carries an energy in eV."""
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


@pytest.fixture(scope='module')
def model():
    return metrics.ag6_model()


@pytest.fixture(scope='module')
def images(model):
    """The Ag6 model (-10 eV), an image of it by a symmetry of the slab, a worse structure, and one that is not valid."""
    mobile = metrics.mobile_mask(model)
    rotation, shift = metrics.substrate_symmetries(model[~mobile])[7]
    same, worse, broken = model.copy(), model.copy(), model.copy()
    same.positions[mobile] = model.positions[mobile] @ rotation.T + shift
    worse.positions[-1] += (0.0, 0.0, 1.5)
    broken.positions[-1] = broken.positions[-2] + 0.1
    energies = (-10.0, -10.0, -9.5, -3.0)
    return [with_energy(atoms, energy) for atoms, energy in zip((model, same, worse, broken), energies, strict=True)]


def test_a_list_alone(images):
    report = metrics.surface.evaluate(images)
    assert json.loads(json.dumps(report)) == report
    assert (report['n'], report['validity'], report['n_distinct']) == (4, 0.75, 2)
    assert report['uniqueness'] == pytest.approx(2 / 3)
    assert report['energy']['values'] == pytest.approx([0, 0, 0.5, 7])
    assert report['energy']['median'] == pytest.approx(0.25)
    assert report['min_distance_ratio']['smallest'] < 0.2
    assert 'recall' not in report


def test_against_known_structures(images, model):
    reference = [with_energy(model, -10.0), with_energy(model, -10.0), with_energy(images[3], -8.0)]
    reference[2].positions[-1] = model.positions[-1] + (0.0, 0.0, 4.0)
    report = metrics.surface.evaluate(images, reference)
    assert report['n_reference'] == 3
    assert report['recall'] == 0.5  # the model, and not the one with an atom far above
    assert report['novelty'] == 0.5
    success = report['success']
    assert success['share'] == 0.5
    assert success['counts'] == [1, 2]
    assert success['probability'] == pytest.approx([0.5, 0.75])
    assert all(low < p < high for low, p, high in zip(*(success[k] for k in ('low', 'probability', 'high')), strict=True))
    better = metrics.surface.evaluate(images, [with_energy(model, -11.0)])
    assert better['energy']['lowest'] == pytest.approx(1.0)
    assert better['success']['share'] == 0  # the same places, another energy


def test_rows_of_the_table(images, model):
    alone = metrics.surface.report_rows(metrics.surface.evaluate(images))
    assert [row[0] for row in alone][:2] == ['structures', 'valid']
    assert ('valid', '75.0 %', 'no distance below 0.7 of the sum of covalent radii') in alone
    report = metrics.surface.evaluate(images * 4, [with_energy(model, -10)])
    rows = {name: value for name, value, _ in metrics.surface.report_rows(report)}
    assert rows['recall'] == '100.0 %'
    assert rows['success in 10'] == '99.9 %'


def test_without_energies_or_valid_structures(images):
    bare = [atoms.copy() for atoms in images[3:]]
    report = metrics.surface.evaluate(bare, bare)
    assert report['uniqueness'] is None and report['novelty'] is None
    assert 'energy' not in report and report['success']['share'] == 0
    assert metrics.surface.report_rows(report)
    bare[0].positions[-1] = np.nan
    assert metrics.surface.evaluate(bare)['min_distance_ratio']['smallest'] is None


def test_bad_input(images):
    with pytest.raises(ValueError, match='images: a metric needs at least one structure'):
        metrics.surface.evaluate([])
    with pytest.raises(ValueError, match='reference: a metric needs'):
        metrics.surface.evaluate(images, [])
    with pytest.raises(TypeError, match='number 0 is str'):
        metrics.surface.evaluate(['a.traj'])


def test_the_namespaces_have_one_shape():
    for kind in (metrics.surface, metrics.crystal):
        assert callable(kind.evaluate) and callable(kind.report_rows)
    assert metrics.evaluate_crystals is metrics.crystal.evaluate
    assert metrics.report_rows is metrics.crystal.report_rows
