"""Crystals with other elements: proportions, charges, seeds, errors."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers

from ase_diffusion.representations.charges import is_charge_neutral
from ase_diffusion.representations.substitution import Substitution, element_tables

METALS = [atomic_numbers[x] for x in ('Li', 'Na', 'K', 'Mg', 'Ca', 'Sr', 'Ti', 'Zr', 'Mn', 'Fe', 'O', 'S', 'F', 'Cl')]


def perovskite():
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    return Atoms('SrTiO3', scaled_positions=sites, cell=[[3.9, 0, 0], [0.2, 3.8, 0], [0.1, 0.3, 4.1]], pbc=True)


def test_distances_stay_in_proportion_and_the_volume_is_that_of_the_atoms():
    atoms, rng, volumes = perovskite(), np.random.default_rng(0), element_tables()[1]
    exchange = Substitution(METALS)
    for _ in range(20):
        new = exchange(atoms, rng)
        ratio = new.get_all_distances(mic=True)[np.triu_indices(5, 1)] / atoms.get_all_distances(mic=True)[np.triu_indices(5, 1)]
        assert np.allclose(ratio, ratio[0]) and np.allclose(new.get_scaled_positions(), atoms.get_scaled_positions())
        assert ratio[0] ** 3 == pytest.approx(volumes[new.numbers].sum() / volumes[atoms.numbers].sum())
        assert set(new.numbers.tolist()) <= set(METALS)
    assert (atoms.numbers == perovskite().numbers).all()  # the crystal itself is not changed


def test_equal_atoms_stay_equal_and_different_ones_different():
    exchange, rng = Substitution(METALS, temperature=100.0), np.random.default_rng(1)  # all elements alike
    for _ in range(50):
        new = exchange(perovskite(), rng).numbers
        assert new[2] == new[3] == new[4] and len(set(new.tolist())) == 3


def test_what_is_neutral_stays_neutral():
    rng = np.random.default_rng(2)
    for old, counts in (([22, 38, 8], [1, 1, 3]), ([11, 17], [1, 1]), ([12, 8], [4, 4])):
        for _ in range(50):
            new, _ = Substitution(METALS, temperature=3.0).draw(old, counts, rng)
            assert is_charge_neutral(tuple(zip(new.tolist(), counts, strict=True)))


def test_similar_elements_come_more_often():
    distances, means = element_tables()[0], []
    for temperature in (0.3, 1.0, 100.0):
        rng, exchange = np.random.default_rng(3), Substitution(METALS, temperature=temperature)
        new = np.array([exchange.draw([11, 17], [1, 1], rng)[0] for _ in range(200)])
        means.append(distances[[11, 17], new].sum(1).mean())
    assert means[0] < 0.8 * means[1] < 0.64 * means[2]


def test_the_same_seed_draws_the_same():
    crystals = [perovskite().numbers, bulk('MgO', 'rocksalt', a=4.2).numbers] * 20
    one, other = (list(Substitution(METALS, 0.5).exchanges(crystals, np.random.default_rng(4))) for _ in range(2))
    assert [a[0] for a in one] == [b[0] for b in other] and all((a[2] == b[2]).all() for a, b in zip(one, other, strict=True))
    assert 10 <= len(one) <= 30  # half of 40
    assert not list(Substitution(METALS, 0.0).exchanges(crystals, np.random.default_rng(4)))


def test_without_a_fitting_exchange_nothing_changes():
    new, ratio = Substitution([12, 8]).draw([8, 12], [1, 1], np.random.default_rng(0))
    assert new.tolist() in ([8, 12], [12, 8])
    new, ratio = Substitution([8]).draw([8], [2], np.random.default_rng(0))
    assert new.tolist() == [8] and ratio == 1.0


@pytest.mark.parametrize('share', [-0.1, 1.5, True, 'half', float('nan')])
def test_bad_shares(share):
    with pytest.raises(ValueError, match='share of the crystals'):
        Substitution(METALS, share)


def test_other_bad_input():
    with pytest.raises(ValueError, match='atomic numbers that may occur'):
        Substitution([])
    with pytest.raises(ValueError, match='temperature is positive'):
        Substitution(METALS, temperature=0.0)
