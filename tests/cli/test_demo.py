"""The demo: what it writes, and how it marks what it finds."""

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from ase_diffusion.cli import demo
from ase_diffusion.metrics import ag6_model
from ase_diffusion.search import random_start


def test_demo(call, tmp_path):
    status, out, _ = call('demo -n 3 --steps 8 --relax-steps 2 --out results')
    assert status == 0
    images = read(tmp_path / 'results/candidates.traj', ':')
    energies = [atoms.get_potential_energy() for atoms in images]
    assert len(images) == 3 and energies == sorted(energies)
    assert (tmp_path / 'results/candidates.png').read_bytes().startswith(b'\x89PNG')
    rows = [line.split() for line in out.splitlines() if line[:1].isdigit() and 'converged' in line]
    assert [row[0] for row in rows] == ['1', '2', '3']
    assert float(rows[0][2]) == 0
    assert 'ase gui results/candidates.traj' in out
    assert np.array_equal(images[0].positions[:32], read(tmp_path / 'results/slab.traj').positions)


@pytest.fixture
def candidates():
    """The Ag6 model, another structure, the Ag6 model again, and one that failed."""
    slab = demo.make_slab()
    images = [ag6_model(), random_start(slab, 'Ag12O6', 0), ag6_model(), random_start(slab, 'Ag12O6', 1)]
    for energy, atoms in zip((0.0, 0.01, 0.015), images, strict=False):
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=0 * atoms.positions)
        atoms.info['key_value_pairs'] = {'relax_steps': 5, 'relax_converged': True, 'energy_generated': energy + 1}
    images[3].info['key_value_pairs'] = {'relax_failed': True, 'relax_converged': False}
    images[3].info['data'] = {'relax_error': 'it blew up'}
    return images


def test_the_table_marks_the_ag6_model_duplicates_and_failures(candidates, capsys):
    demo.report(candidates, candidates[0])
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.partition('\n\n')[0].splitlines()[2:]}
    assert rows['1'] == ['1.000', '0.000', '5', 'Ag6', 'model']
    assert rows['2'][0] == '1.010' and 'Ag6' not in rows['2']
    assert rows['3'][3:] == ['#1', 'Ag6', 'model']
    assert rows['4'][-3:] == ['it', 'blew', 'up']
    assert '2 different structures; 2 of 3 candidates' in out and '+0.000 eV' in out


def test_all_failed(candidates, capsys, tmp_path):
    demo.report(candidates[3:], candidates[0])
    demo.write(candidates[3:], tmp_path)
    assert 'it blew up' in capsys.readouterr().out
    assert (tmp_path / 'candidates.traj').exists() and not (tmp_path / 'candidates.png').exists()


def test_the_picture_shows_different_structures_and_the_ladder(candidates):
    figure = demo.draw(candidates[:3])
    assert len(figure.axes) == 2 * 2 + 1
    assert 'Ag6' in figure.axes[0].get_title()
    assert figure.axes[-1].get_ylabel()
