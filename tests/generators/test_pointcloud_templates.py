"""Point clouds of given elements begin with known crystals whose elements are exchanged."""

import copy
import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from ase.formula import Formula

from ase_diffusion import CrystalDiffusion, PointCloudDiffusion
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.generators.crystal import templates as module
from ase_diffusion.generators.crystal.bank import formula_hash
from ase_diffusion.generators.crystal.prototypes import shipped_prototypes
from ase_diffusion.generators.crystal.templates import ElementTemplates
from ase_diffusion.metrics import compositional_validity
from ase_diffusion.networks.composition import CompositionNet
from ase_diffusion.representations.pointcloud import fractions_of

QUICK = dict(rng=0, steps=12, logfile=None, min_distance=0.5, maxtries=500)


def sources(images):
    return [atoms.info['key_value_pairs'].get('source') for atoms in images]


def test_the_first_ones_are_templates_of_the_elements_alone():
    images = PointCloudDiffusion(['O', 'Mg', 'Mn'], templates=5, **QUICK).sample(7)
    assert sources(images) == ['template'] * 5 + ['network'] * 2
    assert all(set(atoms.get_chemical_symbols()) == {'Mg', 'Mn', 'O'} and len(atoms) <= 16 for atoms in images)
    first = images[0]  # a known one comes as it is
    assert first.info['key_value_pairs']['template_difference'] == 0
    distinct = {atoms.symbols.formula.reduce()[0].format('hill') for atoms in images[:5]}
    assert len(distinct) >= 3


def test_the_order_of_the_elements_does_not_matter_and_the_seed_draws():
    one, two, three = (
        PointCloudDiffusion(elements, **{**QUICK, 'rng': seed}).sample(8)
        for elements, seed in ((['Mg', 'Mn', 'O'], 0), (['O', 'Mn', 'Mg'], 0), (['Mg', 'Mn', 'O'], 1))
    )
    assert all(np.allclose(a.positions, b.positions) and (a.numbers == b.numbers).all() for a, b in zip(one, two, strict=True))
    names = [[atoms.info['key_value_pairs']['template'] for atoms in images] for images in (one, three)]
    assert names[0] != names[1] and len(set(names[0]) & set(names[1])) >= 4


def test_each_template_comes_once():
    gen = PointCloudDiffusion(['Mg', 'O'], templates=4, **QUICK)
    names = [atoms.info['key_value_pairs']['template'] for atoms in gen.sample(2) + gen.sample(2)]
    assert len(set(names)) == 4
    assert sources(gen.sample(1)) == ['network']


def test_numbers_of_atoms_are_those_asked_for():
    images = PointCloudDiffusion(['Ca', 'Ti', 'O'], natoms=5, **QUICK).sample(3)
    assert [len(atoms) for atoms in images] == [5] * 3 and sources(images) == ['template'] * 3
    assert any(str(atoms.symbols.formula.reduce()[0].format('hill')) == 'CaO3Ti' for atoms in images)


def test_where_there_are_none_the_log_says_so():
    log = io.StringIO()
    assert sources(PointCloudDiffusion(['Cu'], natoms=11, **{**QUICK, 'logfile': log}).sample(1)) == ['network']
    assert 'templates: no crystal of so many elements and atoms is known; the network alone' in log.getvalue()


def test_crystals_of_the_user_join_in():
    mine = Atoms('CsAg', scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=4.5 * np.eye(3), pbc=True)
    gen = PointCloudDiffusion(['Cs', 'Ag'], templates=[mine], **QUICK)
    first = gen.sample()
    assert first.info['key_value_pairs']['template_difference'] == 0 and first.cell.volume == pytest.approx(91.1, rel=1e-3)
    assert first.info['data']['diffusion']['templates']['given'] == 1


def test_crystals_of_the_user_come_before_the_same_ones_that_ship():
    """One template for each composition and structure type: of equal ones that of the user, in his cell."""
    [shipped, *_] = PointCloudDiffusion(['Mg', 'Mn', 'O'], **QUICK).sample(20)
    mine = shipped.copy()
    mine.set_cell(1.02 * mine.cell, scale_atoms=True)
    images = PointCloudDiffusion(['Mg', 'Mn', 'O'], templates=[mine], **QUICK).sample(20)
    [first] = [atoms for atoms in images if atoms.info['key_value_pairs']['template'] == 'template 0']
    assert first.cell.volume == pytest.approx(1.02**3 * shipped.cell.volume, rel=1e-3)
    assert shipped.info['key_value_pairs']['template'] not in [a.info['key_value_pairs']['template'] for a in images]


