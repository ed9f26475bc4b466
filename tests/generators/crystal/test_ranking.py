"""The order of templates: geometry, likeness, sums over alike templates, and what best_of makes of it."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.spacegroup import crystal

from ase_diffusion import CrystalDiffusion
from ase_diffusion.generators.crystal import prototypes
from ase_diffusion.generators.crystal.geometry import FAR, geometry, likeness
from ase_diffusion.generators.crystal.prototypes import Prototypes, shipped_prototypes
from ase_diffusion.generators.crystal.ranking import order
from ase_diffusion.generators.crystal.templates import energy_and_prior
from ase_diffusion.networks.ranking import TemplateRanker
from ase_diffusion.utils.atoms import parse_formula


def shape(atoms):
    kinds = np.unique(atoms.numbers, return_inverse=True)[1]
    return geometry(atoms.get_scaled_positions(), atoms.cell[:], kinds)


# geometry


def test_nearest_distances_of_rock_salt_are_exact():
    salt = shape(bulk('NaCl', 'rocksalt', a=5.64))  # (V / n)^(1/3) = a / 2
    assert salt.least == pytest.approx(np.array([[2**0.5, 1], [1, 2**0.5]]))
    assert salt.mean == pytest.approx(salt.least)
    assert shape(bulk('Cu', 'fcc', a=3.6)).least == pytest.approx(2**-0.5 * 4 ** (1 / 3))
    assert salt.of(np.array([1, 0])).least == pytest.approx(salt.least[::-1, ::-1])


def test_what_is_farther_than_the_reach_is_at_its_end():
    lonely = crystal(['Na', *['Cl'] * 3], [(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)], cellpar=[3, 3, 30, 90, 90, 90])
    assert shape(lonely).least.max() <= FAR


@pytest.mark.parametrize('change', ['cell', 'scale', 'origin', 'supercell', 'rotation'])
def test_the_geometry_is_that_of_the_crystal_and_not_of_its_cell(change):
    rutile = crystal(['Ti', 'O'], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.59, 4.59, 2.96, 90, 90, 90])
    other = rutile.copy()
    if change == 'cell':
        other.set_cell(np.array([[1, 0, 0], [1, 1, 0], [0, 2, 1]]) @ rutile.cell[:])
    elif change == 'scale':
        other.set_cell(1.3 * rutile.cell[:], scale_atoms=True)
    elif change == 'origin':
        other.positions += [0.3, 1.1, 0.7]
    elif change == 'supercell':
        other = rutile.repeat((1, 2, 1))
    else:
        other.rotate(37, (1, 2, 3), rotate_cell=True)
    one, two = shape(rutile), shape(other)
    assert one.least == pytest.approx(two.least) and one.mean == pytest.approx(two.mean)
    assert likeness(one.spectrum[None], two.spectrum[None])[0, 0] > 0.9


def test_one_structure_is_alike_whatever_its_elements_and_another_is_not():
    salt, caesium = bulk('NaCl', 'rocksalt', a=5.64), bulk('CsCl', 'cesiumchloride', a=4.12)
    spectra = np.array([shape(atoms).spectrum for atoms in (salt, bulk('MgO', 'rocksalt', a=4.2), caesium)])
    alike = likeness(spectra, spectra)
    assert alike[0, 1] > 0.97 and alike[0, 2] < 0.01
    assert alike == pytest.approx(alike.T)


# the order


def test_alike_templates_add_up_and_different_ones_come_first():
    logs = np.log([0.4, 0.35, 0.2, 0.05])
    alike = np.eye(4)
    alike[1, 2] = alike[2, 1] = 1
    places, chances = order(logs, alike)
    assert places.tolist()[:3] == [1, 0, 3] and places[3] == 2
    assert chances == pytest.approx([0.55, 0.4, 0.05, 0])


def test_scores_of_candidates_do_not_depend_on_their_places_or_on_padding():
    torch.manual_seed(0)
    network = TemplateRanker(torch.randn(119, 4), 8).eval()
    numbers, new, old = torch.randn(1, 5, 12), torch.randint(1, 90, (1, 5, 3)), torch.randint(1, 90, (1, 5, 3))
    sites, there = torch.randn(1, 5, 3, 8), torch.ones(1, 5, dtype=torch.bool)
    for layer in (network.whole[-1], network.plain):
        torch.nn.init.normal_(layer.weight)
    all_of = network(numbers, new, old, sites, there)
    turned = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(network(*(x[:, turned] for x in (numbers, new, old, sites, there))), all_of[:, turned], atol=1e-6)
    assert all_of.exp().sum().item() == pytest.approx(1, abs=1e-5)
    there[0, 4] = False
    assert torch.allclose(
        network(numbers, new, old, sites, there)[:, :4],
        network(*(x[:, :4] for x in (numbers, new, old, sites, there))),
        atol=1e-6,
    )
    new[..., 2:] = 0  # elements that are not there
    one = network(numbers, new, old, sites, there)
    old[..., 2:], sites[..., 2:, :] = 7, 3.0
    assert torch.equal(one, network(numbers, new, old, sites, there))


def test_probabilities_fall_among_different_templates_and_sum_to_at_most_one():
    for formula in ('Ti2O4', 'NaCl', 'Li4Fe4P4O16', 'Mg2Al4O8'):
        found = shipped_prototypes().find(parse_formula(formula), 10)
        chances = np.array([template.chance for template in found if template.difference > 0])
        assert len(found) == 10 and (chances >= 0).all() and chances.sum() <= 1.01
        assert (np.diff(chances) <= 1e-3).all()


@pytest.mark.parametrize('hull', [0, 100])
def test_crystals_of_the_very_formula_are_as_likely_as_they_are_stable(hull):
    rutile = crystal(['Ti', 'O'], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.59, 4.59, 2.96, 90, 90, 90])
    other = rutile.copy()
    other.set_cell(rutile.cell[:] * [[0.8], [1.1], [1.2]], scale_atoms=True)
    shipped, more = shipped_prototypes(), Prototypes.from_atoms([other, rutile], ['high', 'low'])
    more.table['hull'][:] = [hull + 20, hull]
    bank = shipped + more
    found = bank.find(parse_formula('Ti2O4'), 30)
    own = {bank.name(template.row): template.chance for template in found if template.difference == 0}
    weights = np.exp([-hull / 10, -hull / 10 - 2])
    assert own['low'] == pytest.approx(0.95 * weights[0] / max(1, weights.sum()), rel=1e-3)
    assert own['high'] / own['low'] == pytest.approx(np.exp(-2))
    if hull:
        assert bank.name(found[0].row).startswith('mp-') and found[0].difference > 0
    else:
        assert bank.name(found[0].row) == 'low'


# best_of


def test_energy_and_probability_decide_together_with_the_weight_that_is_said():
    def low(weight):
        gen = CrystalDiffusion(
            'Ar', best_of=5, templates=5, calculator=LennardJones(sigma=3.4, epsilon=0.01, rc=9), guidance=False,
            prior_weight=weight, rng=0, logfile=None,
        )  # fmt: skip
        return gen.sample(), gen

    chosen, gen = low(0)
    first = CrystalDiffusion('Ar', templates=5, rng=0, logfile=None).sample(5)
    energies = []
    for atoms in first:
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.01, rc=9)
        energies.append(atoms.get_potential_energy() / len(atoms))
    assert chosen.get_potential_energy() == pytest.approx(min(energies))
    likely, _ = low(1e6)
    chances = [atoms.info['key_value_pairs']['template_chance'] for atoms in first]
    assert likely.info['key_value_pairs']['template_chance'] == max(chances)
    assert energy_and_prior(chosen, 0.0) == pytest.approx(min(energies))
    assert energy_and_prior(likely, 2.0) == pytest.approx(likely.get_potential_energy() - 2 * np.log(max(chances)))
    assert gen.todict()['prior_weight'] == 0
    with pytest.raises(ValueError, match='prior_weight is eV per atom'):
        low(-1.0)


def test_crystals_that_a_user_added_are_ordered_by_difference(monkeypatch):
    """The networks were fitted on the bank that ships."""
    images = [bulk(f'{a}{b}', 'rocksalt', a=5.0) for a, b in (('Na', 'Cl'), ('K', 'Br'), ('Mg', 'O'), ('Cs', 'I'))]
    images.append(bulk('CsCl', 'cesiumchloride', a=4.1))
    own = Prototypes.from_atoms(images)
    monkeypatch.setattr(prototypes, 'shipped_ranking', lambda: pytest.fail('a network was asked'))
    found = own.find([37, 17], 5)  # RbCl
    assert len(found) == 5 and found[0].chance > 0.5
    assert own.formula(found[0].row) == 'CsCl'  # the nearest: one element is exchanged
    assert shipped_prototypes().shipped == len(shipped_prototypes()) == (shipped_prototypes() + own).shipped
