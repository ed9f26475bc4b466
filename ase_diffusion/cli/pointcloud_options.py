"""Options of point clouds for ``sample`` and ``train``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_diffusion.cli.common import add_crystal_data, add_substitute, add_templates, command, given, templates_of

if TYPE_CHECKING:
    from ase_diffusion import PointCloudDiffusion


def add_sample(parser: ArgumentParser) -> None:
    """Add what says which crystals are sampled."""
    parser.add_argument(
        '--elements', nargs='+', action='extend', required=True, metavar='X', help='one to three elements, all of them occur'
    )
    parser.add_argument('--natoms', type=int, metavar='N', help='atoms per cell, up to 16 (as in the training data)')
    add_templates(parser, 'known crystals with exchanged elements')
    parser.add_argument('--min-distance', type=float, metavar='D', help='reject atoms closer than this, A (0.5)')
    parser.add_argument('--symmetrize', type=float, metavar='TOL', help='average over the symmetry within this tolerance, A')


def make(cls: type[PointCloudDiffusion], args: Namespace, **options: Any) -> PointCloudDiffusion:
    """Return the generator of the arguments."""
    return cls(**given(args, 'elements', 'natoms', 'min_distance', 'symmetrize'), **templates_of(args), **options)


def add_train(parser: ArgumentParser) -> None:
    """Add the options of a training."""
    add_crystal_data(parser)
    add_substitute(parser)
    parser.add_argument(
        '--conditions', nargs='*', metavar='NAME', help='conditions to learn beside the elements (all numbers of the data)'
    )
    parser.add_argument('--network', choices=('tokens', 'unet'), help='tokens of atoms, or the U-Net over the rows (tokens)')
    parser.add_argument('--features', type=int, metavar='N', help='width of the network (192; unet 64)')
    parser.add_argument('--blocks', type=int, metavar='N', help='attention blocks, or residual blocks of each level (6; unet 1)')


def train(args: Namespace, **options: Any) -> Path:
    """Train the denoiser; return the path of the best checkpoint."""
    from ase_diffusion.data.crystals import read_crystals
    from ase_diffusion.training.pointcloud import train_pointcloud

    images = read_crystals(args.data)
    print(f'{len(images)} crystals from {args.data}')
    args.example = ' '.join(next((found for atoms in images if len(found := dict.fromkeys(atoms.symbols)) <= 3), ()))
    if header := options.pop('header', None):
        options['elements'] = header['representation']['elements']
    if 'network' in options and args.network is not None:
        raise ValueError(f'--init goes on with the network of a model, --network {args.network} begins a new one; leave one out')
    options = {**given(args, 'network', 'features', 'blocks', 'conditions', 'substitute'), **options}
    return train_pointcloud(images, args.out, split=args.split, **options)


def next_step(args: Namespace, best: Path) -> str:
    """Return the command that samples with a trained model, crystals of the elements of one that it saw."""
    return command('ase-diffusion', 'sample', 'pointcloud', '--elements', *args.example.split(), '--model', best)