def test_rejected_templates_leave_the_network_its_tries():
    """All of twenty templates are too close: of the structures of the network as many may be rejected as without templates."""
    gen = PointCloudDiffusion(['Mg', 'O'], **{**QUICK, 'maxtries': 3, 'logfile': None})
    gen._reason_to_reject = lambda atoms: 'a template' if atoms.info['key_value_pairs']['source'] == 'template' else None
    assert sources(gen.sample(2)) == ['network'] * 2 and gen.failures == {'a template': 20}
    gen._reason_to_reject = lambda atoms: 'never'
    with pytest.raises(GenerationFailed):
        gen.sample(1)
    assert gen.failures['never'] <= 5


@pytest.mark.parametrize('element', ['Xe', 'Cm'])
def test_elements_that_the_network_never_saw_have_templates_alone(element):
    log = io.StringIO()
    gen = PointCloudDiffusion([element, 'F'], **{**QUICK, 'logfile': log}, templates=3)
    assert sources(gen.sample(2)) == ['template'] * 2
    text = log.getvalue()
    assert f'2 structures, no network (pointcloud-mp never saw {element}), 3 templates, cpu' in text
    atoms = gen.sample()
    assert np.allclose(PointCloudDiffusion.from_record(atoms).again(atoms).positions, atoms.positions)
    with pytest.raises(GenerationFailed, match='0 structures of 1 asked for: no template is left, and pointcloud-mp never saw'):
        gen.sample()
    with pytest.raises(ValueError, match='conditions are for what the network knows, and .*: leave out band_gap'):
        gen.sample(band_gap='insulator')
    with pytest.raises(ValueError, match=f'pointcloud-mp never saw {element}; it knows H, He'):
        PointCloudDiffusion([element, 'F'], templates=False, **QUICK)
    with pytest.raises(ValueError, match=f'pointcloud-mp never saw {element}; it knows H, He'):
        PointCloudDiffusion([element], natoms=11, **QUICK)  # of which no crystal is known


def test_what_ends_is_handed_out_before_the_error():
    gen = PointCloudDiffusion(['Cm', 'O'], **QUICK, templates=3)
    with pytest.raises(GenerationFailed, match='3 structures of 5 asked for: no template is left') as failed:
        gen.sample(5)
    assert len(failed.value.images) == 3


def test_another_network_orders_anew():
    gen = PointCloudDiffusion(['Mg', 'O'], **QUICK)
    conditions = gen.check_conditions({'formation_energy': -2.0})
    before = gen._templates_for(conditions)
    assert gen._templates_for(conditions) is before
    gen.networks = {**gen.networks, 'property': copy.deepcopy(gen.networks['property'])}
    assert gen._templates_for(conditions) is not before


@pytest.mark.parametrize(('options', 'left'), [({'templates': False}, 0), ({'model': 'pointcloud-mp'}, 0), ({'templates': 1}, 1)])
def test_without_templates_the_network_is_alone(options, left):
    log = io.StringIO()
    gen = PointCloudDiffusion(['Mg', 'O'], **{**QUICK, 'logfile': log}, **options)
    images = gen.sample(2)
    assert sources(images).count('template') == left
    assert ('templates first' in log.getvalue()) == bool(left)


def test_true_and_false_of_numpy_are_those_of_python():
    for make in (
        lambda **options: PointCloudDiffusion(['Mg', 'O'], **options),
        lambda **options: CrystalDiffusion('MgO', **options),
    ):
        assert make(templates=np.True_, logfile=None).templates and make(templates=np.False_, logfile=None).templates is None


def test_what_is_asked_for_moves_the_order():
    """The likelihood of a class among the first ten rises with the scale; a scale of 0 asks for nothing."""
    gen = PointCloudDiffusion(['Ti', 'Fe', 'O'], **QUICK)
    plain = gen._templates_for(gen.check_conditions({'guidance_scale': 0.0, 'band_gap': 'metal'}))
    assert plain is gen._templates_for(gen.check_conditions({}))
    chance = []
    for scale in (0.0, 3.0, 30.0):
        templates = gen._templates_for(gen.check_conditions({'band_gap': 'metal', 'guidance_scale': scale}))
        every = dict(zip(map(id, gen.templates.every), gen._likelihood({'band_gap': 'metal'}), strict=True))
        chance.append(np.mean([every[id(template)] for template in templates.found[:10]]))
    assert chance[0] < chance[1] < chance[2]


