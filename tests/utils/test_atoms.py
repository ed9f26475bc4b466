"""Constraints counted once, compositions, slabs in two pieces, hints that work."""

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import (
    ExternalForce,
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixLinearTriatomic,
    FixSymmetry,
    Hookean,
)
from ase.db import connect

from ase_diffusion import CrystalDiffusion
from ase_diffusion.data.starts import check_composition
from ase_diffusion.utils.atoms import (
    as_list,
    check_surface_cell,
    composition_text,
    copy_atoms,
    cut_of,
    detached,
    energy_of,
    frozen_mask,
    join_slab,
    mobile_formula,
    parse_formula,
    rotation_hint,
    voigt_stress,
)

CONSTRAINTS = {
    'FixAtoms': FixAtoms([-8, -1, 3]),
    'mask': FixAtoms(mask=[True, False] * 4),
    'bool array': FixAtoms(np.array([True, False] * 4)),
    'numpy': FixAtoms(np.array([-2, 1], dtype=np.int32)),
    'both signs': FixAtoms([-1, 7]),
    'FixCartesian': FixCartesian([-1, 0], (True, False, True)),
    'bonds': FixBondLengths([(-1, 0), (1, -2)]),
    'triatomic': FixLinearTriatomic([(-1, 0, 1)]),
    'Hookean': Hookean(-1, 0, k=3.0, rt=0.5),
    'plane': Hookean(-1, (0, 0, 1, -7), k=3.0),
    'force': ExternalForce(-1, 0, 0.5),
    'com': FixCom(),
}


def test_rows_of_a_database_are_named(tmp_path):
    with connect(tmp_path / 'a.db') as db:
        db.write(Atoms('Cu'))
    with pytest.raises(TypeError, match=r'structures are ase.Atoms; number 0 is AtomsRow; take row.toatoms\(\)'):
        as_list(db.select())


@pytest.mark.parametrize('text', ['D2O', 'LiT', 'Al(OD)3'])
def test_isotopes_are_named(text):
    for use in (parse_formula, composition_text, lambda text: composition_text({text[-1 if text == 'LiT' else 0]: 1})):
        with pytest.raises(ValueError, match='a formula is|a composition has') as error:
            use(text)
        assert 'write H in place of' in str(error.value) or text.startswith('Al')
    for other in ('DyX', 'Tix', 'Dd'):
        with pytest.raises(ValueError, match=f'{other}.$'):
            parse_formula(other)


@pytest.mark.parametrize('name', CONSTRAINTS)
def test_constraints_act_on_the_same_atoms_after_atoms_were_added(name):
    slab = fcc111('Cu', (2, 2, 2), vacuum=8)
    slab.rattle(0.2, seed=1)
    slab.set_constraint(CONSTRAINTS[name])
    slab.calc = EMT()
    copy = copy_atoms(slab)
    copy.calc = EMT()
    assert np.array_equal(copy.get_forces(), slab.get_forces())  # before, nothing changes
    if name == 'com':  # of all atoms, also of new ones
        return
    longer = copy_atoms(slab)
    longer.extend(Atoms('Cu2', [[0, 0, 30], [3, 0, 30]]))
    forces, shift = np.arange(30.0).reshape(10, 3), np.arange(30.0).reshape(10, 3) ** 2 / 1e3
    short, long = forces[:8].copy(), forces.copy()
    for constraint in slab.constraints:
        constraint.adjust_forces(slab, short)
    for constraint in longer.constraints:
        constraint.adjust_forces(longer, long)
    assert np.allclose(long, np.concatenate([short, forces[8:]]), atol=1e-12)
    one, two = slab.positions + shift[:8], longer.positions + shift
    for constraint in slab.constraints:
        constraint.adjust_positions(slab, one)
    for constraint in longer.constraints:
        constraint.adjust_positions(longer, two)
    assert np.allclose(two[:8], one, atol=1e-9)


def test_symmetries_and_infos_are_copied():
    atoms = Atoms('Cu4', np.random.default_rng(0).random((4, 3)) * 4, cell=[4, 4, 4], pbc=True, info={'a': [1]})
    atoms.set_constraint(FixSymmetry(atoms, symprec=0.1, verbose=False))
    copy = copy_atoms(atoms)
    copy.info['a'].append(2)
    assert atoms.info == {'a': [1]} and len(copy.constraints) == 1


@pytest.mark.parametrize('own', ['text', None, [1, 2]])
def test_info_that_is_no_dict_where_ours_are_is_kept_in_one(own):
    atoms = Atoms('Cu', info={'data': own, 'key_value_pairs': own})
    info = copy_atoms(atoms).info
    assert info == {name: {} if own is None else {f'own_{name}': own} for name in ('data', 'key_value_pairs')}
    assert atoms.info == {'data': own, 'key_value_pairs': own}


@pytest.mark.parametrize('indices', [[8], [-9], [0, 100]])
def test_indices_out_of_range_are_named(indices):
    slab = fcc111('Cu', (2, 2, 2), vacuum=8)
    slab.set_constraint(FixAtoms(indices))
    for function in (frozen_mask, copy_atoms):
        with pytest.raises(ValueError, match=rf'lie in 0 to 7.*FixAtoms has \[{indices[-1]}\]'):
            function(slab)


