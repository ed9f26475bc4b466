"""All metrics of a set of crystals in one report: plain numbers for JSON, and a table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...utils.rng import RandomSource
from ...utils.unread import is_unread, named
from ..reports import number, percent, plain
from .composition import compositional_validity
from .distributions import checked_cutoffs, coverage, ks_statistics, property_values, success_rates, wasserstein_distances
from .hull import chgnet_class, energies_above_hull, formation_energies, sun
from .matching import match_rate, novel, unique
from .structures import check_crystals, crystal_features, is_crystal, no_crystals, structural_validity

if TYPE_CHECKING:
    from ase import Atoms


logger = logging.getLogger(__name__)

CHGNET = 'chgnet_energy_per_atom'  # eV/atom by CHGNet 0.3.0, stored in some data sets


def evaluate(
    images: Iterable[Atoms],
    reference: Iterable[Atoms] | None = None,
    *,
    known: Iterable[Atoms] | None = None,
    phases: Iterable[Atoms] | None = None,
    targets: Iterable[Atoms] | None = None,
    prop: str | None = None,
    chgnet: bool = False,
    cutoffs: str | tuple[float, float] = 'mp',
    cov: bool = True,
    rng: RandomSource = 0,
    processes: int | None = None,
    progress: bool = False,
    before_chgnet: Callable[[dict[str, Any]], object] | None = None,
    on_part: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Evaluate crystals with all metrics that the arguments allow.

    Parameters
    ----------
    images : list of Atoms
    reference : list of Atoms, optional
        Test set to compare with: coverage, Wasserstein distances, K-S statistics.
    known : list of Atoms, optional
        Training set: novelty, percentiles of the property and of the formation energy. The reference by default.
    phases : list of Atoms, optional
        Competing phases of the convex hull, such as training and test set together. The known crystals by default.
    targets : list of Atoms, optional
        True structures, if the images are predictions. With several candidates per target (the same number for all), those
        of a target are consecutive.
    prop : str, optional
        Property of images and known crystals (see `property_values`) for success rates.
    chgnet : bool
        Compute energies with CHGNet (slow): formation energies, energies above the hull of the phases, S.U.N.; with known
        crystals success rates of the formation energy. Phases and known crystals with ``chgnet_energy_per_atom`` are not
        recomputed.
    cutoffs : 'mp', 'perovskite', 'carbon' or (float, float)
        Cutoffs of `coverage`.
    cov : bool
        Compute the coverage (the slowest part without CHGNet).
    rng : anything `coerce_rng` takes
        Random numbers of the draw in `wasserstein_distances`.
    processes : int, optional
        All cores by default; results do not depend on it.
    progress : bool
        Show progress bars on stderr.
    before_chgnet : callable, optional
        Called with the rest of the report before the CHGNet part, so that it is not lost if CHGNet fails.
    on_part : callable, optional
        Called with the report so far after each metric, so that it is not lost if a later one is interrupted.

    Returns
    -------
    dict
        Nested dict of numbers and lists (see `report_rows`); None for numbers that do not exist. Images that could not be read
        (`ase_diffusion.utils.unread`) or are no crystals count in ``n`` and fail in all metrics; ``n_unread`` and
        ``n_no_crystal`` count them where there are any, and they are named in a warning.

    Raises
    ------
    ValueError
        The arguments are inconsistent.
    MissingDependency
        CHGNet is requested and not installed.
    """
    images = check_crystals(images)
    options = {'processes': processes, 'progress': progress}
    reference = None if reference is None else check_crystals(reference, 'reference')
    known = reference if known is None else check_crystals(known, 'known')
    # errors of the arguments before long computations
    if prop is not None and known is None:
        raise ValueError('success rates compare with percentiles of data: pass reference or known together with prop')
    checked_cutoffs(cutoffs)
    if chgnet:
        chgnet_class()
        phases = known if phases is None else check_crystals(phases, 'phases')
    groups = None if targets is None else _candidates(images, check_crystals(targets, 'targets'))
    values = None if prop is None else (property_values(images, prop), property_values(known, prop))
    _warn(images)
    report = {}

    def add(**part):
        report.update(part)
        if on_part is not None:
            on_part(plain(report))

    sound, neutral = structural_validity(images), compositional_validity(images)
    add(
        n=len(images),
        **_count(images),
        structural_validity=sound.mean(),
        compositional_validity=neutral.mean(),
        validity=(sound & neutral).mean(),
    )
    if values is not None:
        add(success={'property': prop, **success_rates(*values)})
    if groups is not None:
        add(prediction=match_rate(groups, targets, **options) | {'candidates': len(groups[0])})
    is_unique = unique(images, **options)
    add(uniqueness=is_unique.mean())
    if known is not None:
        is_novel = novel(images, known, **options)
        add(novelty=is_novel.mean(), unique_novel=(is_unique & is_novel).mean(), n_known=len(known))
    if reference is not None:
        add(n_reference=len(reference), wasserstein=wasserstein_distances(images, reference, rng=rng))
        add(ks=ks_statistics(crystal_features(images, **options), crystal_features(reference, **options)))
        if cov:
            add(coverage=coverage(images, reference, cutoffs=cutoffs, **options))
    if chgnet:
        if before_chgnet is not None:
            before_chgnet(plain(report))
        report |= _stability(images, phases, known, (is_unique, is_unique if known is None else is_novel), options)
    return plain(report)


