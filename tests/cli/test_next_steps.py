"""Commands that are printed after ``next:`` work as they stand; arguments that are wrong are no failed generations."""

import re

import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.io import read, write

from ase_diffusion.calculators import default


def commands(out):
    """Return the lines ``ase-diffusion ...`` after ``next:`` and ``Next:``, without the program."""
    text = out[out.lower().rindex('next:') :]
    return [line.strip() for line in re.findall(r'ase-diffusion ((?:(?!&&|   ).)+)', text)]


@pytest.fixture
def none_installed(monkeypatch):
    monkeypatch.setattr(default, '_installed', lambda package: False)


def test_after_overlayers(call, slab_file, none_installed):
    status, out, _ = call('sample surface slab.traj --stoich Ag3O -n 2 --steps 8 --seed 1')
    assert status == 0
    [line] = commands(out)
    assert line == 'relax overlayers.traj -o relaxed.traj --calculator ag-o'
    assert call(line)[0] == 0 and len(read('relaxed.traj', ':')) == 2


@pytest.mark.parametrize('installed', [False, True])
def test_after_crystals(call, monkeypatch, installed):
    monkeypatch.setattr(default, '_installed', lambda package: installed and package == 'chgnet')
    status, out, _ = call('sample crystal -n 1 --steps 8 --seed 1 -o crystals.traj')
    assert status == 0 and 'ase gui crystals.traj' in out and 'ag-o' not in out
    if not installed:
        assert 'pip install sevenn or chgnet' in out
        return
    assert commands(out) == ['relax crystals.traj -o relaxed.traj --calculator chgnet']
    pytest.importorskip('chgnet')
    assert call(commands(out)[0] + ' --steps 1')[0] in (0, 1)  # eight steps make no crystal: it may blow up


def test_after_a_search_in_which_all_failed(call, slab_file, monkeypatch):
    monkeypatch.delenv('ASE_VASP_COMMAND', raising=False)
    line = 'search slab.traj --stoich Ag3O -n 1 --denoising-steps 8 --seed 1 --workers 0 --calculator vasp'
    status, out, _ = call(line)
    assert status == 1 and out.endswith('next: the same line with --retry-failed tries those that failed again\n')
    status, out, _ = call(f'{line} --retry-failed')
    assert status == 1 and '1 to do' in out


def test_after_a_search_and_a_training(call, slab_file, none_installed, tmp_path):
    rss = 'data rss slab.traj --stoich Ag:2-3,O:1 --calculator emt --steps 4 --seed 3 -n 4'
    status, out, _ = call(rss)
    assert status == 0
    convert, train = commands(out)
    assert call(convert)[0] == 0
    pytest.importorskip('lightning')
    tiny = ' --steps 3 --features 8 --blocks 1 --batch-size 2 --cutoff 4 --every 3 --accelerator cpu --quiet'
    status, out, _ = call(train + tiny)
    assert status == 0
    [line] = commands(out)
    assert '--stoich Ag' in line
    assert call(f'{line} -n 1 --steps 4')[0] in (0, 2)  # the network knows nothing: atoms may be too close
    status, out, _ = call(train.replace('surface', 'forcefield').replace('model', 'field') + f'{tiny} --max-force 1000')
    assert status == 0
    assert call(f'{commands(out)[0]} --steps 1')[0] == 0


def test_after_a_demo(call, tmp_path):
    status, out, _ = call('demo -n 1 --steps 8 --relax-steps 1')
    assert status == 0
    sample, relax = commands(out)
    assert call(sample.replace('-n 32', '-n 1 --steps 8'))[0] == 0
    assert call(f'{relax} --steps 1')[0] == 0
    assert call('demo -n 1 --steps 8 --relax-steps 1')[0] == 0 and (tmp_path / 'demo-1' / 'slab.traj').exists()


@pytest.mark.parametrize(
    'line',
    [
        'sample surface slab.traj --stoich Ag3O -n 0',
        'sample surface slab.traj --stoich Ag3O --condition color=1',
        'sample surface copper.traj --stoich Cu2Cl',
        'sample crystal --natoms 0',
        'sample crystal --stoich NaCl --condition formation_energy=low',
    ],
)
def test_wrong_arguments_are_no_failed_generation(call, slab_file, line):
    call('models')
    slab = fcc111('Cu', (2, 2, 2), vacuum=8.0)
    slab.set_constraint(FixAtoms(range(8)))
    write('copper.traj', slab)
    status, out, err = call(line)
    assert status == 2 and out == '' and err.count('\n') == 1
