"""Labeled frames of overlayers on fixed slabs: a compact npz format, and a reader of it and of the formats of ASE.

The npz file stores each slab once. Arrays for n frames on m slabs (natoms counts the overlayer only):

=====================================  =====================================================================
slab_numbers, slab_positions           of all slabs, concatenated: (sum,) and float64 (sum, 3) in A
slab_tags                              (sum,)
slab_natoms                            (m,); absent for one slab
cell, pbc                              (m, 3, 3) in A and (m, 3); (3, 3) and (3,) for one slab
slab_id                                (n,), index of the slab of a frame; absent for one slab
natoms                                 (n,)
numbers, positions, tags               of the overlayers, concatenated: (sum,), float32 (sum, 3) in A, (sum,)
forces                                 raw forces on slab and overlayer, float32 (sum of both, 3) in eV/A
energy                                 (n,) in eV; NaN if unknown
run, step, last, converged             (n,): number of the relaxation, step, whether last, whether converged
held                                   (n,), optional: whether the frame is kept out of training
=====================================  =====================================================================

The slab of a frame is its leading block of atoms in FixAtoms; a mobile top layer belongs to the overlayer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from ..utils.atoms import frozen_mask
from ..utils.unread import is_unread, readable, reason_of, unread
from .files import read_each

if TYPE_CHECKING:
    from ase.db.core import Database
    from ase.db.row import AtomsRow

log = logging.getLogger(__name__)

ROW_KEYS = {'run': int, 'step': int, 'last': bool, 'converged': bool}
ARRAYS = ['slab_numbers', 'slab_positions', 'cell', 'pbc', 'natoms', 'numbers', 'positions', 'forces', 'energy']
SHIPPED = {name: Path(__file__).with_name(f'{name.replace("-", "_")}.npz') for name in ('ag-o-rss', 'metal-oxide')}
NEEDED = [*ARRAYS, *ROW_KEYS]
OPTIONAL = {'held': bool}


def read_frames(path: str | Path) -> list[Atoms]:
    """Read labeled frames from npz (`write_frames`), an ASE database or another format of ASE.

    Parameters
    ----------
    path : str or Path
        A ``.npz``, ``.db`` or ``.json`` file, or for example ``.traj``, ``.extxyz``, ``.extxyz.gz``. Databases of
        schnetpack are read with their energies, forces and units.

    Returns
    -------
    list of Atoms
        With energy (eV) and raw forces (eV/A) in a SinglePointCalculator and run, step, last and converged in
        ``info['key_value_pairs']``, as far as known. Slabs of npz files are in FixAtoms; frames of databases are sorted by
        run and step, without rows that a search marked as failed.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        An npz file has other contents, or a database of schnetpack has an unknown unit.
    """
    return readable(read_places(path), path, log)


def read_places(path: str | Path) -> list[Atoms]:
    """Read frames like `read_frames`; one that cannot be read keeps its place (`ase_diffusion.utils.unread`).

    Raises
    ------
    FileNotFoundError, ValueError
        As in `read_frames`.
    """
    path = SHIPPED.get(str(path), Path(path))
    if not path.is_file():
        raise FileNotFoundError(f'frames are read from a file; there is none at {path.absolute()}')
    if path.suffix == '.npz':
        return _read_npz(path)
    if path.suffix in ('.db', '.json'):
        return _read_db(path)
    return _read_ase(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file.

    Raises
    ------
    ValueError
        It is no npz file, is damaged, or a column holds Python objects, which are never unpickled.
    """
    try:
        file = np.load(path, allow_pickle=False)
    except Exception as error:
        raise ValueError(f'{path} is no npz file that can be read: {reason_of(error)}') from error
    if not hasattr(file, 'files'):
        raise ValueError(f'{path} holds one array; an npz file holds several by name')
    arrays = {}
    with file:
        for name in file.files:
            try:
                arrays[name] = file[name]
            except Exception as error:
                objects = 'Object arrays' in str(error)
                why = 'holds Python objects; write it as numbers or as text' if objects else f'is damaged: {reason_of(error)}'
                raise ValueError(f'the column {name} of {path} {why}') from error
    return arrays


