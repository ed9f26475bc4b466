"""One bad item of a file is named, counted and keeps its place; the others are read."""

import csv
import io
import logging
import sqlite3

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.data.files import read_each
from ase_diffusion.data.frames import read_frames
from ase_diffusion.utils.unread import is_unread, reason_of

SALTS = [bulk(name, 'rocksalt', a=a) for name, a in (('NaCl', 5.64), ('MgO', 4.21), ('KCl', 6.29))]


def cif(atoms):
    file = io.BytesIO()
    ase.io.write(file, atoms, format='cif')
    return file.getvalue().decode()


@pytest.mark.parametrize(
    ('change', 'lost', 'word'),
    [
        (lambda text: text[:-20], 2, 'cut|cannot|could not'),
        (lambda text: text.replace('Mg', 'D'), 1, 'D'),
        (lambda text: text.replace('2\n', 'two\n', 1), 0, 'number of atoms'),
    ],
)
def test_frames_of_extxyz(change, lost, word, tmp_path, caplog):
    path = tmp_path / 'a.extxyz'
    ase.io.write(path, SALTS)
    path.write_text(change(path.read_text()))
    images = read_each(path)
    assert [is_unread(atoms) for atoms in images] == [k == lost for k in range(3)]
    with caplog.at_level(logging.WARNING):
        assert [len(atoms) for atoms in read_frames(path)] == [2, 2]
    assert '1 of 3 structures cannot be read' in caplog.text and f'frame {lost}' in caplog.text and str(path) in caplog.text


def test_tables_and_folders_keep_places(tmp_path, caplog):
    with open(tmp_path / 'a.csv', 'w', newline='', encoding='utf-8-sig') as file:
        csv.writer(file).writerows([['material_id', 'cif'], ['one', cif(SALTS[0])], ['two', 'broken'], ['three', '']])
    with caplog.at_level(logging.WARNING):
        images = read_crystals(tmp_path / 'a.csv', keep_unread=True)
    assert [is_unread(atoms) for atoms in images] == [False, True, True] and '2 of 3 cifs' in caplog.text
    assert 'two' in images[1].info['unread'] and 'the cif is empty' in images[2].info['unread']
    folder = tmp_path / 'cifs'
    folder.mkdir()
    for k, atoms in enumerate(SALTS):
        (folder / f'{k}.cif').write_text(cif(atoms) if k != 1 else 'nothing')
    assert [len(atoms) for atoms in read_crystals(folder, keep_unread=True)] == [2, 0, 2]
    assert [atoms.get_chemical_formula() for atoms in read_crystals(folder)] == ['ClNa', 'ClK']


def test_a_file_of_which_nothing_can_be_read_has_a_reason(tmp_path):
    (tmp_path / 'empty.traj').write_text('')
    (tmp_path / 'some.cif').write_text('data_x\n_cell_length_a 3\n')
    (tmp_path / 'latin.csv').write_bytes(b'material_id,cif\n\xc5,x\n')
    np.savez(tmp_path / 'object.npz', natoms=np.array([1]), info_name=np.array(['x'], object))
    for name, word in (('empty.traj', 'is empty'), ('some.cif', 'cell'), ('latin.csv', 'UTF-8'), ('object.npz', 'info_name')):
        with pytest.raises(ValueError, match=word) as error:
            (read_crystals if name[-3:] in ('csv', 'npz') else read_frames)(tmp_path / name)
        assert name in str(error.value)


def test_reasons_are_never_empty():
    for error in (AssertionError(), StopIteration(), ValueError(''), KeyError('D'), OverflowError('too large')):
        try:
            raise error
        except Exception as caught:
            assert len(reason_of(caught)) > 8


def test_rows_of_a_database_that_are_damaged(tmp_path, caplog):
    path = tmp_path / 'a.db'
    ase.io.write(path, SALTS)
    with sqlite3.connect(path) as connection:
        connection.execute("update systems set positions = x'00' where id = 2")
    with caplog.at_level(logging.WARNING):
        assert [str(atoms.symbols) for atoms in read_crystals(path)] == ['NaCl', 'KCl']
        assert [is_unread(atoms) for atoms in read_crystals(path, keep_unread=True)] == [False, True, False]
    assert f'{path}: 1 of 3 structures cannot be read: row 2' in caplog.text
    (tmp_path / 'b.json').write_text('{"1": {"numbers"')
    with pytest.raises(ValueError, match=r'b\.json cannot be read'):
        read_crystals(tmp_path / 'b.json')


def test_atomic_numbers_that_are_none(tmp_path, caplog):
    arrays = dict(natoms=[2, 2, 1], numbers=[11, 17, 12, 200, 0], scaled_positions=np.zeros((5, 3)), cell=[3 * np.eye(3)] * 3)
    np.savez(tmp_path / 'a.npz', **arrays)
    with caplog.at_level(logging.WARNING):
        assert [len(atoms) for atoms in read_crystals(tmp_path / 'a.npz', keep_unread=True)] == [2, 0, 0]
    assert 'crystal 1: 200 is no atomic number; crystal 2: 0 is no atomic number' in caplog.text
