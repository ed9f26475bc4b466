"""Growth of silica frameworks: what is found is valid by independent means, repeatable, and safe on disk."""

import os

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ase.neighborlist import neighbor_list

from ase_diffusion.data import zeolites
from ase_diffusion.data.zeolite_cells import shipped_cells
from ase_diffusion.data.zeolites import Growth, grow_frameworks, read_zeolites
from ase_diffusion.porous import adsorption_properties, energy_grid
from ase_diffusion.porous.growth import FARTHEST, SEEN, framework_in_cell, try_starts
from ase_diffusion.porous.silica import check_framework
from ase_diffusion.porous.symmetry import orthogonal_groups

COLUMNS = ('natoms', 'scaled_positions', *zeolites.COLUMNS)


@pytest.fixture(scope='module')
def grown(tmp_path_factory):
    path = tmp_path_factory.mktemp('grown') / 'zeolites.npz'
    counts = grow_frameworks(path, count=6, rng=7, sizes=(8, 60))
    return path, counts


def columns(path):
    """Return what a file says of its frameworks."""
    with np.load(path) as file:
        return {name: file[name] for name in COLUMNS}


def equal(one, other):
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in COLUMNS)


def test_frameworks_hold_by_ase_neighbors(grown):
    images = read_zeolites(grown[0])
    assert len(images) == 6
    for atoms in images:
        silicon = atoms.numbers == 14
        assert 3 * silicon.sum() == len(atoms) <= 180 and atoms.pbc.all() and np.allclose(atoms.cell.angles(), 90)
        i, j, d = neighbor_list('ijd', atoms, 2.2)
        assert (silicon[i] != silicon[j]).all() and d.min() > 1.45 and d.max() < 1.80
        assert (np.bincount(i, minlength=len(atoms)) == np.where(silicon, 4, 2)).all()
        assert check_framework(atoms) is None
        # the three sums of the cost, each directly
        cost = ((d[silicon[i]] - 1.61) ** 2).sum() / silicon.sum()
        assert cost < atoms.info['key_value_pairs']['cost'] + 1e-4 < 0.0101


def test_labels_are_those_of_the_grid(grown):
    for atoms in read_zeolites(grown[0])[:3]:
        pairs = atoms.info['key_value_pairs']
        found = adsorption_properties(energy_grid(atoms, (32, 32, 32), device='cpu'))
        assert pairs['void_fraction'] == pytest.approx(found['void_fraction'], abs=1e-6)
        assert pairs['henry_coefficient'] == pytest.approx(found['henry_coefficient'], rel=1e-3)
        assert pairs['heat_of_adsorption'] == pytest.approx(found['heat_of_adsorption'], rel=1e-3, nan_ok=True)


def test_nets_are_distinct_and_counted(grown):
    path, counts = grown
    nets = columns(path)['net']
    assert len(set(nets.tolist())) == len(nets) == counts['found'] == 6
    assert counts['starts'] > 6 and min(counts.values()) >= 0


def test_same_seed_same_frameworks_whatever_the_processes_and_interruptions(grown, tmp_path):
    first = columns(grown[0])
    for count in (2, 4, 6):  # three runs, one file; its own seed holds
        grow_frameworks(tmp_path / 'resumed.npz', count=count, rng=7 if count == 2 else 8, sizes=(8, 60))
    assert equal(columns(tmp_path / 'resumed.npz'), first)
    grow_frameworks(tmp_path / 'parallel.npz', count=6, rng=7, sizes=(8, 60), processes=2)
    assert equal(columns(tmp_path / 'parallel.npz'), first)
    grow_frameworks(tmp_path / 'other.npz', count=3, rng=9, sizes=(8, 60), labels=False)
    assert not np.array_equal(columns(tmp_path / 'other.npz')['net'], first['net'][:3])
    assert np.isnan(columns(tmp_path / 'other.npz')['void_fraction']).all()


