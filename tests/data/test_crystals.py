"""Readers of crystals: npz, the published CSV sets, ASE databases; what cannot be read is skipped, counted and named."""

import csv
import io
import logging

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect

from ase_diffusion.data.crystals import read_crystals


def crystals():
    return [bulk('NaCl', 'rocksalt', a=5.6), bulk('Cu', 'fcc', a=3.6), bulk('ZnS', 'wurtzite', a=3.8, c=6.2)]


def cif(atoms):
    file = io.BytesIO()
    ase.io.write(file, atoms, format='cif')
    return file.getvalue().decode()


def write_npz(path, images, **info):
    np.savez(
        path,
        natoms=[len(a) for a in images],
        numbers=np.concatenate([a.numbers for a in images]),
        scaled_positions=np.concatenate([a.get_scaled_positions() for a in images]),
        cell=np.stack([a.cell[:] for a in images]),
        **{f'info_{k}': v for k, v in info.items()},
    )


def write_csv(path, rows):
    with open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, ['', 'material_id', 'heat_ref', 'cif'])
        writer.writeheader()
        writer.writerows(rows)


def same(a, b):
    return (a.numbers == b.numbers).all() and np.allclose(a.cell.cellpar(), b.cell.cellpar(), atol=1e-4) and all(a.pbc)


def test_npz_keeps_structures_properties_and_splits(tmp_path):
    images = crystals()
    splits = ['train', 'test', 'train']
    write_npz(tmp_path / 'a.npz', images, heat_ref_eV=[0.1, -0.2, np.nan], split=splits, material_id=[1, 2, 3])
    found = read_crystals(tmp_path / 'a.npz')
    assert all(same(a, b) for a, b in zip(found, images, strict=True))
    assert np.allclose(found[2].get_scaled_positions(), images[2].get_scaled_positions())
    pairs = [a.info['key_value_pairs'] for a in found]
    assert pairs[0] == {'heat_of_formation': 0.1, 'split': 'train'}
    assert pairs[2] == {'split': 'train'}  # unknown is not NaN
    assert [len(a) for a in read_crystals(tmp_path / 'a.npz', 'train')] == [2, 4]
    with pytest.raises(ValueError, match="no crystals of the split 'val'"):
        read_crystals(tmp_path / 'a.npz', 'val')
    with pytest.raises(ValueError, match='split is one of'):
        read_crystals(tmp_path / 'a.npz', 'valid')


def test_a_damaged_npz_says_what_is_wrong(tmp_path):
    np.savez(tmp_path / 'a.npz', natoms=[1], numbers=[3])
    with pytest.raises(ValueError, match="lacks .*'cell', 'scaled_positions'"):
        read_crystals(tmp_path / 'a.npz')
    np.savez(tmp_path / 'b.npz', natoms=[2], numbers=[3], scaled_positions=[[0, 0, 0]], cell=[np.eye(3)])
    with pytest.raises(ValueError, match='damaged: natoms sums to 2'):
        read_crystals(tmp_path / 'b.npz')


def test_a_folder_of_csv_files_skips_counts_and_names_cifs_that_cannot_be_read(tmp_path, caplog):
    a, b, c = crystals()
    write_csv(
        tmp_path / 'train.csv',
        [
            {'material_id': 'mp-1', 'heat_ref': '0.5', 'cif': cif(a)},
            {'material_id': 'mp-2', 'heat_ref': '0.6', 'cif': 'data_x\n_cell_length_a oops\n'},
            {'material_id': 'mp-3', 'heat_ref': '', 'cif': cif(c)},
            {'material_id': 'mp-4', 'heat_ref': '1', 'cif': ''},
        ],
    )
    write_csv(tmp_path / 'test.csv', [{'material_id': 'mp-5', 'heat_ref': '0.7', 'cif': cif(b)}])
    with caplog.at_level(logging.WARNING):
        found = read_crystals(tmp_path)
    assert '2 of 4 cifs cannot be read' in caplog.text and 'mp-2' in caplog.text and 'mp-4' in caplog.text
    assert all(same(x, y) for x, y in zip(found, (a, c, b), strict=True))
    assert [x.info['key_value_pairs'] for x in found] == [
        {'heat_of_formation': 0.5, 'split': 'train'},
        {'split': 'train'},
        {'heat_of_formation': 0.7, 'split': 'test'},
    ]
    assert len(read_crystals(tmp_path / 'test.csv')) == 1


def test_the_published_header_of_mp_20_gives_properties_only(tmp_path):
    header = ',material_id,formation_energy_per_atom,band_gap,pretty_formula,e_above_hull,elements,cif,spacegroup.number'
    with open(tmp_path / 'val.csv', 'w', newline='') as file:
        file.write(header + '\n')
        csv.writer(file).writerow([0, 'mp-1', -1.5, 0.5, 'NaCl', 0.0, "['Na', 'Cl']", cif(crystals()[0]), 225])
    [atoms] = read_crystals(tmp_path / 'val.csv')
    assert atoms.info['key_value_pairs'] == {'formation_energy': -1.5, 'band_gap': 0.5, 'e_above_hull': 0.0, 'split': 'val'}


def test_true_and_false_stay_what_they_are(tmp_path):
    a, b, _ = crystals()
    with connect(tmp_path / 'a.db') as db:
        db.write(a, relax_converged=True, gap=1)
    [atoms] = read_crystals(tmp_path / 'a.db')
    assert atoms.info['key_value_pairs'] == {'relax_converged': True, 'gap': 1.0}
    assert atoms.info['key_value_pairs']['relax_converged'] is True
    write_npz(tmp_path / 'a.npz', [a, b], metal=[False, True])
    assert read_crystals(tmp_path / 'a.npz')[1].info['key_value_pairs']['metal'] is True


def test_a_table_without_cifs_and_empty_folders_are_refused(tmp_path):
    (tmp_path / 'a.csv').write_text('x,y\n1,2\n')
    with pytest.raises(ValueError, match='has a column cif'):
        read_crystals(tmp_path / 'a.csv')
    (tmp_path / 'b.csv').write_text('material_id,cif\n')
    with pytest.raises(ValueError, match='holds no crystals'):
        read_crystals(tmp_path / 'b.csv')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(ValueError, match='train.csv'):
        read_crystals(tmp_path / 'folder')
    with pytest.raises(FileNotFoundError, match='there is none'):
        read_crystals(tmp_path / 'no.npz')


def test_databases_and_files_of_ase(tmp_path):
    a, b, _ = crystals()
    with connect(tmp_path / 'a.db') as db:
        db.write(a, formation_energy=-1.5, split='val', note='x')
        db.write(b)
    found = read_crystals(tmp_path / 'a.db')
    assert [x.info['key_value_pairs'] for x in found] == [{'formation_energy': -1.5, 'split': 'val'}, {}]
    b.info['band_gap_eV'] = 0.25
    ase.io.write(tmp_path / 'b.extxyz', [a, b])
    found = read_crystals(tmp_path / 'b.extxyz')
    assert all(same(x, y) for x, y in zip(found, (a, b), strict=True))
    assert found[1].info['key_value_pairs'] == {'band_gap': 0.25}
    assert isinstance(found[0], Atoms)
