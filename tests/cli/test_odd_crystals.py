"""Odd crystals through evaluate and grid: a right answer, or an error of ours; never a shifted pair or a silent loss."""

import csv
import io
import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ase_diffusion import metrics
from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.porous import adsorption_properties, energy_grid, find_channels
from ase_diffusion.utils.unread import unread

SALTS = [bulk(name, 'rocksalt', a=a) for name, a in (('NaCl', 5.64), ('MgO', 4.21), ('KCl', 6.29), ('LiF', 4.03), ('CaO', 4.81))]
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def cif(atoms):
    file = io.BytesIO()
    ase.io.write(file, atoms, format='cif')
    return file.getvalue().decode()


numbers = st.sampled_from([0, 1, 6, 8, 14, 17, 47, 86, 95, 118])
lengths = st.sampled_from([1e-9, 0.3, 2.0, 4.0, 7.5, 30.0, 600.0, 1e5])
angles = st.sampled_from([0.5, 30.0, 60.0, 90.0, 120.0, 150.0])
places = st.tuples(*[st.sampled_from([-3.7, -0.5, 0.0, 0.1, 0.25, 0.5, 0.9999999, 1.0, 12.3, float('nan')])] * 3)


@st.composite
def crystals(draw):
    """Return a crystal, sane or not."""
    n = draw(st.integers(0, 4))
    parameters = [draw(lengths) for _ in range(3)] + [draw(angles) for _ in range(3)]
    try:
        cell = ase.cell.Cell.fromcellpar(parameters).array
    except AssertionError:  # angles that do not close
        cell = np.diag(parameters[:3])
    if draw(st.booleans()):  # another choice of the cell, perhaps left-handed
        cell = (
            np.array([[1, 0, 0], [draw(st.integers(-4, 4)), 1, 0], [0, draw(st.integers(-4, 4)), draw(st.sampled_from([1, -1]))]])
            @ cell
        )
    atoms = Atoms([draw(numbers) for _ in range(n)], cell=cell, pbc=draw(st.sampled_from([True, True, True, (1, 1, 0)])))
    with np.errstate(all='ignore'):
        atoms.positions = np.array([draw(places) for _ in range(n)]).reshape(-1, 3) @ cell
    return atoms


@FEW
@given(odd=st.lists(crystals(), min_size=1, max_size=3), at=st.integers(0, 4))
def test_metrics_of_odd_crystals(odd, at):
    images = [*SALTS[:at], *odd, *SALTS[at:]]
    rest = [k for k in range(len(images)) if not at <= k < at + len(odd)]
    report = metrics.evaluate_crystals(images, SALTS, targets=images, cov=False, processes=1)
    json.dumps(report, allow_nan=False)
    assert report['n'] == len(images)
    rms = report['prediction']['rms']
    assert all(rms[k] is not None and rms[k] < 1e-3 for k in rest)  # no pair is shifted
    valid = metrics.structural_validity(images)
    assert valid[rest].all() and not any(
        valid[k] for k in range(at, at + len(odd)) if not len(images[k]) or 0 in images[k].numbers
    )
    assert metrics.crystal_duplicates(SALTS + odd, processes=1)[: len(SALTS)] == list(range(len(SALTS)))


@FEW
@given(atoms=crystals())
def test_grids_of_odd_crystals(atoms):
    try:
        grid = energy_grid(atoms, 3, cutoff=5.0, device='cpu')
    except ValueError as error:
        assert str(error)
        return
    assert grid.shape == (3, 3, 3) and np.isfinite(grid).all()
    found = adsorption_properties(grid)
    assert 0 <= found['void_fraction'] <= 1 and found['henry_coefficient'] >= 0
    if found['void_fraction'] == 0:
        assert np.isnan(found['heat_of_adsorption'])
    labels, dimensions = find_channels(grid <= 0, atoms.cell)
    assert labels.max() == len(dimensions) and ((dimensions >= 0) & (dimensions <= 3)).all()


