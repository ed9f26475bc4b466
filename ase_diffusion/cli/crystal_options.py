"""Options of crystals for ``sample`` and ``train``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_diffusion.cli.common import add_crystal_data, add_substitute, add_templates, given, templates_of

if TYPE_CHECKING:
    from ase_diffusion import CrystalDiffusion


def add_sample(parser: ArgumentParser) -> None:
    """Add what says which crystals are sampled."""
    parser.add_argument('--stoich', metavar='FORMULA', help='content of the cell, such as Ti4O8: predict its structure')
    parser.add_argument('--natoms', type=int, metavar='N', help='atoms per cell (as in the training data)')
    parser.add_argument(
        '--elements', nargs='+', action='extend', metavar='X', help='elements that may occur (all that the model knows)'
    )
    parser.add_argument('--all-elements', action='store_true', default=None, help='every one of --elements must occur')
    parser.add_argument('--conditioning', metavar='KIND', help='cds or cdi: the variant of a shipped model')
    add_templates(parser, 'with --stoich, known crystals')
    parser.add_argument('--space-group', type=int, metavar='N', help='space group of the crystals, 1 to 230')
    parser.add_argument(
        '--symmetrize', type=float, metavar='TOL', help='average over the symmetry within this tolerance, A; 0: not (0.1)'
    )


def make(cls: type[CrystalDiffusion], args: Namespace, **options: Any) -> CrystalDiffusion:
    """Return the generator of the arguments."""
    names = ('stoich', 'natoms', 'elements', 'all_elements', 'conditioning', 'space_group', 'symmetrize')
    return cls(**given(args, *names), **templates_of(args), **options)


def add_train(parser: ArgumentParser) -> None:
    """Add the options of a training."""
    add_crystal_data(parser)
    add_substitute(parser)
    parser.add_argument('--conditions', nargs='*', metavar='NAME', help='conditions to learn (all numbers of the data)')
    parser.add_argument(
        '--scheme',
        metavar='NAME',
        help='d3pm: discrete species, 1000 steps; edm: preconditioned, continuous species, 100 steps (edm)',
    )
    parser.add_argument(
        '--conditioning', metavar='KIND', help='cds: conditions enter every attention block; cdi: the first embedding (cds)'
    )
    parser.add_argument(
        '--paper-network',
        dest='coupled',
        action='store_false',
        default=None,
        help='pair terms that know the geometry only, not the sender',
    )
    parser.add_argument(
        '--csp-fraction',
        type=float,
        metavar='SHARE',
        help='share of crystals whose species are given, for structure prediction (0.33)',
    )
    parser.add_argument('--features', type=int, metavar='N', help='width of the network (128)')
    parser.add_argument('--blocks', type=int, metavar='N', help='attention blocks (6)')


def train(args: Namespace, **options: Any) -> Path:
    """Train the denoiser; return the path of the best checkpoint."""
    from ase_diffusion.data.crystals import read_crystals
    from ase_diffusion.training.crystal import train_crystal
    from ase_diffusion.training.crystal_data import split_crystals

    training, held = split_crystals(read_crystals(args.data), args.split)
    print(f'{len(training)} crystals to train on, {"5 %" if held is None else len(held)} to validate, from {args.data}')
    if header := options.pop('header', None):
        options['elements'] = header['representation']['elements']
    more = given(args, 'features', 'blocks', 'conditions', 'scheme', 'conditioning', 'csp_fraction', 'coupled', 'substitute')
    return train_crystal(training, args.out, validation=held, **options, **more)
