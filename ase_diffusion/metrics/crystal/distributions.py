"""Similarity of two sets of crystals: coverage, Wasserstein distances, K-S statistics; success rates of a property."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ...utils.rng import RandomSource, coerce_rng
from ...utils.unread import is_unread
from .composition import compositional_validity
from .fingerprints import composition_fingerprints, structure_fingerprints
from .structures import FEATURES, check_crystals, crystal_features, density, structural_validity

if TYPE_CHECKING:
    from ase import Atoms


CUTOFFS = {'mp': (0.4, 10.0), 'perovskite': (0.2, 4.0), 'carbon': (0.2, 4.0)}  # structure, composition
SAMPLES = 1000
PERCENTILES = (5, 10, 15)
Fingerprints = tuple[np.ndarray, np.ndarray]  # (n, 61) of structures, (n, 132) of compositions


def crystal_fingerprints(images: Iterable[Atoms], *, processes: int | None = None, progress: bool = False) -> Fingerprints:
    """Return the structure and composition fingerprints for `coverage`.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        Shapes (n, 61) and (n, 132). Slow for many crystals: keep the result for a data set.
    """
    images = check_crystals(images)
    return structure_fingerprints(images, processes=processes, progress=progress), composition_fingerprints(images)


def coverage(
    images: Iterable[Atoms] | Fingerprints,
    reference: Iterable[Atoms] | Fingerprints,
    *,
    cutoffs: str | tuple[float, float] = 'mp',
    processes: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Return the share of the reference covered by the crystals (recall), and the share of crystals near it (precision).

    A crystal is covered if the nearest structure fingerprint and the nearest composition fingerprint of the other set (not
    necessarily of the same crystal) lie within the cutoffs, as in CDVAE (Xie et al., ICLR 2022; after Ganea et al. 2021).
    Crystals without a fingerprint are never covered; they count in both denominators. Compositions are scaled by constants
    from mp_le20 instead of those of CDVAE (see `composition_fingerprints`).

    Parameters
    ----------
    images, reference : list of Atoms, or results of `crystal_fingerprints`
    cutoffs : 'mp', 'perovskite', 'carbon' or (float, float)
        Largest distances of structures and of compositions: 0.4 and 10 for Materials Project data, otherwise 0.2 and 4.
    processes, progress
        As in `structure_fingerprints`.

    Returns
    -------
    dict
        'recall', 'precision', and 'cutoffs'.
    """
    limits = checked_cutoffs(cutoffs)
    sets = [_as_fingerprints(each, processes, progress) for each in (images, reference)]
    precision, recall = (
        np.logical_and(*(_near(a, b, limit) for a, b, limit in zip(one, other, limits, strict=True))).mean()
        for one, other in (sets, sets[::-1])
    )
    return {'recall': float(recall), 'precision': float(precision), 'cutoffs': list(limits)}


def checked_cutoffs(cutoffs: str | tuple[float, float]) -> tuple[float, float]:
    """Return the two cutoffs of `coverage` as numbers; raise a ValueError for other values."""
    if isinstance(cutoffs, str):
        if cutoffs not in CUTOFFS:
            raise ValueError(f'cutoffs are two numbers or one of {sorted(CUTOFFS)}; got {cutoffs!r}')
        return CUTOFFS[cutoffs]
    try:
        structure, composition = map(float, cutoffs)
        if not (structure > 0 and composition > 0):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f'cutoffs are two positive numbers (structure, composition) or one of {sorted(CUTOFFS)}; got {cutoffs!r}'
        ) from None
    return structure, composition


def _as_fingerprints(data, processes, progress):
    """Return fingerprints of crystals; fingerprints are returned unchanged."""
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(each, np.ndarray) and each.ndim == 2 for each in data):
        if len(data[0]) != len(data[1]) or not len(data[0]):
            raise ValueError(
                f'fingerprints come in pairs, at least one; got {len(data[0])} of structures and {len(data[1])} of '
                'compositions; `crystal_fingerprints(images)` makes them'
            )
        return data
    return crystal_fingerprints(data, processes=processes, progress=progress)


def _near(points, others, cutoff):
    """Return which points have a neighbor among the others within the cutoff, bool (n,); nan has none."""
    from scipy.spatial import cKDTree

    good, others = np.isfinite(points).all(1), others[np.isfinite(others).all(1)]
    answer = np.zeros(len(points), bool)
    if len(others) and good.any():
        distances = cKDTree(others).query(points[good])[0]
        answer[good] = distances <= cutoff
    return answer


def wasserstein_distances(
    images: Iterable[Atoms], reference: Iterable[Atoms], *, samples: int = SAMPLES, rng: RandomSource = 0
) -> dict[str, float]:
    """Return the Wasserstein distances between the densities and the numbers of elements of valid crystals and a reference.

    Parameters
    ----------
    images : list of Atoms
        `samples` of the valid ones (structure and composition) are drawn, or all if there are fewer (with more noise).
    reference : list of Atoms
        The structurally valid ones are used.
    samples : int
    rng : anything `coerce_rng` takes
        Random numbers of the draw.

    Returns
    -------
    dict
        'density' (g/cm^3), 'elements' (elements per crystal), and 'n', the number of crystals drawn. nan if none is valid.
    """
    from scipy.stats import wasserstein_distance

    if samples < 1:
        raise ValueError(f'samples is 1 or more; got {samples}')
    images, reference = check_crystals(images), check_crystals(reference, 'reference')
    valid = np.flatnonzero(structural_validity(images) & compositional_validity(images))
    if len(valid) > samples:
        valid = np.sort(coerce_rng(rng).permutation(valid)[:samples])
    ours = [images[k] for k in valid]
    theirs = [atoms for atoms, sound in zip(reference, structural_validity(reference), strict=True) if sound]
    if not ours or not theirs:
        return {'density': float('nan'), 'elements': float('nan'), 'n': len(ours)}
    pairs = [[[of(atoms) for atoms in each] for each in (ours, theirs)] for of in (density, _count_elements)]
    return {'density': float(wasserstein_distance(*pairs[0])), 'elements': float(wasserstein_distance(*pairs[1])), 'n': len(ours)}


