"""Which crystals are the same: uniqueness, novelty, and the match rate of structure prediction.

Crystals are compared by pymatgen's StructureMatcher (primitive cells, volumes scaled to each other), with the tolerances that are
usual for generated crystals. Only pairs that can match are handed to it: of equal reduced composition and, once each crystal has
been reduced to its primitive cell, of equal number of atoms. Crystals that are structurally invalid match nothing; they are
neither unique nor novel.
"""

import warnings
from functools import lru_cache

import numpy as np

from ..utils.parallel import parallel_map
from .crystals import _is_sound, check_crystals, reduced_formula, to_structure

SAME = {'ltol': 0.2, 'stol': 0.3, 'angle_tol': 5.0}  # uniqueness and novelty
PREDICTED = {'ltol': 0.3, 'stol': 0.5, 'angle_tol': 10.0}  # structure prediction
BLOCK = 64  # comparisons handed to a process at once, at most


@lru_cache(maxsize=8)
def _matcher(ltol, stol, angle_tol):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=ltol, stol=stol, angle_tol=angle_tol, primitive_cell=True, scale=True)


def _reduce(atoms):
    """Return the primitive cell of a crystal as StructureMatcher takes it, None for an invalid or irreducible one."""
    if not _is_sound(atoms):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            return to_structure(atoms).get_reduced_structure(reduction_algo='niggli').get_primitive_structure()
        except Exception:  # cells that no reduction can be found for
            return None


def _groups(structures):
    """Return {(composition, atoms in the primitive cell): indices}; structures that are None are left out."""
    groups = {}
    for index, structure in enumerate(structures):
        if structure is not None:
            key = (tuple(sorted((site.Z, n) for site, n in structure.composition.reduced_composition.items())), len(structure))
            groups.setdefault(key, []).append(index)
    return groups


def _same(one, other, tolerances):
    """Tell whether two reduced structures match."""
    try:
        return bool(_matcher(*tolerances).fit(one, other, skip_structure_reduction=True))
    except Exception:  # a failed match is no match
        return False


def _first_match(task):
    """Return the place of the first structure of a list that matches the other one, None without."""
    one, others, tolerances = task
    return next((place for place, other in enumerate(others) if _same(other, one, tolerances)), None)


def _classes(task):
    """Return for each structure of a list the place of the first of its kind."""
    structures, tolerances = task
    firsts, found = [], []
    for place, structure in enumerate(structures):
        match = next((first for first in firsts if _same(structures[first], structure, tolerances)), None)
        if match is None:
            firsts.append(place)
        found.append(place if match is None else match)
    return found


def _tolerances(ltol, stol, angle_tol):
    """Return the tolerances as a tuple."""
    if not (ltol > 0 and stol > 0 and angle_tol > 0):
        raise ValueError(f'tolerances are positive; got ltol={ltol}, stol={stol}, angle_tol={angle_tol}')
    return (float(ltol), float(stol), float(angle_tol))


def crystal_duplicates(
    images, *, ltol=SAME['ltol'], stol=SAME['stol'], angle_tol=SAME['angle_tol'], processes=None, progress=False
):
    """Find for every crystal the first one of its kind.

    Crystals are compared with the first of each kind, in their order, not in chains.

    Parameters
    ----------
    images : list of Atoms
    ltol, stol, angle_tol : float
        Tolerances of StructureMatcher: of lattice vectors (fraction), of sites (in units of (V / n)^(1/3)) and of angles
        (degrees).
    processes : int, optional
        All cores by default.
    progress : bool
        Show bars on stderr.

    Returns
    -------
    list of int
        Index of the first of its kind for every crystal; -1 for invalid ones.
    """
    tolerances = _tolerances(ltol, stol, angle_tol)
    options = {'processes': processes, 'progress': progress}
    structures = parallel_map(_reduce, check_crystals(images), label='reduce', **options)
    groups = sorted(_groups(structures).values(), key=lambda rows: (-len(rows), rows))  # the long ones first
    tasks = [([structures[k] for k in rows], tolerances) for rows in groups]
    first = [-1] * len(structures)
    for rows, places in zip(groups, parallel_map(_classes, tasks, label='unique', **options), strict=True):
        for row, place in zip(rows, places, strict=True):
            first[row] = rows[place]
    return first


def unique(images, **options):
    """Tell which crystals are the first of their kind.

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


def novel(images, known, *, ltol=SAME['ltol'], stol=SAME['stol'], angle_tol=SAME['angle_tol'], processes=None, progress=False):
    """Tell which crystals are not among known ones.

    Of the known crystals only those of a composition that occurs among the images are looked at.

    Parameters
    ----------
    images : list of Atoms
    known : list of Atoms
        The training set.
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
    known = [atoms for atoms in check_crystals(known, 'known') if reduced_formula(atoms) in formulas]
    structures = parallel_map(_reduce, images + known, label='reduce', **options)
    ours, theirs = _groups(structures[: len(images)]), _groups(structures[len(images) :])
    owners, tasks = [], []
    for key, rows in ours.items():
        others = [structures[len(images) + k] for k in theirs.get(key, [])]
        for row in rows:
            for begin in range(0, len(others), BLOCK):
                owners.append(row)
                tasks.append((structures[row], others[begin : begin + BLOCK], tolerances))
    answer = np.array([structure is not None for structure in structures[: len(images)]])
    for row, match in zip(owners, parallel_map(_first_match, tasks, label='novel', **options), strict=True):
        answer[row] &= match is None
    return answer


def match_rate(
    predictions,
    targets,
    *,
    ltol=PREDICTED['ltol'],
    stol=PREDICTED['stol'],
    angle_tol=PREDICTED['angle_tol'],
    processes=None,
    progress=False,
):
    """Compare predicted crystals with the true ones, target by target.

    As in CDVAE and DiffCSP: a target is met if StructureMatcher finds a mapping; its RMS distance is the smallest among the
    predictions for it, in units of (V / n)^(1/3). The rate is over all targets, the RMSE is the mean over those that are met.

    Parameters
    ----------
    predictions : list of Atoms, or list of lists of Atoms
        One crystal, or several candidates, for each target.
    targets : list of Atoms
    ltol, stol, angle_tol, processes, progress
        As in `crystal_duplicates`.

    Returns
    -------
    dict
        'match_rate', 'rmse' (nan if none is met), 'n' (targets) and 'rms', a list with the RMS distance for each target, None
        where it is not met.

    Raises
    ------
    ValueError
        The numbers of predictions and targets differ, or there are none.
    """
    tolerances = _tolerances(ltol, stol, angle_tol)
    targets = check_crystals(targets, 'targets')
    candidates = [check_crystals(each, 'predictions') for each in predictions]
    if len(candidates) != len(targets):
        raise ValueError(f'each target has one prediction, or one list of them; got {len(candidates)} for {len(targets)}')
    tasks = [(each, target, tolerances) for each, target in zip(candidates, targets, strict=True)]
    rms = parallel_map(_best_rms, tasks, processes=processes, progress=progress, label='match')
    met = [value for value in rms if value is not None]
    return {
        'match_rate': len(met) / len(targets),
        'rmse': float(np.mean(met)) if met else float('nan'),
        'n': len(targets),
        'rms': rms,
    }


def _best_rms(task):
    """Return the smallest RMS distance of candidates to a target, None if none matches."""
    candidates, target, tolerances = task
    formula, best = reduced_formula(target), None
    for atoms in candidates:
        if reduced_formula(atoms) != formula or not _is_sound(atoms):
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