def test_a_range_asks_for_its_likeliest_number():
    gen = PointCloudDiffusion(['Ti', 'Fe', 'O'], **QUICK)
    wide = gen._likelihood({'formation_energy': gen.check_conditions({'formation_energy': (-9.0, 9.0)})['formation_energy']})
    assert np.allclose(wide, wide[0], atol=1e-4)  # every prediction lies in it
    atoms = gen.sample(formation_energy=(-2.5, -2.0))
    assert -2.5 <= atoms.info['key_value_pairs']['condition_formation_energy'] <= -2.0


def test_the_same_structure_again():
    gen = PointCloudDiffusion(['Mg', 'Mn', 'O'], **QUICK)
    for conditions in ({}, {'formation_energy': -2.0}):
        atoms = gen.sample(2, **conditions)[1]
        made = PointCloudDiffusion.from_record(atoms).again(atoms)
        assert np.allclose(made.positions, atoms.positions) and (made.numbers == atoms.numbers).all()


def test_costs_and_their_noise(monkeypatch):
    """Without noise the order is that of the differences and of what is against a template."""
    templates = ElementTemplates(True, [12, 25, 8], most=16)
    monkeypatch.setattr(module, 'SPREAD', 0.0)
    found = templates.ordered(0).found
    formulas = [formula_hash(np.repeat(t.elements, templates.bank.row_counts(t.row))) for t in found]
    hull = templates.bank.table['hull']
    odd = [t.difference > 0 and not compositional_validity([templates.bank.substituted(t)])[0] for t in found]
    cost = [
        t.difference
        + module.CHARGED * odd[k]
        + module.UNSTABLE * 1e-3 * hull[t.row]
        + module.AGAIN * formulas[:k].count(formulas[k])
        for k, t in enumerate(found)
    ]
    assert cost == sorted(cost)
    for t in found[:5]:
        old = shipped_prototypes().original(t.row).numbers
        new = np.repeat(t.elements, templates.bank.row_counts(t.row))
        pairs = dict(zip(old.tolist(), new.tolist(), strict=True))
        assert t.difference == pytest.approx(sum(templates.bank.distances[a, b] for a, b in pairs.items()))


def test_fractions_of_compositions():
    fractions, slots = fractions_of([bulk('MgO', 'rocksalt', a=4.2).numbers, np.array([25, 8, 8]), np.array([3])])
    assert slots.tolist() == [[8, 12, 8], [8, 25, 8], [3, 3, 3]]
    assert np.allclose(fractions, [[0.25, 0.5, 0.25], [1 / 3, 1 / 3, 1 / 3], [1 / 3] * 3])


def test_a_model_without_properties_knows_no_conditions_of_templates(monkeypatch):
    log = io.StringIO()
    gen = PointCloudDiffusion(['Mg', 'O'], **{**QUICK, 'logfile': log})
    assert isinstance(gen.networks.pop('property'), CompositionNet)
    assert sources(gen.sample(1, formation_energy=-2.0)) == ['network']
    assert 'they know no conditions (formation_energy)' in log.getvalue()


@pytest.mark.parametrize(('templates', 'error'), [(0, ValueError), (1.5, TypeError), (bulk('Cu'), TypeError)])
def test_templates_without_meaning_are_refused(templates, error):
    with pytest.raises(error, match='templates'):
        PointCloudDiffusion(['Mg', 'O'], templates=templates, logfile=None)


@pytest.mark.parametrize(
    ('elements', 'formulas'),
    [('MgMnO', ['MgMnO3', 'Mg2Mn3O8']), ('CaZnO', ['CaZn3O4']), ('LaZnO', ['La2ZnO4']), ('MgFeO', ['MgFe2O4'])],
)
def test_the_compounds_of_the_paper_are_among_the_first_twenty(elements, formulas):
    """Li et al., section 3; of Ca-Zn-O and La-Zn-O no crystal is known to the bank."""
    numbers = sorted({atomic_numbers[symbol] for symbol in Formula(elements).count()})
    templates = ElementTemplates(True, numbers, most=16)
    found = [templates.bank.substituted(template).symbols.formula.reduce()[0] for template in templates.ordered(0).found]
    assert len(found) == 20 and all(
        Formula(formula).reduce()[0].count() in [each.count() for each in found] for formula in formulas
    )
