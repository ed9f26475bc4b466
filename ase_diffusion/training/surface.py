"""Training recipes of the overlayer denoiser and of its force field."""

from __future__ import annotations

import logging

import numpy as np
import torch

from ..networks import ForceField, OverlayerDenoiser
from ..representations.slab import Slab
from .objectives import DenoisingLoss, EnergyAndForces
from .surface_data import OverlayerData, Overlayers
from .trainer import train

log = logging.getLogger(__name__)


def fixed_batches(data: Overlayers, representation: Slab, batch_size: int, limit: int = 160) -> list:
    """Return validation batches: up to ``limit`` structures, evenly taken, no repeats, no dropout."""
    stride = max(1, len(data.items) // limit)
    items = data.items[::stride]
    source = OverlayerData(data, representation)
    return [source.assemble(items[k : k + batch_size]) for k in range(0, len(items), batch_size)]


def describe(data: Overlayers) -> dict:
    """Return what a checkpoint says about its data."""
    mobile, substrate = data.elements()
    return {
        'structures': len(data.items),
        'relaxations': len({i.run for i in data.items}),
        'mobile_elements': mobile,
        'substrate_elements': substrate,
        'fingerprint': data.fingerprint(),
    }


def train_surface(
    data: Overlayers,
    out,
    *,
    steps=20_000,
    features=64,
    blocks=4,
    cutoff=6.0,
    batch_size=16,
    repeat=0.25,
    max_relative=None,
    height=None,
    sigma_min=0.02,
    sigma_max=8.0,
    seed=0,
    network=None,
    **options,
):
    """Train an :class:`OverlayerDenoiser`; returns the path of the best checkpoint.

    Parameters
    ----------
    data : Overlayers
        With energies the model learns the condition ``energy``: eV above the best of its composition, per mobile atom.
    max_relative : float, optional
        Use structures up to this relative energy only, eV per mobile atom.
    height : (low, high), optional
        Window in A above the topmost frozen atom; default: what holds all data plus 0.25 A.
    network : OverlayerDenoiser, optional
        Weights to start from.
    options : passed to :func:`train`.
    """
    if max_relative is not None:
        data = data.select(lambda item: item.relative <= max_relative)
        _check_left(
            data,
            f'an energy of up to {max_relative} eV per mobile atom above the best of its composition',
            'raise max_relative; the best itself has 0, and structures without energy have none',
        )
    height = tuple(height or data.window())
    representation = Slab(height=height)
    training, held = data.split(seed=seed)
    inside = held.select(lambda i: _inside(i, height))
    training = training.select(lambda i: _inside(i, height))
    relative = np.array([item.relative for item in training.items])
    known = np.isfinite(relative)
    properties = {}
    if known.any():
        properties = {'energy': (float(np.median(relative[known])), float(relative[known].std() + 1e-3))}
    process = representation.process(sigma_min, sigma_max)
    if network is None:
        torch.manual_seed(seed)
        network = OverlayerDenoiser(features, blocks, cutoff, conditions=properties)
    ranges = {'energy': [float(relative[known].min()), float(relative[known].max())]} if known.any() else {}
    if ranges and 'energy' not in network.settings['conditions']:
        log.warning('the network to start from knows no condition energy: the energies of the data are not learned')
        ranges = {}
    header = {
        'kind': 'surface',
        'process': process.todict(),
        'representation': representation.todict(),
        'units': {'positions': 'A', 'energy': 'eV per mobile atom'},
        'conditions': ranges,
        'data': describe(training),
    }
    source = OverlayerData(training, representation, batch_size=batch_size, repeat=repeat, seed=seed)
    return train(
        network,
        DenoisingLoss(process),
        source,
        out,
        steps=steps,
        header=header,
        seed=seed,
        validation=fixed_batches(inside, representation, 32),
        **options,
    )


def _check_left(data: Overlayers, law: str, way_out: str) -> None:
    if not data.items:
        raise ValueError(f'no structure of the data has {law}: {way_out}')


def _inside(item, height) -> bool:
    z = item.positions[:, 2] - item.top
    return bool((z >= height[0]).all() and (z <= height[1]).all())


def train_forcefield(
    data: Overlayers,
    out,
    *,
    steps=20_000,
    features=64,
    blocks=3,
    cutoff=6.0,
    batch_size=16,
    max_force=40.0,
    seed=0,
    network=None,
    **options,
):
    """Train a :class:`ForceField`; returns the path of the best checkpoint.

    Parameters
    ----------
    max_force : float
        Structures with a larger force component on a mobile atom are left out, eV/A.
    """
    data = data.select(lambda i: i.forces is not None and np.isfinite(i.energy) and np.abs(i.forces).max() <= max_force)
    _check_left(data, f'an energy and forces of up to {max_force} eV/A', 'raise max_force, or give data with forces')
    representation = Slab()
    training, held = data.split(seed=seed)
    if network is None:
        torch.manual_seed(seed)
        network = ForceField(features, blocks, cutoff)
        fit_references(network, training)
    header = {
        'kind': 'forcefield',
        'representation': representation.todict(),
        'units': {'energy': 'eV', 'forces': 'eV/A'},
        'data': describe(training),
    }
    source = OverlayerData(training, representation, batch_size=batch_size, repeat=0.0, seed=seed, dropout=0.0)
    return train(
        network,
        EnergyAndForces(),
        source,
        out,
        steps=steps,
        header=header,
        seed=seed,
        validation=fixed_batches(held, representation, 32),
        **options,
    )


def fit_references(network: ForceField, data: Overlayers) -> None:
    """Fit the constants per atom (role, element) by least squares and the energy scale by the force scale."""
    mobile, substrate = data.elements()
    columns = [(0, z) for z in mobile] + [(1, z) for z in substrate]
    counts = np.array(
        [[(i.numbers == z).sum() for z in mobile] + [(i.substrate_numbers == z).sum() for z in substrate] for i in data.items],
        float,
    )
    energies = np.array([i.energy for i in data.items])
    low = np.array([i.relative for i in data.items]) < 0.2
    use = low if low.sum() > len(columns) * 2 else np.ones(len(low), bool)
    solution, *_ = np.linalg.lstsq(counts[use], energies[use], rcond=None)
    for (role, z), value in zip(columns, solution, strict=True):
        network.references[role, z] = float(value)
