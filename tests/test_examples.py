"""The examples run, on small settings: an example looks at ASE_DIFFUSION_FAST and takes few steps and structures."""

import subprocess
import sys
from pathlib import Path

import pytest

from ase_diffusion import list_models

EXAMPLES = Path(__file__).resolve().parents[1] / 'examples'
TIMEOUT = 900  # s
NEEDS = {'06_crystals.py': 'perov-5'}  # a model that has to be shipped


@pytest.mark.parametrize('path', sorted(EXAMPLES.glob('*.py')), ids=lambda path: path.name)
def test_script(path, tmp_path, environment):
    model = NEEDS.get(path.name)
    if model is not None and model not in [entry['name'] for entry in list_models()]:
        pytest.skip(f'{model} is not shipped')
    environment['ASE_DIFFUSION_FAST'] = '1'
    command = [sys.executable, str(path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, f'{path.name}\n{done.stdout}\n{done.stderr}'


@pytest.mark.parametrize('path', sorted(EXAMPLES.glob('*.ipynb')), ids=lambda path: path.name)
def test_notebook(path, tmp_path, environment, monkeypatch):
    nbformat = pytest.importorskip('nbformat')
    nbclient = pytest.importorskip('nbclient')
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('ASE_DIFFUSION_FAST', '1')
    monkeypatch.setenv('PYTHONPATH', environment['PYTHONPATH'])
    monkeypatch.delenv('MPLBACKEND', raising=False)  # the kernel brings its own
    notebook = nbformat.read(path, as_version=4)
    kernel = {'kernel_name': 'python3', 'resources': {'metadata': {'path': str(tmp_path)}}}
    nbclient.NotebookClient(notebook, timeout=TIMEOUT, **kernel).execute()