def test_compositions():
    assert composition_text({'Ag': np.int64(12), 'O': 6}) == 'Ag12O6'
    assert composition_text(Counter(O=2, Ag=1)) == 'O2Ag1'
    assert composition_text(' H2O ') == 'H2O'
    for given in (Atoms('Ag2O').symbols.formula, Atoms('Ag2O').symbols):
        assert composition_text(given) == check_composition(given) == 'Ag2O'
        assert CrystalDiffusion(given, logfile=None).stoich == 'Ag2O'
    for bad, text in [({'Ag': -1}, 'number of Ag'), ({'Ag': 1.5}, 'number of Ag'), ({'Xx': 1}, "'Xx'"), ({}, 'a formula')]:
        with pytest.raises(ValueError, match=text):
            composition_text(bad)
    with pytest.raises(TypeError, match='got int'):
        composition_text(5)


def test_logs_show_what_is_new():
    slab = fcc111('Ag', (2, 2, 1), vacuum=8) + Atoms('O2', [[0, 0, 12], [2, 0, 12]])
    assert mobile_formula(slab) == 'Ag4O2'
    slab.set_constraint(FixAtoms(range(4)))
    assert mobile_formula(slab) == 'O2'
    slab.set_constraint(FixAtoms(range(6)))
    assert mobile_formula(slab) == 'Ag4O2'


def test_energies_are_those_of_the_calculator():
    atoms = Atoms('Cu2', [[0, 0, 0], [0, 0, 3]], constraint=Hookean(0, 1, k=2.0, rt=1.0))
    assert energy_of(atoms) == np.inf
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    assert energy_of(atoms) == -1.0 and atoms.get_potential_energy() == pytest.approx(3.0)  # + 2 / 2 (3 - 1)^2


def test_stresses_have_one_form():
    full = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3.0]])
    assert voigt_stress(full).tolist() == voigt_stress([1, 2, 3, 4, 5, 6]).tolist() == [1, 2, 3, 4, 5, 6]


def wrapped(shift, c=1.0):
    """A slab of three layers, moved along z and wrapped, c up or down."""
    slab = fcc111('Ag', (2, 2, 3), vacuum=7)
    slab.cell[2] *= c
    slab.cell[2, 0] = 0.7  # skewed
    slab.positions[:, 2] += shift
    slab.pbc = True
    slab.wrap()
    slab.pbc = (True, True, False)
    return slab


@pytest.mark.parametrize('c', [1.0, -1.0])
@pytest.mark.parametrize('shift', [-9.0, -7.1, 9.0, 0.0, 30.0])
def test_a_wrapped_slab_is_joined_or_refused_with_a_line_that_joins_it(shift, c):
    slab, whole = wrapped(shift, c), wrapped(0.0)
    distances = np.sort(whole.get_all_distances(mic=True), axis=None)
    joined = slab.copy()
    join_slab(joined)
    assert np.ptp(joined.positions[:, 2]) == pytest.approx(np.ptp(whole.positions[:, 2]), abs=1e-9)
    assert np.allclose(np.sort(joined.get_all_distances(mic=True), axis=None), distances, atol=1e-6)
    if cut_of(slab) is None:
        assert np.array_equal(joined.positions, slab.positions)
        check_surface_cell(slab)
        return
    with pytest.raises(ValueError, match='are one piece along z; these are two') as caught:
        check_surface_cell(slab)
    text = str(caught.value)
    exec(text[text.index('slab.positions[') : text.index(' joins')], {'slab': slab})
    check_surface_cell(slab)
    assert np.allclose(slab.positions, joined.positions, atol=1e-12)


def test_layers_far_apart_are_one_piece_below_a_wide_vacuum():
    slab = fcc111('Ag', (2, 2, 2), vacuum=10) + Atoms('O', [[0, 0, 12.4 + 6]])  # a molecule on its way
    assert cut_of(slab) is None
    slab.cell[2] = 0
    assert cut_of(slab) is None


@pytest.mark.parametrize('seed', range(6))
def test_the_hint_turns_any_slab_upright(seed):
    rng = np.random.default_rng(seed)
    slab = fcc111('Ag', (2, 2, 2), vacuum=7)
    slab.cell[2, :2] = rng.normal(size=2)
    if seed % 2:  # left-handed
        slab.cell[[0, 1]] = slab.cell[[1, 0]]
    inside = slab.get_all_distances()
    if seed == 4:
        slab.rotate(180, 'x', rotate_cell=True)  # upside down with its cell
        slab.rotate(5, 'y', rotate_cell=True)
    else:
        slab.rotate(rng.normal(size=3), rng.normal(size=3), rotate_cell=True)
    exec(rotation_hint(slab).split(' turns')[0], {'slab': slab, 'numpy': np})
    check_surface_cell(slab)
    assert slab.cell[2, 2] > 0
    assert np.allclose(slab.get_all_distances(), inside)


def test_molecules_that_left_a_surface_are_told():
    slab = fcc111('Au', (2, 2, 4), vacuum=12.0)
    n, top = len(slab), slab.positions[-1]
    slab.set_constraint(FixAtoms(indices=range(n // 2)))  # the rest hangs on it by distances of 2.9 A
    atoms = slab + Atoms('AuOOO', [top + [0, 0, z] for z in (2.8, 4.7, 8.0, 9.2)])
    atoms.set_constraint(slab.constraints)
    assert detached(atoms).tolist() == [n + 2, n + 3]
    assert detached(atoms, 3.0).tolist() == []
    atoms.pbc = (True, True, True)
    atoms.cell[2, 2] = atoms.positions[n + 3, 2] + 2.0 - slab.positions[0, 2]  # below the next slab
    assert detached(atoms).tolist() == []
