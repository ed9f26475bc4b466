"""Arguments of SurfaceDiffusion that have no meaning are named before any work; files that generators share."""

import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.io import read

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
