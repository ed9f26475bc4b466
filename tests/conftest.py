"""What all tests share."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # sums do not depend on the machine, and subprocesses inherit it
os.environ.setdefault('MPLBACKEND', 'Agg')

import sys
import time
from pathlib import Path

import pytest
import torch
from ase.build import fcc111
from ase.calculators.emt import EMT
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
def hide(monkeypatch):
    """``hide(name)``: as if a package were not installed, though tests before may have imported its modules."""

    def hide(name):
        for module in [key for key in sys.modules if key.startswith(f'{name}.')]:
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, name, None)

    return hide


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
def vasp(tmp_path, monkeypatch):
    """The environment that a user of VASP sets, pointing to a stand-in and to POTCARs of one line; the folder we are in."""
    for symbol in ('Ag', 'O'):
        folder = tmp_path / 'pseudos' / 'potpaw_PBE' / symbol
        folder.mkdir(parents=True)
        (folder / 'POTCAR').write_text(f'  PAW_PBE {symbol} stand-in\n   1.0\n End of Dataset\n')
    monkeypatch.setenv('ASE_VASP_COMMAND', f'"{sys.executable}" "{ROOT / "tests" / "calculators" / "fake_vasp.py"}"')
    monkeypatch.setenv('VASP_PP_PATH', str(tmp_path / 'pseudos'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def environment():
    """Environment of a subprocess that finds the same ase_diffusion from any folder."""
    path = [str(Path(ase_diffusion.__file__).resolve().parents[1]), os.environ.get('PYTHONPATH', '')]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, path))}


@pytest.fixture
def sleeper(tmp_path):
    """EMT that sleeps for ever at the second call of all; the file `pids` has a line with the process of each call."""
    pids = tmp_path / 'pids'

    class Sleeper(EMT):  # not at the top of the module: other processes cannot import it, and get it by value
        def calculate(self, *args, **kwargs):
            with open(pids, 'a') as file:
                file.write(f'{os.getpid()}\n')
            if len(pids.read_text().split()) == 2:
                time.sleep(1e6)
            super().calculate(*args, **kwargs)

    return Sleeper, pids
