"""Helpers for ase.Atoms: masks, checks, formulas, neighbors, shortest distances."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import chemical_symbols, covalent_radii
from ase.formula import Formula
from ase.stress import full_3x3_to_voigt_6_stress
from ase.symbols import Symbols

from .checks import check_integer

__all__ = [
    'check_one_piece',
    'check_surface_cell',
    'copy_atoms',
    'frozen_mask',
    'is_valid',
    'join_slab',
    'mobile_mask',
    'neighbors',
    'parse_formula',
    'min_distance_ratio',
]

VALID_RATIO = 0.7  # shortest distance over the sum of covalent radii
PIECES_APART = 5.0  # A; layers of a slab are closer
WIDE, NARROW = 6.0, 3.0  # A; gaps between atoms that are vacuum, and that are none
OF_ALL_ATOMS = ('FixSymmetry', 'FixedMode')  # constraints that hold one number or more for every atom
INDEX_NAMES = ('index', 'indices', 'pairs', 'triples')  # attributes of constraints of ASE that hold indices of atoms
BINS = 1000  # largest number of bins per atom in a neighbor search


def copy_atoms(atoms: Atoms) -> Atoms:
    """Return a deep copy; `Atoms.copy` shares the values in `info`. Indices of constraints count from 0 in the copy.

    ASE counts negative indices from the end, which moves when atoms are added, and loses these when atoms are sorted or removed.
    ``info['key_value_pairs']`` and ``info['data']``, where notes go, are dicts in the copy; others are kept in one.

    Raises
    ------
    ValueError
        The index of a constraint is out of range.
    """
    new = atoms.copy()
    new.info = copy.deepcopy(atoms.info)
    for name in ('key_value_pairs', 'data'):
        if not isinstance(own := new.info.get(name, {}), dict):
            new.info[name] = {} if own is None else {f'own_{name}': own}
    for constraint in new.constraints:
        for name in INDEX_NAMES:
            found = getattr(constraint, name, None)
            if found is not None and (counted := _from_zero(found, len(atoms), constraint)) is not found:
                setattr(constraint, name, counted)
    return new


def _from_zero(found, count: int, constraint) -> np.ndarray | list[int] | int:
    """Return the indices of a constraint counted from 0, in their own type; raise a ValueError where one is out of range."""
    indices = np.asarray(found)
    if indices.dtype.kind not in 'iu':  # internal coordinates: lists that end in numbers and masks
        return found
    if ((indices < -count) | (indices >= count)).any():
        outside = indices[(indices < -count) | (indices >= count)].ravel().tolist()
        raise ValueError(
            f'the indices of a constraint lie in 0 to {count - 1}, the atoms of the structure; {type(constraint).__name__} has '
            f'{outside[:10]}; set the constraint anew'
        )
    indices = np.where(indices < 0, indices + count, indices)
    if isinstance(constraint, FixAtoms):
        return np.unique(indices)
    return type(found)(indices.tolist()) if isinstance(found, (list, tuple, int)) else indices


def as_list(images: Atoms | Iterable[Atoms]) -> list[Atoms]:
    """Return structures as a list; one structure is a list of one. Raise a TypeError for anything else."""
    images = [images] if isinstance(images, Atoms) or not isinstance(images, Iterable) else list(images)
    for number, atoms in enumerate(images):
        if not isinstance(atoms, Atoms):
            how = 'take row.toatoms()' if hasattr(atoms, 'toatoms') else 'read files first: ase.io.read(path, ":")'
            raise TypeError(f'structures are ase.Atoms; number {number} is {type(atoms).__name__}; {how}')
    return images


def check_one(atoms: Atoms, way_out: str) -> None:
    """Raise a TypeError unless this is one structure."""
    if not isinstance(atoms, Atoms):
        raise TypeError(f'one structure is an ase.Atoms; got {type(atoms).__name__}; {way_out}')


def frozen_mask(atoms: Atoms) -> np.ndarray:
    """Return the mask of atoms in a FixAtoms constraint, bool (n,).

    Raises
    ------
    ValueError
        An index is out of range.
    """
    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[_from_zero(constraint.get_indices(), len(atoms), constraint)] = True
    return mask


def mobile_mask(atoms: Atoms) -> np.ndarray:
    """Return the mask of atoms that are not in a FixAtoms constraint, bool (n,)."""
    return ~frozen_mask(atoms)


def detached(atoms: Atoms, factor: float = 1.3) -> np.ndarray:
    """Return the indices of atoms that no chain of neighbors joins to an atom in FixAtoms.

    Neighbors are closer than ``factor`` times the sum of their covalent radii. So molecules that left a surface are found.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    radii = factor * covalent_radii[atoms.numbers]
    i, j, d = neighbors(atoms, 2 * radii.max())
    near = d < radii[i] + radii[j]
    bonds = csr_matrix((np.ones(near.sum()), (i[near], j[near])), shape=(len(atoms),) * 2)
    part = connected_components(bonds, directed=False)[1]
    return np.flatnonzero(~np.isin(part, part[frozen_mask(atoms)]))


