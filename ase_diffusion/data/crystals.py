"""Crystals with properties and splits: compact npz, CSV sets with a cif column, folders of CIFs, databases, formats of ASE.

The npz file has natoms (n,), numbers (sum,), scaled_positions (sum, 3), cell (n, 3, 3) with rows in A, and columns ``info_*``
(n,), among them ``info_split`` (train, val, test). The CSV sets are those of CDVAE (material_id, cif, properties; one file per
split, in one folder).
"""

from __future__ import annotations

import csv
import logging
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ..utils.provenance import MARKER
from ..utils.unread import is_unread, readable, reason_of, unread
from .cif import read_cif
from .files import CIF, read_each
from .frames import read_arrays, read_places

log = logging.getLogger(__name__)

SPLITS = ('train', 'val', 'test')
# column of a published set -> name of the property, eV or eV/atom
ALIASES = {
    'heat_ref_eV': 'heat_of_formation',
    'heat_ref': 'heat_of_formation',
    'heat_all_eV': 'heat_all',
    'dir_gap_eV': 'dir_gap',
    'ind_gap_eV': 'ind_gap',
    'energy_per_atom_eV': 'energy_per_atom',
    'formation_energy_per_atom_eV': 'formation_energy',
    'formation_energy_per_atom': 'formation_energy',
    'band_gap_eV': 'band_gap',
    'e_above_hull_eV': 'e_above_hull',
}
TEXTS = ('split', MARKER)
NO_PROPERTY = {
    'material_id',
    'index',
    'split',
    'cdvae_split',
    'seed',
    'id',
    'year',
    'natoms',
    'unique_id',
    'ctime',
    'mtime',
    'spacegroup.number',
}


def read_crystals(path: str | Path, split: str | None = None, *, keep_unread: bool = False) -> list[Atoms]:
    """Read crystals with their properties and splits.

    Parameters
    ----------
    path : str or Path
        ``.npz``, ``.csv``, a folder with train.csv, val.csv, test.csv or else with CIFs, an ASE ``.db``, or another format of
        ASE.
    split : 'train', 'val' or 'test', optional
        Split to read; all by default.
    keep_unread : bool
        Whether a crystal that cannot be read keeps its place, as Atoms without atoms and with the reason in
        ``info['unread']``.

    Returns
    -------
    list of Atoms
        Periodic. ``info['key_value_pairs']`` has the properties by their names here (``heat_of_formation``,
        ``formation_energy``, ``energy_per_atom``, ``band_gap``, ...) and ``split``, if known. Crystals that cannot be read
        are counted and named in a warning.

    Raises
    ------
    FileNotFoundError
        There is no such file or folder.
    ValueError
        The file has another format, or contains no readable crystal (of that split).
    """
    path = Path(path)
    if path.is_dir():
        images = _read_folder(path)
    elif not path.is_file():
        raise FileNotFoundError(f'crystals are read from a file; there is none at {path.absolute()}')
    elif path.suffix == '.npz':
        images = readable(_read_npz(path), path, log, keep=True)
    elif path.suffix == '.csv':
        images = readable(_read_csv(path), path, log, keep=True, what='cifs')
    else:
        images = readable(_read_other(path), path, log, keep=True)
    if not keep_unread:
        images = [atoms for atoms in images if not is_unread(atoms)]
    if split is not None:
        if split not in SPLITS:
            raise ValueError(f'split is one of {SPLITS}, got {split!r}')
        images = [a for a in images if a.info['key_value_pairs'].get('split') == split]
    if not images:
        raise ValueError(f'{path} holds no crystals' + (f' of the split {split!r}' if split else ''))
    return images


def _pairs(columns: dict) -> dict:
    """Return the properties that are numbers or booleans, by their names here, and the split."""
    pairs = {}
    for name, value in columns.items():
        if name in TEXTS:
            pairs[name] = str(value)
        elif name not in NO_PROPERTY:
            try:
                pairs[ALIASES.get(name, name)] = bool(value) if isinstance(value, (bool, np.bool_)) else float(value)
            except (TypeError, ValueError):
                continue
    return {name: value for name, value in pairs.items() if name in TEXTS or np.isfinite(value)}


