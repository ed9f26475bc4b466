"""All metrics of a list of overlayers in one report: plain numbers for JSON, and a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ...utils.atoms import judged
from ..reports import number, percent, plain
from .overlayers import (
    ENERGY_TOL,
    FINGERPRINT_TOL,
    VALID_RATIO,
    Distinct,
    min_distance_ratio,
    relative_energies,
    stored_energy,
    success_curve,
)

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)  # attempts in the default success curve


def evaluate(
    images: Iterable[Atoms],
    reference: Iterable[Atoms] | None = None,
    *,
    ratio: float = VALID_RATIO,
    energy_tol: float = ENERGY_TOL,
    fingerprint_tol: float = FINGERPRINT_TOL,
    counts: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Evaluate overlayers with all metrics that the arguments allow.

    Parameters
    ----------
    images : list of Atoms
        Structures with frozen substrates. Energies, where they carry any, are read and not computed.
    reference : list of Atoms, optional
        Known structures, such as the results of a random search: recall, novelty, energies relative to the best known one, and
        the success curve. An image is a success if it is the same structure as the reference of lowest energy of its
        composition.
    ratio : float
        Smallest distance of a valid structure over the sum of covalent radii.
    energy_tol : float
        Tolerance of duplicates in eV per structure.
    fingerprint_tol : float
        Tolerance of duplicates, Euclidean distance of fingerprints.
    counts : sequence of int, optional
        Numbers of attempts k of the success curve; 1, 2, 5, 10, ... up to the number of images by default.

    Returns
    -------
    dict
        n, validity (share), min_distance_ratio (smallest, median), n_distinct, uniqueness (distinct structures per valid
        structure); with energies: energy (median, lowest, and the values relative to the best of the same composition, in eV
        per structure); with a reference: n_reference, recall (share of the different references found), novelty (share of the
        different images that are not in the reference), success (share, counts, probability, low, high with 95 % confidence).
        None for numbers that do not exist.

    Raises
    ------
    ValueError
        There are no images, or the reference is empty.
    TypeError
        One is not an Atoms object.
    """
    images = _check(images, 'images')
    ratios = np.array([min_distance_ratio(judged(atoms)) for atoms in images])
    valid = ratios >= ratio  # nan is not
    good = [atoms for atoms, is_good in zip(images, valid, strict=True) if is_good]
    finite = ratios[np.isfinite(ratios)]
    kinds = Distinct(energy_tol, fingerprint_tol)
    distinct = {kinds.add(index, atoms) for index, atoms in enumerate(good)}
    report = {
        'n': len(images),
        'validity': valid.mean(),
        'min_distance_ratio': {'limit': ratio, 'smallest': _of(np.min, finite), 'median': _of(np.median, finite)},
        'n_distinct': len(distinct),
        'uniqueness': len(distinct) / len(good) if good else None,
    }
    known = None if reference is None else _check(reference, 'reference')
    report |= _energies(images, known)
    if known is not None:
        report |= _comparison(images, valid, known, (energy_tol, fingerprint_tol), counts)
    return plain(report)


def _check(images: Iterable[Atoms] | Atoms, name: str) -> list[Atoms]:
    """Return a list of Atoms, at least one."""
    images = [images] if isinstance(images, Atoms) else list(images)
    if not images:
        raise ValueError(f'{name}: a metric needs at least one structure; got an empty list')
    for index, atoms in enumerate(images):
        if not isinstance(atoms, Atoms):
            raise TypeError(f'{name}: a structure is an ase.Atoms; number {index} is {type(atoms).__name__}')
    return images


def _of(function, values: np.ndarray) -> float | None:
    """Return a statistic of the values, None without any."""
    return float(function(values)) if len(values) else None


def _energies(images: list[Atoms], known: list[Atoms] | None) -> dict[str, Any]:
    """Return the part with energies (eV) relative to the best of the composition; empty if no image carries one."""
    if known is None:
        relative = relative_energies(images)
    else:
        best = _best(known)
        lowest = np.array([best.get(atoms.get_chemical_formula(), (np.nan, None))[0] for atoms in images])
        relative = np.array([stored_energy(atoms) for atoms in images]) - lowest
    finite = relative[np.isfinite(relative)]
    if not len(finite):
        return {}
    return {'energy': {'median': _of(np.median, finite), 'lowest': _of(np.min, finite), 'n': len(finite), 'values': relative}}


def _comparison(images, valid, known, tolerances, counts) -> dict[str, Any]:
    """Return the part that compares with known structures."""
    kinds = Distinct(*tolerances)
    names = [kinds.add(('reference', index), atoms) for index, atoms in enumerate(known)]
    lowest = {id(atoms) for _, atoms in _best(known).values()}
    best = {name for name, atoms in zip(names, known, strict=True) if id(atoms) in lowest}
    found, hits = [], []
    for index, (atoms, is_valid) in enumerate(zip(images, valid, strict=True)):
        name = kinds.add(('image', index), atoms) if is_valid else None
        found.append(name)
        hits.append(name in best)
    seen = {name for name in found if name is not None}
    new = {name for name in seen if name[0] == 'image'}
    if counts is None:
        counts = [k for k in COUNTS if k <= len(images)]
    counts, probability, (low, high) = success_curve(hits, counts)
    return {
        'n_reference': len(known),
        'recall': len(seen - new) / len(set(names)),
        'novelty': len(new) / len(seen) if seen else None,
        'success': {'share': np.mean(hits), 'counts': counts, 'probability': probability, 'low': low, 'high': high},
    }


def _best(images: list[Atoms]) -> dict[str, tuple[float, Atoms]]:
    """Return the lowest energy (eV) of each composition and its structure; none for compositions without energies."""
    best: dict[str, tuple[float, Atoms]] = {}
    for atoms in images:
        energy, formula = stored_energy(atoms), atoms.get_chemical_formula()
        if np.isfinite(energy) and (formula not in best or energy < best[formula][0]):
            best[formula] = energy, atoms
    return best


def report_rows(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of a table of a report.

    Parameters
    ----------
    report : dict
        Result of `evaluate`.

    Returns
    -------
    list of (str, str, str)
        Metric, value, remark.
    """
    ratios = report['min_distance_ratio']
    rows = [
        ('structures', str(report['n']), ''),
        ('valid', percent(report['validity']), f'no distance below {ratios["limit"]:g} of the sum of covalent radii'),
        ('smallest distance ratio', number(ratios['smallest']), f'median {number(ratios["median"])}'),
        ('different', str(report['n_distinct']), 'valid structures, symmetries of the substrate included'),
        ('unique', percent(report['uniqueness']), 'different per valid structure'),
    ]
    if 'energy' in report:
        part, best = report['energy'], 'the best known one' if 'n_reference' in report else 'the best one'
        rows += [
            ('energy, lowest', number(part['lowest']), f'eV above {best} of the same composition'),
            ('energy, median', number(part['median']), f'of {part["n"]} structures'),
        ]
    if 'n_reference' in report:
        rows += [
            ('recall', percent(report['recall']), f'of the different ones of {report["n_reference"]} known structures'),
            ('novel', percent(report['novelty']), 'different structures that are not known'),
            ('success', percent(report['success']['share']), 'same as the best known structure'),
        ]
        curve = report['success']
        rows += [
            (f'success in {count}', percent(p), f'{percent(low)} to {percent(high)}')
            for count, p, low, high in zip(*(curve[key] for key in ('counts', 'probability', 'low', 'high')), strict=True)
            if count in (10, 100, 1000)
        ]
    return rows