def write_frames(images: Iterable[Atoms], path: str | Path) -> None:
    """Write labeled frames to a compact npz file.

    Overlayer positions and forces are stored as float32, slabs and energies as float64. Constraints other than FixAtoms are
    not stored.

    Parameters
    ----------
    images : list of Atoms
        Overlayers on slabs in FixAtoms, whose atoms come first in the file; a warning counts frames where they did not. Energy
        and forces are read from the results of the calculator and not computed (NaN if missing); run, step, last and converged
        from ``info['key_value_pairs']``. A frame without them is a separate relaxation: its index, 0, True, False. Relaxations
        with names, also in ``info['run']``, are numbered. The key held is written if any frame has it (False for the others).
    path : str or Path
        The ``.npz`` file.

    Raises
    ------
    ValueError
        There are no frames.
    """
    images = list(images)
    if not images:
        raise ValueError('write_frames needs at least one frame; got an empty list')
    if Path(path).suffix != '.npz':
        raise ValueError(f'frames are written to a .npz file; got {str(path)!r}; other formats: ase.io.write')
    keys = ROW_KEYS | {
        key: kind for key, kind in OPTIONAL.items() if any(key in atoms.info.get('key_value_pairs', {}) for atoms in images)
    }
    given, images = images, [_slab_first(atoms) for atoms in images]
    if count := sum(old is not new for old, new in zip(given, images, strict=True)):
        log.warning('%d of %d frames have fixed atoms among mobile ones; in the file they come first', count, len(images))
    slabs, slab_id, columns = {}, [], {key: [] for key in keys}
    forces, energies, names = [], [], {}
    for index, atoms in enumerate(images):
        nslab = int(frozen_mask(atoms).sum())
        slab_id.append(slabs.setdefault(_slab_key(atoms, nslab), (len(slabs), nslab, atoms))[0])
        results = getattr(atoms.calc, 'results', {})
        energies.append(float(results.get('energy', np.nan)))
        forces.append(np.asarray(results.get('forces', np.full((len(atoms), 3), np.nan))))
        pairs = {
            'run': atoms.info['run'] if isinstance(atoms.info.get('run'), str) else index,
            'step': 0,
            'last': True,
            'converged': False,
            'held': False,
            **atoms.info.get('key_value_pairs', {}),
        }
        if isinstance(pairs['run'], str):
            pairs['run'] = names.setdefault(pairs['run'], len(images) + len(names))
        for key, kind in keys.items():
            columns[key].append(kind(pairs[key]))
    sizes = [size for _, size, _ in slabs.values()]
    overlayers = [(atoms, slice(sizes[i], None)) for atoms, i in zip(images, slab_id, strict=True)]
    arrays = {
        **_slab_arrays(slabs),
        'natoms': np.array([len(atoms.numbers[part]) for atoms, part in overlayers], dtype=np.int32),
        'numbers': np.concatenate([atoms.numbers[part] for atoms, part in overlayers]).astype(np.int16),
        'positions': np.concatenate([atoms.positions[part] for atoms, part in overlayers]).astype(np.float32),
        'tags': np.concatenate([atoms.get_tags()[part] for atoms, part in overlayers]).astype(np.int32),
        'forces': np.concatenate(forces).astype(np.float32),
        'energy': np.array(energies, dtype=float),
        **{key: np.array(values, dtype=bool if keys[key] is bool else np.int32) for key, values in columns.items()},
    }
    if len(slabs) > 1:
        arrays['slab_id'] = np.array(slab_id, dtype=np.int32)
    np.savez_compressed(path, **arrays)


def frames_to_npz(db: str | Path | Database, path: str | Path, every: str | int = 'geometric') -> int:
    """Thin the frames of a random search database and write them to a compact npz file.

    Parameters
    ----------
    db : str, Path or ase.db database
        With the row keys run, step, last and converged, as written by `RandomStructureSearch`. Failed runs are skipped.
    path : str or Path
        The ``.npz`` file.
    every : 'geometric' or int
        Steps of each relaxation to keep besides the first and the last: 1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, ... or every
        n-th step; 1 keeps all.

    Returns
    -------
    int
        Number of frames in the file.

    Raises
    ------
    ValueError
        `every` is not valid, or the database has no relaxation.
    """
    if every != 'geometric' and (isinstance(every, (str, bool)) or int(every) != every or every < 1):
        raise ValueError(f"every is 'geometric' or a number of steps, 1 or more; got {every!r}")
    db = _connect(db)
    runs = {}
    for row in db.select(include_data=False, columns=['id', 'key_value_pairs']):
        pairs = row.key_value_pairs
        if 'run' in pairs and not pairs.get('failed'):
            runs.setdefault(pairs['run'], []).append((pairs['step'], row.id))
    if not runs:
        raise ValueError('the rows of a search have the keys run and step; this database holds none that succeeded')
    images = []
    for run in sorted(runs):
        rows = sorted(runs[run])
        keep = thin([step for step, _ in rows], every)
        images += [row_atoms(db.get(id=rows[i][1])) for i in keep]
    write_frames(images, path)
    return len(images)


