"""Fingerprints, coverage, Wasserstein distances, K-S statistics, success rates."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from crystal_cases import broken, disguised, perovskite, rattled, zoo
from scipy.stats import ks_2samp

from ase_diffusion import metrics
from ase_diffusion.metrics.crystal.structures import density

ROCKSALT, CSCL, DIAMOND = bulk('NaCl', 'rocksalt', a=5.64), bulk('CsCl', 'cesiumchloride', a=4.12), bulk('C', 'diamond', a=3.57)
WEIGHT = {4: 12, 6: 22, 8: 29}  # place of the weight of a coordination number in the fingerprint
MOTIF = {4: 14, 6: 24, 8: 30}  # tetrahedral, octahedral, body-centred cubic


class TestFingerprints:
    @pytest.mark.parametrize(('atoms', 'number'), [(DIAMOND, 4), (ROCKSALT, 6), (CSCL, 8)], ids=['diamond', 'rocksalt', 'CsCl'])
    def test_ideal_surroundings(self, atoms, number):
        (values,) = metrics.structure_fingerprints([atoms])
        assert values.shape == (61,)
        assert 0.9 < values[WEIGHT[number]] <= 1
        assert values[MOTIF[number]] == pytest.approx(values[WEIGHT[number]], abs=0.01)  # the order parameter itself is 1

    def test_the_choice_of_the_cell_is_nothing(self):
        one, other = (metrics.structure_fingerprints([atoms])[0] for atoms in (perovskite(), disguised(perovskite())))
        assert one == pytest.approx(other, abs=1e-3)

    def test_broken_crystals_have_none(self):
        values = metrics.structure_fingerprints([*broken(), DIAMOND])
        assert np.isnan(values).all(1).tolist() == [True] * len(broken()) + [False]

    def test_elements_by_hand(self):
        """Atomic number and Pauling electronegativity: minimum, maximum, range, mean, average deviation, mode."""
        salt, oxide = metrics.composition_fingerprints([ROCKSALT, perovskite()], scale=False)
        assert salt.shape == (132,)
        assert salt[:6] == pytest.approx([11, 17, 6, 14, 3, 11])  # of two equally frequent ones the mode is the lower
        assert salt[42:48] == pytest.approx([0.93, 3.16, 2.23, 2.045, 1.115, 0.93])
        assert oxide[:6] == pytest.approx([8, 38, 30, 16.8, (21.2 + 5.2 + 3 * 8.8) / 5, 8])

    def test_the_scale_is_that_of_real_crystals(self):
        scaled = metrics.composition_fingerprints(zoo())
        assert np.isfinite(scaled).all() and 0.3 < np.median(np.abs(scaled)) < 1.5


class TestCoverage:
    reference = (np.zeros((4, 61)) + np.arange(4)[:, None] * np.eye(61)[0], np.zeros((4, 132)))

    def test_by_hand(self):
        """Structures at 0, 1, 2, 3 and at 0.1, 0.2, 9: two of three are near one, one of four is met."""
        images = (np.array([0.1, 0.2, 9])[:, None] * np.eye(61)[0], np.zeros((3, 132)))
        result = metrics.coverage(images, self.reference, cutoffs=(0.3, 1))
        assert result == {'recall': 0.25, 'precision': pytest.approx(2 / 3), 'cutoffs': [0.3, 1.0]}

    def test_both_distances_count(self):
        images = (self.reference[0], self.reference[1] + 0.5)
        assert metrics.coverage(images, self.reference, cutoffs=(0.1, 6))['recall'] == 1
        assert metrics.coverage(images, self.reference, cutoffs=(0.1, 5))['precision'] == 0  # 0.5 sqrt(132) = 5.7

    def test_no_fingerprint_is_no_cover(self):
        images = (self.reference[0].copy(), self.reference[1])
        images[0][0] = np.nan
        result = metrics.coverage(images, self.reference, cutoffs='carbon')
        assert result == {'recall': 0.75, 'precision': 0.75, 'cutoffs': [0.2, 4.0]}

    def test_crystals(self):
        images = [ROCKSALT, CSCL]
        assert metrics.coverage(images, [disguised(ROCKSALT), disguised(CSCL), DIAMOND])['recall'] == pytest.approx(2 / 3)

    @pytest.mark.parametrize('cutoffs', ['xy', (1,), (0, 1), None, ('a', 'b')])
    def test_unknown_cutoffs(self, cutoffs):
        with pytest.raises(ValueError, match='perovskite'):
            metrics.coverage(self.reference, self.reference, cutoffs=cutoffs)

    def test_fingerprints_that_do_not_fit_together(self):
        with pytest.raises(ValueError, match='pairs'):
            metrics.coverage((self.reference[0], self.reference[1][:2]), self.reference)


class TestWasserstein:
    def test_a_shift_of_the_density(self):
        """All cells twice as large: the distance is half the mean density, that of the elements 0."""
        images = zoo()
        larger = [atoms.copy() for atoms in images]
        for atoms in larger:
            atoms.set_cell(atoms.cell.array * 2 ** (1 / 3), scale_atoms=True)
        mean = np.mean([density(atoms) for atoms in images])
        result = metrics.wasserstein_distances(images, larger)
        assert result == {'density': pytest.approx(mean / 2), 'elements': 0, 'n': len(images)}

    def test_only_valid_ones_count(self):
        result = metrics.wasserstein_distances([*broken(), ROCKSALT, bulk('NaCl', 'rocksalt', a=5.64)], [bulk('Cu'), *broken()])
        assert result['n'] == 2 and result['elements'] == 1
        assert np.isnan(metrics.wasserstein_distances(broken(), zoo())['density'])

    def test_the_draw(self):
        images = [bulk('Cu', a=3.6 + 0.01 * k) for k in range(30)]
        one, same, other = (metrics.wasserstein_distances(images, images, samples=5, rng=rng) for rng in (1, 1, 2))
        assert one == same != other and one['n'] == 5
        with pytest.raises(ValueError, match='samples'):
            metrics.wasserstein_distances(images, images, samples=0)


class TestKolmogorovSmirnov:
    def test_against_scipy(self):
        images, reference = zoo(), [rattled(atoms, 0.05, k) for k, atoms in enumerate(zoo()[:6])]
        ours = metrics.ks_statistics(images, reference)
        assert list(ours) == ['a', 'b', 'c', 'alpha', 'beta', 'gamma', 'space_group', 'Z', 'density', 'n_elements']
        numbers = [np.concatenate([atoms.numbers for atoms in each]) for each in (images, reference)]
        assert ours['Z'] == pytest.approx(ks_2samp(*numbers).statistic)
        lengths = [metrics.crystal_features(each)['a'] for each in (images, reference)]
        assert ours['a'] == pytest.approx(ks_2samp(*lengths).statistic)
        assert 0 < ours['space_group'] <= 1  # some became triclinic

    def test_extremes(self):
        same = metrics.ks_statistics(zoo(), [disguised(atoms) for atoms in zoo()])
        assert {value for name, value in same.items() if name != 'Z'} == {0} and same['Z'] < 0.01
        assert metrics.ks_statistics([bulk('Cu')], [bulk('Au')], names=['Z', 'density']) == {'Z': 1, 'density': 1}
        assert np.isnan(metrics.ks_statistics(broken(), zoo(), names=['a'])['a'])

    def test_unknown_names(self):
        with pytest.raises(ValueError, match="'mass'"):
            metrics.ks_statistics(zoo(), zoo(), names=['mass'])


class TestSuccess:
    def test_percentiles(self):
        result = metrics.success_rates([-1, 5, 10.5, 40, np.nan], np.arange(101.0))
        assert result['thresholds'] == {'5': 5, '10': 10, '15': 15} and result['n'] == 5
        assert [result[name] for name in ('SR5', 'SR10', 'SR15')] == pytest.approx([0.4, 0.4, 0.6])

    def test_the_data_themselves(self):
        values = np.random.default_rng(0).normal(size=2000)
        assert metrics.success_rates(values, values, percentiles=[30])['SR30'] == pytest.approx(0.3, abs=1e-3)

    def test_those_that_were_lost_count(self):
        assert metrics.success_rates([0.0], np.arange(100.0), total=4)['SR5'] == 0.25

    @pytest.mark.parametrize('arguments', [([], [1.0]), ([1.0], []), ([1.0], [np.nan])])
    def test_nothing_to_compare(self, arguments):
        with pytest.raises(ValueError, match='finite'):
            metrics.success_rates(*arguments)

    def test_no_percentile(self):
        with pytest.raises(ValueError, match='between 0 and 100'):
            metrics.success_rates([1.0], [1.0], percentiles=[101])

    def test_where_properties_are(self):
        images = zoo()[:4]
        images[0].info['key_value_pairs'] = {'gap': 1.5}
        images[1].info['gap'] = 2.5
        images[2].calc = SinglePointCalculator(images[2], energy=-3.0)
        assert metrics.property_values(images, 'gap') == pytest.approx([1.5, 2.5, np.nan, np.nan], nan_ok=True)
        assert metrics.property_values(images, 'energy')[2] == -3
        with pytest.raises(ValueError, match=r"'band_gap'; there are: gap"):
            metrics.property_values(images, 'band_gap')