def judged(atoms: Atoms) -> Atoms:
    """Return a structure for metrics of its mobile atoms: where every atom is fixed, a copy in which none is."""
    if mobile_mask(atoms).any():
        return atoms
    free = atoms.copy()
    free.set_constraint()
    return free


def unsupported_constraints(atoms: Atoms) -> list[str]:
    """Return the names of constraints other than FixAtoms; batched relaxations and generators ignore these."""
    return sorted({type(each).__name__ for each in atoms.constraints if not isinstance(each, FixAtoms)})


def check_surface_cell(slab: Atoms) -> None:
    """Raise unless there are atoms with finite positions and the cell vectors a and b span the xy plane.

    Raises
    ------
    TypeError
        It is not an Atoms object.
    ValueError
        A condition is not met. Slabs for training and sampling must meet more, see `ase_diffusion.representations.slab`.
    """
    if not isinstance(slab, Atoms):
        raise TypeError(f'a slab is an ase.Atoms object; got {type(slab).__name__}; read files with ase.io.read')
    if not np.isfinite(slab.positions).all():
        raise ValueError(
            f'the atoms of a slab have finite positions; some of {slab.get_chemical_formula()} are NaN or infinite; correct them'
        )
    check_vacuum(slab)
    plane = slab.cell[:2]
    if not len(slab) or np.linalg.norm(np.cross(*plane)) < 1e-6 or np.abs(plane[:, 2]).max() > 1e-6:
        raise ValueError(
            'a slab has atoms, and its cell vectors a and b span the xy plane; got '
            f'{len(slab)} atoms and a = {plane[0].tolist()}, b = {plane[1].tolist()}; '
            f'build it with ase.build; {rotation_hint(slab)}'
        )
    check_extendable(slab)
    check_one_piece(slab)


def rotation_hint(slab: Atoms) -> str:
    """Return the line of code that turns a and b of a slab into the xy plane, with c upwards."""
    a, b, c = slab.cell.complete()[:]
    first, second = (0, 1) if np.dot(np.cross(a, b), c) >= 0 else (1, 0)
    return (
        f'slab.rotate(numpy.cross(slab.cell[{first}], slab.cell[{second}]), "z", rotate_cell=True) turns a and b into that plane'
    )


def check_vacuum(slab: Atoms) -> None:
    """Raise a ValueError where the vacuum of a slab lies along its first or second cell vector: by pbc, or since atoms fill z."""
    cell = slab.cell.complete()[:]
    if not len(slab) or abs(np.linalg.det(cell)) < 1e-6:
        return
    scaled = np.sort(slab.positions @ np.linalg.inv(cell) % 1.0, axis=0)
    widths = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)  # (3,) between opposite faces
    gaps = np.diff(np.vstack([scaled, scaled[:1] + 1]), axis=0).max(0) * widths
    missing, axis = np.flatnonzero(~slab.pbc).tolist(), int(gaps[:2].argmax())
    if len(missing) == 1 and missing[0] < 2:
        axis = missing[0]
    elif gaps[axis] < WIDE or gaps[2] > NARROW:
        return
    raise ValueError(
        f'the vacuum of a slab lies along the third cell vector, here it is along the {("first", "second")[axis]} one; '
        f'slab.set_cell(slab.cell[{[(axis + 1) % 3, (axis + 2) % 3, axis]}]); slab.pbc = (True, True, False); '
        'slab.rotate(numpy.cross(slab.cell[0], slab.cell[1]), "z", rotate_cell=True) turn it there'
    )


def check_extendable(slab: Atoms) -> None:
    """Raise a ValueError for constraints that hold a value for every atom of a slab, and so cannot take more atoms."""
    if whole := sorted({type(each).__name__ for each in slab.constraints} & set(OF_ALL_ATOMS)):
        raise ValueError(
            f'atoms are added to a slab, but its constraint {whole[0]} is one of all its atoms; take it off: '
            f'slab.set_constraint([c for c in slab.constraints if type(c).__name__ != "{whole[0]}"])'
        )