def thin(steps: Sequence[int], every: str | int = 'geometric') -> list[int]:
    """Return the indices of the steps of one relaxation to keep: the first, the last, and some between.

    Parameters
    ----------
    steps : list of int
        Ascending.
    every : 'geometric' or int
        As in `frames_to_npz`.
    """
    wanted = [0, 1, 2, 3, 5]
    while every == 'geometric' and wanted[-1] < steps[-1]:
        wanted.append(round(1.5 * wanted[-1]))
    wanted = set(wanted)
    return [
        index
        for index, step in enumerate(steps)
        if index in (0, len(steps) - 1) or (step in wanted if every == 'geometric' else step % int(every) == 0)
    ]


def _slab_first(atoms):
    """Return a frame with the atoms in FixAtoms first, energy and forces with it; the frame itself where they are."""
    order = np.argsort(~frozen_mask(atoms), kind='stable')
    if (np.diff(order) == 1).all():
        return atoms
    new, results = atoms[order], getattr(atoms.calc, 'results', {})
    found = {name: results[name] for name in ('energy', 'forces') if name in results}
    if 'forces' in found:
        found['forces'] = np.asarray(found['forces'])[order]
    new.calc = SinglePointCalculator(new, **found)
    return new


def _slab_key(atoms, size):
    """Return the key of a slab; equal for bit-identical slabs."""
    parts = (atoms.numbers[:size], atoms.positions[:size], atoms.get_tags()[:size], atoms.cell[:], atoms.pbc)
    return tuple(np.ascontiguousarray(part).tobytes() for part in parts)


def _slab_arrays(slabs):
    """Return the arrays of the slabs; `slabs` maps keys to (number, size, first frame)."""
    parts = [(atoms, slice(size)) for _, size, atoms in slabs.values()]
    arrays = {
        'slab_numbers': np.concatenate([atoms.numbers[part] for atoms, part in parts]).astype(np.int16),
        'slab_positions': np.concatenate([atoms.positions[part] for atoms, part in parts]),
        'slab_tags': np.concatenate([atoms.get_tags()[part] for atoms, part in parts]).astype(np.int32),
        'cell': np.array([atoms.cell[:] for atoms, _ in parts]),
        'pbc': np.array([atoms.pbc for atoms, _ in parts]),
    }
    if len(parts) == 1:
        return {**arrays, 'cell': arrays['cell'][0], 'pbc': arrays['pbc'][0]}
    return {**arrays, 'slab_natoms': np.array([part.stop for _, part in parts], dtype=np.int32)}


def _read_npz(path):
    """Read both forms of the npz file."""
    data = read_arrays(path)
    missing = [key for key in NEEDED if key not in data]
    if missing:
        raise ValueError(f'a file of frames holds {NEEDED}; {path} lacks {missing}; write it with write_frames')
    slabs = _read_slabs(data)
    slab_id = data.get('slab_id', np.zeros(len(data['natoms']), dtype=int))
    natoms = data['natoms'].astype(int)
    nslab = np.array([len(slab) for slab in slabs])[slab_id]
    tops = np.concatenate([[0], np.cumsum(natoms)])
    rows = np.concatenate([[0], np.cumsum(natoms + nslab)])
    if len(data['positions']) != tops[-1] or len(data['forces']) != rows[-1]:
        raise ValueError(
            f'in a file of frames positions has sum(natoms) = {tops[-1]} rows and forces sum(natoms + slab) = '
            f'{rows[-1]}; {path} has {len(data["positions"])} and {len(data["forces"])}; it is damaged: write it anew'
        )
    if 'tags' not in data:
        new = np.array([slab.get_tags().max(initial=0) + 1 for slab in slabs])
        data['tags'] = np.repeat(new[slab_id], natoms)
    images = []
    for index, (top, row) in enumerate(zip(pairwise(tops), pairwise(rows), strict=True)):
        pairs = {key: kind(data[key][index]) for key, kind in (ROW_KEYS | OPTIONAL).items() if key in data}
        images.append(_frame(slabs[slab_id[index]], data, slice(*top), slice(*row), data['energy'][index], pairs))
    return images


def _read_slabs(data):
    """Return the slabs of an npz file, all atoms in FixAtoms."""
    cells, pbcs = data['cell'].reshape(-1, 3, 3), data['pbc'].reshape(-1, 3)
    sizes = data.get('slab_natoms', np.array([len(data['slab_numbers'])])).astype(int)
    tags = data.get('slab_tags', np.zeros(len(data['slab_numbers']), dtype=int)).astype(int)
    slabs = []
    for (low, high), cell, pbc in zip(pairwise(np.cumsum([0, *sizes])), cells, pbcs, strict=True):
        part = slice(low, high)
        slab = Atoms(data['slab_numbers'][part], data['slab_positions'][part], cell=cell, pbc=pbc, tags=tags[part])
        if len(slab):
            slab.set_constraint(FixAtoms(indices=range(len(slab))))
        slabs.append(slab)
    return slabs


