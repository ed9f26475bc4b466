"""Comparison of crystals: uniqueness, novelty, and the match rate of structure prediction.

Crystals are compared with the StructureMatcher of pymatgen (primitive cells, scaled volumes) with the usual tolerances for
generated crystals. Only candidate pairs are compared: equal reduced composition and equal number of atoms in the primitive cell.
Structurally invalid crystals match nothing; they are neither unique nor novel.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms

from ...utils.parallel import Workers, parallel_map, progress_bar
from ...utils.unread import is_unread
from .structures import check_crystals, is_crystal, is_sound, reduced_formula, to_structure

SAME = {'ltol': 0.2, 'stol': 0.3, 'angle_tol': 5.0}  # uniqueness and novelty
PREDICTED = {'ltol': 0.3, 'stol': 0.5, 'angle_tol': 10.0}  # structure prediction
BLOCK = 16  # largest number of comparisons per task
LARGEST_BLOCK = 64  # crystals of a group that are compared at the same time


@lru_cache(maxsize=8)
def _matcher(ltol, stol, angle_tol):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=ltol, stol=stol, angle_tol=angle_tol, primitive_cell=True, scale=True)


def _reduce(atoms):
    """Return the primitive cell of a crystal for StructureMatcher, None for invalid crystals and failed reductions."""
    if not is_sound(atoms):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            return to_structure(atoms).get_reduced_structure(reduction_algo='niggli').get_primitive_structure()
        except Exception:  # failed reductions of extreme cells
            return None


def _groups(structures):
    """Return {(composition, atoms in the primitive cell): indices}; None structures are skipped."""
    groups = {}
    for index, structure in enumerate(structures):
        if structure is not None:
            key = (tuple(sorted((site.Z, n) for site, n in structure.composition.reduced_composition.items())), len(structure))
            groups.setdefault(key, []).append(index)
    return groups


def _same(one, other, tolerances):
    """Return whether two reduced structures match."""
    try:
        return bool(_matcher(*tolerances).fit(one, other, skip_structure_reduction=True))
    except Exception:  # a failed match is no match
        return False


def _first_match(task):
    """Return the index of the first structure of a list that matches another one, None without a match."""
    one, others, tolerances = task
    return next((place for place, other in enumerate(others) if _same(other, one, tolerances)), None)


def _all_matches(task):
    """Return the indices of all structures of a list that match another one."""
    one, others, tolerances = task
    return [place for place, other in enumerate(others) if _same(other, one, tolerances)]


def _first_duplicates(structures, tolerances, workers, update):
    """Return for each structure the index of its first duplicate, -1 for None; `update` is told of compared pairs.

    Each group grows in blocks: their structures are compared with the first ones of the classes so far, and those without a
    match among themselves. The result is that of one loop, and all processes work also on one group.
    """
    first = [-1] * len(structures)
    groups = [[rows, [], 0, 1] for rows in _groups(structures).values()]  # rows, firsts, next row, size of the block
    while groups:
        blocks = [rows[at : at + size] for rows, _, at, size in groups]
        tasks, owners = [], []
        for (_, firsts, *_), block in zip(groups, blocks, strict=True):
            for row in block:
                for part in (firsts[k : k + BLOCK] for k in range(0, len(firsts), BLOCK)):
                    tasks.append((structures[row], [structures[k] for k in part], tolerances))
                    owners.append((row, part))
        for index, place in workers.run(_first_match, tasks, chunk=1, lost=None):
            row, part = owners[index]
            update(len(part))
            if place is not None:
                first[row] = part[place] if first[row] < 0 else min(first[row], part[place])
        tasks, owners = [], []
        for block in blocks:
            new = [row for row in block if first[row] < 0]
            for place, row in enumerate(new[1:], 1):
                tasks.append((structures[row], [structures[k] for k in new[:place]], tolerances))
                owners.append((row, new[:place]))
        matches = {}
        for index, places in workers.run(_all_matches, tasks, chunk=1, lost=()):
            row, before = owners[index]
            update(len(before))
            matches[row] = [before[place] for place in places]
        for group, block in zip(groups, blocks, strict=True):
            skipped = -len(group[1]) * len(block)
            for row in block:
                if first[row] < 0:
                    first[row] = next((k for k in matches.get(row, ()) if first[k] == k), row)
                if first[row] == row:
                    group[1].append(row)
            # pairs that need no comparison, as one of them is a duplicate
            new = sum(row in matches for row in block)
            skipped += sum(range(group[2], group[2] + len(block))) - new * (new + 1) // 2
            update(skipped)
            group[2] += len(block)
            group[3] = min(2 * group[3], LARGEST_BLOCK)
        groups = [group for group in groups if group[2] < len(group[0])]
    return first


def _tolerances(ltol, stol, angle_tol):
    """Return the tolerances as a tuple."""
    if not (ltol > 0 and stol > 0 and angle_tol > 0):
        raise ValueError(f'tolerances are positive; got ltol={ltol}, stol={stol}, angle_tol={angle_tol}')
    return (float(ltol), float(stol), float(angle_tol))


def crystal_duplicates(
    images: Iterable[Atoms],
    *,
    ltol: float = SAME['ltol'],
    stol: float = SAME['stol'],
    angle_tol: float = SAME['angle_tol'],
    processes: int | None = None,
    progress: bool = False,
) -> list[int]:
    """Return for each crystal the index of its first duplicate.

    Crystals are compared with the first member of each group, not in chains.

    Parameters
    ----------
    images : list of Atoms
    ltol, stol, angle_tol : float
        Tolerances of StructureMatcher: of lattice vectors (fraction), of sites (in units of (V / n)^(1/3)) and of angles
        (degrees).
    processes : int, optional
        All cores by default.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    list of int
        Index of the first duplicate (its own for a new one) of each crystal; -1 for invalid crystals.
    """
    tolerances = _tolerances(ltol, stol, angle_tol)
    options = {'processes': processes, 'progress': progress}
    structures = parallel_map(_reduce, check_crystals(images), label='reduce', lost=None, **options)
    pairs = sum(len(rows) * (len(rows) - 1) // 2 for rows in _groups(structures).values())
    with Workers(processes) as workers, progress_bar(pairs, progress, 'unique') as update:
        return _first_duplicates(structures, tolerances, workers, update)


def unique(images: Iterable[Atoms], **options: Any) -> np.ndarray:
    """Return which crystals are the first of their duplicates.

    Parameters
    ----------
    images : list of Atoms
    **options
        As in `crystal_duplicates`.

    Returns
    -------
    numpy.ndarray
        bool, shape (n,); its mean is the uniqueness.
    """
    return np.array([index == first for index, first in enumerate(crystal_duplicates(images, **options))])


def novel(
    images: Iterable[Atoms],
    known: Iterable[Atoms],
    *,
    ltol: float = SAME['ltol'],
    stol: float = SAME['stol'],
    angle_tol: float = SAME['angle_tol'],
    processes: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Return which crystals do not occur in a set of known ones.

    Only known crystals with a composition that occurs among the images are compared.

    Parameters
    ----------
    images : list of Atoms
    known : list of Atoms
        Training set.
    ltol, stol, angle_tol, processes, progress
        As in `crystal_duplicates`.

    Returns
    -------
    numpy.ndarray
        bool, shape (n,); its mean is the novelty. False for invalid crystals.
    """
    tolerances = _tolerances(ltol, stol, angle_tol)
    options = {'processes': processes, 'progress': progress}
    images = check_crystals(images)
    formulas = {reduced_formula(atoms) for atoms in images}
    known = [a for a in check_crystals(known, 'known') if is_crystal(a) and reduced_formula(a) in formulas]
    structures = parallel_map(_reduce, images + known, label='reduce', lost=None, **options)
    ours, theirs = _groups(structures[: len(images)]), _groups(structures[len(images) :])
    owners, tasks = [], []
    for key, rows in ours.items():
        others = [structures[len(images) + k] for k in theirs.get(key, [])]
        for row in rows:
            for begin in range(0, len(others), BLOCK):
                owners.append(row)
                tasks.append((structures[row], others[begin : begin + BLOCK], tolerances))
    answer = np.array([structure is not None for structure in structures[: len(images)]])
    for row, match in zip(owners, parallel_map(_first_match, tasks, label='novel', lost=None, **options), strict=True):
        answer[row] &= match is None
    return answer


