"""Structures that are none, one group of many, exploded cells: invalid, counted, and cheap."""

import json
import logging
import re
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.constraints import FixAtoms

from ase_diffusion import metrics
from ase_diffusion.metrics.crystal.matching import SAME, _reduce, _same
from ase_diffusion.metrics.crystal.structures import cut_vacuum
from ase_diffusion.metrics.reports import plain
from ase_diffusion.utils.unread import unread

GOOD = [bulk('NaCl', 'rocksalt', a=5.64), bulk('MgO', 'rocksalt', a=4.21)]
ODD = [
    Atoms(cell=[3] * 3, pbc=True),
    molecule('H2O'),
    Atoms('X2', [[0, 0, 0], [2, 2, 2]], cell=[4] * 3, pbc=True),
    unread('no data_ line'),
    Atoms('Cu', [[np.nan] * 3], cell=[3] * 3, pbc=True),
]


def test_what_is_no_crystal_is_invalid_and_the_others_are_judged(caplog):
    images = [GOOD[0], *ODD, GOOD[1]]
    with caplog.at_level(logging.WARNING):
        report = metrics.evaluate_crystals(images, GOOD, targets=[GOOD[0], *[GOOD[1]] * 6], processes=1)
    assert report['n'] == 7 and report['n_unread'] == 1 and report['n_no_crystal'] == 3
    for name in ('structural_validity', 'validity', 'uniqueness', 'prediction'):
        value = report[name]['match_rate'] if name == 'prediction' else report[name]
        assert value == pytest.approx(2 / 7), name
    assert '4 of 7 structures are no crystals' in caplog.text and 'number 1 has no atoms' in caplog.text
    json.dumps(report, allow_nan=False)
    assert '1 could not be read, 3 are no crystals' in str(metrics.report_rows(report))
    assert metrics.compositional_validity(images).tolist() == [True, False, False, False, False, True, True]
    assert np.isnan(metrics.composition_fingerprints(images)[1:5]).all()


def test_a_target_that_cannot_be_read_is_counted_and_no_pair_shifts():
    found = metrics.match_rate([unread('x'), GOOD[1], GOOD[0]], [GOOD[0], GOOD[1], unread('y')], processes=1)
    assert found['match_rate'] == 0.5 and found['n'] == 2 and found['n_unread'] == 1 and found['rms'][0] is None


@pytest.mark.parametrize('symprec', [0, -1, np.nan, None, 'fine'])
def test_a_tolerance_that_spglib_cannot_take_does_not_end_the_process(symprec):
    with pytest.raises(ValueError, match='symprec is a tolerance in A, positive'):
        metrics.crystal_features(GOOD, symprec=symprec, processes=1)


def test_nothing_is_no_structure():
    images = []
    for site in ('fcc', 'hcp', 'ontop', 'bridge'):
        images.append(fcc111('Ag', (2, 2, 2), a=4.16, vacuum=8))
        add_adsorbate(images[-1], 'O', 1.3, site)
        images[-1].set_constraint(FixAtoms(indices=range(9)))
    assert metrics.duplicates([*images, images[1]]) == [0, 1, 2, 3, 1]
    odd = [ODD[0], ODD[2], ODD[4]]
    assert metrics.duplicates(odd + odd) == list(range(6))
    assert metrics.validity(odd) == 0 and metrics.validity(images[0]) == 1
    close = Atoms('Ag2', [[0, 0, 0], [0, 0, 0.5]], cell=[9] * 3, constraint=FixAtoms([0, 1]))
    assert not metrics.is_valid(close)


@pytest.mark.parametrize('length', [600.0, 1e5])
@pytest.mark.parametrize('shape', ['cube', 'needle', 'sheet'])
def test_exploded_cells_cost_nothing(length, shape):
    cell = {'cube': [length] * 3, 'needle': [length, 3, 3], 'sheet': [length, length, 3]}[shape]
    atoms = Atoms('NaCl', [[0, 0, 0], [2.4, 0, 0]], cell=cell, pbc=True)
    for name in ('structural_validity', 'crystal_features', 'unique', 'structure_fingerprints', 'duplicates'):
        begin = time.process_time()
        getattr(metrics, name)([atoms, atoms])
        assert time.process_time() - begin < 10, name  # minutes before, or no end
    assert metrics.min_distance_ratio(atoms) == pytest.approx(2.4 / 2.68, abs=0.01)


def test_vacuum_is_cut_and_distances_stay():
    atoms = Atoms('H3', [[1, 1, 299], [1, 1, 1], [2, 1, 100]], cell=[[8, 0, 0], [0, 8, 0], [0, 3, 300]], pbc=True)
    cell = atoms.cell.array.copy()
    cut = cut_vacuum(atoms)
    assert (atoms.cell.array == cell).all()  # the input is not changed
    assert cut.cell.volume == pytest.approx(64 * 52, rel=0.05) and cut.get_distance(0, 1, mic=True) == pytest.approx(
        atoms.get_distance(0, 1, mic=True), abs=0.05
    )
    assert cut_vacuum(GOOD[0]) is GOOD[0]


