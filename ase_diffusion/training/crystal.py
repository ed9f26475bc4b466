"""Training recipe of the crystal model."""

from __future__ import annotations

import logging

import numpy as np
import torch
from ase.data import chemical_symbols

from ..diffusion import TimeDensity
from ..networks import CrystalTransformer
from ..representations.crystal import Crystal, LogLatticeCrystal
from .crystal_data import CrystalData, Crystals
from .objectives import DenoisingLoss
from .trainer import train

log = logging.getLogger(__name__)
SCHEMES = {  # how to sample with a model of the scheme
    'paper': {'sampler': 'predictor_corrector', 'steps': 1000, 'corrector': 0.04},
    'edm': {'sampler': 'renoised_ancestral', 'steps': 100, 'corrector': 0.2, 'density': TimeDensity(0.5, 0.15, 0.9).todict()},
}
DENSITY = TimeDensity(0.65, 0.25, 0.5)  # half of the times where atoms find their places, see DenoisingLoss
UNITS = {'lattice': 'A', 'fractional': '1', 'energies': 'eV or eV per atom, as in the data'}


def train_crystal(
    data: Crystals,
    out,
    *,
    validation: Crystals | None = None,
    properties=None,
    scheme=None,
    conditioning='cds',
    steps=20_000,
    features=128,
    blocks=6,
    batch_size=128,
    known=0.33,
    dropout=0.15,
    auxiliary=0.05,
    seed=0,
    network=None,
    elements=None,
    warmup=500,
    coupled=True,
    settings=None,
    **options,
):
    """Train a :class:`CrystalTransformer`; returns the path of the best checkpoint.

    Parameters
    ----------
    data, validation : Crystals
        Without ``validation`` 5 % of the compositions are held out.
    properties : list of str, optional
        Conditions to learn; by default all properties of the data. True or false and what this package noted of how it made
        structures (:func:`ase_diffusion.data.crystals.is_bookkeeping`) are learned where they are named.
    scheme : 'edm' or 'paper', optional
        Default: that of ``network``, else 'edm'.
        'paper': matrices of the lattice and discrete species (arXiv 2406.09263), sampled in 1000 steps of two calls; 'edm': six
        lattice numbers and species as points, preconditioned (:class:`LogLatticeCrystal`), sampled in 100 steps.
    conditioning : 'cds' or 'cdi'
    known : float
        Share of the crystals whose species are given, not noised: so the same network predicts structures.
    dropout : float
        Share of the crystals for which a condition is left out, and of those for which all are.
    auxiliary : float
        See :class:`ase_diffusion.diffusion.Categorical`; for 'paper' only.
    network : CrystalTransformer, optional
        Weights to start from. Conditions that are not in ``properties`` it forgets.
    elements : list of int, optional
        Atomic numbers that ``network`` was trained with, in its order; the data may have fewer. Default: those of the data.
    coupled : bool
        Pair terms know the state of the sender, see :class:`CrystalTransformer`; False is the network of the paper.
    settings : dict, optional
        More settings of the network.
    options : passed to :func:`train`.

    Raises
    ------
    ValueError
        A property is not in the data, the scheme is unknown, or ``network`` knows other elements or properties or is of
        another scheme.
    """
    names, scheme = _checked(data, properties, known, scheme, network)
    data = data.taking(names)
    data, validation = data.split(seed=seed) if validation is None else (data, validation.taking(names))
    elements = _elements({*data.elements(), *validation.elements()}, elements)
    representation, process, more = _scheme(scheme, elements, data, network, auxiliary)
    scales = {name: _scale(name, data.properties[name]) for name in names}
    if network is None:
        torch.manual_seed(seed)
        network = CrystalTransformer(
            len(elements),
            features,
            blocks,
            conditioning=conditioning,
            conditions=scales,
            coupled=coupled,
            **more,
            **(settings or {}),
        )
    else:
        network = _adapted(network, scheme, elements, names)
    ranges = {name: [float(np.nanmin(data.properties[name])), float(np.nanmax(data.properties[name]))] for name in names}
    header = {
        'kind': 'crystal',
        'process': process.todict(),
        'representation': representation.todict(),
        'units': UNITS,
        'scheme': scheme,
        'csp_fraction': known,
        'sampling': SCHEMES[scheme],
        'conditions': ranges,
        'sizes': _sizes(data),
        'data': describe(data),
    }
    source = CrystalData(data, representation, names, batch_size=batch_size, dropout=dropout, seed=seed)
    objective = DenoisingLoss(process, {'species': known} if known else None, DENSITY if scheme == 'edm' else None)
    return train(
        network,
        objective,
        source,
        out,
        steps=steps,
        header=header,
        seed=seed,
        warmup=warmup,
        validation=fixed_batches(validation, representation, names),
        **options,
    )


