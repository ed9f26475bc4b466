"""Training recipe of the crystal model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ..diffusion import TimeDensity
from ..networks import CrystalTransformer
from ..representations.crystal import Crystal, LogLatticeCrystal
from ..representations.substitution import check_share
from .crystal_data import CrystalData, Crystals
from .data import as_names
from .objectives import DenoisingLoss
from .recipe import (
    check_names,
    check_new,
    check_options,
    check_start,
    condition_forms,
    condition_scales,
    header_of,
    network_to_train,
    run,
)

log = logging.getLogger(__name__)
SCHEMES = {  # how to sample with a model of the scheme
    'd3pm': {'sampler': 'predictor_corrector', 'steps': 1000, 'corrector': 0.04},
    'edm': {'sampler': 'renoised_ancestral', 'steps': 100, 'corrector': 0.2, 'density': TimeDensity(0.5, 0.15, 0.9).todict()},
}
DENSITY = TimeDensity(0.65, 0.25, 0.5)  # half of the times where atoms find their places, see DenoisingLoss
GIVEN = ('classes', 'conditions', 'points', 'cell_mean', 'cell_std', 'length')  # settings that come from data and scheme
UNITS = {'lattice': 'A', 'fractional': '1', 'energies': 'eV or eV per atom, as in the data'}


def train_crystal(
    data: Crystals,
    out: str | Path,
    *,
    validation: Crystals | None = None,
    conditions: list[str] | None = None,
    scheme: str | None = None,
    conditioning: str | None = None,
    steps: int = 20_000,
    features: int | None = None,
    blocks: int | None = None,
    batch_size: int = 128,
    csp_fraction: float = 0.33,
    dropout: float = 0.15,
    auxiliary: float = 0.05,
    seed: int = 0,
    network: CrystalTransformer | None = None,
    elements: list[int] | None = None,
    warmup: int = 500,
    coupled: bool | None = None,
    settings: dict | None = None,
    substitute: float = 0.0,
    **options: Any,
) -> Path:
    """Train a :class:`CrystalTransformer`; returns the path of the best checkpoint.

    Parameters
    ----------
    data, validation : Crystals
        Without ``validation`` 5 % of the compositions are held out.
    conditions : list of str, optional
        Conditions to learn; by default all of the data. True or false and provenance written by this package
        (:mod:`ase_diffusion.utils.provenance`) are learned where they are named.
    scheme : 'edm' or 'd3pm', optional
        Default: that of ``network``, else 'edm'.
        'd3pm': matrices of the lattice and discrete species (arXiv 2406.09263), sampled in 1000 steps of two calls; 'edm': six
        lattice numbers and species as points, preconditioned (:class:`LogLatticeCrystal`), sampled in 100 steps.
    conditioning : 'cds' or 'cdi', optional
        Of a new network ('cds').
    features, blocks : int, optional
        Width (128) and attention blocks (6) of a new network.
    csp_fraction : float
        Share of the crystals whose species are given, not noised: the same network predicts structures (CSP).
    dropout : float
        See :func:`ase_diffusion.training.data.drop_conditions`.
    auxiliary : float
        See :class:`ase_diffusion.diffusion.Categorical`; for 'd3pm' only.
    network : CrystalTransformer, optional
        The network to fine-tune, unused conditions removed.
    elements : list of int, optional
        Atomic numbers that ``network`` was trained with, in its order; the data may have fewer. Default: those of the data.
    coupled : bool, optional
        Pair terms of a new network know the state of the sender (True), see :class:`CrystalTransformer`; False is the network of
        the paper.
    settings : dict, optional
        More settings of a new network.
    substitute : float
        Share of the crystals whose elements are exchanged for similar ones, see :class:`CrystalData`.
    options : passed to :func:`train`.

    Raises
    ------
    ValueError
        A condition is not in the data, the scheme is unknown, or ``network`` knows other elements or conditions or is of
        another scheme.
    """
    check_options(options, train_crystal)
    check_start(network)
    settings = check_new(settings, CrystalTransformer, but=GIVEN, own=('features', 'blocks', 'conditioning', 'coupled'))
    substitute = check_share(substitute)
    names, scheme = _checked(data, conditions, csp_fraction, scheme, network)
    data = data.taking(names)
    data, validation = data.split(seed=seed) if validation is None else (data, validation.taking(names))
    elements = _elements({*data.elements(), *validation.elements()}, elements)
    representation, process, more = _scheme(scheme, elements, data, network, auxiliary)
    forms = condition_forms(data.conditions)

    def build(features: int = 128, blocks: int = 6, **asked: Any) -> CrystalTransformer:
        known = {'coupled': True, 'conditions': condition_scales(forms, data.conditions), **more}
        return CrystalTransformer(len(elements), features, blocks, **{**known, **asked})

    asked = {'features': features, 'blocks': blocks, 'conditioning': conditioning, 'coupled': coupled, **settings}

    if network is not None:
        network = _adapted(network, scheme, elements, names)
    header = header_of(
        'crystal',
        representation,
        process,
        units=UNITS,
        conditions=forms,
        sampling=SCHEMES[scheme],
        data=data.describe(),
        scheme=scheme,
        csp_fraction=csp_fraction,
        sizes=_sizes(data),
        **({'substitute': substitute} if substitute else {}),
    )
    return run(
        network_to_train(network, build, names, seed, **asked),
        process,
        CrystalData(data, representation, names, batch_size=batch_size, dropout=dropout, seed=seed, substitute=substitute),
        CrystalData(validation, representation, names),
        out,
        header=header,
        steps=steps,
        objective=DenoisingLoss(
            process, {'species': csp_fraction} if csp_fraction else None, DENSITY if scheme == 'edm' else None
        ),
        seed=seed,
        warmup=warmup,
        **options,
    )


def _checked(data: Crystals, conditions, csp_fraction: float, scheme: str | None, network) -> tuple[list[str], str]:
    """Return the conditions to learn and the scheme; ValueError where they do not fit."""
    names = sorted(data.conditions) if conditions is None else as_names(conditions)
    if conditions is None and data.others:
        log.info('no conditions, unless conditions=[...] names them: %s', ', '.join(data.others))
    check_names(names)
    if unknown := set(names) - {*data.conditions, *data.others}:
        raise ValueError(f'the data has no condition {sorted(unknown)}; it has {sorted(data.conditions)}')
    if not 0 <= csp_fraction <= 1:
        raise ValueError(f'csp_fraction is a share of the crystals, 0 to 1; got {csp_fraction}')
    if scheme is None:
        scheme = 'edm' if network is None or network.points else 'd3pm'
    if scheme not in SCHEMES:
        raise ValueError(f'scheme is one of {sorted(SCHEMES)}; got {scheme!r}')
    return names, scheme


def _elements(found: set[int], known) -> list[int]:
    """Return the elements of a model: those of the data, or those that are known, if the data has no others."""
    if known is None:
        return sorted(found)
    if beyond := sorted(found - set(known)):
        symbols, names = (', '.join(chemical_symbols[z] for z in numbers) for numbers in (beyond, sorted(known)))
        raise ValueError(f'the network never saw {symbols}; it knows {names}; leave out crystals with others, or train a new one')
    return [int(z) for z in known]


def _scheme(scheme: str, elements: list[int], data: Crystals, network, auxiliary: float):
    """Return representation and process of a scheme, and the settings of the network that belong to it."""
    if scheme == 'edm':
        representation = LogLatticeCrystal.of(elements, data.cells, data.counts)
        if network is not None and network.points:
            representation = LogLatticeCrystal(elements, mean=network.settings['cell_mean'], std=network.settings['cell_std'])
        points = dict(points=representation.table.shape[1], distances=16)
        return (
            representation,
            representation.process(),
            dict(**points, cell_mean=representation.mean, cell_std=representation.std),
        )
    longest = 1.1 * float(np.linalg.norm(data.cells, axis=-1).max())
    representation = Crystal(elements)
    process = representation.process(auxiliary=auxiliary, longest=longest)
    return representation, process, dict(length=float(np.cbrt(np.abs(np.linalg.det(data.cells))).mean()))


def _adapted(network: CrystalTransformer, scheme: str, elements: list[int], names: list[str]):
    """Return a trained network without the conditions that are not learned any more."""
    known = network.settings['conditions']
    if network.settings['classes'] != len(elements) or not set(names) <= set(known):
        raise ValueError(
            f'the network knows {network.settings["classes"]} elements and {sorted(known)}, the data has '
            f'{len(elements)} and {names}; train a new one'
        )
    if bool(network.points) != (scheme == 'edm'):
        other = 'edm' if network.points else 'd3pm'
        raise ValueError(f'the network is of the scheme {other!r}, not {scheme!r}; say scheme={other!r} or train a new one')
    forgotten = set(known) - set(names)
    return network.without(*forgotten) if forgotten else network


def _sizes(data: Crystals) -> dict[str, int]:
    """Return how many crystals have how many atoms."""
    values, counts = np.unique(data.counts, return_counts=True)
    return {str(int(v)): int(c) for v, c in zip(values, counts, strict=True)}
