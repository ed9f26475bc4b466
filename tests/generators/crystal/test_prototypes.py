"""Templates: the bank, its ranking, substitution, and the generator that begins with them."""

import io
import itertools

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.spacegroup import crystal

from ase_diffusion import CrystalDiffusion, metrics
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.generators.crystal.bank import formula_hash
from ase_diffusion.generators.crystal.prototypes import Prototypes, shipped_prototypes
from ase_diffusion.utils.atoms import parse_formula

QUIET = {'logfile': None, 'rng': 0}


def salts():
    """Return rock salt, CsAu, fluorite, zinc blende and a perovskite."""
    images = [bulk('NaCl', 'rocksalt', a=5.64), bulk('CsAu', 'cesiumchloride', a=4.26), bulk('CaF2', 'fluorite', a=5.46)]
    perovskite = crystal(
        ['Sr', 'Ti', 'O'], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.9] * 3 + [90] * 3
    )
    return [*images, bulk('ZnS', 'zincblende', a=5.41), perovskite]


def same(one, other):
    return metrics.match_rate([one], [other], processes=1)['match_rate'] == 1


# the bank


def test_a_bank_gives_back_what_it_was_made_of_within_the_rounding_of_its_file(tmp_path):
    images = salts()
    Prototypes.from_atoms(images, list('abcde')).save(tmp_path / 'bank.npz')
    bank = Prototypes.load(tmp_path / 'bank.npz')
    for row, atoms in enumerate(images):
        found = bank.original(row)
        assert sorted(found.numbers) == sorted(atoms.numbers)
        assert found.cell.volume == pytest.approx(atoms.cell.volume, rel=1e-3)
        assert metrics.match_rate([found], [atoms], processes=1)['rmse'] < 1e-3
    assert bank.groups.tolist() == [225, 221, 225, 216, 221] and bank.name(2) == 'c'


def test_elements_are_assigned_as_the_best_of_all_orders_does():
    bank = shipped_prototypes()
    numbers = parse_formula('KTaGeO5')  # three elements of one count
    (key, (rows, old)) = next((k, v) for k, v in bank.formulas.items() if k == (1, 1, 1, 5))
    difference, order = bank.assign(key, np.array([19, 32, 73, 8]), old)
    for k in range(0, len(rows), 25):
        costs = [
            sum(bank.distances[new, was] for new, was in zip([*three, 8], old[k], strict=True))
            for three in itertools.permutations([19, 32, 73])
        ]
        assert difference[k] == pytest.approx(min(costs))
    assert bank.sizes(numbers)


def test_the_same_formula_comes_back_unchanged_and_a_similar_one_with_its_volume():
    bank = Prototypes.from_atoms(salts())
    (first, *_) = bank.find([11, 17])
    assert first.difference == 0 and bank.substituted(first).cell.volume == pytest.approx(5.64**3 / 4, rel=1e-4)
    (first, *_) = bank.find([19, 17])
    atoms = bank.substituted(first)
    assert bank.formula(first.row) == 'NaCl' and sorted(atoms.symbols) == ['Cl', 'K']
    assert atoms.cell.volume > 5.64**3 / 4 * 1.1
    assert same(atoms, bulk('KCl', 'rocksalt', a=6.29))


def test_elements_that_no_crystal_of_the_bank_has_are_as_large_as_those_above_them():
    bank = Prototypes.from_atoms([bulk('UN', 'rocksalt', a=4.89), bulk('CaF2', 'fluorite', a=5.46)])
    for formula, known in (('AmN', bulk('AmN', 'rocksalt', a=4.995)), ('RaF2', bulk('RaF2', 'fluorite', a=6.368))):
        atoms = bank.substituted(bank.find(parse_formula(formula))[0])
        assert atoms.cell.volume == pytest.approx(known.cell.volume, rel=0.2) and same(atoms, known)


def test_a_cell_of_several_formula_units_is_a_compact_supercell():
    bank = Prototypes.from_atoms(salts())
    atoms = bank.substituted(bank.find([19] * 4 + [17] * 4)[0], 8)
    assert atoms.get_chemical_formula() == 'Cl4K4' and same(atoms, bulk('KCl', 'rocksalt', a=6.29))
    assert atoms.cell.lengths().max() / atoms.cell.lengths().min() < 2.1


def test_templates_of_a_space_group_have_it_after_substitution():
    bank = shipped_prototypes()
    for formula, group in (('Na4Cl4', 225), ('SrTiO3', 221), ('Ti2O4', 136)):
        for template in bank.find(parse_formula(formula), 3, space_group=group):
            atoms = bank.substituted(template, len(parse_formula(formula)))
            assert spglib.get_symmetry_dataset((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), 0.1).number == group


