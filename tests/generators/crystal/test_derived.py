"""Templates of other anonymous formulas: merged and split crystals, and their place among the others."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from ase.spacegroup import crystal

from ase_diffusion import CrystalDiffusion, metrics
from ase_diffusion.generators.bulk import shortest_distance
from ase_diffusion.generators.crystal.bank import anonymous
from ase_diffusion.generators.crystal.derived import derived, none_right, translations
from ase_diffusion.generators.crystal.prototypes import Prototypes, Template, shipped_prototypes
from ase_diffusion.representations.cells import space_group_of
from ase_diffusion.utils.atoms import min_distance_ratio, parse_formula


def same(one, other):
    return metrics.match_rate([one], [other], processes=1)['match_rate'] == 1


def spinel(a, b):
    """Return a spinel in its primitive cell, elements on the tetrahedral and the octahedral sites."""
    sites = {'basis': [(0.125,) * 3, (0.5,) * 3, (0.2624,) * 3], 'spacegroup': 227, 'setting': 2}
    return crystal([a, b, 'O'], **sites, cellpar=[8.1, 8.1, 8.1, 90, 90, 90], primitive_cell=True)


def test_two_elements_become_one_and_the_cell_its_primitive_one():
    bank = Prototypes.from_atoms([bulk('CsAu', 'cesiumchloride', a=4.26)])
    (iron,) = bank.find([26])
    assert len(iron.sites) == 2
    atoms = bank.substituted(iron, 1)
    assert same(atoms, bulk('Fe', 'bcc', a=2.87)) and space_group_of(atoms, 0.01) == 229
    assert atoms.cell.volume == pytest.approx(bank.table['volumes'][26], rel=0.3)
    assert len(bank.substituted(bank.find([26] * 4)[0], 4)) == 4


def test_one_element_on_two_kinds_of_sites_becomes_two():
    bank = Prototypes.from_atoms([spinel('Fe', 'Fe')])
    found = [bank.substituted(template, 14) for template in bank.find(parse_formula('Mg2Al4O8'))]
    assert any(same(atoms, spinel('Mg', 'Al')) for atoms in found)
    assert all(atoms.get_chemical_formula() == 'Al4Mg2O8' for atoms in found)
    assert not bank.find(parse_formula('Mg3Al3O8'))  # no set of equivalent sites has three atoms


def test_volumes_of_split_templates_are_nearer_to_the_sum_of_atomic_volumes():
    for known, formula, kept in ((spinel('Fe', 'Fe'), 'Mg2Al4O8', 0.29), (spinel('Mg', 'Al'), 'Fe6O8', 1.0)):
        volumes = []
        for factor in (1.0, 2.0):
            atoms = known.copy()
            atoms.set_cell(atoms.cell * factor ** (1 / 3), scale_atoms=True)
            bank = Prototypes.from_atoms([atoms])
            assert bank.packing(0) == pytest.approx(atoms.cell.volume / bank.table['volumes'][atoms.numbers].sum())
            new = bank.substituted(bank.find(parse_formula(formula))[0], 14)
            volumes.append(new.cell.volume / bank.table['volumes'][new.numbers].sum())
        assert volumes[1] / volumes[0] == pytest.approx(2**kept)
        assert volumes[0] == pytest.approx(bank.packing(0) / 2 if kept == 1 else np.exp(-0.01) * (bank.packing(0) / 2) ** 0.29)


def test_atoms_that_would_lie_inside_each_other_are_no_template():
    bank, numbers = shipped_prototypes(), parse_formula('Na2Fe7O')
    found = derived(bank, numbers, *anonymous(numbers))
    assert found
    for each in found:
        atoms = bank.substituted(Template(each.row, (), each.difference, sites=each.sites), 10)
        least = (each.shape.least * (atoms.cell.volume / len(atoms)) ** (1 / 3)).min()
        assert least == pytest.approx(shortest_distance(atoms), rel=1e-2)
        assert min_distance_ratio(atoms) > 0.64


def test_both_ways_undo_each_other():
    for known, formula, pairs in (
        (spinel('Mg', 'Al'), 'Fe6O8', [('Fe', 'Mg'), ('Fe', 'Al')]),
        (spinel('Fe', 'Fe'), 'Mg2Al4O8', [('Mg', 'Fe'), ('Al', 'Fe')]),
    ):
        bank, numbers = Prototypes.from_atoms([known]), parse_formula(formula)
        found = derived(bank, numbers, *anonymous(numbers))
        cost = sum(bank.distances[tuple(atomic_numbers[symbol] for symbol in pair)] for pair in pairs)
        assert min(each.difference for each in found) == pytest.approx(cost)
        assert all(each.split is (formula != 'Fe6O8') and sorted(each.sites) == sorted(numbers) for each in found)


def test_translations_are_those_of_the_kinds():
    salt = bulk('NaCl', 'rocksalt', a=5.6, cubic=True)
    scaled = salt.get_scaled_positions()
    assert translations(scaled, salt.cell[:], salt.numbers) == 4
    assert translations(scaled, salt.cell[:], np.ones(8, int)) == 8
    assert translations(scaled + 0.05 * np.eye(8, 3), salt.cell[:], salt.numbers) == 1


@pytest.mark.parametrize('formula', ['Si3O6', 'Y6Al10O24', 'Zr4Ni14', 'Mg17Al12', 'La4Ni2Al2O12'])
def test_every_template_is_of_the_composition_that_was_asked(formula):
    bank, numbers = shipped_prototypes(), parse_formula(formula)
    found = bank.find(numbers, 30)
    assert found
    for template in found:
        assert sorted(bank.substituted(template, len(numbers)).numbers) == sorted(numbers)
    assert sum(template.chance for template in found) < 1.01


def test_quartz_is_found_though_no_crystal_of_two_elements_has_its_structure():
    bank, numbers = shipped_prototypes(), parse_formula('Si3O6')
    sites = [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)]
    quartz = crystal(['Si', 'O'], sites, spacegroup=154, cellpar=[4.916, 4.916, 5.405, 90, 90, 120])
    right = [template for template in bank.find(numbers, 10) if same(bank.substituted(template, 9), quartz)]
    assert right and all(template.sites for template in right)
    images = CrystalDiffusion('Si3O6', rng=0, logfile=None).sample(10)
    (first, *_) = [atoms.info['key_value_pairs'] for atoms in images if same(atoms, quartz)]
    assert first['source'] == 'template' and set(first['template_formula']) == set('NOP') and first['template_chance'] > 0.01


def test_a_space_group_is_that_of_merged_and_split_templates_too():
    bank, numbers = shipped_prototypes(), parse_formula('Si3O6')
    found = [template for template in bank.find(numbers, 30, space_group=154) if template.sites]
    assert found
    assert all(space_group_of(bank.substituted(template, 9), 0.1) == 154 for template in found)


def test_far_templates_and_smaller_ones_are_less_likely_right():
    near, far = np.array([0.5]), np.array([6.0])
    yes, no = np.array([True]), np.array([False])
    assert none_right(near, yes) < none_right(near, no) and none_right(near, yes) < none_right(far, yes)
    assert none_right(near, yes) < -3 and none_right(np.zeros(0), np.zeros(0, bool)) == 0


def test_likely_templates_are_left_alone():
    bank = shipped_prototypes()
    for formula in ('NaCl', 'SrTiO3', 'Ti2O4'):
        assert not any(template.sites for template in bank.find(parse_formula(formula), 20))
    assert isinstance(bank.substituted(bank.find([11, 17])[0]), Atoms)