def _frame(slab, data, top, row, energy, pairs):
    """Return one frame: slab, overlayer and labels."""
    atoms = slab.copy()
    atoms.extend(Atoms(data['numbers'][top], data['positions'][top], tags=data['tags'][top]))
    forces = data['forces'][row].astype(float)
    results = {} if np.isnan(energy) else {'energy': float(energy)}
    if not np.isnan(forces).any():
        results['forces'] = forces
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info['key_value_pairs'] = pairs
    return atoms


def _connect(db):
    """Return the database at a path; a database object is returned unchanged."""
    from ase.db import connect

    if not isinstance(db, (str, Path)):
        return db
    if not Path(db).is_file():  # connect would create an empty one
        raise FileNotFoundError(f'a database is read from a file; there is none at {Path(db).absolute()}')
    return connect(db)


def _read_db(path):
    """Read the rows of an ASE database, except failed ones, sorted by run and step if known."""
    db = _connect(path)
    everything, damaged = _rows(db, path)
    rows = [row for row in everything if not row.get('failed')]
    if failed := len(everything) - len(rows):
        log.warning('%s: %d of %d rows are marked as failed and skipped', path, failed, len(everything))
    places = [((*_run_and_step(row), row.id), _row_or_place(row)) for row in rows] + damaged
    images = [atoms for _, atoms in sorted(places, key=lambda place: place[0])]
    if '_property_unit_dict' in db.metadata:
        _read_schnetpack(images, db.metadata, path)
    return images


def _read_schnetpack(images, metadata, path):
    """Move energies and forces of schnetpack from the data of a row to calculators, and convert units."""
    known = metadata['_property_unit_dict']
    length = _unit(metadata.get('_distance_unit'), 'positions', path)
    units = {name: _unit(known[name], name, path) for name in ('energy', 'forces') if name in known}
    for atoms in images:
        if is_unread(atoms):
            continue
        atoms.set_cell(atoms.cell[:] * length)
        atoms.set_positions(atoms.positions * length, apply_constraint=False)
        data = atoms.info.get('data', {})
        values = {name: np.asarray(data.pop(name), dtype=float) * unit for name, unit in units.items() if name in data}
        results = {name: value.item() if name == 'energy' else value for name, value in values.items()}
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)


def _unit(text, name, path):
    """Return a unit of schnetpack, such as 'kcal/mol/Ang', in eV and A."""
    value, power = 1.0, 1
    try:
        for part in re.split(r'\s*([/*])\s*', text.strip()):
            if part in ('/', '*'):
                power = -1 if part == '/' else 1
            elif part == 'A':
                raise AttributeError('A is the ampere')
            else:
                value, power = value * getattr(ase.units, part) ** power, 1
        return float(value)
    except (AttributeError, TypeError):
        raise ValueError(
            f'a schnetpack database notes units in names of ase.units, such as eV, kcal/mol, Ang or eV/Ang; for {name} '
            f'{path} has {text!r}; write the database anew with its unit'
        ) from None


def _rows(db, path):
    """Return the rows of a database, and of those that are damaged ((run, step, id), place)."""
    try:
        return list(db.select()), []
    except Exception:  # of any kind: row by row
        rows, damaged = [], []
        try:
            numbers = [row.id for row in db.select(columns=['id'])]
        except Exception as error:
            raise ValueError(f'{path} cannot be read: {reason_of(error)}') from error
        for number in numbers:
            try:
                rows.append(db.get(id=number))
            except Exception as error:
                damaged.append(((-1, -1, number), unread(reason_of(error), f'row {number}')))
        return rows, damaged


def _run_and_step(row):
    """Return run and step of a row, -1 where they are no numbers."""
    return [row[key] if _is_number(row.get(key)) else -1 for key in ('run', 'step')]


def _row_or_place(row):
    """Return the Atoms of a row, or its place where the row cannot be read."""
    try:
        return row_atoms(row)
    except Exception as error:  # of any kind: the other rows are read
        return unread(reason_of(error), f'row {row.id}')


def row_atoms(row: AtomsRow) -> Atoms:
    """Return the Atoms of a row with its keys and data in info."""
    atoms = row.toatoms()
    atoms.info['key_value_pairs'] = dict(row.key_value_pairs)
    if row.data:
        atoms.info['data'] = dict(row.data)
    return atoms


def _is_number(value):
    """Return whether a label is a number or truth value; texts, such as names of relaxations, stay in info."""
    return isinstance(value, (int, float, np.number, np.bool_))


def _read_ase(path):
    """Read all frames of a file through ase.io."""
    images = read_each(path)
    for atoms in images:
        known = {key: kind(atoms.info[key]) for key, kind in ROW_KEYS.items() if _is_number(atoms.info.get(key))}
        if known and not is_unread(atoms):
            atoms.info['key_value_pairs'] = {**known, **atoms.info.get('key_value_pairs', {})}
    return images
