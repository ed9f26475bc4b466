"""All metrics of a set of crystals in one report: plain numbers that go into JSON, and a table."""

import math

import numpy as np

from .composition import compositional_validity
from .crystals import check_crystals, crystal_features, structural_validity
from .distributions import checked_cutoffs, coverage, ks_statistics, property_values, success_rates, wasserstein_distances
from .hull import chgnet_class, energies_above_hull, formation_energies, sun
from .matching import match_rate, novel, unique

CHGNET = 'chgnet_energy_per_atom'  # eV/atom by CHGNet 0.3.0, as data sets may carry it


def evaluate_crystals(
    images,
    reference=None,
    *,
    known=None,
    phases=None,
    targets=None,
    prop=None,
    chgnet=False,
    cutoffs='mp',
    cov=True,
    rng=0,
    processes=None,
    progress=False,
    before_chgnet=None,
):
    """Judge crystals, whoever made them, by all metrics that the arguments allow.

    Parameters
    ----------
    images : list of Atoms
    reference : list of Atoms, optional
        What they should look like (the test set): coverage, Wasserstein distances, K-S statistics.
    known : list of Atoms, optional
        The training set: novelty, percentiles of the property and of the formation energy. The reference by default.
    phases : list of Atoms, optional
        Competing phases of the hull: all that is at hand, training and test set. The known crystals by default.
    targets : list of Atoms, optional
        The true structures, if the images are predictions: as many as images, or a whole fraction of them (then the candidates
        for a target follow each other).
    prop : str, optional
        Property that images and known crystals carry (see `property_values`), for the success rates.
    chgnet : bool
        Compute energies with CHGNet (slow): formation energies, energy above the hull of the phases, S.U.N.; with known crystals
        success rates of the formation energy. Crystals of these that carry ``chgnet_energy_per_atom`` are not computed again.
    cutoffs : 'mp', 'perovskite', 'carbon' or (float, float)
        Of `coverage`.
    cov : bool
        Compute the coverage, the slowest part without CHGNet.
    rng : anything `coerce_rng` takes
        For the draw of `wasserstein_distances`.
    processes : int, optional
        All cores by default; the numbers do not depend on it.
    progress : bool
        Show bars on stderr.
    before_chgnet : callable, optional
        With chgnet, called with the report of all else before that part begins, to keep it where CHGNet fails.

    Returns
    -------
    dict
        Nested, of numbers and lists (see `report_rows`); None where a number does not exist.

    Raises
    ------
    ValueError
        The arguments do not fit each other.
    MissingDependency
        CHGNet is asked for and not installed.
    """
    images = check_crystals(images)
    options = {'processes': processes, 'progress': progress}
    reference = None if reference is None else check_crystals(reference, 'reference')
    known = reference if known is None else check_crystals(known, 'known')
    # mistakes come out before the work begins
    checked_cutoffs(cutoffs)
    if chgnet:
        chgnet_class()
        phases = known if phases is None else check_crystals(phases, 'phases')
    groups = None if targets is None else _candidates(images, check_crystals(targets, 'targets'))
    values = None if prop is None or known is None else (property_values(images, prop), property_values(known, prop))
    sound, neutral = structural_validity(images), compositional_validity(images)
    is_unique = unique(images, **options)
    report = {
        'n': len(images),
        'structural_validity': sound.mean(),
        'compositional_validity': neutral.mean(),
        'validity': (sound & neutral).mean(),
        'uniqueness': is_unique.mean(),
    }
    if known is not None:
        is_novel = novel(images, known, **options)
        report |= {'novelty': is_novel.mean(), 'unique_novel': (is_unique & is_novel).mean(), 'n_known': len(known)}
    if reference is not None:
        report['n_reference'] = len(reference)
        report['wasserstein'] = wasserstein_distances(images, reference, rng=rng)
        report['ks'] = ks_statistics(crystal_features(images, **options), crystal_features(reference, **options))
        if cov:
            report['coverage'] = coverage(images, reference, cutoffs=cutoffs, **options)
    if values is not None:
        report['success'] = {'property': prop, **success_rates(*values)}
    if groups is not None:
        report['prediction'] = match_rate(groups, targets, **options) | {'candidates': len(groups[0])}
    if chgnet:
        if before_chgnet is not None:
            before_chgnet(_plain(report))
        report |= _stability(images, phases, known, (is_unique, is_unique if known is None else is_novel), options)
    return _plain(report)


def _candidates(images, targets):
    """Return the predictions for each target."""
    each, rest = divmod(len(images), len(targets))
    if rest or not each:
        raise ValueError(f'each target has the same number of predictions; got {len(images)} for {len(targets)} targets')
    return [images[k * each : (k + 1) * each] for k in range(len(targets))]


