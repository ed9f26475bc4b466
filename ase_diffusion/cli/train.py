"""Train a model on your own data; a run that was interrupted goes on with the same line."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ase_diffusion.cli.methods import METHODS

HELP = 'train a model or a force field'
SHARED = ('steps', 'minutes', 'batch_size', 'lr', 'seed', 'devices', 'accelerator', 'precision', 'workers', 'every')


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb: one kind for each method, and the force field."""
    kinds = parser.add_subparsers(dest='kind', metavar='KIND', required=True)
    for word, method in METHODS.items():
        each = kinds.add_parser(word, help=f'the model of {method.help}', description=__doc__, parents=[again])
        if hasattr(method.module(), 'add_train'):
            method.add('train', each)
        else:
            each.add_argument('data', metavar='DATA', help='structures: .npz, .db, .traj, .extxyz, ...')
        _add_common(each)
        each.set_defaults(run=partial(run, train=method.train))
    field = kinds.add_parser('forcefield', help='energies and forces', description=__doc__, parents=[again])
    from ase_diffusion.cli import surface_options

    surface_options.add_data(field)
    field.add_argument('--max-force', type=float, metavar='F', help='leave out what has larger forces, eV/A (40)')
    _add_common(field)
    field.set_defaults(run=partial(run, train=train_field))


def _add_common(parser):
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for best.safetensors, last.safetensors, log.csv')
    parser.add_argument(
        '--init', metavar='MODEL', help='model to start from, shipped or a .safetensors file; its width, blocks and cutoff hold'
    )
    parser.add_argument('--steps', type=int, metavar='N', help='training steps (20000)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='structures per step')
    parser.add_argument('--minutes', type=float, metavar='M', help='stop after this time')
    parser.add_argument('--lr', type=float, help='learning rate (0.001)')
    parser.add_argument('--every', type=int, metavar='N', help='steps between validations (1000)')
    parser.add_argument('--seed', type=int, help='of weights, split and noise (0)')
    parser.add_argument('--compile', action='store_true', help='compile the network (needs a C++ compiler)')
    parser.add_argument('--accelerator', metavar='NAME', help='auto, cpu, gpu, ...')
    parser.add_argument('--devices', type=int, metavar='N', help='how many of them (1)')
    parser.add_argument('--workers', type=int, metavar='N', help='processes that draw batches, for GPUs (0: the one that trains)')
    parser.add_argument('--precision', metavar='NAME', help='32-true, bf16-mixed, ... as Lightning names it')
    parser.add_argument('--quiet', action='store_true', help='no progress bar')


def run(args: Namespace, train: Callable[..., Path]) -> None:
    """Train into a folder."""
    import logging

    from ase_diffusion.cli.common import given
    from ase_diffusion.training.trainer import check_lightning
    from ase_diffusion.utils.checks import check_output_folder

    check_lightning()
    check_output_folder(args.out)
    logging.basicConfig(format='%(message)s')
    logging.getLogger('ase_diffusion').setLevel(logging.INFO)
    options = {**given(args, *SHARED), 'compile_network': args.compile, 'progress': not args.quiet}
    best = train(args, **options, **start_from(args.init, args.kind))
    print(f'best model: {best}\nnext: {_next(args, best)}')


def _next(args, best):
    """Return a command that uses the trained model."""
    from ase_diffusion.cli.common import command

    if args.kind == 'forcefield':
        return command('ase-diffusion', 'relax', args.data[0], '-o', 'relaxed.traj', '--calculator', best)
    if (function := getattr(METHODS[args.kind].module(), 'next_step', None)) is not None:
        return function(args, best)
    return command('ase-diffusion', 'sample', args.kind, '--model', best)


def train_field(args: Namespace, **options: Any) -> Path:
    """Train a force field; return the path of the best checkpoint."""
    from ase_diffusion.cli.common import given
    from ase_diffusion.cli.surface_options import read_data
    from ase_diffusion.training.surface import train_forcefield

    options.pop('header', None)
    more = given(args, 'features', 'blocks', 'cutoff', 'max_force')
    return train_forcefield(read_data(args.data), args.out, **options, **more)


def start_from(model: str | None, kind: str) -> dict:
    """Return network and header of the model to start from, none without one; ValueError if it is of another kind."""
    if model is None:
        return {}
    from ase_diffusion.weights.zoo import load_model

    network, header = load_model(model)
    if header.get('kind') != kind:
        raise ValueError(f'--init {model}: a model of kind {kind} is asked for, this one is of kind {header.get("kind")}')
    network = next(iter(network.values())) if isinstance(network, dict) else network  # the first one is trained
    return {'network': network, 'header': header}
