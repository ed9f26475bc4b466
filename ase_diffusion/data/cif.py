"""Crystals of CIF files: one reader for all verbs and data sets.

Sites are expanded by the operations of the file, or by the setting that its Hall symbol, its Hermann-Mauguin symbol or its group
number names. What was read is compared with the formula, Z and the volume that the file gives. A crystal that the file does not
define (partial occupancies, alternatives of a disorder, several elements in one place, a group with several settings none of
which is named) is refused with the reason.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import atomic_numbers, chemical_symbols

from ..utils.atoms import neighbors
from ..utils.unread import reason_of, unread
from .cif_blocks import Block, decode, number, parse
from .cif_settings import describe, find_hall, find_settings, is_standard_axis, operations_of, parse_operations

log = logging.getLogger(__name__)

SAME_PLACE = 0.1  # A; images of a site that are closer are one atom on a special position
FULL = 0.999  # smallest occupancy of a site that is not partly empty
METRIC = 0.02  # largest misfit of operations and cell, relative
CELL = ('length_a', 'length_b', 'length_c', 'angle_alpha', 'angle_beta', 'angle_gamma')
OPERATIONS = ('_space_group_symop_operation_xyz', '_symmetry_equiv_pos_as_xyz', '_space_group_symop_magn_operation_xyz')
CENTERINGS = '_space_group_symop_magn_centering_xyz'
HALL = ('_space_group_name_hall', '_symmetry_space_group_name_hall')
NAMES = ('_space_group_name_h-m_alt', '_symmetry_space_group_name_h-m', '_space_group_name_h-m', '_space_group_name_h-m_full')
NUMBERS = ('_space_group_it_number', '_symmetry_int_tables_number')
CODE = '_space_group_it_coordinate_system_code'


def read_cif(source: str | Path, name: str | None = None) -> list[Atoms]:
    """Read the crystals of a CIF, one for each block with a crystal.

    Parameters
    ----------
    source : str or Path
        Path of a file, or the text itself (with ``name``).
    name : str, optional
        Name of the text in messages.

    Returns
    -------
    list of Atoms
        Periodic in three directions. A block that cannot be read keeps its place, see `ase_diffusion.utils.unread`. Doubts (a
        formula or a volume that does not agree with the sites) are logged as warnings.

    Raises
    ------
    ValueError
        The file has no ``data_`` line.
    """
    if name is None:
        name, text = str(source), decode(Path(source).read_bytes())
    else:
        text = str(source).removeprefix('\ufeff')
    images = []
    for block in parse(text, name):
        if block.is_text():
            continue
        label = f'block {block.name or "without name"}'
        try:
            atoms, doubts = build(block)
        except Exception as error:  # of any kind: the other blocks are read
            images.append(unread(reason_of(error), label))
            continue
        for doubt in doubts:
            log.warning('%s: %s: %s', name, label, doubt)
        images.append(atoms)
    if not images:
        raise ValueError(f'{name} has no block with a cell and atoms')
    return images


def build(block: Block) -> tuple[Atoms, list[str]]:
    """Return the crystal of a block, and doubts about it.

    Raises
    ------
    ValueError
        The block does not define one crystal; the message says why.
    """
    cell = _cell(block)
    sites, doubts = _sites(block, cell)
    expected = _formula(block)
    tried, refused = [], []
    for label, operations in _candidates(block):
        if not _fits(cell, operations[0]):
            refused.append(f'the operations of {label} do not fit the cell')
            continue
        atoms, more = _expand(cell, sites, operations, expected)
        problem = _compare(atoms, *expected) if expected else ''
        problem = problem or _multiplicities(block, sites, atoms)
        tried.append((label, atoms, more, problem))
    if not tried:
        raise ValueError('; '.join(refused) or 'no symmetry')
    atoms, more = _choose(tried, explicit=_operations(block) is not None)
    volume = block.get('_cell_volume')
    if volume is not None:
        try:
            given = number(volume, 'the volume')
            if abs(given / atoms.cell.volume - 1) > 0.02:
                doubts.append(f'the volume of the cell is {atoms.cell.volume:.1f} A^3, the file says {given:g}')
        except ValueError:
            pass
    del atoms.arrays['site']
    return atoms, [*doubts, *more]


def _cell(block):
    """Return the cell of a block."""
    values = [number(block.get(f'_cell_{name}'), f'_cell_{name}') for name in CELL]
    try:
        with np.errstate(all='ignore'):
            cell = Cell.fromcellpar(values)
    except Exception:  # ASE raises an AssertionError
        cell = Cell(np.zeros((3, 3)))
    if min(values[:3]) <= 0 or not np.isfinite(cell.array).all() or cell.volume < 1e-3:
        raise ValueError(f'a cell has positive lengths and angles that close; got {values}')
    return cell


def _element(symbol, label):
    """Return the atomic number of a site: of its type symbol (``Si4+``), else of its label (``O1``)."""
    for text in (symbol, label):
        letters = re.match(r'[A-Za-z]+', (text or '').strip())
        if letters is None:
            continue
        word = letters[0]
        tries = [word[:2].capitalize(), word[:1].upper()] if text is label and symbol in (None, '?', '.') else [word.capitalize()]
        if text is symbol and len(word) > 2:
            tries = [word[:2].capitalize()] if re.match(r'[A-Z][a-z][A-Z]', word) else []
        for each in tries:
            each = {'D': 'H', 'T': 'H'}.get(each, each)
            if each != 'X' and each in atomic_numbers:
                return atomic_numbers[each]
        break
    raise ValueError(f'the site {label!r} has no element ({symbol!r})')


def _sites(block, cell):
    """Return the sites as a list of (label, atomic number, fractional position), and doubts.

    Raises
    ------
    ValueError
        There are no sites, or some are partly occupied, alternatives, or have no coordinates or element.
    """
    columns = {name: block.column(f'_atom_site_{name}') for name in ('fract_x', 'fract_y', 'fract_z', 'label', 'type_symbol')}
    axes = [columns[f'fract_{axis}'] for axis in 'xyz']
    to_scaled = None
    if any(axis is None for axis in axes):
        axes = [block.column(f'_atom_site_cartn_{axis}') for axis in 'xyz']
        if any(axis is None for axis in axes):
            raise ValueError('it has no atoms (no loop of _atom_site_fract_x, _y, _z)')
        to_scaled = np.linalg.inv(cell.array)
    count = len(axes[0])
    labels = columns['label'] or columns['type_symbol'] or [''] * count
    symbols = columns['type_symbol'] or [None] * count
    extra = {
        name: block.column(f'_atom_site_{name}') for name in ('occupancy', 'calc_flag', 'disorder_group', 'attached_hydrogens')
    }
    sites, partial, groups, doubts = [], [], set(), []
    for k in range(count):
        own = {name: column[k].strip() for name, column in extra.items() if column is not None}
        if own.get('calc_flag', '').lower() == 'dum':
            continue
        occupancy = own.get('occupancy', '1')
        occupancy = 1.0 if occupancy in ('', '.', '?') else number(occupancy, f'the occupancy of {labels[k]}')
        if occupancy == 0:
            doubts.append(f'the site {labels[k]} has the occupancy 0 and is left out')
            continue
        if not FULL <= occupancy <= 2 - FULL:
            partial.append(f'{labels[k]} {occupancy:g}')
        group = own.get('disorder_group', '.')
        groups |= {group} - {'', '.', '?', '0'}
        if own.get('attached_hydrogens', '0') not in ('0', '.', '?', ''):
            doubts.append(f'hydrogens attached to {labels[k]} are not among the sites')
        place = np.array(
            [number(axis[k], f'the coordinate {name} of {labels[k]}') for axis, name in zip(axes, 'xyz', strict=True)]
        )
        sites.append((labels[k], _element(symbols[k], labels[k]), place if to_scaled is None else place @ to_scaled))
    if partial:
        more = f' and {len(partial) - 6} more' if len(partial) > 6 else ''
        raise ValueError(
            f'sites have partial occupancies ({", ".join(partial[:6])}{more}), which is no single structure; '
            'order it, or leave these sites out'
        )
    if len(groups) > 1 or any(group.startswith('-') for group in groups):
        raise ValueError(f'it is disordered: the groups {", ".join(sorted(groups))} are alternatives; keep one of them')
    if not sites:
        raise ValueError('it has no atoms')
    return sites, doubts


def _operations(block):
    """Return the operations that the file lists, None without."""
    for tag in OPERATIONS:
        texts = [text for text in block.column(tag) or () if text.strip() not in ('', '?', '.')]
        if texts:
            rotations, shifts = parse_operations(texts)
            centers = [text for text in block.column(CENTERINGS) or () if text.strip() not in ('', '?', '.')]
            if tag.endswith('magn_operation_xyz') and centers:
                more = parse_operations(centers)[1]
                rotations, shifts = np.tile(rotations, (len(more), 1, 1)), (more[:, None] + shifts).reshape(-1, 3) % 1.0
            return rotations, shifts
    return None


def _candidates(block):
    """Return all (label, operations) that the block may mean, the most literal ones first."""
    own = _operations(block)
    listed = [] if own is None else [('the file', own)]
    if own is not None and len(own[0]) > 1:
        return listed
    name, hall, group = block.get(*NAMES), block.get(*HALL), block.get(*NUMBERS)
    group = None if group is None else int(number(group, 'the number of the space group'))
    found = find_hall(hall) if hall else []
    if not found and (name or group is not None):
        try:
            found = find_settings(name, group, block.get(CODE))
        except ValueError:
            if not listed:
                raise
    if not found and hall and not listed:
        raise ValueError(f'no space group has the Hall symbol {hall!r}, and the file lists no operations')
    if listed and found == [1]:
        return listed
    return listed + [(describe(each), operations_of(each)) for each in sorted(found, key=lambda h: not is_standard_axis(h))] or [
        ('P 1', (np.eye(3)[None], np.zeros((1, 3))))
    ]


def _fits(cell, rotations):
    """Return whether all rotations leave the metric of the cell as it is."""
    metric = cell.array @ cell.array.T
    turned = rotations.transpose(0, 2, 1) @ metric @ rotations
    scale = np.sqrt(np.outer(np.diag(metric), np.diag(metric)))
    return bool((np.abs(turned - metric) / scale).max() < METRIC)


def _orbit(place, operations, cell):
    """Return the different images (m, 3) of a site in [0, 1); the mean where several are the same atom."""
    rotations, shifts = operations
    images = (rotations @ place + shifts) % 1.0
    kept = np.zeros(len(images), bool)
    found = []
    while not kept.all():
        first = images[np.flatnonzero(~kept)[0]]
        apart = images - first
        apart -= np.round(apart)
        same = ~kept & (np.linalg.norm(apart @ cell.array, axis=1) < SAME_PLACE)
        found.append((first + apart[same].mean(0)) % 1.0)
        kept |= same
    return np.array(found)


def _expand(cell, sites, operations, expected):
    """Return the Atoms of all sites, with the number of the site in the array 'site', and doubts.

    Raises
    ------
    ValueError
        Atoms of different elements are in one place.
    """
    if len(operations[0]) == 1:
        parts = [place[None] % 1.0 for _, _, place in sites]
    else:
        parts = [_orbit(place, operations, cell) for _, _, place in sites]
    owner = np.repeat(np.arange(len(sites)), [len(part) for part in parts])
    numbers = np.array([sites[k][1] for k in owner])
    atoms = Atoms(numbers, scaled_positions=np.concatenate(parts), cell=cell, pbc=True)
    atoms.set_array('site', owner)
    i, j, _ = neighbors(atoms, SAME_PLACE)
    i, j = i[i < j], j[i < j]
    twice = owner[i] != owner[j]
    i, j = i[twice], j[twice]
    mixed = numbers[i] != numbers[j]
    if mixed.any():
        one, other = sites[owner[i[mixed][0]]][0], sites[owner[j[mixed][0]]][0]
        raise ValueError(f'the sites {one} and {other} have different elements in one place; keep one of them')
    if not len(i):
        return atoms, []
    one, other = sites[owner[i[0]]][0], sites[owner[j[0]]][0]
    merged = atoms[np.setdiff1d(np.arange(len(atoms)), j)]
    if len(operations[0]) == 1 and not (expected and _compare(atoms, *expected) and not _compare(merged, *expected)):
        return atoms, [f'the sites {one} and {other} are in one place, both are kept']
    return merged, [f'the sites {one} and {other} are in one place and count once']


def _formula(block):
    """Return ({atomic number: count}, Z or None) as the file gives them; None without a formula."""
    text, units = block.get('_chemical_formula_sum'), block.get('_cell_formula_units_z')
    counts = {}
    for word in (text or '').replace(',', ' ').split():
        match = re.fullmatch(r'([A-Z][a-z]?)(\d*\.?\d*)', word)
        symbol = {'D': 'H'}.get(match[1], match[1]) if match else None
        if symbol not in chemical_symbols[1:]:
            return None
        counts[atomic_numbers[symbol]] = counts.get(atomic_numbers[symbol], 0.0) + float(match[2] or 1)
    try:
        units = None if units is None else number(units, 'Z')
    except ValueError:
        units = None
    return (counts, units) if counts and min(counts.values()) > 0 else None


def _compare(atoms, counts, units):
    """Return how the atoms differ from a formula and Z; empty where they agree.

    Programs that write the formula of the whole cell beside Z (pymatgen) are taken at their word, too.
    """
    own = dict(zip(*(array.tolist() for array in np.unique(atoms.numbers, return_counts=True)), strict=True))
    wanted = ' '.join(f'{chemical_symbols[z]}{n:g}' for z, n in counts.items())
    text = f'{atoms.get_chemical_formula()} was read; the formula of the file is {wanted}' + (f', Z = {units:g}' if units else '')
    if set(own) != set(counts):
        return text
    ratios = np.array([own[z] / counts[z] for z in own])
    tolerance = 0.02 * ratios.mean()
    if np.ptp(ratios) > tolerance:
        return text
    factor = ratios.mean()
    whole = units is not None and all(abs(n / units - round(n / units)) < 1e-6 for n in counts.values())
    return '' if units is None or abs(factor - units) <= tolerance or (whole and abs(factor - 1) <= tolerance) else text


def _multiplicities(block, sites, atoms):
    """Return how the multiplicities of sites differ from those of the file; empty where they agree or are not given."""
    for tag in ('_atom_site_symmetry_multiplicity', '_atom_site_site_symmetry_multiplicity'):
        column, labels = block.column(tag), block.column('_atom_site_label')
        if column is None or labels is None or len(column) != len(sites):
            continue
        counts = np.bincount(atoms.arrays['site'], minlength=len(sites))
        for (label, *_), text, count in zip(sites, column, counts, strict=True):
            if text.isdigit() and int(text) != count:
                return f'the site {label} has {count} images; the file says {text}'
    return ''


def _choose(tried, explicit):
    """Return (atoms, doubts) of the symmetry that agrees with the file.

    Raises
    ------
    ValueError
        None agrees, or several do and give different crystals.
    """
    good = [each for each in tried if not each[3]]
    if not good:
        label, atoms, more, problem = tried[0]
        if explicit and len(tried) == 1:  # all operations are listed: the sites are what the file gives
            return atoms, [*more, problem]
        raise ValueError(f'by the operations of {label} {problem}; give all operations (_space_group_symop_operation_xyz)')
    label, atoms, more, _ = good[0]
    others = [each for each in good[1:] if not _equal(atoms, each[1])]
    if not others or is_axis_only(good):
        return atoms, more
    names = ' and '.join([label, *(each[0] for each in others)])
    if explicit:
        return atoms, [*more, f'only the identity is listed beside another group; {len(atoms)} atoms were taken as they are']
    raise ValueError(
        f'the symmetry may be that of {names}, which give different crystals; '
        'write the setting into the symbol, or list the operations'
    )


def is_axis_only(good: list) -> bool:
    """Return whether candidates differ in the unique axis of a short monoclinic symbol only, which then is b."""
    words = [each[0].split()[1:4] for each in good]
    return all(len(each) == 3 and each.count('1') == 2 for each in words) and words[0][0] == words[0][2] == '1'


def _equal(one, other):
    """Return whether two crystals of one cell are the same set of atoms."""
    if sorted(one.numbers) != sorted(other.numbers):
        return False
    both = one + other
    i, j, _ = neighbors(both, SAME_PLACE)
    across = (i < len(one)) & (j >= len(one)) & (both.numbers[i] == both.numbers[j])
    return len(set(i[across].tolist())) == len(one)
