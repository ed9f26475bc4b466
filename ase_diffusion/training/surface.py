"""Training recipes of the overlayer denoiser and of its force field."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..networks import ForceField, OverlayerDenoiser
from ..networks.painn import MAX_Z
from ..representations.descriptors import metal_descriptors
from ..representations.slab import Slab
from .data import fixed_batches
from .objectives import EnergyAndForces
from .recipe import check_options, check_start, condition_forms, condition_scales, header_of, network_to_train, run
from .surface_data import OverlayerData, Overlayers
from .trainer import train

log = logging.getLogger(__name__)
VALIDATION = dict(limit=160, size=32)  # structures to validate on, and in one batch


def train_surface(
    data: Overlayers,
    out: str | Path,
    *,
    steps: int = 20_000,
    features: int | None = None,
    blocks: int | None = None,
    cutoff: float | None = None,
    batch_size: int = 16,
    repeat: float = 0.25,
    max_relative: float | None = None,
    height: Sequence[float] | None = None,
    sigma_min: float = 0.02,
    sigma_max: float = 8.0,
    spacing: float | None = None,
    seed: int = 0,
    network: OverlayerDenoiser | None = None,
    **options: Any,
) -> Path:
    """Train an :class:`OverlayerDenoiser`; returns the path of the best checkpoint.

    Parameters
    ----------
    data : Overlayers
        With energies the model learns the condition ``energy``: eV above the best of its composition, per mobile atom.
    features, blocks, cutoff : optional
        Of a new network: width (64), message passing steps (4), A (6).
    max_relative : float, optional
        Use structures up to this relative energy only, eV per mobile atom.
    height : (low, high), optional
        Window in A above the topmost frozen atom; default: what holds all data plus 0.25 A.
    spacing : float, optional
        For data of many metals: lengths are scaled so that neighbors in the substrate are this far apart, A (``height``, sigma
        and cutoff count after that), and elements are known by descriptors, so that other metals can be asked for as well.
    network : OverlayerDenoiser, optional
        Weights to start from.
    options : passed to :func:`train`.
    """
    check_options(options, train_surface)
    check_start(network)
    if max_relative is not None:
        data = data.select(lambda item: item.energy_above_best <= max_relative)
        _check_left(
            data,
            f'an energy of up to {max_relative} eV per mobile atom above the best of its composition',
            'raise max_relative; the best itself has 0, and structures without energy have none',
        )
    height = tuple(height or data.window(spacing=spacing))
    representation = Slab(height=height, spacing=spacing)
    inside = data.select(lambda i: _inside(i, representation))
    law = f'all mobile atoms in the window height={height}'
    _check_left(inside, law, 'give a wider one; it is counted from the topmost fixed atom, A, scaled where there is a spacing')
    _tell_left_out(data, inside, law)
    training, held = (part.select(lambda i: _inside(i, representation)) for part in data.split(seed=seed))
    values = training.conditions
    if network is not None and values and 'energy' not in network.settings['conditions']:
        log.warning('the network to start from knows no condition energy: the energies of the data are not learned')
        values = {}
    forms, process = condition_forms(values), representation.process(sigma_min, sigma_max)

    def build(features: int = 64, blocks: int = 4, cutoff: float = 6.0) -> OverlayerDenoiser:
        return OverlayerDenoiser(features, blocks, cutoff, conditions=condition_scales(forms, values))

    network = network_to_train(network, build, list(forms), seed, features=features, blocks=blocks, cutoff=cutoff)
    if spacing is not None:
        network = described(network)

    header = header_of(
        'surface',
        representation,
        process,
        units={'positions': 'A', 'energy': 'eV per mobile atom'},
        conditions=forms,
        data=training.describe() | ({} if spacing is None else {'described': True}),
    )
    return run(
        network,
        process,
        OverlayerData(training, representation, batch_size=batch_size, repeat=repeat, seed=seed),
        fixed_batches(OverlayerData(held, representation), **VALIDATION) if held.items else [],
        out,
        header=header,
        steps=steps,
        seed=seed,
        **options,
    )


def _check_left(data: Overlayers, law: str, way_out: str) -> None:
    if not data.items:
        raise ValueError(f'no structure of the data has {law}: {way_out}')


def _tell_left_out(data: Overlayers, left: Overlayers, law: str) -> None:
    if count := len(data) - len(left):
        log.warning('%d of %d structures of the data do not have %s and are left out', count, len(data), law)


def _inside(item, representation) -> bool:
    (low, high), (least, most) = item.span(representation.spacing), representation.height
    return least <= low and high <= most


def described(network: OverlayerDenoiser | ForceField) -> OverlayerDenoiser | ForceField:
    """Return a network that knows elements by descriptors, and by rows of their own.

    One that has none is copied: metals begin as the most frequent one of the network does, silver if it knows it; other elements
    keep their row.
    """
    if network.settings.get('descriptors'):
        return network
    table = torch.as_tensor(metal_descriptors()[:MAX_Z], dtype=torch.float32)  # (Z, K)
    new = type(network)(**{**network.settings, 'descriptors': table.shape[1]}).to(next(network.parameters()).device)
    state, old = new.state_dict(), network.state_dict()
    name = 'representation.embedding'
    rows = old.pop(f'{name}.weight')  # (Z, F)
    new.load_state_dict({**state, **old, f'{name}.descriptors': table})
    embedding, silver = new.representation.embedding, rows[47]
    with torch.no_grad():
        last = embedding.net[-1]
        last.weight.zero_()
        last.bias.copy_(silver)
        others = table[:, 0] == 0
        embedding.rows[others] = (rows - silver)[others]
    return new


def train_forcefield(
    data: Overlayers,
    out: str | Path,
    *,
    steps: int = 20_000,
    features: int | None = None,
    blocks: int | None = None,
    cutoff: float | None = None,
    batch_size: int = 16,
    max_force: float = 40.0,
    many_metals: bool = False,
    seed: int = 0,
    network: ForceField | None = None,
    **options: Any,
) -> Path:
    """Train a :class:`ForceField`; returns the path of the best checkpoint.

    Parameters
    ----------
    features, blocks, cutoff : optional
        Of a new network: width (64), message passing steps (3), A (6).
    max_force : float
        Structures with a larger force component on a mobile atom are left out, eV/A.
    many_metals : bool
        Elements enter by descriptors as well, so that metals learn from each other, and energies of the data are relative to the
        bare frozen substrate: the network sees no edges between frozen atoms, and a constant per frozen atom cannot tell (110)
        from (111).
    """
    check_options(options, train_forcefield)
    every, data, law = data, usable(data, max_force), f'an energy and forces of up to {max_force} eV/A'
    _check_left(data, law, 'raise max_force, or give data with forces')
    _tell_left_out(every, data, law)
    representation = Slab()
    training, held = data.split(seed=seed)

    def build(features: int = 64, blocks: int = 3, cutoff: float = 6.0) -> ForceField:
        new = ForceField(features, blocks, cutoff)
        fit_references(new, training)
        return new

    network = network_to_train(network, build, (), seed, features=features, blocks=blocks, cutoff=cutoff)
    about = training.describe()
    if many_metals:
        network, about = described(network), about | {'relative': True}
        fit_references(network, training, substrate=False)
    return train(
        network,
        EnergyAndForces(),
        OverlayerData(training, representation, batch_size=batch_size, repeat=0.0, seed=seed, dropout=0.0),
        out,
        steps=steps,
        header=header_of('forcefield', representation, None, units={'energy': 'eV', 'forces': 'eV/A'}, data=about),
        seed=seed,
        validation=fixed_batches(OverlayerData(held, representation), **VALIDATION),
        **options,
    )


def usable(data: Overlayers, max_force: float) -> Overlayers:
    """Return the items with an energy and with forces of up to ``max_force``, eV/A."""
    return data.select(lambda i: i.forces is not None and np.isfinite(i.energy) and np.abs(i.forces).max() <= max_force)


def fit_references(network: ForceField, data: Overlayers, *, substrate: bool = True) -> None:
    """Fit the constants per atom (role, element) by least squares; without ``substrate`` those of frozen atoms are 0."""
    mobile, frozen = data.elements()
    columns = [(0, z) for z in mobile] + [(1, z) for z in frozen if substrate]
    counts = np.array(
        [[((i.substrate_numbers if role else i.numbers) == z).sum() for role, z in columns] for i in data.items], float
    )
    energies = np.array([i.energy for i in data.items])
    low = np.array([i.energy_above_best for i in data.items]) < 0.2
    use = low if low.sum() > len(columns) * 2 else np.ones(len(low), bool)
    solution, *_ = np.linalg.lstsq(counts[use], energies[use], rcond=None)
    network.references.zero_()
    for (role, z), value in zip(columns, solution, strict=True):
        network.references[role, z] = float(value)
