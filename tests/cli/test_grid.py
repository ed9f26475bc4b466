"""``ase-diffusion grid``."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from ase.io.cube import read_cube_data

from ase_diffusion.cli import grid
from ase_diffusion.porous import adsorption_properties, energy_grid, framework_density


@pytest.fixture
def crystals(tmp_path):
    """Two small crystals in files."""
    images = [Atoms('OSi', [[0, 0, 0], [1.6, 0, 0]], cell=[9 + k, 8, 8.5], pbc=True) for k in range(2)]
    for name, atoms in zip('ab', images, strict=True):
        write(tmp_path / f'{name}.cif', atoms)
    write(tmp_path / 'both.extxyz', images)
    write(tmp_path / 'water.xyz', molecule('H2O'))
    return images


def rows(out):
    """Return the words of the lines of structures."""
    return [line.split() for line in out.splitlines() if '/' in line.split()[0] and line.split()[0][0].isdigit()]


def test_properties_and_files(call, crystals, tmp_path):
    status, out, _ = call('grid a.cif b.cif --probe Ar --shape 8 --temperature 300 --npz --cube --plot -o grids')
    assert status == 0 and '2 of 2 structures' in out
    for row, name, atoms in zip(rows(out), 'ab', crystals, strict=True):
        energy = energy_grid(atoms, (8, 8, 8), probe='Ar')
        found = adsorption_properties(energy, 300.0, density=framework_density(atoms))
        assert row[1] == name and float(row[3]) == pytest.approx(found['henry_coefficient'], rel=1e-3)
        with np.load(tmp_path / 'grids' / f'{name}.npz') as data:
            assert np.allclose(data['energy'], energy, rtol=1e-4, atol=0.1) and np.allclose(data['cell'], atoms.cell)
            assert data['henry_coefficient_mol_kg_pa'] == pytest.approx(found['henry_coefficient_mol_kg_pa'], rel=1e-3)
        assert read_cube_data(str(tmp_path / 'grids' / f'{name}.cube'))[0].shape == (8, 8, 8)
        assert (tmp_path / 'grids' / f'{name}.png').read_bytes().startswith(b'\x89PNG')


def test_all_structures_of_a_file_and_names_that_meet(call, crystals, tmp_path):
    status, out, _ = call('grid both.extxyz a.cif a.cif --spacing 2 --npz')
    assert status == 0 and [row[1] for row in rows(out)] == ['both-0', 'both-1', 'a', 'a~2']
    assert np.load(tmp_path / 'both-1.npz')['energy'].shape == (5, 4, 5)


def test_files_are_replaced_only_by_force(call, crystals, tmp_path, monkeypatch):
    (tmp_path / 'b.npz').write_bytes(b'mine')
    with monkeypatch.context() as patch:
        patch.setattr(grid, 'compute', lambda *args: pytest.fail('began'))
        status, _, err = call('grid a.cif b.cif --shape 4 --npz')
    assert status == 2 and 'b.npz' in err and '--force' in err and err.count('\n') == 1
    assert (tmp_path / 'b.npz').read_bytes() == b'mine'
    status, _, _ = call('grid a.cif b.cif --shape 4 --npz --force')
    assert status == 0 and np.load(tmp_path / 'b.npz')['energy'].shape == (4, 4, 4)


@pytest.mark.parametrize('processes', [1, 2])
def test_one_that_fails_does_not_end_the_others(call, crystals, tmp_path, processes):
    (tmp_path / 'bad.cif').write_text('nothing')
    status, out, _ = call(f'grid nowhere.cif bad.cif water.xyz a.cif --shape 4 --backend torch --processes {processes}')
    assert status == 1 and '1 of 4 structures; 3 failed' in out
    words = rows(out)
    assert [row[2] for row in words[:3]] == ['failed:'] * 3 and words[3][1] == 'a'
    assert 'there is none' in out and 'periodic' in out


def test_ctrl_c_keeps_what_is_done(call, crystals, monkeypatch, tmp_path):
    compute = grid.compute

    def interrupt(name, atoms, options):
        if name == 'b':
            raise KeyboardInterrupt
        return compute(name, atoms, options)

    monkeypatch.setattr(grid, 'compute', interrupt)
    status, out, _ = call('grid a.cif b.cif --shape 4 --npz')
    assert status == 130 and '1 of 2 structures' in out
    assert sorted(path.name for path in tmp_path.glob('*.npz')) == ['a.npz']


@pytest.mark.parametrize(
    ('options', 'word'),
    [
        ('--probe He9', 'He9'),
        ('--probe 1,x', 'EPSILON,SIGMA'),
        ('--probe 1,2,3', 'EPSILON,SIGMA'),
        ('--shape 4 4', 'one number or three'),
        ('--shape 0', 'at least 1'),
        ('--shape 4 --spacing 1', 'both'),
        ('--spacing 0', 'spacing'),
        ('--cutoff -1', 'cutoff'),
        ('--framework glass', 'glass'),
        ('--temperature 0', 'temperature'),
        ('--processes 0', 'processes'),
        ('--npz -o a.cif', 'a.cif is a file; name another folder'),
        ('--npz -o /proc/x', 'choose another folder'),
    ],
)
def test_wrong_options_are_one_line(call, crystals, options, word):
    status, _, err = call(f'grid a.cif {options}')
    assert status == 2 and word in err and err.count('\n') == 1


def test_a_probe_by_numbers(call, crystals):
    one, other = (rows(call(f'grid a.cif --shape 4 --probe {probe}')[1]) for probe in ('Ar', '119.8,3.405'))
    assert one == other
