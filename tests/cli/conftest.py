"""A slab, structures on it, and a way to call the command line."""

import pytest
from ase.build import fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from ase_diffusion.cli.main import main
from ase_diffusion.search import random_start


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run a line in a temporary folder; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(line):
        status = main(line.split())
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def slab():
    """p(3x3) Ag(111), all atoms held."""
    slab = fcc111('Ag', (3, 3, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


@pytest.fixture
def slab_file(slab, tmp_path):
    write(tmp_path / 'slab.traj', slab)
    return 'slab.traj'


@pytest.fixture
def starts(slab):
    """Three random overlayers Ag3O with energies."""
    images = [random_start(slab, 'Ag3O', seed) for seed in range(3)]
    for energy, atoms in enumerate(images):
        atoms.calc = SinglePointCalculator(atoms, energy=-float(energy), forces=0 * atoms.positions)
    return images


@pytest.fixture
def starts_file(starts, tmp_path):
    write(tmp_path / 'starts.traj', starts)
    return 'starts.traj'
