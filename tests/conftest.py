"""What all tests share."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # sums do not depend on the machine, and subprocesses inherit it
os.environ.setdefault('MPLBACKEND', 'Agg')

from pathlib import Path

import pytest
import torch
from ase.build import fcc111
from ase.constraints import FixAtoms

import ase_diffusion

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run the tests marked slow too')


def pytest_collection_modifyitems(config, items):
    """Skip the slow tests, unless the command line asks for them."""
    if config.getoption('--slow') or 'slow' in config.getoption('markexpr'):
        return
    for item in items:
        if item.get_closest_marker('slow'):
            item.add_marker(pytest.mark.skip(reason='slow; pytest --slow runs it'))


@pytest.fixture
def root():
    """The checkout."""
    return ROOT


@pytest.fixture
def ag_slab():
    """Ag(111) p(2x2), two layers, all fixed, 10 A of vacuum on either side."""
    slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=10.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


@pytest.fixture
def environment():
    """Environment of a subprocess that finds the same ase_diffusion from any folder."""
    path = [str(Path(ase_diffusion.__file__).resolve().parents[1]), os.environ.get('PYTHONPATH', '')]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, path))}
