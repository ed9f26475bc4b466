"""Generate structures with a trained model. Ctrl-C keeps what was accepted."""

from argparse import BooleanOptionalAction

from ase_diffusion.cli.methods import METHODS

HELP = 'generate structures'


def add_arguments(parser, again):
    """Add the options of this verb, for every method."""
    methods = parser.add_subparsers(dest='method', metavar='METHOD', required=True)
    for word, method in METHODS.items():
        each = methods.add_parser(word, help=method.help, description=__doc__, parents=[again])
        method.add('sample', each)
        _add_common(each, method)
        each.set_defaults(run=run)


def _add_common(parser, method):
    from ase_diffusion.cli.conditions import add_conditions

    parser.add_argument('-n', type=int, default=16, metavar='N', help='how many structures (16)')
    parser.add_argument('-o', '--out', default=method.out, metavar='FILE', help=f'.traj, .db, .extxyz, ... ({method.out})')
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


def run(args):
    """Sample into a file; return the exit status."""
    from ase_diffusion.cli.common import Output, given
    from ase_diffusion.cli.conditions import check_names, parse_conditions

    check_names(args)
    out = Output(args.out).expect(args.n, crystals=args.method != 'surface')
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
    status = 0
    with out, generator:
        try:
            for atoms in generator.irun(args.n, **conditions):
                out.write(atoms)
        except KeyboardInterrupt:
            status = 130
        finally:
            print(f'{out.count} of {args.n} structures in {args.out}' if out.count else 'no structure was accepted')
    if out.count and not args.relax:
        calculator = 'ag-o' if args.method == 'surface' else 'CALCULATOR'
        print(f'next: ase gui {args.out}   or: ase-diffusion relax {args.out} -o relaxed.traj --calculator {calculator}')
    return status
