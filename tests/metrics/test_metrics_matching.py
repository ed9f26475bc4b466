"""The same crystal in other clothes is the same, and another one is not."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystal_cases import broken, disguised, perovskite, rattled, zoo

from ase_diffusion import metrics
from ase_diffusion.metrics.crystal.matching import SAME, _groups, _reduce, _same


@pytest.mark.parametrize('processes', [1, 2])
def test_disguises_are_seen_through(processes):
    images = [copy for k, atoms in enumerate(zoo()) for copy in (atoms, disguised(atoms, k), rattled(disguised(atoms, k + 50)))]
    first = metrics.crystal_duplicates(images, processes=processes)
    assert first == [3 * (k // 3) for k in range(len(images))]
    assert metrics.unique(images, processes=processes).tolist() == [k % 3 == 0 for k in range(len(images))]


def test_volumes_are_scaled_and_compositions_are_not():
    images = [perovskite(), perovskite(a=4.3), perovskite('SrZrO3'), perovskite('TiSrO3')]
    assert metrics.crystal_duplicates(images) == [0, 0, 2, 3]  # A and B of a perovskite are not the same place


def test_tolerances_count():
    images = [perovskite(), rattled(perovskite(), 0.25, 3)]
    assert metrics.crystal_duplicates(images, stol=0.5, angle_tol=10, ltol=0.3) == [0, 0]
    assert metrics.crystal_duplicates(images, stol=0.02) == [0, 1]
    with pytest.raises(ValueError, match='positive'):
        metrics.unique(images, stol=0)


def test_broken_ones_are_neither_unique_nor_novel_nor_met():
    images = [*broken(), bulk('Cu')]
    assert metrics.crystal_duplicates(images) == [-1] * len(broken()) + [len(broken())]
    assert metrics.unique(images).sum() == 1
    assert metrics.novel(images, [bulk('Ag')]).tolist() == [False] * len(broken()) + [True]
    assert metrics.match_rate(broken()[:1], [bulk('NaCl', 'rocksalt', a=5.6)])['match_rate'] == 0


@pytest.mark.parametrize('processes', [1, 3])
def test_novelty(processes):
    known = [disguised(atoms) for atoms in zoo()[:6]] * 20  # more comparisons than one task holds
    assert metrics.novel(zoo(), known, processes=processes).tolist() == [False] * 6 + [True] * 4
    with pytest.raises(ValueError, match='known'):
        metrics.novel(zoo(), [])


def test_the_filter_leaves_out_no_match():
    """Pairs of one composition that the filter separates do not match without it either."""
    pure = 2 * [perovskite(), bulk('Si', cubic=True), bulk('Si')]
    images = [rattled(disguised(atoms, k), 0.15, k) for k, atoms in enumerate(pure)]
    images += [bulk('C', 'diamond', a=3.57), Atoms('C4', bulk('C', 'fcc', a=3.5, cubic=True).positions, cell=[3.5] * 3, pbc=True)]
    structures = [_reduce(atoms) for atoms in images]
    together = {(i, j) for rows in _groups(structures).values() for i in rows for j in rows}
    apart = [(i, j) for i in range(len(images)) for j in range(i) if (i, j) not in together]
    assert len(apart) > 10
    assert not [pair for pair in apart if _same(structures[pair[0]], structures[pair[1]], tuple(SAME.values()))]


class TestPrediction:
    def test_perfect_predictions(self):
        result = metrics.match_rate([disguised(atoms) for atoms in zoo()], zoo())
        assert result['match_rate'] == 1 and result['rmse'] == pytest.approx(0, abs=1e-5) and result['n'] == len(zoo())

    def test_wrong_ones(self):
        targets = [bulk('NaCl', 'rocksalt', a=5.6), bulk('Ag')]
        result = metrics.match_rate([bulk('NaCl', 'cesiumchloride', a=3.5), bulk('Cu')], targets)
        assert result['match_rate'] == 0 and np.isnan(result['rmse']) and result['rms'] == [None, None]

    def test_the_distance_is_in_units_of_the_mean_spacing(self):
        """One of two atoms off by d: the RMS after the best shift is d / 2."""
        target = bulk('CsCl', 'cesiumchloride', a=4.0)
        moved = target.copy()
        moved.positions[1] += [0.2, 0, 0]
        result = metrics.match_rate([moved], [target])
        assert result['rmse'] == pytest.approx(0.1 / (target.get_volume() / 2) ** (1 / 3), rel=1e-3)

    def test_the_best_of_several_counts(self):
        good, fair = rattled(perovskite(), 0.01), rattled(perovskite(), 0.1)
        result = metrics.match_rate([[bulk('Cu'), fair, good], [bulk('Cu')] * 3], [perovskite(), perovskite()])
        assert result['match_rate'] == 0.5
        alone = [metrics.match_rate([atoms], [perovskite()])['rmse'] for atoms in (good, fair)]
        assert result['rms'][0] == alone[0] < alone[1]

    def test_numbers_must_agree(self):
        with pytest.raises(ValueError, match='got 1 for 2'):
            metrics.match_rate([bulk('Cu')], [bulk('Cu')] * 2)
