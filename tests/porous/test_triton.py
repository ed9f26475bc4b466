"""The fused kernel: in Triton's interpreter without a GPU, and as it is where there is one.

On a GPU machine: ``pytest tests/porous/test_triton.py``. Without one: ``pip install triton``, and the same line.
"""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ase_diffusion.porous import energy_grid

pytestmark = pytest.mark.skipif(not find_spec('triton'), reason='triton is not installed')

INTERPRET = """
import sys
import numpy as np
from ase import Atoms
from ase_diffusion.porous import energy_grid
rng = np.random.default_rng(0)
images = [Atoms(['OAl', 'O'][k], scaled_positions=rng.random((1 + (k == 0), 3)), pbc=True,
                cell=np.diag(rng.uniform(5, 7, 3)) @ (np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3)))) for k in range(2)]
for shape, cutoff in (((5, 2, 33), 3.1), ((1, 3, 4), 4.3)):
    exact = energy_grid(images, shape, cutoff=cutoff, dtype=float, device='cpu')
    grids = energy_grid(images, shape, cutoff=cutoff, backend='triton', device='cpu')
    low = exact < 5000
    assert grids.shape == exact.shape and low.any() and np.abs(grids - exact)[low].max() < 0.05
    assert np.allclose(grids, exact, rtol=1e-4, atol=0.05)
print('agrees')
"""


def test_in_the_interpreter(environment, tmp_path):
    code = tmp_path / 'interpret.py'
    code.write_text(INTERPRET)
    environment['TRITON_INTERPRET'] = '1'
    done = subprocess.run([sys.executable, code.name], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and 'agrees' in done.stdout, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU')
def test_on_a_gpu(lta, mfi, make_crystal):
    images = [lta, mfi, *(make_crystal(k, atoms=5) for k in range(6))]
    grids = energy_grid(images, backend='triton', device='cuda')
    for grid, atoms in zip(grids, images, strict=True):
        exact = energy_grid(atoms, dtype=np.float64, device='cuda')
        assert np.abs(grid - exact)[exact < 5000].max(initial=0.0) < 0.05


def test_it_says_that_it_needs_a_gpu(lta, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    with pytest.raises(ValueError, match='NVIDIA GPU'):
        energy_grid(lta, (2, 2, 2), backend='triton', device='cpu')
