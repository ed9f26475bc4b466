"""Random search with calculators that write files: a folder for each run, whoever makes them."""

from functools import partial

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.calculators.vasp import Vasp
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read

from ase_diffusion.errors import GenerationFailed, MissingDependency
from ase_diffusion.search import RandomStructureSearch


@pytest.fixture
def silver():
    """Ag(111) p(1x1), fixed; the springs of the stand-in for VASP rest at 11 A, 2.6 A above it."""
    slab = fcc111('Ag', (1, 1, 2), a=4.16, vacuum=6.0)
    slab.set_constraint(FixAtoms(indices=[0, 1]))
    return slab


def search(slab, path, **options):
    return RandomStructureSearch(slab, 'O', database=path, rng=7, logfile=None, **options)


@pytest.mark.parametrize(('calculator', 'workers'), [('vasp', 1), (partial(Vasp, xc='pbe'), 1), ('vasp', 2)])
def test_calculators_with_files_have_a_folder_for_each_run(vasp, silver, calculator, workers):
    """By a name as by a factory; the POSCAR of a run is its last frame, which that of no other run has overwritten."""
    name = calculator if isinstance(calculator, str) else 'Vasp'
    options = {'calculator': calculator, 'steps': 1, 'directory': vasp / 'work', 'workers': workers}
    results = search(silver, vasp / 'a.db', **options).run(2)
    assert sorted(path.name for path in (vasp / 'work').iterdir()) == [f'{name}-0000', f'{name}-0001']
    for run, atoms in enumerate(results):
        written = read(vasp / 'work' / f'{name}-{run:04d}' / 'POSCAR')
        assert np.allclose(written.positions, atoms.positions, atol=1e-6)
        assert atoms.info['key_value_pairs']['relax_calculator'] == name
    assert len(results) == 2 and not np.allclose(results[0].positions, results[1].positions, atol=0.01)


def test_a_failed_run_with_files_has_another_folder_the_next_time(vasp, silver, monkeypatch):
    make = search(silver, vasp / 'a.db', calculator='vasp', steps=1)
    with monkeypatch.context() as without:
        without.setenv('ASE_VASP_COMMAND', 'false')
        with pytest.raises(GenerationFailed, match='all 1 runs'):
            make.run(1)
    assert len(make.run(1)) == 1
    assert sorted(path.name for path in vasp.glob('vasp-*')) == ['vasp-0000', 'vasp-0000.1']


def test_a_finished_calculator_with_files_has_one_worker(silver, tmp_path):
    with pytest.raises(ValueError, match='one folder.*2 workers.*function that makes it'):
        search(silver, tmp_path / 'a.db', calculator=Vasp(xc='pbe'), workers=2)
    search(silver, tmp_path / 'a.db', calculator=Vasp(xc='pbe'))
    search(silver, tmp_path / 'b.db', calculator=EMT(), workers=2)


def test_a_package_that_is_not_installed_ends_a_search(silver, tmp_path, hide):
    hide('gpaw')
    with pytest.raises(MissingDependency, match='gpaw'):
        search(silver, tmp_path / 'a.db', calculator='gpaw').run(2)
    assert connect(tmp_path / 'a.db').count() == 0