def cut_of(slab: Atoms, which: np.ndarray | None = None) -> tuple[float, float] | None:
    """Return height and width in A of the gap that cuts a slab in two pieces along z, as wrapping across the cell does.

    Parameters
    ----------
    slab : Atoms
    which : bool array (n,), optional
        Atoms to look at; all by default.

    Returns
    -------
    (float, float) or None
        None: the atoms are one piece, or the cell has no height.
    """
    z = np.sort(slab.positions[:, 2] if which is None else slab.positions[which, 2])
    height = abs(float(slab.cell[2, 2]))
    if len(z) < 2 or height < 1e-6:
        return None
    gaps = np.diff(z)
    widest = int(gaps.argmax())
    outside = height - (z[-1] - z[0])  # through the boundary of the cell
    if gaps[widest] <= PIECES_APART or gaps[widest] <= outside:
        return None
    return float((z[widest] + z[widest + 1]) / 2), float(gaps[widest])


def check_one_piece(slab: Atoms, which: np.ndarray | None = None) -> None:
    """Raise a ValueError if the atoms (those of the mask ``which``) lie in two pieces, see :func:`cut_of`."""
    if (cut := cut_of(slab, which)) is not None:
        sign = '-' if slab.cell[2, 2] > 0 else '+'
        raise ValueError(
            f'the atoms of a slab are one piece along z; these are two, {cut[1]:.1f} A apart, as after a wrap across the cell. '
            f'slab.positions[slab.positions[:, 2] > {cut[0]:.3f}] {sign}= slab.cell[2] joins them; where the gap is real, '
            'enlarge the cell along z until it is smaller than the vacuum'
        )


def join_slab(slab: Atoms) -> None:
    """Move the upper piece of a slab that was wrapped across its cell under the lower one, in place, see :func:`cut_of`."""
    if (cut := cut_of(slab)) is not None:
        positions = slab.positions.copy()
        positions[positions[:, 2] > cut[0]] -= np.sign(slab.cell[2, 2]) * slab.cell[2]
        slab.set_positions(positions, apply_constraint=False)


def energy_of(atoms: Atoms) -> float:
    """Return the energy (eV) of the calculator that a structure carries, without constraints; infinity where it carries none."""
    energy = ({} if atoms.calc is None else atoms.calc.results).get('energy', math.inf)
    return energy if math.isfinite(energy) else math.inf


def mobile_formula(atoms: Atoms) -> str:
    """Return the formula of the atoms that no FixAtoms holds, of all where it holds all or none; for logs."""
    mobile = mobile_mask(atoms)
    return Formula.from_list([chemical_symbols[z] for z in atoms.numbers[mobile if mobile.any() else ~mobile]]).format('hill')


def composition_text(stoich: str | Mapping[str, int] | Formula | Symbols) -> str:
    """Return a composition, a formula (that of ASE, too) or the numbers of atoms of elements, as a formula in the given order.

    Raises
    ------
    TypeError
        It is neither.
    ValueError
        It is no formula, or a number is no whole number of 0 or more.
    """
    if isinstance(stoich, Mapping):
        for symbol, count in stoich.items():
            if symbol not in chemical_symbols[1:]:
                raise ValueError(
                    f'a composition has numbers of atoms of elements, such as {{"Ag": 12, "O": 6}}; got {symbol!r}'
                    f'{isotopes(symbol)}'
                )
            check_integer(f'the number of {symbol} atoms', count, 0)
        stoich = ''.join(f'{symbol}{int(count)}' for symbol, count in stoich.items() if count)
    if isinstance(stoich, (Formula, Symbols)):
        stoich = str(stoich)
    if not isinstance(stoich, str):
        raise TypeError(
            f"a composition is a formula such as 'Ag12O6', or a dict such as {{'Ag': 12, 'O': 6}}; got {type(stoich).__name__}"
        )
    parse_formula(stoich)
    return stoich.strip()


def voigt_stress(stress: np.ndarray) -> np.ndarray:
    """Return a stress, (6,) or (3, 3), as (6,) in the order xx, yy, zz, yz, xz, xy."""
    stress = np.array(stress, dtype=float)
    return full_3x3_to_voigt_6_stress(stress) if stress.shape == (3, 3) else stress.reshape(6)


def parse_formula(text: str) -> list[int]:
    """Return the atomic numbers of a formula in the order of its symbols.

    Raises
    ------
    ValueError
        The text is not a formula.
    """
    try:
        if not re.fullmatch(r'[A-Za-z0-9()]+', text.strip()):
            raise ValueError
        numbers = [chemical_symbols.index(symbol) for symbol in Formula(text.strip())]
    except (ValueError, KeyError, AttributeError):
        numbers = []
    if not numbers or 0 in numbers:
        raise ValueError(f"a formula is element symbols with whole numbers, such as 'Ag6O3'; got {text!r}{isotopes(text)}")
    return numbers


def atomic_numbers_of(symbols: Iterable[str], name: str) -> list[int]:
    """Return the atomic numbers of chemical symbols, sorted and each once; a ValueError with their ``name`` for what is none."""
    numbers = set()
    for symbol in symbols:
        if symbol not in chemical_symbols[1:]:
            raise ValueError(f'{name} is a list of chemical symbols; {symbol!r} is none{isotopes(symbol)}')
        numbers.add(chemical_symbols.index(symbol))
    return sorted(numbers)