def polymorphs(n, seed=0):
    rng = np.random.default_rng(seed)
    images = [bulk('C', 'diamond', a=3.57), bulk('C', 'fcc', a=3.5), bulk('C', 'hcp', a=2.5, c=4.0), bulk('C', 'sc', a=2.4)]
    more = [
        Atoms('C2', scaled_positions=[[0, 0, 0], rng.uniform(0.3, 0.7, 3)], cell=[3, 3.5, 4 + k % 3], pbc=True) for k in range(n)
    ]
    return [images[k] for k in rng.integers(0, 4, n)] + more


def test_one_formula_is_shared_among_processes_and_gives_what_a_loop_gives(capsys):
    images = polymorphs(12)
    structures, firsts, expected = [_reduce(atoms) for atoms in images], [], []
    for k, one in enumerate(structures):
        same = (j for j in firsts if len(structures[j]) == len(one) and _same(structures[j], one, tuple(SAME.values())))
        expected.append(next(same, k))
        firsts += [k] if expected[-1] == k else []
    for processes in (1, 2):
        assert metrics.crystal_duplicates(images, processes=processes, progress=processes == 2) == expected
    shown = re.findall(r'unique:[^\r\n]*?(\d+)/(\d+)', capsys.readouterr().err)
    totals = {int(total) for _, total in shown}
    assert len(totals) == 1 and totals.pop() > 60


def test_parts_of_a_report_come_as_they_are_done():
    parts = []
    metrics.evaluate_crystals(GOOD, GOOD, processes=1, cov=False, on_part=lambda report: parts.append(set(report)))
    assert all(a <= b for a, b in zip(parts, parts[1:], strict=False)) and 'validity' in parts[0] and 'uniqueness' not in parts[0]


def test_numbers_of_numpy_are_numbers():
    report = plain({'a': np.float32(0.5), 'b': np.int64(3), 'c': np.bool_(True), 'd': [np.float64('nan')], 'e': np.array([1.5])})
    assert json.loads(json.dumps(report)) == {'a': 0.5, 'b': 3, 'c': True, 'd': [None], 'e': [1.5]}


def test_one_element_beyond_chgnet_loses_one_energy(monkeypatch, caplog):
    """A model whose batches fail with americium; the others keep their energies."""

    class Model:
        graph_converter = staticmethod(lambda structure: structure)

        @classmethod
        def load(cls, **options):
            return cls()

        def predict_graph(self, graphs, **options):
            if any('Am' in str(graph.composition) for graph in graphs):
                raise IndexError('index out of range in self')
            return [{'e': -float(len(graph))} for graph in graphs]

    monkeypatch.setattr('ase_diffusion.metrics.crystal.hull.chgnet_class', lambda: Model)
    with caplog.at_level(logging.WARNING):
        energies = metrics.chgnet_energies([GOOD[0], bulk('Am', 'fcc', a=4.9), GOOD[1], ODD[0]])
    assert energies[[0, 2]].tolist() == [-2, -2] and np.isnan(energies[[1, 3]]).all()
    assert 'number 1 (Am)' in caplog.text and '2 of 4' in caplog.text


def test_neighbors_of_sparse_cells_are_those_of_ase():
    from ase.neighborlist import neighbor_list

    from ase_diffusion.utils.atoms import _sparse_neighbors

    rng = np.random.default_rng(0)
    for _ in range(10):
        cell, pbc = 4 * np.eye(3) + rng.normal(size=(3, 3)), rng.random(3) < 0.6
        atoms = Atoms('H8', scaled_positions=rng.uniform(-2, 2, (8, 3)), cell=cell, pbc=pbc)
        i, _, d = _sparse_neighbors(atoms.positions, atoms.cell.array, atoms.pbc, 4.0)
        other, _, distances = neighbor_list('ijd', atoms, 4.0)
        assert np.allclose(np.sort(d), np.sort(distances)) and np.array_equal(
            np.bincount(i, minlength=8), np.bincount(other, minlength=8)
        )


def test_one_prediction_and_what_is_none():
    assert metrics.match_rate(GOOD[0] * 2, GOOD[0], processes=1)['match_rate'] == 1
    for wrong in (None, [None], 3):
        with pytest.raises(TypeError, match='predictions'):
            metrics.match_rate(wrong, GOOD[:1], processes=1)


def test_success_rates_need_data():
    with pytest.raises(ValueError, match='pass reference or known together with prop'):
        metrics.evaluate_crystals(GOOD, prop='band_gap', processes=1)