def match_rate(
    predictions: Iterable[Atoms] | Iterable[Iterable[Atoms]],
    targets: Iterable[Atoms],
    *,
    ltol: float = PREDICTED['ltol'],
    stol: float = PREDICTED['stol'],
    angle_tol: float = PREDICTED['angle_tol'],
    processes: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Compare predicted crystals with the true ones.

    As in CDVAE and DiffCSP: a target is matched if StructureMatcher finds a mapping; its RMS distance is the smallest among its
    predictions, in units of (V / n)^(1/3). The rate is over all targets, the RMSE is the mean over matched ones.

    Parameters
    ----------
    predictions : list of Atoms, or list of lists of Atoms
        One crystal or several candidates per target.
    targets : list of Atoms
    ltol, stol, angle_tol, processes, progress
        As in `crystal_duplicates`.

    Returns
    -------
    dict
        'match_rate', 'rmse' (nan without a match), 'n' (targets), 'n_unread' (targets that could not be read; they count in no
        rate) and 'rms', the RMS distance of each target, None without a match. A prediction that is no crystal or could not be
        read is a miss for its own target.

    Raises
    ------
    ValueError
        The numbers of predictions and targets differ, or there are none.
    """
    tolerances = _tolerances(ltol, stol, angle_tol)
    targets = check_crystals(targets, 'targets')
    predictions = [predictions] if isinstance(predictions, Atoms) else predictions
    if not hasattr(predictions, '__iter__'):
        raise TypeError(f'predictions are a list of Atoms, or of lists of Atoms; got {predictions!r}')
    candidates = [[each] if isinstance(each, Atoms) or not hasattr(each, '__iter__') else list(each) for each in predictions]
    for atoms in (atoms for each in candidates for atoms in each):
        if not isinstance(atoms, Atoms):
            raise TypeError(f'predictions: a crystal is an ase.Atoms; one is {type(atoms).__name__}')
    if len(candidates) != len(targets):
        raise ValueError(f'each target has one prediction, or one list of them; got {len(candidates)} for {len(targets)}')
    tasks = [(each, target, tolerances) for each, target in zip(candidates, targets, strict=True)]
    rms = parallel_map(_best_rms, tasks, processes=processes, progress=progress, label='match', lost=None)
    met = [value for value in rms if value is not None]
    known = sum(not is_unread(atoms) for atoms in targets)
    return {
        'match_rate': len(met) / known,
        'rmse': float(np.mean(met)) if met else float('nan'),
        'n': known,
        'n_unread': len(targets) - known,
        'rms': rms,
    }


def _best_rms(task):
    """Return the smallest RMS distance between candidates and a target, None without a match."""
    candidates, target, tolerances = task
    if not is_sound(target):
        return None
    formula, best = reduced_formula(target), None
    for atoms in candidates:
        if reduced_formula(atoms) != formula or not is_sound(atoms):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                found = _matcher(*tolerances).get_rms_dist(to_structure(atoms), to_structure(target))
            except Exception:  # a failed match is no match
                found = None
        if found is not None and (best is None or found[0] < best):
            best = float(found[0])
    return best