def _count_elements(atoms):
    return len(set(atoms.numbers.tolist()))


def ks_statistics(
    images: Iterable[Atoms] | dict[str, np.ndarray],
    reference: Iterable[Atoms] | dict[str, np.ndarray],
    *,
    names: Sequence[str] = FEATURES,
    processes: int | None = None,
    progress: bool = False,
) -> dict[str, float]:
    """Return the two-sample Kolmogorov-Smirnov statistics of lattice parameters, angles, space groups and atomic numbers.

    Parameters
    ----------
    images, reference : list of Atoms, or results of `crystal_features`
    names : sequence of str
        Names of features of `crystal_features`.
    processes, progress
        As in `crystal_features`.

    Returns
    -------
    dict of str to float
        Largest distance of the cumulative distributions, 0 (equal) to 1; nan if one set is empty. 'Z' counts atoms, the other
        features count crystals.
    """
    from scipy.stats import ks_2samp

    sides = []
    for name, data in (('images', images), ('reference', reference)):
        if not isinstance(data, dict):
            data = crystal_features(check_crystals(data, name), processes=processes, progress=progress)
        sides.append(data)
    unknown = [name for name in names if any(name not in side for side in sides)]
    if unknown:
        raise ValueError(f'crystals have the features {", ".join(FEATURES)}; got {", ".join(map(repr, unknown))}')
    values = {}
    for name in names:
        ours, theirs = (np.asarray(side[name])[np.isfinite(side[name])] for side in sides)
        with np.errstate(divide='ignore'):  # the p-value is not used
            found = ks_2samp(ours, theirs, method='asymp').statistic if len(ours) and len(theirs) else np.nan
        values[name] = float(found)
    return values


def success_rates(
    values: ArrayLike, reference: ArrayLike, *, percentiles: Sequence[float] = PERCENTILES, total: int | None = None
) -> dict[str, Any]:
    """Return the share of values at or below percentiles of a reference, such as SR5, SR10, SR15 (Takahara et al. 2024).

    Plain shares: one value per sample, not the best of several.

    Parameters
    ----------
    values : sequence of float
        Property of the generated crystals; nan counts as no success.
    reference : sequence of float
        Property of the data, in the same unit; nan is ignored.
    percentiles : sequence of float
        0 to 100.
    total : int, optional
        Denominator, if not all generated crystals have a value.

    Returns
    -------
    dict
        'SR5', ...: shares; 'thresholds': {'5': value, ...}; 'n'.

    Raises
    ------
    ValueError
        There are no values, no finite reference, or a percentile lies outside 0 to 100.
    """
    values, reference = np.asarray(values, float).ravel(), np.asarray(reference, float).ravel()
    reference = reference[np.isfinite(reference)]
    total = len(values) if total is None else total
    if not len(values) or not len(reference) or total < len(values):
        raise ValueError(
            f'success rates need values and a reference with finite numbers; got {len(values)} values of {total} '
            f'and {len(reference)} finite references'
        )
    if not all(0 <= p <= 100 for p in percentiles):
        raise ValueError(f'percentiles lie between 0 and 100; got {list(percentiles)}')
    thresholds = {f'{p:g}': float(np.percentile(reference, p)) for p in percentiles}
    rates = {f'SR{name}': float((values <= limit).sum() / total) for name, limit in thresholds.items()}  # nan <= x is False
    return {**rates, 'thresholds': thresholds, 'n': int(total)}


def property_values(images: Iterable[Atoms], name: str) -> np.ndarray:
    """Return a property stored with crystals: in ``info['key_value_pairs']``, in ``info``, or 'energy' of their calculator.

    Parameters
    ----------
    images : list of Atoms
    name : str

    Returns
    -------
    numpy.ndarray
        Shape (n,); nan for crystals without it.

    Raises
    ------
    ValueError
        No crystal has it; the message lists the known names.
    """
    images = check_crystals(images)
    values = np.array([_property(atoms, name) for atoms in images])
    if np.isnan(values).all():
        there = {key for atoms in images for key in [*atoms.info.get('key_value_pairs', {}), *atoms.info]}
        there = sorted(key for key in there if any(np.isfinite(_property(atoms, key)) for atoms in images))
        raise ValueError(f'no crystal has the property {name!r}; there are: {", ".join(there) or "none"}')
    return values


def _property(atoms, name):
    """Return a property of one crystal, nan if missing or if the crystal could not be read."""
    if is_unread(atoms):
        return float('nan')
    value = atoms.info.get('key_value_pairs', {}).get(name, atoms.info.get(name))
    if value is None and name == 'energy':
        value = getattr(atoms.calc, 'results', {}).get('energy')
    try:
        return float(value)
    except (TypeError, ValueError):
        return float('nan')