def test_structure_types_that_differ_come_first():
    bank = shipped_prototypes()
    kinds = [bank.table['kind'][t.row] for t in bank.find(parse_formula('Ti2O4'), 5)]
    assert len(set(kinds)) == 5


def test_the_bank_holds_no_formula_of_the_test_split():
    bank = shipped_prototypes()
    held = set(bank.table['held_out'].tolist())
    assert len(held) > 4600
    ends = np.cumsum(bank.natoms)
    numbers = np.repeat(bank.table['elements'], bank.table['counts'])
    assert not held & {formula_hash(part) for part in np.split(numbers, ends[:-1])}
    assert formula_hash([8, 22, 8]) == formula_hash([22, 22, 8, 8, 8, 8]) != formula_hash([8, 22])


@pytest.mark.parametrize('bad', [[], ['NaCl'], [Atoms('H')]])
def test_templates_that_are_no_crystals_are_refused(bad):
    with pytest.raises((ValueError, TypeError), match='templates|structures are ase.Atoms'):
        CrystalDiffusion('NaCl', templates=bad, **QUIET)


# the generator


def test_predictions_come_from_templates_first_each_once_and_say_so():
    log = io.StringIO()
    gen = CrystalDiffusion('Ti2O4', rng=0, logfile=log, templates=2, steps=3, maxtries=200)
    images = [*gen.sample(2), gen.sample()]
    assert [atoms.info['key_value_pairs']['source'] for atoms in images] == ['template', 'template', 'network']
    pairs = images[0].info['key_value_pairs']
    assert pairs['model'] == 'templates' and pairs['template'].startswith('mp-') and 'sampler' not in pairs
    assert images[2].info['key_value_pairs']['sampler'] and images[2].info['key_value_pairs']['model'] == 'mp-le20-prediction'
    rutile = crystal(['Ti', 'O'], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.59, 4.59, 2.96, 90, 90, 90])
    assert same(images[0], rutile)
    assert 'CrystalDiffusion: 2 structures, 2 templates first, renoised_ancestral, 3 steps' in log.getvalue()


def test_the_network_alone_is_what_it_was():
    alone = CrystalDiffusion('TiO2', templates=False, steps=4, maxtries=200, **QUIET).sample()
    named = CrystalDiffusion('TiO2', model='mp-le20-prediction', steps=4, maxtries=200, **QUIET).sample()
    assert np.array_equal(alone.positions, named.positions) and 'source' not in alone.info['key_value_pairs']


@pytest.mark.parametrize('formula', ['Mg8Al16O32', 'Li4Fe4P4O16', 'Y6Al10O24'])
def test_large_cells_are_predicted_and_what_no_one_knows_is_an_error(formula):
    if shipped_prototypes().sizes(parse_formula(formula)) and len(parse_formula(formula)) <= 52:
        atoms = CrystalDiffusion(formula, **QUIET).sample()
        assert sorted(atoms.numbers) == sorted(parse_formula(formula))
    with pytest.raises(ValueError, match='knows cells of up to 20'):
        CrystalDiffusion(formula, templates=False, **QUIET)


def test_where_templates_end_and_the_network_knows_no_such_cell_what_was_accepted_comes():
    with pytest.raises(GenerationFailed, match='no template is left, and Li4Fe4P4O16 has 28 atoms') as failed:
        CrystalDiffusion('Li4Fe4P4O16', templates=1, **QUIET).sample(2)
    assert len(failed.value.images) == 1


def test_a_formula_without_templates_is_said_and_goes_to_the_network():
    log = io.StringIO()
    gen = CrystalDiffusion('Na7Cl5O7', steps=2, maxtries=500, rng=0, logfile=log)
    assert sorted(gen.sample().symbols) == sorted(['Na'] * 7 + ['Cl'] * 5 + ['O'] * 7)
    assert 'templates: no crystal of this anonymous formula and size is known; the network alone' in log.getvalue()


def test_conditions_are_for_the_network_and_the_log_says_so():
    log = io.StringIO()
    gen = CrystalDiffusion('TiO2', model='mp-le20', templates=True, steps=3, maxtries=500, rng=0, logfile=log)
    assert 'template' not in gen.sample(formation_energy=-3.0).info['key_value_pairs']
    assert 'templates: they know no conditions (formation_energy); the network alone' in log.getvalue()
    assert gen.sample().info['key_value_pairs']['source'] == 'template'


def test_a_space_group_is_that_of_the_results():
    for group in (225, 221):
        atoms = CrystalDiffusion('NaCl', space_group=group, **QUIET).sample()
        assert spglib.get_symmetry_dataset((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), 0.1).number == group
    with pytest.raises(ValueError, match='space_group is a number'):
        CrystalDiffusion('NaCl', space_group=231, **QUIET)


