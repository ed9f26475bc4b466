"""Rooms whose names are imported at their first use look from outside like others."""

import subprocess
import sys
from importlib import import_module

import pytest

ROOMS = ['ase_diffusion.metrics', 'ase_diffusion.metrics.surface', 'ase_diffusion.metrics.crystal', 'ase_diffusion.porous']


@pytest.mark.parametrize('room', ROOMS)
def test_public_names_are_listed_and_there(room):
    module = import_module(room)
    assert len(set(module.__all__)) == len(module.__all__) > 10
    listed = dir(module)
    assert set(module.__all__) <= set(listed) and '__name__' in listed and listed == sorted(set(listed))
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in vars(module), 'kept after the first use'
    assert dir(module) == sorted(set(dir(module)))


@pytest.mark.parametrize('room', ROOMS)
def test_a_name_that_is_not_there_is_refused_with_those_that_are(room):
    module = import_module(room)
    with pytest.raises(AttributeError, match=f"'{room}' has no attribute 'nothing'; it has .*{module.__all__[0]}"):
        module.nothing  # noqa: B018
    with pytest.raises(ImportError, match='nothing'):
        exec(f'from {room} import nothing')
    assert not hasattr(module, '__path_of_nothing__')


@pytest.mark.parametrize('room', ROOMS)
def test_importing_a_room_imports_nothing_slow(room, environment, tmp_path):
    code = (
        f'import sys, {room}; dir({room})\n'
        f'slow = {{"torch", "numba", "scipy", "ase", "pymatgen"}} & set(sys.modules)\n'
        f'print(*slow, *(name for name in sys.modules if name.startswith("{room}.")))'
    )
    done = subprocess.run([sys.executable, '-c', code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
