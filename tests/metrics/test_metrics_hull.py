"""Energies above the hull of toy systems, formation energies, S.U.N."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystal_cases import broken, zoo

from ase_diffusion import metrics
from ase_diffusion.errors import MissingDependency


def phase(symbols):
    """Return a crystal of that composition; its structure is nothing to the hull."""
    return Atoms(symbols, cell=[5] * 3, pbc=True)


class TestHull:
    phases, energies = [phase('LiO'), phase('Li2O'), phase('Li2O')], [-1.0, -1.2, 3.0]

    @pytest.mark.parametrize(
        ('symbols', 'energy', 'answer'),
        [
            ('Li2O', -1.2, 0.0),  # on the hull
            ('Li4O2', -1.15, 0.05),
            ('Li3O', -0.85, 0.05),  # 3/4 Li2O and 1/4 Li make -0.9
            ('LiO', -1.1, -0.1),  # below: more stable than all that is known
            ('LiO3', -0.4, 0.1),  # 1/2 LiO and 1/2 O make -0.5
            ('Li', 0.3, 0.3),
            ('NaLi', -0.1, -0.1),  # nothing but the elements
            ('NaLi2O', -0.8, 0.1),  # 3/4 Li2O and 1/4 Na make -0.9
        ],
    )
    def test_two_elements(self, symbols, energy, answer):
        above = metrics.energies_above_hull([phase(symbols)], [energy], self.phases, self.energies)
        assert above == pytest.approx([answer], abs=1e-9)

    def test_no_energy(self):
        above = metrics.energies_above_hull([phase('LiO')] * 2, [np.nan, -0.5], self.phases, [np.nan, -1.2, 3.0])
        assert np.isnan(above[0]) and above[1] == pytest.approx(0.4)  # 3/4 Li2O and 1/4 O make -0.9

    def test_against_pymatgen(self):
        """Many random phases of four elements."""
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
        from pymatgen.core import Composition

        rng = np.random.default_rng(0)
        counts = rng.integers(0, 5, (60, 4)).tolist()
        formulas = [''.join(f'{s}{n}' for s, n in zip(('Li', 'Ti', 'O', 'F'), row, strict=True) if n) for row in counts]
        images = [phase(formula or 'Li') for formula in formulas]
        energies = rng.normal(-0.5, 0.5, 60)
        entries = [PDEntry(Composition(a.get_chemical_formula()), e * len(a)) for a, e in zip(images, energies, strict=True)]
        diagram = PhaseDiagram(entries[20:] + [PDEntry(Composition(s), 0.0) for s in ('Li', 'Ti', 'O', 'F')])
        expected = [diagram.get_decomp_and_e_above_hull(entry, allow_negative=True)[1] for entry in entries]
        for processes in (1, 2):
            above = metrics.energies_above_hull(images, energies, images[20:], energies[20:], processes=processes)
            assert above == pytest.approx(expected, abs=1e-8)
        assert above[20:].min() == pytest.approx(0, abs=1e-8) and above.max() > 0.5

    def test_numbers_must_agree(self):
        with pytest.raises(ValueError, match='phase_energies .* shape'):
            metrics.energies_above_hull([phase('Li')], [0.0], self.phases, [0.0])
        with pytest.raises(ValueError, match='phases'):
            metrics.energies_above_hull([phase('Li')], [0.0], [], [])


class TestFormationEnergies:
    def test_references_are_subtracted(self):
        energies = metrics.formation_energies([phase('Li3O')], [-4.0], references={3: -2.0, 8: -5.0})
        assert energies == pytest.approx([-4 + 0.75 * 2 + 0.25 * 5])

    def test_unknown_elements_are_named(self, caplog):
        energies = metrics.formation_energies([phase('LiO'), phase('Li')], [-4.0, -2.0], references={3: -2.0})
        assert np.isnan(energies[0]) and energies[1] == 0
        assert 'no elemental reference for O' in caplog.text

    def test_the_references_of_this_package(self):
        table = metrics.elemental_references()
        assert len(table) == 88 and table[8] < -3 and all(energy < 1e-6 for energy in table.values())


class TestSun:
    def test_by_hand(self):
        result = metrics.sun([-0.02, 0.05, 0.09, 0.3, np.nan], [1, 1, 0, 1, 1], [1, 0, 1, 1, 1])
        assert result['stable'] == pytest.approx(0.6) and result['sun'] == pytest.approx(0.2)
        assert result['shares'] == pytest.approx({'0': 0.2, '0.08': 0.4, '0.1': 0.6})
        assert result['median'] == pytest.approx(0.07) and result['n'] == 5
        assert metrics.sun([0.05, 1e-9], [1, 1], [1, 1], stable=0.0)['sun'] == 0.5  # rounding does not leave the hull

    @pytest.mark.parametrize('arguments', [([], [], []), ([0.1], [1, 1], [1]), ([0.1], [1], [])])
    def test_numbers_must_agree(self, arguments):
        with pytest.raises(ValueError, match='shapes'):
            metrics.sun(*arguments)


class TestChgnet:
    def test_it_may_be_missing(self, hide):
        hide('chgnet')
        with pytest.raises(MissingDependency, match='chgnet'):
            metrics.chgnet_energies(zoo()[:1])

    def test_energies(self, capsys):
        pytest.importorskip('chgnet', reason='pip install chgnet')
        alone = Atoms('He', cell=[40] * 3, pbc=True)
        images = [*broken()[:2], bulk('NaCl', 'rocksalt', a=5.64), alone, bulk('Cu', 'fcc', a=3.61)]
        energies = metrics.chgnet_energies(images, batch_size=2)
        assert np.isfinite(energies).tolist() == [False, False, True, False, True]
        assert not capsys.readouterr().out
        formation = metrics.formation_energies(images, energies)
        assert formation[2] == pytest.approx(-2.1, abs=0.1)  # Materials Project, NaCl: -2.10 eV/atom
        assert formation[4] == pytest.approx(0.0, abs=0.1)