@FEW
@given(
    bad=st.sets(st.integers(0, 4), max_size=3),
    kind=st.sampled_from(['broken', '', 'data_x\n', '<html>', 'data_x\n_cell_length_a ?\n']),
)
def test_tables_with_bad_rows_keep_their_pairs(tmp_path_factory, bad, kind):
    path = tmp_path_factory.mktemp('odd') / 'a.csv'
    rows = [[k, kind if k in bad else cif(atoms)] for k, atoms in enumerate(SALTS)]
    with open(path, 'w', newline='') as file:
        csv.writer(file).writerows([['material_id', 'cif'], *rows])
    images = read_crystals(path, keep_unread=True)
    assert [not len(atoms) for atoms in images] == [k in bad for k in range(5)]
    found = metrics.match_rate(images, SALTS, processes=1)
    assert found['match_rate'] == pytest.approx((5 - len(bad)) / 5) and found['n'] == 5


def test_predictions_that_cannot_be_read_are_misses_of_their_own_targets(call, tmp_path):
    for name, broken in (('pred.csv', 0), ('targ.csv', 4)):
        with open(tmp_path / name, 'w', newline='') as file:
            csv.writer(file).writerows(
                [['material_id', 'cif'], *([k, 'x' if k == broken else cif(a)] for k, a in enumerate(SALTS))]
            )
    status, out, _ = call('evaluate pred.csv --targets targ.csv --quiet --processes 1')
    report = json.loads((tmp_path / 'evaluation.json').read_text())
    assert status == 0 and report['prediction']['match_rate'] == 0.75 and report['prediction']['n_unread'] == 1
    assert report['n'] == 5 and report['n_unread'] == 1 and report['validity'] == 0.8 and 'no data_ line' in report['unread'][0]
    assert '1 could not be read' in out


def test_a_folder_of_cifs(call, tmp_path):
    folder = tmp_path / 'cifs'
    folder.mkdir()
    for k, atoms in enumerate(SALTS):
        (folder / f'{k}.cif').write_text(cif(atoms) if k != 2 else 'broken')
    status, _, _ = call('evaluate cifs --quiet --processes 1 --no-coverage')
    report = json.loads((tmp_path / 'evaluation.json').read_text())
    assert status == 0 and report['n'] == 5 and report['n_unread'] == 1 and report['validity'] == 0.8
    status, out, _ = call('grid cifs --shape 3 --framework uff')
    assert status == 1 and '4 of 5 structures; 1 failed' in out


def test_ctrl_c_keeps_the_numbers_that_are_there(call, tmp_path, monkeypatch):
    ase.io.write(tmp_path / 'a.traj', SALTS)

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr('ase_diffusion.metrics.crystal.evaluation.unique', interrupt)
    status, out, _ = call('evaluate a.traj --quiet --processes 1')
    assert status == 130 and 'structural validity' in out and 'interrupted' in out
    assert json.loads((tmp_path / 'evaluation.json').read_text())['validity'] == 1


def test_any_error_of_a_structure_is_named(call, tmp_path, monkeypatch):
    ase.io.write(tmp_path / 'a.traj', SALTS[:2])

    def fail(*args):
        raise OverflowError('cannot convert float infinity to integer')

    status, out, _ = call('grid a.traj --spacing 1e-9')
    assert status == 1 and 'take a larger one' in out and '2 failed' in out
    monkeypatch.setattr('ase_diffusion.cli.grid.compute', fail)
    status, out, _ = call('grid a.traj --shape 3')
    assert status == 1 and 'OverflowError: cannot convert' in out and '2 failed' in out


def test_a_closed_framework_prints_no_heat(call, tmp_path):
    ase.io.write(tmp_path / 'a.cif', bulk('MgO', 'rocksalt', a=4.21))
    status, out, _ = call('grid a.cif --shape 4 --framework uff')
    assert status == 0 and [line.split()[5] for line in out.splitlines() if ' a ' in line] == ['-']


def test_places_of_unread_structures_have_no_properties():
    lost = unread('x')
    lost.info['key_value_pairs'] = {'gap': 0.0}
    values = metrics.property_values([lost, *(atoms.copy() for atoms in SALTS[:0])] + [_with_gap(SALTS[0])], 'gap')
    assert np.isnan(values[0]) and values[1] == 1.0


def _with_gap(atoms):
    atoms = atoms.copy()
    atoms.info['key_value_pairs'] = {'gap': 1.0}
    return atoms
