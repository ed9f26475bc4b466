"""Options of zeolites for ``sample`` and ``train``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_diffusion.cli.common import given

if TYPE_CHECKING:
    from ase_diffusion import ZeoliteDiffusion


def add_sample(parser: ArgumentParser) -> None:
    """Add what says which frameworks are sampled."""
    parser.add_argument(
        '--source',
        choices=('random', 'network'),
        help='random sites, or the network (random, unless an option needs the network)',
    )
    parser.add_argument(
        '--no-symmetry', dest='symmetry', action='store_false', default=None, help='no space group (few grids give a framework)'
    )
    parser.add_argument('--cell', type=float, nargs=3, metavar=('A', 'B', 'C'), help='edges of the cell, A (drawn)')
    parser.add_argument('--space-group', type=int, nargs='+', metavar='N', help='numbers of space groups to draw from (all)')
    parser.add_argument(
        '--max-cost', type=float, metavar='C', help='largest strain, A^2 per T: 0.03 valid, 0.01 good, 0.003 as zeolites (0.03)'
    )
    parser.add_argument(
        '--off-target', dest='tolerance', action='store_const', const={}, help='frameworks far from what was asked for, too'
    )
    parser.add_argument(
        '--maxtries', type=int, metavar='N', help='rejected candidates per framework before giving up (20; network: 60)'
    )


def make(cls: type[ZeoliteDiffusion], args: Namespace, **options: Any) -> ZeoliteDiffusion:
    """Return the generator of the arguments."""
    return cls(**given(args, 'source', 'symmetry', 'cell', 'space_group', 'max_cost', 'tolerance', 'maxtries'), **options)


def add_train(parser: ArgumentParser) -> None:
    """Add the options of a training."""
    parser.add_argument(
        'data', metavar='DATA', help='frameworks: silica-frameworks, an npz of ase-diffusion data zeolites, or what ASE reads'
    )
    parser.add_argument('--shape', type=int, nargs=3, metavar=('X', 'Y', 'Z'), help='points of the grids (16 16 16)')
    parser.add_argument('--conditions', nargs='*', metavar='NAME', help='conditions to learn (the three of methane)')
    parser.add_argument('--network', choices=('voxelnet', 'unet'), help='unet: that of the paper, for a GPU (voxelnet)')
    parser.add_argument('--features', type=int, metavar='N', help='width of the network (64)')
    parser.add_argument('--blocks', type=int, metavar='N', help='residual blocks (5)')


def train(args: Namespace, **options: Any) -> Path:
    """Train the denoiser; return the path of the best checkpoint."""
    from ase_diffusion.data.zeolites import read_zeolites
    from ase_diffusion.representations.voxels import Voxels
    from ase_diffusion.training.zeolite import train_zeolite

    images = read_zeolites(args.data)
    print(f'{len(images)} frameworks from {args.data}')
    header = options.pop('header', None)
    if options.get('network') is not None and header:
        options['representation'] = Voxels.fromdict(header['representation'])
    more = given(args, 'shape', 'conditions') | {'settings': given(args, 'network', 'features', 'blocks')}
    return train_zeolite(images, args.out, **options, **more)
