"""Validity of structures and compositions, and what distributions are made of."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from crystal_cases import broken, disguised, perovskite, zoo

from ase_diffusion import metrics
from ase_diffusion.metrics.crystal.structures import check_crystals, density, reduced_formula
from ase_diffusion.representations.charges import is_charge_neutral

MANY = {
    'check': lambda images: check_crystals(images),
    'structure': metrics.structural_validity,
    'composition': metrics.compositional_validity,
    'unique': metrics.unique,
    'features': metrics.crystal_features,
    'fingerprints': metrics.crystal_fingerprints,
    'evaluate': metrics.evaluate_crystals,
}


@pytest.mark.parametrize('function', MANY.values(), ids=MANY)
class TestWhatIsRefused:
    def test_nothing(self, function):
        with pytest.raises(ValueError, match='at least one crystal'):
            function([])

    def test_no_atoms(self, function):
        with pytest.raises(ValueError, match='number 0 has no atoms'):
            function([Atoms(cell=[3] * 3, pbc=True)])

    def test_what_is_not_periodic(self, function):
        with pytest.raises(ValueError, match=r'number 0 .* pbc'):
            function([molecule('H2O')])

    def test_other_objects(self, function):
        with pytest.raises(TypeError, match='str'):
            function(['Cu'])


@pytest.mark.parametrize('bad', [Atoms(cell=[3] * 3, pbc=True), molecule('H2O')], ids=['no atoms', 'not periodic'])
def test_one_that_is_no_crystal_counts_as_invalid_and_ends_nothing(bad):
    images = [bulk('Cu'), bad]
    for function in (metrics.structural_validity, metrics.compositional_validity, metrics.unique):
        assert function(images).tolist() == [True, False]


class TestStructure:
    def test_real_crystals(self):
        assert metrics.structural_validity(zoo()).all()
        assert metrics.structural_validity([disguised(atoms) for atoms in zoo()]).all()

    def test_broken_ones(self):
        assert metrics.structural_validity(broken()).tolist() == [False] * len(broken())

    @pytest.mark.parametrize(('distance', 'answer'), [(0.49, False), (0.5, True), (0.51, True)])
    def test_the_border(self, distance, answer):
        atoms = Atoms('H2', positions=[[0, 0, 0], [distance, 0, 0]], cell=[5] * 3, pbc=True)
        assert metrics.structural_validity([atoms]).tolist() == [answer]

    @pytest.mark.parametrize(('a', 'answer'), [(0.714, False), (0.75, True)])
    def test_the_smallest_volume(self, a, answer):
        """An fcc crystal whose distances are 0.505 A has 0.091 A^3 per atom: just too small."""
        assert metrics.structural_validity([bulk('H', 'fcc', a=a)]).tolist() == [answer]

    def test_the_choice_of_the_cell_is_nothing(self):
        """A cell that is so skew that its planes are 0.1 A apart has the same distances."""
        atoms = bulk('NaCl', 'rocksalt', a=5.64, cubic=True)
        cell = atoms.cell.array
        atoms.set_cell(np.array([cell[0], cell[1] + 40 * cell[0], cell[2] - 37 * cell[1] + 3 * cell[0]]))
        assert metrics.structural_validity([atoms]).all()
        atoms.positions[1] = atoms.positions[0] + [0.2, 0.2, 0.2] + cell[1]
        assert not metrics.structural_validity([atoms]).any()


class TestComposition:
    @pytest.mark.parametrize(
        ('symbols', 'answer'),
        [
            ('NaCl', True),
            ('NaCl2', False),
            ('TiO2', True),
            ('SrTiO3', True),
            ('Al2O3', True),
            ('AlO', True),
            ('MgF', True),
            ('MgF3', False),
            ('Na2Cl2', True),
            ('Fe3O4', False),
            ('LiHe', False),
            ('CsAu', True),
            ('Cu3Au', True),
            ('Si', True),
            ('He', True),
            ('NaTe4', False),
            ('LiFePO4', True),
        ],
    )
    def test_known_compositions(self, symbols, answer):
        """AlO and MgF pass by Al(+2) and Mg(+1) of the table; Fe3O4 fails: an element has one state only."""
        atoms = Atoms(symbols, pbc=True, cell=[9] * 3)
        assert metrics.compositional_validity([atoms]).tolist() == [answer]

    def test_a_cation_is_less_electronegative(self):
        """Charges cancel in OF2 as O(+2) F(-1), in Be3H2 with any of Be(+1, +2) only if H were lower than -1."""
        assert is_charge_neutral(((8, 1), (9, 2)))
        assert not is_charge_neutral(((1, 2), (4, 3)))

    def test_many_elements_are_no_effort(self):
        """A product of 40 million combinations."""
        numbers = [22, 23, 24, 25, 26, 27, 7, 8, 15, 16]
        assert is_charge_neutral(tuple((z, 1) for z in sorted(numbers)))

    def test_it_agrees_with_the_sum_over_all_combinations(self):
        from itertools import product

        from ase.data import chemical_symbols

        from ase_diffusion.representations.charges import oxidation_states

        rng, table, answers = np.random.default_rng(1), oxidation_states(), []
        for _ in range(300):
            numbers = sorted(rng.choice(np.arange(1, 84), 3, replace=False).tolist())
            counts = rng.integers(1, 5, 3).tolist()
            counts = [c // np.gcd.reduce(counts) for c in counts]
            elements = [table[z] for z in numbers]
            expected = all(metal for _, metal, _ in elements)
            if not any(x is None for x, _, _ in elements):
                for states in product(*(states for _, _, states in elements)):
                    charge = sum(s * c for s, c in zip(states, counts, strict=True))
                    cations = [x for s, (x, _, _) in zip(states, elements, strict=True) if s > 0]
                    anions = [x for s, (x, _, _) in zip(states, elements, strict=True) if s < 0]
                    expected |= charge == 0 and max(cations) < min(anions)
            answer = is_charge_neutral(tuple(zip(numbers, map(int, counts), strict=True)))
            assert answer == expected, [chemical_symbols[z] for z in numbers]
            answers.append(answer)
        assert 30 < sum(answers) < 270


class TestFeatures:
    def test_known_values(self):
        features = metrics.crystal_features([bulk('Cu', 'fcc', a=3.6, cubic=True), perovskite()])
        assert features['space_group'].tolist() == [225, 221]
        assert features['a'] == pytest.approx([3.6 / np.sqrt(2), 3.9], abs=1e-4)
        assert features['alpha'] == pytest.approx([60, 90])
        assert features['n_elements'].tolist() == [1, 3]
        assert sorted(features['Z'].tolist()) == [8, 8, 8, 22, 29, 29, 29, 29, 38]

    def test_density(self):
        assert density(bulk('Cu', 'fcc', a=3.615)) == pytest.approx(8.935, abs=2e-3)

    def test_the_cell_is_nothing(self):
        one, other = (metrics.crystal_features(images) for images in (zoo(), [disguised(atoms) for atoms in zoo()]))
        for name in set(one) - {'Z'}:
            assert one[name] == pytest.approx(other[name], abs=1e-6), name

    def test_broken_ones_have_none(self):
        features = metrics.crystal_features([*broken(), bulk('Cu')])
        assert np.isnan(features['a']).tolist() == [True] * len(broken()) + [False]
        assert features['Z'].tolist() == [29]

    def test_reduced_formula(self):
        assert reduced_formula(disguised(perovskite())) == ((8, 3), (22, 1), (38, 1))
