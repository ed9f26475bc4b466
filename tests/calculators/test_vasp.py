"""VASP through ASE's own calculator; a stand-in takes the place of the executable, which is not to be had.

What is tested is all that stands between a user and VASP: the four input files as they are written, what comes back from ASE's
parser of the output, and what is said where something fails.
"""

from functools import partial

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.vasp import Vasp
from ase.config import cfg
from ase.constraints import FixAtoms
from ase.io import read

from ase_diffusion.relax import get_calculator, relax


@pytest.fixture
def images():
    """O, Ag, O on p(1x1) Ag(111), mixed in order as VASP does not have them, the substrate fixed."""
    made = []
    for k in range(2):
        atoms = fcc111('Ag', (1, 1, 2), a=4.16, vacuum=6.0)
        atoms.set_constraint(FixAtoms(indices=[0, 1]))
        for symbol, x, z in (('O', 0.0, 9.8), ('Ag', 1.5, 10.6), ('O', 0.7, 12.0)):
            atoms.append(symbol)
            atoms.positions[-1] = (x, 0.3 * k, z)
        made.append(atoms)
    return made


def why(atoms):
    return atoms.info['data']['relax_error']


def test_what_is_written(vasp, images):
    make = partial(get_calculator, 'vasp', encut=400, kpts=(4, 4, 1), gamma=True, ismear=1, sigma=0.1, ediff=1e-6)
    result = relax(images[0], make, steps=0, directory='work')
    assert 'relax_failed' not in result.info['key_value_pairs'], why(result)
    folder = vasp / 'work' / 'vasp-0000'
    lines = (folder / 'POSCAR').read_text().splitlines()
    assert lines[5].split() == ['Ag', 'O'] and lines[6].split() == ['3', '2'], 'sorted by element'
    assert lines[7].strip().lower().startswith('selective')
    written = read(folder / 'POSCAR')
    order = [0, 1, 3, 2, 4]
    assert written.get_chemical_symbols() == [images[0].symbols[k] for k in order]
    assert np.allclose(written.positions, images[0].positions[order], atol=1e-8)
    flags = [line.split()[3:6] for line in lines[9:14]]
    assert flags == [['F', 'F', 'F']] * 2 + [['T', 'T', 'T']] * 3
    incar = dict(line.split('=', 1) for line in (folder / 'INCAR').read_text().splitlines() if '=' in line)
    incar = {key.strip(): value.strip() for key, value in incar.items()}
    assert float(incar['ENCUT']) == 400 and incar['ISMEAR'] == '1' and float(incar['SIGMA']) == 0.1
    assert float(incar['EDIFF']) == 1e-6 and incar['GGA'] == 'PE'
    assert 'NSW' not in incar and 'IBRION' not in incar, 'ASE moves the atoms, not VASP'
    kpoints = (folder / 'KPOINTS').read_text().splitlines()
    assert kpoints[2].strip().lower().startswith('g') and kpoints[3].split() == ['4', '4', '1']
    titles = [line.split()[1] for line in (folder / 'POTCAR').read_text().splitlines() if 'PAW_PBE' in line]
    assert titles == ['Ag', 'O'], 'in the order of POSCAR'


def test_what_is_read(vasp, images):
    """Energy and forces of the springs come back in the order of the atoms, and a relaxation ends where they rest."""
    point = relax(images[0], 'vasp', steps=0)
    stretch = images[0].positions[:, 2] - 11.0
    assert point.get_potential_energy() == pytest.approx(20 * (stretch**2).sum())
    assert np.allclose(point.get_forces(apply_constraint=False)[:, 2], -40 * stretch, atol=1e-6)
    assert np.abs(point.get_forces()[:2]).max() == 0
    relaxed = relax(images, 'vasp', fmax=0.05, steps=20, min_distance=None)
    for before, after in zip(images, relaxed, strict=True):
        assert after.info['key_value_pairs']['relax_converged']
        assert after.info['key_value_pairs']['relax_calculator'] == 'vasp'
        assert np.allclose(after.positions[2:, 2], 11.0, atol=0.01)
        assert np.array_equal(after.positions[:2], before.positions[:2])
        assert after.pbc.tolist() == [True, True, False]


def test_every_structure_has_a_folder_of_its_own(vasp, images):
    relax(images, 'vasp', steps=0, directory='work')
    relax(images[0], 'vasp', steps=0, directory='work')
    assert sorted(path.name for path in (vasp / 'work').iterdir()) == ['vasp-0000', 'vasp-0000.1', 'vasp-0001']
    assert read(vasp / 'work' / 'vasp-0001' / 'POSCAR').positions[4, 1] == pytest.approx(0.3)
    factory = relax(images, partial(Vasp, xc='pbe'), steps=0, directory='factory')
    assert [bool(a.info['key_value_pairs'].get('relax_failed')) for a in factory] == [False, False]
    assert len(list((vasp / 'factory').iterdir())) == 2


@pytest.mark.parametrize(
    ('fault', 'text'),
    [
        ('fault exit', 'vasp-0000 returned an error: 1 stderr ZBRENT: fatal error in bracketing'),
        ('fault unconverged', 'Vasp in .*vasp-0000 did not converge.*nelm'),
        ('fault silent', 'OUTCAR'),
    ],
)
def test_a_run_that_fails_is_reported_and_the_others_kept(vasp, images, fault, text, monkeypatch):
    made = []

    def make():
        made.append(get_calculator('vasp', **({'system': fault} if not made else {})))
        return made[-1]

    results = relax(images, make, steps=0)
    assert [bool(atoms.info['key_value_pairs'].get('relax_failed')) for atoms in results] == [True, False]
    with pytest.raises(AssertionError, match=text.replace('vasp-0000', 'make-0000')):
        raise AssertionError(why(results[0]))


def test_a_missing_potcar(vasp, images):
    images[0].symbols[-1] = 'N'
    results = relax(images, 'vasp', steps=0)
    assert 'No pseudopotential for N' in why(results[0]) and 'VASP_PP_PATH' in why(results[0])
    assert 'relax_failed' not in results[1].info['key_value_pairs']


def test_no_command(vasp, images, monkeypatch):
    monkeypatch.delenv('ASE_VASP_COMMAND')
    if any(name in cfg for name in Vasp.env_commands):
        pytest.skip('this machine has a command for VASP in its configuration')
    assert 'ASE_VASP_COMMAND' in why(relax(images[0], 'vasp', steps=0))
