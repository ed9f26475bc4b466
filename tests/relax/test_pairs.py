"""Each optimizer with each filter, each calculator by name with each generator; constraints, arrays, names of calculators."""

import importlib.util

import ase.filters
import ase.optimize
import numpy as np
import pytest
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import ExternalForce, FixAtoms, FixCartesian, Hookean
from ase.db import connect

from ase_diffusion import CrystalDiffusion, SurfaceDiffusion
from ase_diffusion.calculators import get_calculator
from ase_diffusion.data.frames import read_frames
from ase_diffusion.relax import relax
from ase_diffusion.search import RandomStructureSearch, StructureSearch
from ase_diffusion.utils.atoms import energy_of

OPTIMIZERS = [name for name in ase.optimize.__all__ if not name.endswith('Error')]
NEED_ANOTHER_PACKAGE = {'Berny'}
OF_CELLS = ('UnitCellFilter', 'FrechetCellFilter', 'StrainFilter')  # ExpCellFilter is the old name of one


def adsorbed():
    atoms = fcc111('Cu', (2, 2, 2), vacuum=8)
    add_adsorbate(atoms, 'O', 1.5, 'fcc')
    return atoms


@pytest.mark.parametrize('filter', [None, *OF_CELLS])
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_each_optimizer_with_each_filter(optimizer, filter):
    if optimizer in NEED_ANOTHER_PACKAGE:
        pytest.importorskip('berny')
    atoms = bulk('Cu', 'fcc', a=3.7, cubic=True)
    atoms.rattle(0.02, seed=1)
    if optimizer == 'CellAwareBFGS' and filter in (None, 'StrainFilter'):
        with pytest.raises(ValueError, match="take filter='FrechetCellFilter'"):
            relax(atoms, 'emt', optimizer=optimizer, filter=filter)
        return
    new = relax(atoms, 'emt', optimizer=optimizer, filter=filter, fmax=0.1, steps=15)
    assert not new.info['key_value_pairs'].get('relax_failed'), new.info['data']['relax_error']
    atoms.calc = EMT()
    assert energy_of(new) < atoms.get_potential_energy() + (1.0 if optimizer == 'MDMin' else 1e-9)  # it swings
    assert (new.cell[:] == atoms.cell[:]).all() == (filter is None)


CONSTRAINTS = {
    'Hookean': [FixAtoms(range(8)), Hookean(a1=8, a2=4, rt=1.5, k=10.0)],
    'plane': [FixAtoms(range(8)), Hookean(a1=8, a2=(0, 0, 1, -10.0), k=5.0)],
    'force': [FixAtoms(range(8)), ExternalForce(8, 4, 0.3)],
    'two': [FixAtoms([-9, -8, 2]), FixAtoms(range(3, 8)), FixAtoms([1]), FixCartesian([8], (True, False, False))],
}


@pytest.mark.parametrize('steps', [0, 3])
@pytest.mark.parametrize('name', CONSTRAINTS)
def test_energies_are_the_calculators_and_ase_adds_constraints_once(name, steps, tmp_path):
    atoms = adsorbed()
    atoms.set_constraint(CONSTRAINTS[name])
    frames = []
    new = relax(atoms, 'emt', steps=steps, frames=frames)
    with connect(tmp_path / 'x.db') as db:
        db.write(new)
    [row] = read_frames(tmp_path / 'x.db')
    for one in (new, row, *frames[0]):
        plain = one.copy()
        plain.calc = EMT()
        assert energy_of(one) == pytest.approx(plain.get_potential_energy(apply_constraint=False), abs=1e-9)
        assert one.get_potential_energy() == pytest.approx(plain.get_potential_energy(), abs=1e-9)
        assert np.allclose(one.get_forces(apply_constraint=False), plain.get_forces(apply_constraint=False), atol=1e-9)
        assert np.array_equal(one.positions[:8], atoms.positions[:8])
    reference = atoms.copy()
    reference.calc = EMT()
    assert new.info['key_value_pairs']['energy_generated'] == pytest.approx(
        reference.get_potential_energy(apply_constraint=False), abs=1e-9
    )
    ase.optimize.BFGS(reference, logfile=None).run(fmax=0.05, steps=steps)
    assert np.allclose(new.positions, reference.positions, atol=1e-9)  # as ASE relaxes


