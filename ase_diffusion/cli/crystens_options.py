"""Options of CrysTens images for ``sample`` and ``train``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_diffusion.cli.common import add_crystal_data, given

if TYPE_CHECKING:
    from ase_diffusion import CrysTensDiffusion


def add_sample(parser: ArgumentParser) -> None:
    """Add what says which crystals are sampled."""
    parser.add_argument('--natoms', type=int, metavar='N', help='atoms per cell, at most 52 (as in the training data)')
    parser.add_argument('--network', metavar='NAME', help='diffusion, cascade, wgan or gan (that of the model)')
    parser.add_argument(
        '--all-elements', action='store_true', default=None, help='all elements of --condition elements=Mg,Mn,O occur'
    )
    parser.add_argument('--symmetrize', type=float, metavar='TOL', help='average over the symmetry within this tolerance, A')


def make(cls: type[CrysTensDiffusion], args: Namespace, **options: Any) -> CrysTensDiffusion:
    """Return the generator of the arguments."""
    return cls(**given(args, 'natoms', 'network', 'all_elements', 'symmetrize'), **options)


def add_train(parser: ArgumentParser) -> None:
    """Add the options of a training."""
    add_crystal_data(parser)
    parser.add_argument(
        '--conditions', nargs='*', metavar='NAME', help='numbers of the data, space_group, elements: conditions to learn (all)'
    )
    parser.add_argument('--network', metavar='NAME', help='diffusion, cascade, wgan or gan (diffusion)')
    parser.add_argument('--features', type=int, metavar='N', help='width of the network (192; 32 for the others)')
    parser.add_argument(
        '--blocks', type=int, metavar='N', help="attention blocks of 'diffusion' (6), residual blocks of 'cascade' (2)"
    )


def train(args: Namespace, **options: Any) -> Path:
    """Train a network of images; return the path of the best checkpoint."""
    from ase_diffusion.data.crystals import read_crystals
    from ase_diffusion.generators.crystens import KINDS, CrysTensDiffusion
    from ase_diffusion.representations import representation_from_dict
    from ase_diffusion.training.data import split_images

    kind = CrysTensDiffusion(args.init or 'untrained', network=args.network, logfile=None).network_kind
    training, held = split_images(read_crystals(args.data), args.split)
    print(f'{len(training)} crystals, {"5 %" if held is None else len(held)} to validate, from {args.data}')
    if held is None:
        for atoms in training:
            atoms.info.get('key_value_pairs', {}).pop('split', None)  # the splits are chosen already
    if header := options.pop('header', None):
        options['representation'] = representation_from_dict(header['representation'])
    more = given(args, 'features', 'blocks', 'conditions')
    return KINDS[kind].train(training, args.out, validation=held, **options, **more)