def _stability(images, phases, known, unique_and_novel, options):
    """Return the part of the report that needs CHGNet; `unique_and_novel` are two arrays of bool (n,)."""
    energies = formation_energies(images, progress=options['progress'])
    part = {
        'formation_energy': {
            'median': np.nanmedian(energies) if np.isfinite(energies).any() else None,
            'values': energies.tolist(),
        }
    }
    if phases is None:
        return part
    each = {id(atoms): atoms for atoms in (*phases, *(known or ()))}  # the known are usually phases, too
    crystals = list(each.values())
    found = dict(zip(each, formation_energies(crystals, _chgnet_of(crystals, options['progress'])), strict=True))
    references, of_known = (np.array([found[id(atoms)] for atoms in part or ()]) for part in (phases, known))
    above = energies_above_hull(images, energies, phases, references, **options)
    count = int(np.isfinite(references).sum())
    part['stability'] = sun(above, *unique_and_novel) | {'above_hull': above.tolist(), 'n_phases': count}
    if np.isfinite(of_known).any():
        part['success_formation_energy'] = {'property': 'formation energy by CHGNet', **success_rates(energies, of_known)}
    return part


def _chgnet_of(images, progress):
    """Return CHGNet energies (eV/atom), those that the crystals carry where they do."""
    from .hull import chgnet_energies

    energies = np.array([atoms.info.get('key_value_pairs', {}).get(CHGNET, np.nan) for atoms in images], float)
    missing = np.flatnonzero(np.isnan(energies))
    if len(missing):
        energies[missing] = chgnet_energies([images[k] for k in missing], progress=progress)
    return energies


def _plain(value):
    """Return the same with Python numbers, and None for nan, so that it is JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def report_rows(report):
    """Return the rows of a table of a report.

    Parameters
    ----------
    report : dict
        What `evaluate_crystals` returned.

    Returns
    -------
    list of (str, str, str)
        Metric, value, remark.
    """
    known = f'against {report["n_known"]} known crystals' if 'n_known' in report else ''
    rows = [
        ('crystals', str(report['n']), ''),
        ('structural validity', _percent(report['structural_validity']), 'distances >= 0.5 A, volume >= 0.1 A^3'),
        ('compositional validity', _percent(report['compositional_validity']), 'charges and electronegativities (SMACT)'),
        ('validity', _percent(report['validity']), 'both'),
        ('unique', _percent(report['uniqueness']), 'first of their kind'),
    ]
    if 'novelty' in report:
        rows += [('novel', _percent(report['novelty']), known), ('unique and novel', _percent(report['unique_novel']), '')]
    if 'coverage' in report:
        cutoffs = ' and '.join(f'{x:g}' for x in report['coverage']['cutoffs'])
        rows += [
            ('COV-R', _percent(report['coverage']['recall']), f'cutoffs {cutoffs}'),
            ('COV-P', _percent(report['coverage']['precision']), f'against {report["n_reference"]} crystals'),
        ]
    if 'wasserstein' in report:
        drawn = f'{report["wasserstein"]["n"]} valid crystals'
        rows += [
            ('Wasserstein, density', _number(report['wasserstein']['density']), f'g/cm^3, {drawn}'),
            ('Wasserstein, elements', _number(report['wasserstein']['elements']), drawn),
        ]
    rows += [(f'K-S, {name}', _number(value), '') for name, value in report.get('ks', {}).items()]
    for name in ('success', 'success_formation_energy'):
        part = report.get(name, {})
        rows += [
            (f'SR{p}', _percent(part[f'SR{p}']), f'{part["property"]} <= {limit:.4f}')
            for p, limit in part.get('thresholds', {}).items()
        ]
    if 'prediction' in report:
        part = report['prediction']
        rows += [
            ('match rate', _percent(part['match_rate']), f'of {part["n"]} targets, {part["candidates"]} candidates each'),
            ('RMSE', _number(part['rmse']), '(V / n)^(1/3)'),
        ]
    if 'stability' in report:
        part = report['stability']
        rows += [
            (f'above hull <= {edge} eV', _percent(share), f'eV/atom, CHGNet, {part["n_phases"]} phases')
            for edge, share in part['shares'].items()
        ]
        rows.append(('S.U.N.', _percent(part['sun']), f'stable up to {part["limit"]:g} eV/atom, unique, novel'))
    return rows


def _percent(share):
    return '-' if share is None else f'{100 * share:.1f} %'


def _number(value):
    return '-' if value is None else f'{value:.3f}'
