"""Generate structures with a trained model. Ctrl-C keeps what was accepted."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from typing import TYPE_CHECKING

from ase_diffusion.cli.methods import METHODS

if TYPE_CHECKING:
    from ase import Atoms

HELP = 'generate structures'


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb, for every method."""
    methods = parser.add_subparsers(dest='method', metavar='METHOD', required=True)
    for word, method in METHODS.items():
        each = methods.add_parser(word, help=method.help, description=__doc__, parents=[again])
        method.add('sample', each)
        _add_common(each, method)
        each.set_defaults(run=run)


def _add_common(parser, method):
    from ase_diffusion.cli.common import add_force
    from ase_diffusion.cli.conditions import add_conditions

    parser.add_argument('-n', type=int, default=16, metavar='N', help='how many structures (16)')
    parser.add_argument('-o', '--out', metavar='FILE', help=f'.traj, .db, .extxyz, ... ({method.out})')
    add_force(parser)
    parser.add_argument('--model', metavar='NAME', help='shipped model or .safetensors file')
    parser.add_argument('--steps', type=int, metavar='N', help='denoising steps (as the model says)')
    parser.add_argument(
        '--sampler',
        metavar='NAME',
        help='renoised_ancestral, predictor_corrector, ancestral, euler_maruyama, ddim, heun or dpmpp_2m (as the model says)',
    )
    add_conditions(parser)
    parser.add_argument(
        '--best-of', type=int, metavar='K', help='keep the lowest in energy of K candidates for each structure (1)'
    )
    parser.add_argument('--relax', metavar='CALC', help='relax each structure: ag-o, emt, 7net-mf-0, ...')
    parser.add_argument('--relax-steps', type=int, default=200, metavar='N', help='most steps of a relaxation (200)')
    parser.add_argument('--fmax', type=float, default=0.05, metavar='F', help='force at its end, eV/A (0.05)')
    parser.add_argument('--seed', type=int, help='same seed, same structures')
    parser.add_argument('--batch-size', type=int, metavar='N', help='structures at a time')
    parser.add_argument('--device', help='cpu, cuda, ...')
    parser.add_argument(
        '--compile', action=BooleanOptionalAction, help='compile the network first, some 30 s (default: where it pays)'
    )
    parser.add_argument('--log', default='-', metavar='FILE', help='log, one line per structure (stdout)')
    parser.add_argument('--denoising-trajectory', metavar='FILE', help='every step of the first structure of a batch')


def run(args: Namespace) -> int:
    """Sample into a file; return the exit status."""
    from ase_diffusion.cli.common import Output, check_path, chosen_path, given
    from ase_diffusion.cli.conditions import check_names, parse_conditions

    check_names(args)
    args.out = chosen_path(args.out, METHODS[args.method].out, args.force)
    out = Output(args.out, args.force).expect(args.n, crystals=args.method != 'surface')
    if args.denoising_trajectory is not None:
        check_path(args.denoising_trajectory, args.force)
    if args.log != '-':
        check_path(args.log)  # lines are added
    names = ('model', 'steps', 'sampler', 'batch_size', 'best_of', 'device', 'compile', 'denoising_trajectory')
    options = given(args, *names) | _relaxation(args)
    generator = METHODS[args.method].make(args, rng=args.seed, logfile=args.log, **options)
    return _write(generator, args, out, parse_conditions(generator, args))


def _relaxation(args):
    """Return the option ``relax`` where one is asked for, with a calculator that is there."""
    if not args.relax:
        return {}
    from ase_diffusion.relax import get_calculator

    get_calculator(args.relax)  # its name, and that its package is there, before the work begins
    return {'relax': {'calculator': args.relax, 'steps': args.relax_steps, 'fmax': args.fmax}}


def _write(generator, args, out, conditions):
    """Generate into the file of the arguments; return the exit status."""
    from ase_diffusion.errors import GenerationFailed

    structures, status, last = generator.irun(args.n, **conditions), 0, None  # checks the arguments
    try:
        with out, generator:
            try:
                for last in structures:
                    out.write(last)
            except KeyboardInterrupt:
                status = 130
    except GenerationFailed:
        print(_count(out, args))
        raise
    print(_count(out, args))
    if last is not None:
        print(f'next: {next_steps(last, args)}')
    return status


def _count(out, args):
    return f'{out.count} of {args.n} structures in {args.out}' if out.count else 'no structure was accepted'


def next_steps(atoms: Atoms, args: Namespace) -> str:
    """Return commands for the file of the arguments that work as they stand."""
    from pathlib import Path

    from ase_diffusion.calculators.default import default_calculator
    from ase_diffusion.cli.common import command

    look = command(*(('ase', 'gui') if Path(args.out).suffix != '.npz' else ('ase-diffusion', 'info')), args.out)
    relax = command('ase-diffusion', 'relax', args.out)
    if args.relax:
        return look
    try:
        calculator = default_calculator([atoms])
    except ValueError:
        return f'{look}   (to relax crystals of any elements: pip install sevenn or chgnet, then {relax})'
    return f'{look}   or: {relax} -o relaxed.traj --calculator {calculator}'