def _read_npz(path):
    data = read_arrays(path)
    if missing := {'natoms', 'numbers', 'scaled_positions', 'cell'} - set(data):
        raise ValueError(f'a file of crystals holds natoms, numbers, scaled_positions and cell; {path} lacks {sorted(missing)}')
    ends = np.cumsum(data['natoms'].astype(int))
    if len(data['numbers']) != ends[-1:].sum() or len(data['scaled_positions']) != len(data['numbers']):
        raise ValueError(f'{path} is damaged: natoms sums to {ends[-1:].sum()}, it has {len(data["numbers"])} atoms')
    info = {key.removeprefix('info_'): value for key, value in data.items() if key.startswith('info_')}
    images = []
    for k, end in enumerate(ends):
        part = slice(end - int(data['natoms'][k]), end)
        strange = [int(z) for z in data['numbers'][part] if not 0 < z < len(chemical_symbols)]
        if strange:
            images.append(unread(f'{strange[0]} is no atomic number', f'crystal {k}'))
            images[-1].info['key_value_pairs'] = {}
            continue
        atoms = Atoms(
            data['numbers'][part],
            scaled_positions=data['scaled_positions'][part].astype(float),
            cell=data['cell'][k].astype(float),
            pbc=True,
        )
        atoms.info['key_value_pairs'] = _pairs({key: value[k] for key, value in info.items()})
        images.append(atoms)
    return images


def _read_folder(path):
    """Read train.csv, val.csv and test.csv of a folder, or else its CIFs in the order of their names."""
    tables = [path / f'{name}.csv' for name in SPLITS if (path / f'{name}.csv').is_file()]
    if tables:
        return [atoms for table in tables for atoms in readable(_read_csv(table), table, log, keep=True, what='cifs')]
    files = sorted(file for file in path.iterdir() if file.name.lower().removesuffix('.gz').endswith(CIF) and file.is_file())
    if not files:
        raise ValueError(f'a folder of crystals has train.csv, val.csv or test.csv, or .cif files; {path} has none')
    images = []
    for file in files:
        try:
            found = read_each(file)
        except (ValueError, OSError) as error:
            found = [unread(error, file.name)]
        for atoms in found:
            if is_unread(atoms) and file.name not in atoms.info['unread']:
                atoms = unread(atoms.info['unread'], file.name)
            else:
                atoms.info.setdefault('key_value_pairs', {})
            images.append(atoms)
    return readable(images, path, log, keep=True)


def _read_csv(path):
    """Read a table with a cif column; without a split column the file name is the split."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    images = []
    try:
        with open(path, newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file)
            if 'cif' not in (reader.fieldnames or []):
                raise ValueError(f'a table of crystals has a column cif; {path} has {reader.fieldnames}')
            for number, row in enumerate(reader):
                images.append(_read_row(row, row.get('material_id') or f'row {number}'))
                row.pop('', None)  # the number of the row
                row.pop(None, None)  # cells without a column
                if path.stem in SPLITS:
                    row.setdefault('split', path.stem)
                images[-1].info['key_value_pairs'] = _pairs(row)
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{path} is no UTF-8 text (byte {error.start} is {error.object[error.start]:#x}); save it as UTF-8'
        ) from None
    except csv.Error as error:
        raise ValueError(f'{path} is no table of comma-separated values: {error}') from None
    return images


def _read_row(row, name):
    """Return the crystal of a row, without its cif; its place where it cannot be read."""
    text = row.pop('cif')
    if not (text or '').strip():
        return unread('the cif is empty', name)
    try:
        atoms = read_cif(text, name)[0]
    except Exception as error:  # of any kind: the other rows are read
        return unread(reason_of(error).removeprefix(f'{name} '), name)
    return unread(atoms.info['unread'], name) if is_unread(atoms) else atoms


def _read_other(path):
    """Read a database or another format of ASE; properties are key-value pairs and numbers in info."""
    images = []
    for atoms in read_places(path):
        pairs = {k: v for k, v in atoms.info.items() if isinstance(v, (int, float, str, np.number)) and not isinstance(v, bool)}
        pairs |= atoms.info.get('key_value_pairs', {})
        atoms.info['key_value_pairs'] = _pairs(pairs)
        images.append(atoms)
    return images
