"""Tables of parameters, and how pairs are made of them."""

import numpy as np
import pytest

from ase_diffusion.porous import PROBES, SILICA, UFF, Probe, pair_parameters


def test_methane_in_silica_is_the_explicit_pair():
    assert pair_parameters(['O', 'Si'], 'CH4')['O'] == (115.0, 3.47)
    assert pair_parameters(['Si'], 'CH4')['Si'][0] == 0


def test_silica_mixes_to_the_explicit_pair():
    methane = PROBES['CH4']
    assert pair_parameters(['O'], (methane.epsilon, methane.sigma))['O'] == pytest.approx((115.0, 3.47))


def test_lorentz_and_berthelot():
    epsilon, sigma = pair_parameters(['O'], 'Ar')['O']
    assert epsilon == pytest.approx(np.sqrt(119.8 * SILICA['O'][0]))
    assert sigma == pytest.approx((3.405 + SILICA['O'][1]) / 2)


def test_uff():
    assert len(UFF) == 103 and list(UFF)[0] == 'H' and list(UFF)[-1] == 'Lr'
    for symbol, x, depth in (('H', 2.886, 0.044), ('O', 3.5, 0.06), ('Zn', 2.763, 0.124), ('U', 3.395, 0.022)):
        epsilon, sigma = UFF[symbol]
        assert sigma == pytest.approx(x / 2 ** (1 / 6)) and epsilon == pytest.approx(depth * 4184 / 8.314462618, rel=1e-5)
    assert pair_parameters(['Al'], 'CH4')['Al'][0] == pytest.approx(np.sqrt(148 * UFF['Al'][0]))
    assert pair_parameters(['O'], 'CH4', 'uff')['O'][0] == pytest.approx(np.sqrt(148 * UFF['O'][0]))  # not the explicit pair


def test_users_extend_the_tables(monkeypatch):
    monkeypatch.setitem(PROBES, 'H2', Probe('H2', 36.7, 2.96, {'O': (66.0, 2.89)}))
    assert pair_parameters(['O'], 'H2')['O'] == (66.0, 2.89)
    mine = pair_parameters(['O', 'Si', 'X'], 'H2', {'O': (50.0, 3.0), 'X': (1.0, 2.0)})
    assert mine['O'] == pytest.approx((np.sqrt(50 * 36.7), 2.98))  # given by the user, so mixed
    assert mine['Si'][0] == 0 and mine['X'][1] == pytest.approx(2.48)


@pytest.mark.parametrize(('numbers', 'pairs'), [((-1, 3), {}), ((1, 0), {}), ((np.nan, 3), {}), ((1, 3), {'O': (1, -2)})])
def test_a_probe_of_wrong_numbers(numbers, pairs):
    with pytest.raises(ValueError, match='epsilon >= 0'):
        Probe('mine', *numbers, pairs)
