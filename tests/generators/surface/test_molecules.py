"""Molecules keep their geometry while overlayers are generated, in every task and cell."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc100, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read, write

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.cli.main import main
from ase_diffusion.diffusion import SAMPLERS
from ase_diffusion.diffusion.rigid import RigidBodies, shortest
from ase_diffusion.generators.surface.molecules import Molecules

OWN = Atoms('CHOO', [[0, 0, 0], [0.2, 0.1, 1.1], [1.15, 0.2, -0.6], [-0.9, 0.9, -0.5]])  # chiral, in no list
TASKS = {
    'sample': ({}, lambda gen: gen.sample(2)),
    'best of': ({'best_of': 2, 'calculator': EMT, 'guidance': False}, lambda gen: gen.sample(2)),
    'guided': ({'calculator': EMT, 'guidance': {'finish_steps': 4}}, lambda gen: gen.sample(2)),
    'perturb': ({}, lambda gen: gen.perturb(gen.sample(2), 0.3, 2)),
    'complete': ({}, lambda gen: gen.complete(gen.sample(), [-3, -2, -1], 2, repeats=2)),
    'generate_slab': ({'generate_slab': True}, lambda gen: gen.sample(2)),
}


def slab(build=fcc111, size=(2, 2, 2)):
    """Frozen layers of platinum."""
    atoms = build('Pt', size, a=3.9771, vacuum=10.0)
    atoms.pbc = (True, True, False)
    atoms.set_constraint(FixAtoms(indices=range(len(atoms))))
    return atoms


def generator(molecules, stoich=None, on=None, **options):
    """A quick generator that accepts whatever comes."""
    options = {'steps': 5, 'rng': 3, 'logfile': None, 'validate': False, **options}
    return SurfaceDiffusion(slab() if on is None else on, stoich, molecules=molecules, **options)


def parts(atoms, molecules):
    """Return (molecule as it was given, the last atoms of a structure that are that molecule)."""
    each = [molecule(one) if isinstance(one, str) else one for one in molecules]
    first = len(atoms) - sum(map(len, each))
    for one in each:
        yield one, atoms[first : first + len(one)]
        first += len(one)


def assert_whole(atoms, molecules):
    """Check elements, distances and handedness of all molecules, each in one piece."""
    for one, part in parts(atoms, molecules):
        assert np.array_equal(one.numbers, part.numbers)
        assert np.allclose(one.get_all_distances(), part.get_all_distances(), rtol=0, atol=1e-10)
        turns = [np.linalg.det((x.positions - x.positions[0])[1:4]) for x in (one, part) if len(one) > 3]
        assert not turns or np.isclose(*turns, atol=1e-8)


@pytest.mark.parametrize(
    'on', [slab(), slab(size=(3, 3, 2)), slab(fcc100), slab(size=(1, 4, 2))], ids=['2x2', '3x3', '100', '1x4']
)
def test_distances_within_molecules_are_exact(on):
    molecules = ['CO', 'H2O', OWN, 'NH3']
    for atoms in generator(molecules, on=on, steps=4).sample(3):
        assert_whole(atoms, molecules)
        assert np.array_equal(atoms.positions[: len(on)], on.positions)


def test_order_and_atoms_beside_molecules():
    gen = generator(['H2O', OWN], 'OH', slab())
    atoms = gen.sample()
    assert str(atoms.symbols) == 'Pt8OH' + 'OH2' + 'CHO2'
    assert_whole(atoms, ['H2O', OWN])
    assert np.ptp(atoms.get_tags()[8:]) == 0


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_every_sampler(sampler):
    for atoms in generator(['CO', 'NH3'], sampler=sampler, steps=4).sample(2):
        assert_whole(atoms, ['CO', 'NH3'])


@pytest.mark.parametrize('task', TASKS)
def test_every_task_and_again_from_files(task, tmp_path):
    options, make = TASKS[task]
    on = slab()
    if task == 'generate_slab':
        on.set_constraint(FixAtoms(indices=range(4)))
    molecules = [OWN, 'H2O']
    first, second = make(generator(molecules, 'O', on, **options))
    assert not np.array_equal(first.positions, second.positions)
    assert_whole(first, molecules)
    write(tmp_path / 'x.traj', first)
    with connect(tmp_path / 'x.db') as db:
        db.write(second, data=second.info['data'], **second.info['key_value_pairs'])
        row = db.get(molecules='CHO2+H2O').toatoms(add_additional_information=True)
    gen = SurfaceDiffusion.from_record(row, **({'calculator': EMT} if 'calculator' in options else {}))
    for atoms, stored in ((first, read(tmp_path / 'x.traj')), (second, row)):
        assert np.array_equal(gen.again(stored).positions, atoms.positions)


def test_a_kept_molecule_stays_bit_by_bit_and_no_half_is_generated():
    gen = generator(['CO', 'H2O'])
    atoms = gen.sample()
    atoms.positions[8:10] += [[0, 0, 0], [0, 0, 0.1]]  # as after a relaxation
    new = gen.complete(atoms, [-1, -2, -3], repeats=1)
    assert np.array_equal(new.positions[:10], atoms.positions[:10])
    assert_whole(new, ['H2O'])
    with pytest.raises(ValueError, match=r'as a whole or kept; of OH2 \[11\] are .* \[10, 12\] kept: add these'):
        gen.complete(atoms, [8, 9, 11])


def test_structures_with_the_atoms_of_molecules_in_another_order_are_refused():
    gen = generator(['CO'])
    atoms = gen.sample()
    with pytest.raises(ValueError, match=r'molecules come last, in the order of the generator, OC; here these are CO'):
        gen.perturb(atoms[[*range(8), 9, 8]])


def test_perturb_leaves_a_molecule_near_where_it_was():
    on = slab()
    parent = on.copy()
    add_adsorbate(parent, Atoms('CO', [[0, 0, 0], [0, 0, 1.16]]), 1.3, 'fcc')
    gen = generator([Atoms('CO', [[0, 0, 0], [0, 0, 1.16]])], steps=20)
    for atoms in gen.perturb(parent, 0.1, 3):
        assert abs(atoms.positions - parent.positions).max() < 0.6
        assert atoms.get_distance(8, 9) == pytest.approx(1.16, abs=1e-10)


def test_relaxation_moves_atoms_of_molecules():
    atoms = generator(['H2O'], relax={'calculator': EMT, 'steps': 2}).sample()
    assert abs(atoms.get_distance(8, 9) - molecule('H2O').get_distance(0, 1)) > 1e-4


def test_the_same_seed_gives_the_same_structures_and_all_can_be_valid():
    images = [generator(['CO', 'OH'], rng=5, steps=15, validate=True).sample(2) for _ in range(2)]
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(*images, strict=True))
    assert images[0][0].info['key_value_pairs']['molecules'] == 'CO+OH'
    assert 'stoich' not in images[0][0].info['key_value_pairs']


def test_carbon_binds_and_oxygen_points_away():
    images = SurfaceDiffusion(slab(), molecules=['CO'], rng=1, logfile=None).sample(4)
    heights = np.array([atoms.positions[8:, 2] for atoms in images])  # O, C
    assert (heights[:, 0] - heights[:, 1] > 0.8).sum() >= 3


@pytest.mark.parametrize(
    ('molecules', 'error', 'match'),
    [
        (None, TypeError, "a formula stoich='Ag12O6', or molecules=.*got neither"),
        ([], TypeError, 'got neither'),
        (['H3N'], ValueError, r"that ase.build.molecule knows, or Atoms; got 'H3N' \(there are NH3\)"),
        (['Pt'], ValueError, r"got 'Pt' \(there are "),
        (['CO', 3], TypeError, 'or Atoms; got 3'),
        (3, TypeError, r"molecules=\['CO', 'H2O'\]; got 3"),
        ({'CO': 2}, TypeError, r"molecules=\['CO', 'H2O'\]; got {'CO': 2}"),
        ([Atoms()], ValueError, 'has atoms of elements at finite positions'),
        ([Atoms('CX', [[0, 0, 0], [0, 0, 2]])], ValueError, 'atoms of elements'),
        ([Atoms('CO', [[0, 0, 0], [0, 0, np.nan]])], ValueError, 'finite positions'),
        ([Atoms('CO', [[0, 0, 0], [0, 0, 0.5]])], ValueError, 'at least 0.7 .* in CO it is 0.35'),
        (['SiO'], ValueError, 'never saw Si as mobile'),
    ],
)
def test_errors(molecules, error, match):
    with pytest.raises(error, match=match):
        generator(molecules)


def test_one_molecule_needs_no_list_and_training_without_data_takes_none(tmp_path):
    assert str(generator('H2O').sample().symbols[8:]) == 'OH2'
    own = OWN.copy()
    own.set_constraint(FixAtoms([0]))
    gen = generator(own)
    own.positions += 1.0
    assert_whole(gen.sample(), [OWN])
    with pytest.raises(ValueError, match='fit_with_calculator begins with atoms at random'):
        gen.fit_with_calculator(EMT(), tmp_path)


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write('slab.traj', slab())
    quick = ['-n', '1', '--steps', '10', '--seed', '1']
    assert main(['sample', 'surface', 'slab.traj', '--molecules', 'CO', 'OH', '--stoich', 'H', *quick, '-o', 'o.traj']) == 0
    atoms = read('o.traj')
    assert str(atoms.symbols) == 'Pt8HOCOH'
    assert_whole(atoms, ['CO', 'OH'])
    assert main(['again', 'o.traj']) == 0
    assert 'identical' in capsys.readouterr().out
    assert main(['sample', 'surface', 'slab.traj', *quick]) == 2
    assert 'got neither' in capsys.readouterr().err


def test_poses_find_a_molecule_across_the_border_and_correct_its_shape():
    rng = np.random.default_rng(0)
    cell = torch.tensor([[5.6, 0.0], [2.8, 4.85]], dtype=torch.float64)
    one = Molecules(['NH3']).each[0]
    shape = torch.tensor(one.positions)[None]
    turned = one.copy()
    turned.rotate(77, (1, 2, 3))
    away = torch.tensor(turned.positions + [5.5, 4.8, 2.0])
    strewn = away.clone()
    strewn[:, :2] += torch.tensor(rng.integers(-2, 3, (4, 2)) @ cell.numpy())  # every atom in another image
    bodies = RigidBodies([torch.arange(4)[None]], [shape], [cell[None]], Molecules(['NH3']).bonds)
    assert torch.allclose(bodies.poses(strewn), strewn, atol=1e-12)  # a pose is its own pose
    noisy = strewn + 0.05 * torch.tensor(rng.normal(size=(4, 3)))
    near = bodies.poses(noisy)
    assert (near - noisy).abs().max() < 0.2
    whole = bodies.poses(noisy, whole=True)
    assert torch.allclose(torch.cdist(whole, whole), torch.cdist(shape[0], shape[0]), atol=1e-12)
    assert shortest((whole - near)[None], cell[None]).abs().max() < 1e-12
    assert bodies.poses(noisy.float()).dtype == torch.float32
    assert bodies.poses(torch.full((4, 3), torch.nan)).isnan().all()
