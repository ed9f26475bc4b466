"""GPAW for real: plane waves, from a generated structure; skipped where GPAW is not installed.

The settings are as cheap as they can be (few k-points, 200 eV, 11 electrons per Ag): they test the way, not silver.
"""

from functools import partial

import numpy as np
import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.relax import calculator_name, get_calculator, relax

gpaw = pytest.importorskip('gpaw', reason='GPAW is not installed; README.md says how')

CHEAP = {
    'mode': {'name': 'pw', 'ecut': 200},
    'kpts': (2, 2, 1),
    'setups': {'Ag': '11'},
    'convergence': {'energy': 1e-3, 'density': 1e-3},
    'occupations': {'name': 'fermi-dirac', 'width': 0.2},
}


@pytest.fixture(scope='module')
def generated():
    """An O atom that the shipped model puts on Ag(111) 1x1x2."""
    slab = fcc111('Ag', (1, 1, 2), a=4.16, vacuum=5.0)
    slab.set_constraint(FixAtoms(indices=[0, 1]))
    return SurfaceDiffusion(slab, 'O', rng=0, steps=20, logfile=None).sample()


def test_a_generated_structure_relaxes_in_plane_waves(generated, tmp_path):
    result = relax(generated, partial(get_calculator, 'gpaw', **CHEAP), fmax=0.1, steps=2, directory=tmp_path)
    pairs = result.info['key_value_pairs']
    assert 'relax_failed' not in pairs, result.info['data']['relax_error']
    assert pairs['relax_calculator'] == 'gpaw' and 1 <= pairs['relax_steps'] <= 2
    assert result.get_potential_energy() < pairs['energy_generated'] - 1e-3
    assert np.array_equal(result.positions[:2], generated.positions[:2])
    assert not np.array_equal(result.positions[2], generated.positions[2])
    assert result.pbc.tolist() == [True, True, False]
    assert np.linalg.norm(result.get_forces(apply_constraint=False), axis=1).max() > 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ['gpaw-0000']

    direct = generated.copy()  # plain GPAW, without any of ours
    direct.set_constraint()
    direct.pbc = True
    direct.calc = gpaw.GPAW(xc='PBE', txt=None, **CHEAP)
    assert pairs['energy_generated'] == pytest.approx(direct.get_potential_energy(), abs=1e-4)


def test_the_name_gives_a_fresh_calculator_and_a_log_for_each(tmp_path, monkeypatch):
    """Two single points of an H2 molecule; the second must not know the first."""
    from ase.build import molecule

    molecules = [molecule('H2', vacuum=2.5) for _ in range(2)]
    molecules[1].positions[1, 2] -= 0.1
    cheap = {'mode': 'lcao', 'basis': 'sz(dzp)', 'xc': 'PBE', 'h': 0.3}
    monkeypatch.setattr('ase_diffusion.calculators.names.GPAW_DEFAULTS', cheap)
    results = relax(molecules, 'gpaw', steps=0, directory=tmp_path)
    assert [bool(atoms.info['key_value_pairs'].get('relax_failed')) for atoms in results] == [False, False]
    assert results[0].get_potential_energy() != results[1].get_potential_energy()
    logs = [(tmp_path / f'gpaw-000{k}' / 'gpaw.txt').read_text() for k in range(2)]
    assert all(text.count('Converged') == 1 or 'converged' in text.lower() for text in logs)
    relax(molecules[0], 'gpaw', steps=0, directory=tmp_path)
    assert (tmp_path / 'gpaw-0000.1' / 'gpaw.txt').exists(), 'an older folder is not overwritten'


def test_names():
    assert calculator_name(partial(get_calculator, 'gpaw', **CHEAP)) == 'gpaw'
