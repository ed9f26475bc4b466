"""A structure is made again bit by bit from its own record: every task, choice, relaxation and sampler."""

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read, write

from ase_diffusion import CrystalDiffusion, PointCloudDiffusion, SurfaceDiffusion, ZeoliteDiffusion
from ase_diffusion.cli.main import main
from ase_diffusion.diffusion import SAMPLERS
from ase_diffusion.relax import relax


def same(one, other):
    """Tell whether two structures are the same bit by bit."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ('numbers', 'positions', 'cell', 'pbc'))


def surface(slab, **options):
    return SurfaceDiffusion(slab, 'Ag3O', rng=5, **{'steps': 6, 'logfile': None, 'validate': False, **options})


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_surface_samplers(ag_slab, sampler):
    gen = surface(ag_slab, sampler=sampler, batch_size=2)
    images = gen.sample(3)
    again = [surface(ag_slab, sampler=sampler).again(atoms) for atoms in images[::-1]][::-1]  # batches of another size
    assert all(map(same, images, again))
    assert not same(images[0], images[1])


TASKS = {
    'best of': ({'best_of': 3, 'batch_size': 2}, lambda gen: gen.sample(2)),
    'relaxed': ({'relax': {'calculator': 'ag-o', 'steps': 2}}, lambda gen: gen.sample(2)),
    'guided': ({'guidance': {'finish_steps': 2}}, lambda gen: gen.sample(2)),
    'conditions': ({}, lambda gen: gen.sample(2, energy=0.1, guidance_scale=1.5)),
    'nothing asked for': ({}, lambda gen: gen.sample(2, energy=None)),
    'rejecting': ({'validate': True, 'steps': 20}, lambda gen: gen.sample(2)),
    'perturb': ({}, lambda gen: gen.perturb(gen.sample(3), 0.2, 5)),
    'complete': ({}, lambda gen: gen.complete(gen.sample(), [9, 10], 2, repeats=2)),
}


@pytest.mark.parametrize('task', TASKS)
def test_surface_tasks_from_a_file(ag_slab, tmp_path, task):
    options, make = TASKS[task]
    images = make(surface(ag_slab, **options))
    write(tmp_path / 'x.traj', images)
    for atoms, written in zip(images, read(tmp_path / 'x.traj', ':'), strict=True):
        new = SurfaceDiffusion.from_record(written).again(written)
        assert same(atoms, new)
        assert (atoms.calc is None) == (new.calc is None)
        assert new.info['key_value_pairs']['seed'] == atoms.info['key_value_pairs']['seed']
        assert same(surface(ag_slab, **options).again(new), atoms)  # the record goes along


def test_what_came_later_does_not_matter(ag_slab):
    gen = surface(ag_slab)
    atoms = gen.sample()
    later = relax(atoms, EMT(), steps=1)
    later.set_initial_magnetic_moments(np.arange(12.0))
    new = gen.again(later)
    assert same(new, atoms)
    assert np.array_equal(new.get_initial_magnetic_moments(), np.arange(12.0))
    assert 'relax_steps' not in new.info['key_value_pairs']


@pytest.mark.parametrize('task', ['sample', 'predict', 'perturb', 'relaxed'])
def test_crystals(tmp_path, task):
    options = {'rng': 2, 'steps': 4, 'logfile': None, 'validate': False}
    if task == 'predict':
        images = CrystalDiffusion({'Na': 2, 'Cl': 2}, **options).sample(3)
    elif task == 'relaxed':
        images = CrystalDiffusion('Cu4', relax={'calculator': 'emt', 'steps': 1}, **options).sample(2)
    else:
        gen = CrystalDiffusion(model='perov-5', batch_size=2, **options)
        images = gen.sample(3) if task == 'sample' else gen.perturb(gen.sample(2), 0.1, 3)
    write(tmp_path / 'x.traj', images)
    for atoms, written in zip(images, read(tmp_path / 'x.traj', ':'), strict=True):
        assert same(CrystalDiffusion.from_record(written).again(written), atoms)


@pytest.mark.parametrize('symmetrize', [None, 0, 0.1, 0.2])
def test_what_is_none_and_is_not_the_default_comes_back(symmetrize):
    atoms = CrystalDiffusion(model='perov-5', steps=20, rng=0, symmetrize=symmetrize, logfile=None, validate=False).sample()
    assert same(CrystalDiffusion.from_record(atoms).again(atoms), atoms)


def test_other_generators_and_structures_are_refused(ag_slab):
    atoms = surface(ag_slab).sample()
    with pytest.raises(ValueError, match='steps 6, now 7'):
        surface(ag_slab, steps=7).again(atoms)
    with pytest.raises(ValueError, match='carries none'):
        surface(ag_slab).again(ag_slab)
    with pytest.raises(ValueError, match='surface-diffusion generator; CrystalDiffusion is another'):
        CrystalDiffusion.from_record(atoms)


def test_the_verb(ag_slab, tmp_path, capsys):
    images = surface(ag_slab).sample(2)
    write(tmp_path / 'x.traj', images)
    assert main(['again', str(tmp_path / 'x.traj'), '-o', str(tmp_path / 'y.traj')]) == 0
    assert capsys.readouterr().out.count('identical') == 2
    assert all(map(same, images, read(tmp_path / 'y.traj', ':')))
    images[1].positions[-1] += 0.1
    write(tmp_path / 'z.traj', images)
    assert main(['again', str(tmp_path / 'z.traj')]) == 1
    assert '0.1 A' in capsys.readouterr().out
    write(tmp_path / 'w.traj', [ag_slab, images[0]])
    assert main(['again', str(tmp_path / 'w.traj')]) == 1
    out = capsys.readouterr().out
    assert 'identical' in out and 'carries none' in out
    write(tmp_path / 'v.traj', [ag_slab])
    assert main(['again', str(tmp_path / 'v.traj')]) == 2


@pytest.mark.parametrize(
    ('made', 'asked'),
    [
        (
            lambda: PointCloudDiffusion(['Mg', 'Mn', 'O'], rng=1, min_distance=0.6, templates=1, logfile=None),
            {'formation_energy': -2.0},
        ),
        (lambda: ZeoliteDiffusion(rng=2, space_group=[62, 63], max_cost=0.02, logfile=None), {'void_fraction': 0.1}),
    ],
)
def test_point_clouds_and_frameworks_again(made, asked, tmp_path):
    images = made().sample(2, **asked)
    write(tmp_path / 'a.traj', images)
    for atoms in read(tmp_path / 'a.traj', ':'):
        gen = type(made()).from_record(atoms)
        new = gen.again(atoms)
        assert same(new, atoms)