def _checked(data: Crystals, properties, known: float, scheme: str | None, network) -> tuple[list[str], str]:
    """Return the conditions to learn and the scheme; ValueError where they do not fit."""
    names = sorted(data.properties) if properties is None else list(properties)
    if properties is None and data.others:
        log.info('no conditions, unless properties=[...] names them: %s', ', '.join(data.others))
    if 'guidance_scale' in names:
        raise ValueError('guidance_scale is a keyword of sampling, no condition to learn; give the property another name')
    if unknown := set(names) - {*data.properties, *data.others}:
        raise ValueError(f'the data has no property {sorted(unknown)}; it has {sorted(data.properties)}')
    if not 0 <= known <= 1:
        raise ValueError(f'known is a share of the crystals, 0 to 1; got {known}')
    if scheme is None:
        scheme = 'edm' if network is None or network.points else 'paper'
    if scheme not in SCHEMES:
        raise ValueError(f'scheme is one of {sorted(SCHEMES)}; got {scheme!r}')
    return names, scheme


def _elements(found: set[int], known) -> list[int]:
    """Return the elements of a model: those of the data, or those that are known, if the data has no others."""
    if known is None:
        return sorted(found)
    if beyond := sorted(found - set(known)):
        symbols, names = (', '.join(chemical_symbols[z] for z in numbers) for numbers in (beyond, sorted(known)))
        raise ValueError(f'the network never saw {symbols}; it knows {names}. Leave out crystals with others, or train a new one')
    return [int(z) for z in known]


def _scheme(scheme: str, elements: list[int], data: Crystals, network, auxiliary: float):
    """Return representation and process of a scheme, and the settings of the network that belong to it."""
    if scheme == 'edm':
        representation = LogLatticeCrystal.of(elements, data.cells, data.counts)
        if network is not None and network.points:
            representation = LogLatticeCrystal(elements, mean=network.settings['cell_mean'], std=network.settings['cell_std'])
        more = dict(
            points=representation.table.shape[1], cell_mean=representation.mean, cell_std=representation.std, distances=16
        )
        return representation, representation.process(), more
    longest = 1.1 * float(np.linalg.norm(data.cells, axis=-1).max())
    representation = Crystal(elements)
    process = representation.process(auxiliary=auxiliary, longest=longest)
    return representation, process, dict(length=float(np.cbrt(np.abs(np.linalg.det(data.cells))).mean()))


def _adapted(network: CrystalTransformer, scheme: str, elements: list[int], names: list[str]):
    """Return a trained network to go on with: without the conditions it shall forget."""
    if network.settings['classes'] != len(elements) or not set(names) <= set(network.settings['conditions']):
        known_properties = sorted(network.settings['conditions'])
        raise ValueError(
            f'the network knows {network.settings["classes"]} elements and {known_properties}, the data has '
            f'{len(elements)} and {names}; train a new one'
        )
    if bool(network.points) != (scheme == 'edm'):
        other = 'edm' if network.points else 'paper'
        raise ValueError(f'the network is of the scheme {other!r}, not {scheme!r}; say scheme={other!r} or train a new one')
    if forgotten := set(network.settings['conditions']) - set(names):
        network = network.without(*forgotten)
    return network


def fixed_batches(data: Crystals, representation: Crystal, names, limit: int = 512, size: int = 128) -> list:
    """Return validation batches: up to ``limit`` crystals, evenly taken, sorted by size, with their properties."""
    index = np.arange(0, len(data), max(1, len(data) // limit))[:limit]
    index = index[np.argsort(data.counts[index], kind='stable')]
    return [
        data.batch(part, representation, {name: data.properties[name][part] for name in names})
        for part in np.split(index, range(size, len(index), size))
    ]


def describe(data: Crystals) -> dict:
    """Return what a checkpoint says about its data."""
    return {'structures': len(data), 'elements': data.elements(), 'fingerprint': data.fingerprint()}


def _sizes(data: Crystals) -> dict[str, int]:
    """Return how many crystals have how many atoms."""
    values, counts = np.unique(data.counts, return_counts=True)
    return {str(int(v)): int(c) for v, c in zip(values, counts, strict=True)}


def _scale(name: str, values: np.ndarray) -> tuple[float, float]:
    """Return shift and scale of a property."""
    known = values[np.isfinite(values)]
    if not len(known):
        raise ValueError(
            f'a condition needs crystals of which the property is known; to train on there is none with {name}. '
            'Leave it out of properties, or give more data'
        )
    return float(known.mean()), float(known.std() + 1e-3)