evaluate_crystals = evaluate  # the name in `ase_diffusion.metrics`


def _warn(images):
    """Name the structures that are no crystals in one warning."""
    reasons = no_crystals(images)
    if reasons:
        logger.warning('%d of %d structures are no crystals and count as invalid: %s', len(reasons), len(images), named(reasons))


def _count(images):
    """Return the numbers of structures that were not read and that are no crystals, where there are any."""
    unread = sum(map(is_unread, images))
    others = sum(not is_crystal(atoms) for atoms in images) - unread
    return {name: n for name, n in (('n_unread', unread), ('n_no_crystal', others)) if n}


def _candidates(images, targets):
    """Return the candidates of each target."""
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
    each = {id(atoms): atoms for atoms in (*phases, *(known or ()))}  # known crystals are usually phases, too
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
    """Return CHGNet energies (eV/atom), computed for crystals without a stored one."""
    from .hull import chgnet_energies

    energies = np.array([atoms.info.get('key_value_pairs', {}).get(CHGNET, np.nan) for atoms in images], float)
    missing = np.flatnonzero(np.isnan(energies))
    if len(missing):
        energies[missing] = chgnet_energies([images[k] for k in missing], progress=progress)
    return energies


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
    known = f'against {report["n_known"]} known crystals' if 'n_known' in report else ''
    rows = [
        ('crystals', str(report['n']), _failures(report)),
        ('structural validity', percent(report['structural_validity']), 'distances >= 0.5 A, volume >= 0.1 A^3'),
        ('compositional validity', percent(report['compositional_validity']), 'charges and electronegativities (SMACT)'),
        ('validity', percent(report['validity']), 'both'),
    ]
    if 'uniqueness' in report:
        rows.append(('unique', percent(report['uniqueness']), 'first of their kind'))
    if 'novelty' in report:
        rows += [('novel', percent(report['novelty']), known), ('unique and novel', percent(report['unique_novel']), '')]
    if 'coverage' in report:
        cutoffs = ' and '.join(f'{x:g}' for x in report['coverage']['cutoffs'])
        rows += [
            ('COV-R', percent(report['coverage']['recall']), f'cutoffs {cutoffs}'),
            ('COV-P', percent(report['coverage']['precision']), f'against {report["n_reference"]} crystals'),
        ]
    if 'wasserstein' in report:
        drawn = f'{report["wasserstein"]["n"]} valid crystals'
        rows += [
            ('Wasserstein, density', number(report['wasserstein']['density']), f'g/cm^3, {drawn}'),
            ('Wasserstein, elements', number(report['wasserstein']['elements']), drawn),
        ]
    rows += [(f'K-S, {name}', number(value), '') for name, value in report.get('ks', {}).items()]
    for name in ('success', 'success_formation_energy'):
        part = report.get(name, {})
        rows += [
            (f'SR{p}', percent(part[f'SR{p}']), f'{part["property"]} <= {limit:.4f}')
            for p, limit in part.get('thresholds', {}).items()
        ]
    if 'prediction' in report:
        part = report['prediction']
        rows += [
            (
                'match rate',
                percent(part['match_rate']),
                f'of {part["n"]} targets, {part["candidates"]} candidates each'
                + (f'; {part["n_unread"]} targets could not be read' if part.get('n_unread') else ''),
            ),
            ('RMSE', number(part['rmse']), '(V / n)^(1/3)'),
        ]
    if 'stability' in report:
        part = report['stability']
        rows += [
            (f'above hull <= {edge} eV', percent(share), f'eV/atom, CHGNet, {part["n_phases"]} phases')
            for edge, share in part['shares'].items()
        ]
        rows.append(('S.U.N.', percent(part['sun']), f'stable up to {part["limit"]:g} eV/atom, unique, novel'))
    return rows


def _failures(report):
    """Return how many structures were not read or are no crystals, as text."""
    words = (('n_unread', 'could not be read'), ('n_no_crystal', 'are no crystals'))
    return ', '.join(f'{report[key]} {text}' for key, text in words if report.get(key)) + (
        ', counted as invalid' if any(report.get(key) for key, _ in words) else ''
    )