@pytest.mark.parametrize('templates', [None, False])
def test_a_space_group_that_no_template_has_is_said_at_once(templates, caplog):
    CrystalDiffusion('NaCl', space_group=225, **QUIET)
    assert not caplog.records
    CrystalDiffusion('NaCl', space_group=230, templates=templates, **QUIET)
    assert 'no template has the space group' in caplog.text
    assert 'CrysTensDiffusion().sample(space_group=230)' in caplog.text


def test_a_network_that_misses_the_space_group_is_given_up_soon(caplog):
    """Templates that came before do not buy it more tries than without them."""
    for templates, left in ((3, 3), (False, 0)):
        gen = CrystalDiffusion('Ti2O4', space_group=136, templates=templates, steps=2, maxtries=4, batch_size=4, **QUIET)
        with pytest.raises(GenerationFailed, match='the network finds space group 136 by chance only') as failed:
            gen.sample(30)
        assert len(failed.value.images) == left and gen.statistics['rejected'] <= 8


def test_structures_of_the_network_say_so_where_no_template_is():
    gen = CrystalDiffusion('NaCl', space_group=230, steps=3, validate=False, **QUIET)
    assert gen.sample().info['key_value_pairs']['source'] == 'network'
    assert 'source' not in gen.perturb(bulk('NaCl', 'rocksalt', a=5.6), 0.3, None).info['key_value_pairs']


def test_perturbing_needs_no_template():
    """Cells that the network does not know come from templates; crystals that it does know are perturbed all the same."""
    gen = CrystalDiffusion(natoms=40, elements=['Na', 'Cl'], all_elements=True, steps=8, validate=False, **QUIET)
    assert len(gen.perturb(bulk('NaCl', 'rocksalt', a=5.6), 0.3, None)) == 2


def test_own_templates_from_a_list_and_from_a_file(tmp_path):
    own = bulk('NaCl', 'wurtzite', a=4.0)
    own.numbers = [11, 11, 17, 17]
    write(tmp_path / 'own.traj', own)
    for given in ([own], tmp_path / 'own.traj'):
        gen = CrystalDiffusion('Na2Cl2', templates=given, **QUIET)
        assert any(gen.templates.bank.name(t.row) == 'template 0' for t in gen.templates.found)
    with pytest.raises(TypeError, match='templates is True, False, a number'):
        CrystalDiffusion('NaCl', templates=own, **QUIET)
    with pytest.raises(ValueError, match="templates need stoich='...', or elements"):
        CrystalDiffusion(templates=True, **QUIET)


def test_templates_and_what_follows_them_are_made_again(tmp_path):
    gen = CrystalDiffusion('Ti2O4', templates=1, steps=3, maxtries=200, **QUIET)
    for atoms in gen.sample(2):
        new = CrystalDiffusion.from_record(atoms).again(atoms)
        assert np.array_equal(new.positions, atoms.positions) and np.array_equal(new.cell[:], atoms.cell[:])


# elements without a formula


def test_all_of_some_elements_begin_with_known_crystals_of_as_many():
    gen = CrystalDiffusion(elements=['Li', 'Fe', 'P', 'O'], all_elements=True, **QUIET)
    images = gen.sample(3)
    assert all(set(atoms.get_chemical_symbols()) == {'Li', 'Fe', 'P', 'O'} for atoms in images)
    assert [atoms.info['key_value_pairs']['source'] for atoms in images] == ['template'] * 3
    assert 'FeLiO4P' in [atoms.info['key_value_pairs']['template_formula'] for atoms in images]
    again = CrystalDiffusion.from_record(images[1]).again(images[1])
    assert np.allclose(again.positions, images[1].positions)


@pytest.mark.parametrize(
    ('more', 'holds'), [({'natoms': 5}, lambda a: len(a) == 5), ({'space_group': 221}, lambda a: len(a) > 0)]
)
def test_what_is_asked_for_beside_the_elements_holds(more, holds):
    images = CrystalDiffusion(elements=['Sr', 'Ti', 'O'], all_elements=True, templates=2, **more, **QUIET).sample(2)
    assert all(holds(atoms) and atoms.info['key_value_pairs']['source'] == 'template' for atoms in images)
    if 'space_group' in more:
        groups = [spglib.get_spacegroup((a.cell[:], a.get_scaled_positions(), a.numbers), symprec=0.1) for a in images]
        assert all('(221)' in group for group in groups)


def test_nine_elements_have_no_templates():
    log = io.StringIO()
    symbols = ['Li', 'Na', 'K', 'Mg', 'Ca', 'Al', 'Si', 'O', 'F']
    gen = CrystalDiffusion(elements=symbols, all_elements=True, logfile=log, rng=0)
    assert gen.templates.reason_against([]) == 'no crystal of so many elements and atoms is known'
