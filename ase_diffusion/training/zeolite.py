"""Training recipe of the model of zeolites: grids of one shape, with random translations, reflections and axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from ase import Atoms

from ..networks.unet import UNet
from ..networks.voxelnet import VoxelNet
from ..representations.crystal import check_crystal
from ..representations.voxels import Voxels
from .data import Structures, usable_structures
from .recipe import check_new, check_options, check_settings, train_method

SAMPLING = {'sampler': 'ancestral', 'steps': 20}
UNITS = {'grids': '1', 'void_fraction': '1', 'heat_of_adsorption': 'kJ/mol', 'henry_coefficient': '1'}
CONDITIONS = ('void_fraction', 'heat_of_adsorption', 'henry_coefficient')
SHAPE = (16, 16, 16)
SCALED_ON = 256  # structures from which means and standard deviations of the channels are taken
SMALLEST_STD = 0.05


def check_silica(atoms: Atoms) -> None:
    """Raise a ValueError for what is no crystal of Si and O, whose grids hold nothing of other atoms."""
    check_crystal(atoms)
    if set(atoms.get_chemical_symbols()) != {'Si', 'O'}:
        raise ValueError('a framework to learn from has Si and O, no other elements')


def new_voxels(
    images: list[Atoms],
    *,
    shape: Sequence[int] = SHAPE,
    channels: int = 3,
    width: float = 1.0,
    network: Literal['voxelnet', 'unet'] = 'voxelnet',
    features: int = 64,
    blocks: int = 5,
    **settings: Any,
) -> tuple[Voxels, Callable[..., VoxelNet | UNet]]:
    """Return representation and network of a new model.

    Parameters
    ----------
    images : list of Atoms
        Frameworks, for the scales of the channels.
    shape : (int, int, int)
        Points of the grid, even numbers.
    channels : int
        3, or 4 with the Boltzmann channel.
    width : float
        A, of the Gaussians.
    network : str
        'voxelnet', or 'unet': that of the paper, 6.6 million parameters, conditions as constant channels. Its shape has multiples
        of 4, (32, 32, 32) in the paper, where one pass costs 42 GFLOP.
    features, blocks
        Width and residual blocks of a VoxelNet.
    settings
        More of :class:`~ase_diffusion.networks.voxelnet.VoxelNet`.

    Raises
    ------
    ValueError
        No such network.
    """
    if network not in ('voxelnet', 'unet'):
        raise ValueError(f"the networks of zeolites are 'voxelnet' and 'unet'; got {network!r}")
    plain = Voxels(shape=shape, channels=channels, width=width)
    some = images[:: max(1, len(images) // SCALED_ON)]
    x = torch.cat([plain.encode([atoms]).fields['grids'] for atoms in some]).double()  # (n, C, X, Y, Z)
    mean, std = x.mean((0, 2, 3, 4)), x.std((0, 2, 3, 4)).clamp(min=SMALLEST_STD)
    voxels = Voxels(shape=shape, channels=channels, width=width, mean=mean.tolist(), std=std.tolist(), sigma=(0.08, 40.0))
    if network == 'unet':
        return voxels, partial(published_unet, channels=channels)
    settings = {'attention': 0, **settings}
    return voxels, partial(VoxelNet, channels=channels, width=features, blocks=blocks, **settings)


def published_unet(conditions: dict, channels: int = 3) -> UNet:
    """Return the U-Net of the paper with periodic convolutions: width 32, multipliers (1, 2, 4), conditions tiled."""
    return UNet(3, channels, width=32, multipliers=(1, 2, 4), tiled=conditions)


def train_zeolite(
    images: Iterable[Atoms],
    out: str | Path,
    *,
    conditions: Sequence[str] | dict | None = None,
    network: VoxelNet | UNet | None = None,
    representation: Voxels | None = None,
    shape: Sequence[int] | None = None,
    batch_size: int = 16,
    sampling: dict | None = None,
    settings: dict | None = None,
    **options: Any,
) -> Path:
    """Train a denoiser of grids; returns the path of the best checkpoint.

    Parameters
    ----------
    images : iterable of Atoms
        SiO2 frameworks, such as :func:`ase_diffusion.data.zeolites.read_zeolites` returns.
    conditions : list of str or dict, optional
        Key-value pairs to learn; by default those of `CONDITIONS` that a framework has.
    network, representation : optional
        The network to fine-tune, and its representation.
    shape : (int, int, int), optional
        Points of the grids, equal for all frameworks; 16 x 16 x 16 by default, or that of the representation.
    settings : dict, optional
        Of :func:`new_voxels`; 'unet' has neither features nor blocks.
    options
        Of :func:`ase_diffusion.training.recipe.train_method`.

    Raises
    ------
    ValueError
        Nothing to train on, or a condition that no framework has.
    """
    check_options(options, train_zeolite, train_method, but=('kind', 'units'))
    if isinstance(network, str):
        raise TypeError(f'network is one to train further; of a new one: settings={{"network": {network!r}}}')
    unet = isinstance(settings, Mapping) and settings.get('network') == 'unet'
    others = ('features', 'blocks') if unet else ()
    builders = (new_voxels,) if unet else (new_voxels, VoxelNet)
    settings = check_new(settings, *builders, but=('images', 'shape', 'settings', 'conditions', 'field', *others))
    images = list(images)
    kept = list(usable_structures(images, check_silica))
    if isinstance(conditions, dict):
        conditions = Structures(images, conditions).select(kept).conditions
    images = [images[k] for k in kept]
    if conditions is None:
        pairs = [atoms.info.get('key_value_pairs', {}) for atoms in images]
        conditions = [name for name in CONDITIONS if any(name in each for each in pairs)]
    if network is None:
        representation, network = new_voxels(images, shape=SHAPE if shape is None else shape, **settings)
    else:
        check_settings(network, settings)
        if representation.shape is None or shape is not None:
            representation = Voxels.fromdict({**representation.todict(), 'shape': SHAPE if shape is None else shape})
    return train_method(
        representation,
        network,
        images,
        out,
        kind='zeolite',
        conditions=conditions,
        units=UNITS,
        sampling=SAMPLING if sampling is None else sampling,
        batch_size=batch_size,
        **options,
    )
