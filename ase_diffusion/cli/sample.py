"""Generate structures with a trained model. Ctrl-C keeps what was accepted."""

HELP = 'generate structures'


def add_arguments(parser, again):
    """Add the options of this verb."""
    methods = parser.add_subparsers(dest='method', metavar='METHOD', required=True)
    surface = methods.add_parser('surface', help='overlayers on a fixed slab', description=__doc__, parents=[again])
    _add_surface(surface)
    surface.set_defaults(run=run)
    crystal = methods.add_parser('crystal', help='crystals: lattice, coordinates, species', description=__doc__, parents=[again])
    _add_crystal(crystal)
    crystal.set_defaults(run=run_crystal)


def _add_surface(parser):
    from argparse import BooleanOptionalAction

    from ase_diffusion.cli.common import add_overlayers, add_slab

    add_slab(parser)
    add_overlayers(parser)
    parser.add_argument('-n', type=int, default=16, metavar='N', help='how many structures (16)')
    parser.add_argument(
        '-o', '--out', default='overlayers.traj', metavar='FILE', help='.traj, .db, .extxyz, ... (overlayers.traj)'
    )
    parser.add_argument('--steps', type=int, metavar='N', help='denoising steps (50)')
    parser.add_argument(
        '--compile', action=BooleanOptionalAction, help='compile the network first, some 30 s (default: where it pays)'
    )
    _add_common(parser)


def _add_common(parser):
    parser.add_argument(
        '--best-of', type=int, metavar='K', help='keep the lowest in energy of K candidates for each structure (1)'
    )
    parser.add_argument('--relax', metavar='CALC', help='relax each structure: ag-o, emt, 7net-mf-0, ...')
    parser.add_argument('--relax-steps', type=int, default=200, metavar='N', help='most steps of a relaxation (200)')
    parser.add_argument('--fmax', type=float, default=0.05, metavar='F', help='force at its end, eV/A (0.05)')
    parser.add_argument('--seed', type=int, help='same seed, same structures')
    parser.add_argument('--batch-size', type=int, metavar='N', help='structures at a time')
    parser.add_argument('--device', help='cpu, cuda, ...')
    parser.add_argument('--log', default='-', metavar='FILE', help='log, one line per structure (stdout)')
    parser.add_argument('--denoising-trajectory', metavar='FILE', help='every step of the first structure of a batch')


def _add_crystal(parser):
    parser.add_argument('--stoich', metavar='FORMULA', help='content of the cell, such as Ti4O8: predict its structure')
    parser.add_argument('--natoms', type=int, metavar='N', help='atoms per cell (as in the training data)')
    parser.add_argument(
        '--elements', nargs='+', action='extend', metavar='X', help='elements that may occur (all that the model knows)'
    )
    parser.add_argument('-n', type=int, default=16, metavar='N', help='how many structures (16)')
    parser.add_argument('-o', '--out', default='crystals.traj', metavar='FILE', help='.traj, .db, .extxyz, ... (crystals.traj)')
    parser.add_argument('--model', metavar='NAME', help='shipped model or .safetensors file')
    parser.add_argument('--conditioning', metavar='KIND', help='cds or cdi: the variant of a shipped model')
    parser.add_argument(
        '--condition',
        nargs='+',
        action='extend',
        type=condition,
        default=[],
        metavar='NAME=X',
        help='asked-for properties, such as heat_of_formation=-0.2; ase-diffusion info MODEL lists them',
    )
    parser.add_argument('--guidance-scale', type=float, metavar='W', help='weight of the conditions (1)')
    parser.add_argument('--steps', type=int, metavar='N', help='denoising steps')
    parser.add_argument(
        '--sampler',
        metavar='NAME',
        help='renoised_ancestral, predictor_corrector, ancestral, euler_maruyama, ddim, heun or dpmpp_2m',
    )
    parser.add_argument('--symmetrize', type=float, metavar='TOL', help='average over the symmetry within this tolerance, A')
    parser.add_argument('--compile', action='store_true', default=None, help='compile the network first')
    _add_common(parser)


def condition(text):
    """Return (name, value) of the text name=value."""
    import argparse

    name, _, value = text.partition('=')
    try:
        return name.strip(), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f'NAME=X with a number X, not {text!r}') from None


def run_crystal(args):
    """Sample crystals into a file."""
    from ase_diffusion import CrystalDiffusion
    from ase_diffusion.cli.common import Output, given

    out, conditions = Output(args.out).expect(args.n, crystals=True), unique(args.condition)
    options = given(
        args,
        'stoich',
        'natoms',
        'elements',
        'model',
        'conditioning',
        'steps',
        'sampler',
        'symmetrize',
        'batch_size',
        'best_of',
        'device',
        'compile',
        'denoising_trajectory',
    )
    generator = CrystalDiffusion(rng=args.seed, logfile=args.log, **options, **_relaxation(args))
    return _write(generator, args, out, {**conditions, **given(args, 'guidance_scale')})


def unique(pairs):
    """Return a dict of the pairs (name, value); raise where a name comes twice."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f'A condition has one value; --condition names {", ".join(twice)} more than once. Leave one of each.')
    return dict(pairs)


def _relaxation(args):
    """Return the option ``relax`` where one is asked for, with a calculator that is there."""
    if not args.relax:
        return {}
    from ase_diffusion.relax import get_calculator

    get_calculator(args.relax)  # its name, and that its package is there, before the work begins
    return {'relax': {'calculator': args.relax, 'steps': args.relax_steps, 'fmax': args.fmax}}


def run(args):
    """Sample overlayers into a file."""
    from ase_diffusion.cli.common import Output, given, overlayers

    out = Output(args.out).expect(args.n)
    options = given(args, 'steps', 'batch_size', 'best_of', 'compile', 'denoising_trajectory') | _relaxation(args)
    generator, conditions = overlayers(args, rng=args.seed, logfile=args.log, **options)
    return _write(generator, args, out, conditions)


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
        print(f'next: ase gui {args.out}   or: ase-diffusion relax {args.out} -o relaxed.traj --calculator ag-o')
    return status
