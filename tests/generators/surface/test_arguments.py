"""Arguments of SurfaceDiffusion that have no meaning are named before any work; files that generators share."""

import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import Trajectory, read

from ase_diffusion import SurfaceDiffusion

QUICK = {'steps': 4, 'logfile': None}


@pytest.fixture
def slab():
    """p(2x2) Ag(111), two frozen layers."""
    slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(8)))
    return slab


def test_a_trajectory_that_takes_no_frames_is_refused_at_once(slab, tmp_path):
    (tmp_path / 'old.traj').write_text('hello')
    with pytest.raises(ValueError, match=r'trajectory.*old\.traj'):
        SurfaceDiffusion(slab, 'Ag2O', trajectory=tmp_path / 'old.traj', **QUICK)
    with pytest.raises(TypeError, match='trajectory'):
        SurfaceDiffusion(slab, 'Ag2O', trajectory=3, **QUICK)


def test_arguments_that_are_none_are_named_with_those_that_are(slab):
    gen = SurfaceDiffusion(slab, 'Ag2O', **QUICK)
    with pytest.raises(TypeError, match=r"SurfaceDiffusion has no argument seed; it has .*'rng'.*'stoich'"):
        SurfaceDiffusion(slab, 'Ag2O', seed=1)
    for data in ([slab, None], [3], 3):
        with pytest.raises(TypeError, match='data to train on is a list of Atoms|structures are ase.Atoms'):
            gen.fit(data)
    with pytest.raises(OSError, match='choose another folder'):
        gen.save('/proc/model.safetensors')
    with pytest.raises(TypeError, match='attach takes a function'):
        gen.attach(3)


def test_two_generators_write_into_one_trajectory(slab, tmp_path):
    two = [SurfaceDiffusion(slab, 'Ag2O', rng=k, **QUICK, trajectory=tmp_path / 'o.traj') for k in range(2)]
    for gen in two:
        gen._reason_to_reject = lambda atoms: None
    for _ in zip(*(gen.irun(2) for gen in two), strict=True):
        pass
    assert len(read(tmp_path / 'o.traj', ':')) == 4


@pytest.mark.parametrize('name', ['trajectory', 'denoising_trajectory'])
def test_frames_are_not_written_over_files_of_another_kind(slab, tmp_path, name):
    (tmp_path / 'notes').write_text('precious')
    connect(tmp_path / 'rows.db').write(slab)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in before:
        with pytest.raises(ValueError, match=f"{name}='.*' is (none|the name of a file of another format)"):
            SurfaceDiffusion(slab, 'Ag2O', **{name: path}, **QUICK)
    for new in ('new.db', 'new.xyz', 'new.json'):  # frames in the format of .traj under the name of another
        with pytest.raises(ValueError, match=r'\.traj of ASE; .* is the name of a file of another format'):
            SurfaceDiffusion(slab, 'Ag2O', **{name: tmp_path / new}, **QUICK)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    SurfaceDiffusion(slab, 'Ag2O', **{name: tmp_path / 'frames'}, **QUICK).sample()
    SurfaceDiffusion(slab, 'Ag2O', **{name: tmp_path / 'frames'}, **QUICK).sample()
    assert len(read(tmp_path / 'frames', ':', format='traj')) > 1


def test_two_trajectories_are_two_files(slab, tmp_path):
    with pytest.raises(ValueError, match='two files'):
        SurfaceDiffusion(slab, 'Ag2O', trajectory=str(tmp_path / 'a'), denoising_trajectory=tmp_path / 'a', **QUICK)
    with Trajectory(tmp_path / 'a.traj', 'w') as file, pytest.raises(TypeError, match='denoising_trajectory is a path'):
        SurfaceDiffusion(slab, 'Ag2O', denoising_trajectory=file, **QUICK)
