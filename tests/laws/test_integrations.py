"""Where CI runs (ASE_DIFFUSION_CI=1), everything that tests would be skipped without is installed."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

MODULES = (
    'ase_db_backends',
    'ase_ga',
    'chgnet',
    'distributed',
    'gpaw',
    'ipykernel',
    'lightning',
    'matscipy',
    'nbclient',
    'nbformat',
    'numba',
    'schnetpack',
    'sevenn',
    'spglib',
)

pytestmark = pytest.mark.skipif(os.environ.get('ASE_DIFFUSION_CI') != '1', reason='only CI installs everything')


@pytest.mark.parametrize('module', MODULES)
def test_ci_has_the_integration(module):
    assert find_spec(module), f'{module} is not installed: its tests are skipped'


def test_ci_has_a_postgresql_server():
    assert shutil.which('initdb') or list(Path('/usr/lib/postgresql').glob('*/bin/initdb'))