def test_searches_store_and_rank_by_the_energy_of_the_calculator(tmp_path):
    slab = fcc111('Cu', (2, 2, 1), vacuum=8)
    slab.pbc = (True, True, False)
    slab.set_constraint([FixAtoms([-4, -3, -2, -1]), Hookean(a1=-1, a2=(0.0, 0.0, 0.0), rt=0.1, k=7.0)])
    images = RandomStructureSearch(slab, {'O': np.int64(1)}, 'emt', rng=0, steps=2, database=tmp_path / 'a.db', logfile=None).run(
        np.int64(2)
    )
    for atoms in [*images, *read_frames(tmp_path / 'a.db')]:
        plain = atoms.copy()
        plain.calc = EMT()
        assert energy_of(atoms) == pytest.approx(plain.get_potential_energy(apply_constraint=False), abs=1e-9)
        assert np.array_equal(atoms.positions[:4], slab.positions)


def test_a_campaign_ranks_by_the_energy_of_the_calculator(ag_slab, tmp_path):
    ag_slab.set_constraint([FixAtoms(range(-8, 0)), Hookean(a1=-1, a2=(0.0, 0.0, 0.0), rt=0.1, k=7.0)])
    gen = SurfaceDiffusion(ag_slab, {'Ag': np.int64(2), 'O': 1}, steps=5, validate=False, logfile=None)
    search = StructureSearch(
        gen, tmp_path / 'a.db', 'ag-o', rng=1, steps=np.int64(2), fmax=np.float32(0.1), workers=0, logfile=None
    )
    images = search.run(np.int64(3))
    assert [energy_of(atoms) for atoms in images] == sorted(energy_of(atoms) for atoms in images)
    plain = images[0].copy()
    plain.calc = get_calculator('ag-o')
    assert energy_of(images[0]) == pytest.approx(plain.get_potential_energy(apply_constraint=False), abs=1e-3)
    assert np.array_equal(images[0].positions[:8], ag_slab.positions)


@pytest.mark.parametrize('calculator', ['emt', 'ag-o'])
def test_arrays_moments_charges_and_info_survive(calculator):
    images = []
    for k in range(2):
        atoms = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=8)
        add_adsorbate(atoms, 'Ag', 2.3 + k / 10, 'fcc')
        atoms.pbc = (True, True, False)
        atoms.set_constraint(FixAtoms(range(-9, -1)))
        atoms.set_initial_magnetic_moments(np.arange(9.0))
        atoms.set_initial_charges(np.arange(9.0) / 10)
        atoms.set_array('own', np.arange(27).reshape(9, 3))
        atoms.info = {'mine': {'a': 1}, 'key_value_pairs': {'U': 4.0}}
        images.append(atoms)
    for atoms, new in zip(images, relax(images, calculator, steps=2), strict=True):
        for name in ('initial_magmoms', 'initial_charges', 'own', 'tags', 'numbers'):
            assert np.array_equal(new.arrays[name], atoms.arrays[name])
        assert new.info['mine'] == {'a': 1} and new.info['key_value_pairs']['U'] == 4.0
        assert np.array_equal(new.positions[:8], atoms.positions[:8])
        assert len(new.constraints) == 1 and new.constraints[0].index.tolist() == list(range(8))


def test_slabs_and_others_relax_together_as_alone():
    """Batches take slabs only; what is none is relaxed one by one, and no order is mixed up."""
    images = []
    for k in range(4):
        atoms = fcc111('Ag', (2, 2, 2), a=4.16, **({'vacuum': 8} if k != 1 else {}))
        add_adsorbate(atoms, 'O', 1.2 + k / 10, 'fcc')
        atoms.set_constraint(FixAtoms(range(8)))
        atoms.pbc = (True, k != 2, False)
        images.append(atoms)
    together = relax(images, 'ag-o', steps=2)
    for atoms, new in zip(images, together, strict=True):
        assert 'relax_failed' not in new.info['key_value_pairs']
        assert np.allclose(new.positions, relax(atoms, 'ag-o', steps=2).positions, atol=1e-4)
        assert np.array_equal(new.pbc, atoms.pbc) and np.array_equal(new.cell[:], atoms.cell[:])