def isotopes(text: str) -> str:
    """Return the end of a message about a formula or symbol with isotopes of hydrogen, nothing where there are none."""
    found = sorted(set(re.findall(r'[DT](?![a-z])', str(text))))
    return f'; ASE has no isotopes: write H in place of {" and ".join(found)}' if found else ''


def neighbors(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return i, j (p,) and distances (p,) in A of all periodic pairs within a cutoff in A; each pair appears twice."""
    from matscipy.neighbours import neighbour_list

    # missing cell vectors (slabs without vacuum, molecules) would make the cell singular
    cell = atoms.cell.complete().array
    span = np.ptp(atoms.positions, axis=0).prod() if len(atoms) else 0.0
    if max(abs(np.linalg.det(cell)), span) > BINS * (len(atoms) + 1) * cutoff**3:  # its bins would fill the memory
        return _sparse_neighbors(atoms.positions, cell, atoms.pbc, float(cutoff))
    return neighbour_list('ijd', positions=atoms.positions, cell=cell, pbc=atoms.pbc, cutoff=float(cutoff))


def _sparse_neighbors(positions, cell, pbc, cutoff):
    """Return i, j, d of all periodic pairs by a tree of the atoms and of their images near the faces of the cell."""
    from scipy.spatial import cKDTree

    inverse = np.linalg.inv(cell)
    scaled = positions @ inverse
    scaled = np.where(pbc, scaled - np.floor(scaled), scaled)
    margins = cutoff * np.linalg.norm(inverse, axis=0) + 1e-9  # (3,) in fractions of the cell
    owner, images = np.arange(len(positions)), scaled
    for axis in np.flatnonzero(pbc):
        reach = int(np.ceil(margins[axis]))
        parts = [(owner, images)]
        for n in (*range(-reach, 0), *range(1, reach + 1)):
            place = images[:, axis] + n
            near = (place > -margins[axis]) & (place < 1 + margins[axis])
            parts.append((owner[near], images[near] + n * np.eye(3)[axis]))
        owner, images = (np.concatenate(each) for each in zip(*parts, strict=True))
    home = scaled @ cell
    pairs = cKDTree(home).sparse_distance_matrix(cKDTree(images @ cell), cutoff, output_type='ndarray')
    pairs = pairs[pairs['j'] != pairs['i']]  # the images begin with the atoms themselves
    order = np.argsort(pairs['i'], kind='stable')
    return pairs['i'][order], owner[pairs['j'][order]], pairs['v'][order]


def min_distance_ratio(atoms: Atoms) -> float:
    """Return the smallest distance over the sum of covalent radii, over pairs with at least one mobile atom.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    float
        Dimensionless; periodic images of the same atom count. inf without such a pair (no mobile atom, or none within twelve
        bond lengths); nan without atoms, for positions that are not finite and for atoms X, which are no elements.
    """
    if not len(atoms) or not np.isfinite(atoms.positions).all() or not (atoms.numbers > 0).all():
        return float('nan')
    mobile = mobile_mask(atoms)
    if not mobile.any():
        return float('inf')
    radii = covalent_radii[atoms.numbers]
    for bound in (1.5, 3.0, 6.0, 12.0):  # every ratio up to `bound` is inside this cutoff
        i, j, d = neighbors(atoms, bound * 2 * radii.max())
        keep = mobile[i] | mobile[j]
        ratios = d[keep] / (radii[i] + radii[j])[keep]
        if ratios.size and ratios.min() <= bound:
            return float(ratios.min())
    return float('inf')


def is_valid(atoms: Atoms, ratio: float = VALID_RATIO) -> bool:
    """Return whether all distances of mobile atoms are at least `ratio` times the sum of covalent radii.

    Where every atom is fixed, all are judged. Without atoms, and with atoms X, which are no elements, it is False.
    """
    return bool(min_distance_ratio(judged(atoms)) >= ratio)


def partial_sites(atoms: Atoms) -> str | None:
    """Return which site is shared or partly empty (``info['occupancy']`` of ase.io.read), as text; None where all are whole.

    A site whose atoms were deleted (``arrays['spacegroup_kinds']``) is none.
    """
    kinds = atoms.arrays.get('spacegroup_kinds')
    for site, shares in (atoms.info.get('occupancy') or {}).items():
        there = kinds is None or str(site) in {str(kind) for kind in kinds.tolist()}
        if there and (len(shares) > 1 or any(abs(share - 1) > 1e-3 for share in shares.values())):
            return f'site {site} is occupied by {dict(shares)}'
    return None