def test_a_failed_save_leaves_the_old_file(grown, tmp_path, monkeypatch):
    path = tmp_path / 'z.npz'
    growth = Growth.load(grown[0])
    growth.save(path)
    before = path.read_bytes()

    def broken(file, **data):
        file.write(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(np, 'savez_compressed', broken)
    with pytest.raises(OSError, match='disk full'):
        growth.save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ['z.npz']


def test_time_ends_a_growth(tmp_path):
    seen = []
    counts = grow_frameworks(tmp_path / 'z.npz', minutes=0.02, rng=0, sizes=(8, 60), save_every=0.0, progress=seen.append)
    assert counts['starts'] >= 100 and len(read_zeolites(tmp_path / 'z.npz')) == counts['found']
    with pytest.raises(ValueError, match='minutes'):
        grow_frameworks(tmp_path / 'z.npz')


def test_parts_do_not_depend_on_each_other():
    settings = 7, (8, 60), False
    SEEN.clear()
    both = try_starts(*settings, 0, 120)[2]
    SEEN.clear()
    second = try_starts(*settings, 60, 120)[2]
    late = [entry for entry in both if entry[0] >= 60]
    nets = {entry[2]['net'] for entry in late}
    again = [entry for entry in second if entry[2]['net'] in nets]
    assert [x[0] for x in again] == [x[0] for x in late]
    assert all(np.array_equal(x[1], y[1]) for x, y in zip(again, late, strict=True))


def test_groups_are_closed():
    groups = orthogonal_groups()
    assert len(groups) == 163
    for number, rotations, translations in groups[::23]:
        operations = {
            (*r.ravel().round().astype(int), *(t % 1 * 24).round().astype(int) % 24)
            for r, t in zip(rotations, translations, strict=True)
        }
        assert len(operations) == len(rotations), number
        r, t = rotations[-1], translations[-1]
        for q, s in zip(rotations, translations, strict=True):
            product = (*(r @ q).ravel().round().astype(int), *((r @ s + t) % 1 * 24).round().astype(int) % 24)
            assert product in operations


def test_other_files_are_read(grown, tmp_path):
    atoms = read_zeolites(grown[0])[0]
    plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    plain.info |= {'framework': 'XYZ', 'void_fraction': 0.1, 'KH_unitless': 3.0, 'Qst_kJ_mol': 20.0}
    write(tmp_path / 'iza.extxyz.gz', [plain, plain])
    images = read_zeolites(tmp_path / 'iza.extxyz.gz')
    assert len(images) == 2 and images[0].info['key_value_pairs'] == {
        'framework': 'XYZ',
        'void_fraction': 0.1,
        'henry_coefficient': 3.0,
        'heat_of_adsorption': 20.0,
    }
    np.savez(
        tmp_path / 'cells.npz',
        natoms=[len(plain)],
        numbers=plain.numbers,
        scaled_positions=plain.get_scaled_positions(),
        cell=plain.cell.array[None],
        info_KH_unitless=[3.0],
    )
    again = read_zeolites(tmp_path / 'cells.npz')[0]
    assert np.allclose(again.get_all_distances(mic=True), plain.get_all_distances(mic=True), atol=1e-3)
    assert again.info['key_value_pairs'] == {'henry_coefficient': 3.0}
    np.savez(tmp_path / 'none.npz', a=1)
    with pytest.raises(ValueError, match='natoms'):
        read_zeolites(tmp_path / 'none.npz')
    with pytest.raises(ValueError, match='lacks'):
        grow_frameworks(tmp_path / 'none.npz', count=1)
    with pytest.raises(FileNotFoundError):
        read_zeolites(tmp_path / 'nothing.npz')


def test_a_framework_is_found_in_the_cell_and_the_group_of_a_known_one():

    cells, found = shipped_cells(), []
    for row in range(0, 400, 20):
        result = framework_in_cell(
            np.random.default_rng(row), cells.lengths[row], int(cells.silicon[row]), cells.operations(row), attempts=30
        )
        if isinstance(result, str):
            assert result in FARTHEST
            continue
        lengths, scaled, cost = result
        n = len(scaled) // 3
        atoms = Atoms(np.repeat([14, 8], [n, 2 * n]), cell=lengths, scaled_positions=scaled, pbc=True)
        assert cost < 0.01 and check_framework(atoms) is None and abs(n / cells.silicon[row] - 1) <= 0.1
        rotations, translations = cells.operations(row)
        for r, t in zip(rotations, translations, strict=True):  # of the T sites; O beside the bonds may break it a little
            d = (scaled[:n] @ r.T + t)[:, None] - scaled[:n]
            assert np.linalg.norm((d - np.round(d)) * lengths, axis=-1).min(1).max() < 0.5
        found.append(row)
    assert len(found) > 5
    axes = np.array([np.eye(3), [[1, 0, 0], [0, 0, 1], [0, 1, 0]]])  # b = c alone: no standard setting
    assert framework_in_cell(np.random.default_rng(0), np.full(3, 10.0), 16, (axes, np.zeros((2, 3)))) == FARTHEST[0]