class Both(Calculator):
    """EMT whose stress is a tensor or a vector, and which has moments."""

    implemented_properties = ['energy', 'forces', 'stress', 'magmoms']  # noqa: RUF012  ASE's own form

    def __init__(self, full):
        super().__init__()
        self.full, self.emt = full, EMT()

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.emt.calculate(self.atoms, ['energy', 'forces', 'stress'], all_changes)
        self.results = {**self.emt.results, 'magmoms': np.arange(len(self.atoms), dtype=float)}
        if self.full:
            from ase.stress import voigt_6_to_full_3x3_stress

            self.results['stress'] = voigt_6_to_full_3x3_stress(self.results['stress'])


@pytest.mark.parametrize('full', [True, False])
def test_stress_as_a_tensor_and_as_a_vector(full):
    atoms = bulk('Cu', 'fcc', a=3.7, cubic=True)
    atoms.rattle(0.05, seed=1)
    new = relax(atoms, Both(full), steps=2, filter='FrechetCellFilter')
    reference = new.copy()
    reference.calc = EMT()
    assert new.get_stress().shape == (6,)
    assert np.allclose(new.get_stress(), reference.get_stress(), atol=1e-10)
    assert new.get_magnetic_moments().tolist() == [0, 1, 2, 3]
    gen = CrystalDiffusion('Cu4', steps=10, rng=0, logfile=None, relax={'calculator': Both(full), 'steps': 2, 'max_energy': None})
    made = gen.sample()
    reference = made.copy()
    reference.calc = EMT()
    assert np.allclose(made.get_stress(), reference.get_stress(), atol=1e-6)  # turned into the reduced cell
    assert np.allclose(made.get_forces(), reference.get_forces(), atol=1e-6)


BY_NAME = ['emt', 'lj', 'chgnet', '7net-0', '7net-mf-0', 'ag-o']
PACKAGES = {'chgnet': 'chgnet', '7net-0': 'sevenn', '7net-mf-0': 'sevenn'}


@pytest.mark.parametrize('name', BY_NAME)
@pytest.mark.parametrize('method', ['crystal', 'surface'])
def test_each_generator_relaxes_with_each_calculator_by_name(method, name, ag_slab, tmp_path, capfd):
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f'{PACKAGES[name]} is not installed')
    options = {'rng': 0, 'steps': 20, 'logfile': None, 'relax': {'calculator': name, 'steps': 1, 'max_energy': None}}
    if method == 'surface':
        gen = SurfaceDiffusion(ag_slab, 'Ag3O', **options)
    elif name == 'ag-o':
        with pytest.raises(ValueError, match='FixAtoms'):
            relax(bulk('Ag'), 'ag-o', steps=0)
        return
    else:
        gen = CrystalDiffusion('Cu2' if name in ('emt', 'lj') else 'NaCl', **options)
    atoms = gen.sample()
    plain = atoms.copy()
    plain.calc = get_calculator(name)
    assert energy_of(atoms) == pytest.approx(plain.get_potential_energy(), abs=2e-3)
    assert np.allclose(atoms.get_forces(apply_constraint=False), plain.get_forces(apply_constraint=False), atol=2e-2)
    if method == 'crystal' and name != 'lj':
        assert np.allclose(atoms.get_stress(), plain.get_stress(), atol=2e-3)
    connect(tmp_path / 'x.db').write(atoms)
    [row] = connect(tmp_path / 'x.db').select()
    assert row.calculator == plain.calc.name == {'emt': 'emt', 'lj': 'lennardjones', 'ag-o': 'ag-o-forcefield'}.get(name, name)
    read = row.toatoms()
    for key, value in atoms.calc.results.items():  # float32 of CHGNet would come back as other numbers
        assert np.array_equal(read.calc.results[key], value)
    if name == 'ag-o':
        assert plain.calc.todict()['model'] == 'ag-o-forcefield'
    assert not capfd.readouterr().out
